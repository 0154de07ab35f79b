"""Two real agents over the loopback interface, driven as a lab drives them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.clockfacts import clock_facts
from harness.codecs.base import CodecFacts, Pcm
from harness.control import Channel, Listener
from harness.errors import BadInput, CellFailed, Unsupported
from harness.media.fates import join
from harness.records import Columns, Kind
from harness.transports import TRANSPORTS
from harness.units import NS_PER_MS, NS_PER_S, monotonic_ns

SPEECH = np.rint(5000 * np.sin(np.arange(8000) * 2 * np.pi * 180 / 16_000)).astype(np.int16)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Channel]]:
    """A warm sender and receiver, used by all tests here one after another."""
    path = tmp_path_factory.mktemp("control") / "s"
    with ExitStack() as stack:
        yield started(stack, path, ["sender", "receiver"])


@dataclass
class Started:
    """An agent's process."""

    title: str
    process: subprocess.Popen[bytes]

    def runs(self) -> bool:
        return self.process.poll() is None

    def post_mortem(self) -> str:
        return f"exit code {self.process.wait(10)}"


def started(stack: ExitStack, path: Path, names: Sequence[str]) -> dict[str, Channel]:
    """Agents, alive for as long as the stack."""
    agent = [sys.executable, "-m", "harness.endpoint.agent", "--pdeathsig", "--socket", str(path)]
    listener = Listener(path)
    stack.callback(listener.close)
    channels = {}
    for name in names:
        process = stack.enter_context(subprocess.Popen([*agent, "--name", name]))
        stack.callback(process.terminate)
        channels[name], hello = listener.accept(name, 60, Started(name, process))
        stack.callback(channels[name].close)
        assert {name: hello[name] for name in clock_facts()} == clock_facts()
        assert hello["pid"] == process.pid
    return channels


def job(transport: str = "udp", codec: str = "pcm", **changes: Any) -> dict[str, Any]:
    return {
        "cell_id": "c",
        "stream_id": 77,
        "codec": {"codec": codec, "params": {}},
        "assets": {},
        "transport": {"transport": transport, "mtu_bytes": 576},
        "receiver": {"mode": "fixed", "start_ns": 200 * NS_PER_MS, "max_ns": 400 * NS_PER_MS},
        "sender": {},
        "input_samples": len(SPEECH),
        "host": "127.0.0.1",
        "seed": 1,
        **changes,
    }


def part(columns: Columns, table: str) -> Columns:
    return {
        name.removeprefix(table + "."): column
        for name, column in columns.items()
        if name.startswith(table + ".")
    }


def run(
    pair: dict[str, Channel], wanted: dict[str, Any], pcm: Pcm = SPEECH
) -> tuple[dict[str, Any], Columns, Columns, int]:
    ready, _ = pair["receiver"].call("prepare_receiver", {"job": wanted})
    prepared, _ = pair["sender"].call(
        "prepare_sender", {"job": wanted, "port": ready["port"]}, {"pcm": pcm}
    )
    assert prepared["facts"] == ready["facts"]
    assert prepared["frame_cost_ns"] > 0
    assert ready["frame_cost_ns"] > 0
    t0_ns = monotonic_ns() + 50 * NS_PER_MS
    order = {"t0_ns": t0_ns, "stop_ns": t0_ns + 5 * NS_PER_S}
    pair["receiver"].ask("run", order)
    pair["sender"].ask("run", order)
    sent, sent_columns = pair["sender"].answer(20)
    received, received_columns = pair["receiver"].answer(20)
    figures = {**prepared, "sent": sent, "received": received}
    return figures, sent_columns, received_columns, t0_ns


def test_a_protected_stream_is_whole_and_its_receiver_answers(pair: dict[str, Channel]) -> None:
    protection = {
        "repeat": 1,
        "fec": "reed-solomon",
        "fec_data": 4,
        "fec_parity": 1,
        "interleave": 2,
        "nack_retries": 2,
        "adapt": "loss-delay",
        "report_every_ns": 50 * NS_PER_MS,
    }
    wanted = job(codec="opus", sender=protection)
    figures, sent, received, _ = run(pair, wanted)
    assert figures["sent"]["reports"] > 0
    assert figures["sent"]["foreign_feedback"] == 0
    purposes = part(sent, "packets")["purpose"]
    assert np.bincount(purposes).tolist() == [26, 7]  # 25 frames of input and Opus' own delay
    assert Kind.CONCEALED not in part(received, "frames")["kind"]
    # Nothing was lost, so the rate has grown (to what the codec really took).
    assert part(sent, "frames")["target_bps"][-1] > part(sent, "frames")["target_bps"][0]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_half_a_second_of_audio_goes_through_and_is_accounted_for(
    pair: dict[str, Channel], transport: str
) -> None:
    wanted = job(transport)
    if transport in ("rtp", "quic-datagram"):  # do not fragment; need larger datagrams
        wanted["transport"]["mtu_bytes"] = 1500
    figures, sent, received, t0_ns = run(pair, wanted)
    assert figures["frames"] == 25
    assert {"lateness", "late_frames", "priority", "cpus"} <= figures["sent"].keys()
    packets, frames = join(
        sent_packets=part(sent, "packets"),
        sent_frames=part(sent, "frames"),
        received_packets=part(received, "packets"),
        played_frames=part(received, "frames"),
        link_log=None,
        facts=CodecFacts(**figures["facts"]),
        t0_ns=t0_ns,
        reliable=TRANSPORTS[transport].reliable,
    )
    # 640 bytes of PCM and a header are two datagrams at an MTU of 576, one message on a stream.
    assert len(packets["seq"]) == (50 if transport == "udp" else 25)
    assert set(packets["fate"]) == {"played"}
    assert (packets["transit_ns"] >= 0).all()
    assert frames["frame"].tolist() == list(range(25))
    assert set(frames["kind"]) == {"decoded"}
    assert (frames["encode_ns"] > 0).all()
    np.testing.assert_array_equal(received["media"][: len(SPEECH)], SPEECH)
    np.testing.assert_array_equal(received["played"], received["media"])


@pytest.mark.parametrize("transport", ["tcp", "websocket"])
def test_older_systems_bare_messages_are_acknowledged_and_wait_in_bounded_queues(
    pair: dict[str, Channel], transport: str
) -> None:
    older = {"wire": "bare", "in_flight": 1, "queue": 3, "receive_queue": 2}
    wanted = job(transport)
    wanted["transport"] |= older
    figures, sent, received, _ = run(pair, wanted)
    counted, heard = figures["sent"], figures["received"]
    # 20 ms of PCM and nothing else; two frames at most wait, so the jitter buffer of 200 ms fills
    # up no further, the kernel's buffers take the rest, and nothing is lost.
    assert set(part(sent, "packets")["size_bytes"]) == {640}
    np.testing.assert_array_equal(received["media"][: len(SPEECH)], SPEECH)
    assert len(counted["ack_rtt_ns"]) == len(counted["send_call_ns"]) == 25
    assert max(depth for _, depth in counted["queue_depth"]) == 3
    assert counted["queue_blocked_ns"] > 0
    assert counted["queue_dropped"] == []
    assert counted["late_frames"] == 0
    assert max(depth for _, depth in heard["receive_queue_depth"]) == 2
    # A frame waits for two to be played, 200 ms and then 20 ms each: the encoder was held up.
    frames = part(sent, "frames")
    assert (frames["encode_start_ns"] - frames["ready_ns"]).max() > 60 * NS_PER_MS


def test_a_receiver_that_hears_nothing_answers_by_the_stop(pair: dict[str, Channel]) -> None:
    receiver = pair["receiver"]
    receiver.call("prepare_receiver", {"job": job()})
    t0_ns = monotonic_ns()
    stop_ns = t0_ns + 200 * NS_PER_MS
    _, columns = receiver.call("run", {"t0_ns": t0_ns, "stop_ns": stop_ns})
    assert monotonic_ns() >= stop_ns
    assert columns["frames.frame"].tolist() == list(range(25))
    assert columns["media"].shape == (8000,)
    assert len(columns["packets.seq"]) == 0
    receiver.call("close")


def test_a_sender_stops_at_the_stop(pair: dict[str, Channel]) -> None:
    ready, _ = pair["receiver"].call("prepare_receiver", {"job": job()})
    pair["sender"].call("prepare_sender", {"job": job(), "port": ready["port"]}, {"pcm": SPEECH})
    t0_ns = monotonic_ns()
    _, columns = pair["sender"].call("run", {"t0_ns": t0_ns, "stop_ns": t0_ns + 101 * NS_PER_MS})
    assert len(columns["frames.frame"]) <= 5


def test_what_fails_is_named_and_the_next_cell_runs(pair: dict[str, Channel]) -> None:
    with pytest.raises(BadInput, match="codec mp4: expected one of the codecs"):
        pair["receiver"].call("prepare_receiver", {"job": job(codec="mp4")})
    wrong = job() | {"codec": {"codec": "pcm", "params": {"rate": "7kHz"}}}
    with pytest.raises(CellFailed, match="codec pcm: ValidationError"):
        pair["sender"].call("prepare_sender", {"job": wrong, "port": 9}, {"pcm": SPEECH})
    with pytest.raises(CellFailed, match="not prepared"):
        pair["sender"].call("run", {"t0_ns": 0, "stop_ns": 0})
    ready, _ = pair["receiver"].call("prepare_receiver", {"job": job()})
    narrow = job() | {"transport": {"transport": "udp", "mtu_bytes": 50}}
    order = {"job": narrow, "port": ready["port"]}
    pair["sender"].call("prepare_sender", order, {"pcm": SPEECH})
    now_ns = monotonic_ns()
    with pytest.raises(Unsupported, match=r"codec pcm over udp: .*mtu_bytes"):
        pair["sender"].call("run", {"t0_ns": now_ns, "stop_ns": now_ns + NS_PER_S})
    # The receiver still waits for its stream: its answer must not be taken for the next cell's.
    pair["receiver"].ask("run", {"t0_ns": now_ns, "stop_ns": now_ns + 200 * NS_PER_MS})
    for role in pair:
        pair[role].settle(10)
        pair[role].call("close")
        pair[role].call("close")
    figures, _, received, _ = run(pair, job())
    assert figures["received"]["decode_wall_ns"] > 0
    np.testing.assert_array_equal(received["media"], SPEECH)


def test_codecs_are_described_without_preparing_a_cell(pair: dict[str, Channel]) -> None:
    codec = {"codec": "g711", "params": {}}
    answer, _ = pair["receiver"].call("describe", {"codec": codec, "assets": {}})
    assert CodecFacts(**answer["facts"]).sample_rate_hz == 8000

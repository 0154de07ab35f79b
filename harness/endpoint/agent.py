"""The process at either end of the link: prepares a cell, runs it on the clock, hands in records.

``python -m harness.endpoint.agent --socket S --name N``; the operations are those of
``docs/architecture.md``. An agent is warm: it takes one cell after another, keeps configured
codecs, and a failed cell leaves it idle and clean.

While a cell runs there is no garbage collection, timers are exact, and the thread that paces or
plays has real-time priority where that is allowed (``priority`` in the answer says what it got).
The receiving thread has a higher one, and threads change over every 0.1 ms at the latest, so that
a packet is stamped promptly even while a frame is decoded in Python.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import queue
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from harness import codecs, control, linux
from harness.clockfacts import clock_facts
from harness.codecs.base import Codec, CodecFacts
from harness.endpoint.fan import Fan
from harness.endpoint.gate import Gate
from harness.endpoint.sender import SenderCore, frame_count
from harness.errors import CellFailed, blamed_on
from harness.lateness import Schedule
from harness.media.playout import ReceiverCore
from harness.media.rtp import wire_of
from harness.media.settings import ReceiverSettings, SenderSettings
from harness.media.tracks import Track
from harness.records import Columns
from harness.transports import transport, udp
from harness.transports.base import Receiver, Sender, TransportSettings
from harness.transports.stream import StreamSender
from harness.units import NS_PER_MS, NS_PER_S, monotonic_ns

PACE_PRIORITY = 2
"""SCHED_FIFO priority of pacing and playing."""
_SWITCH_INTERVAL_S = 0.0001
_WARM_UP_FRAMES = 8
_KEPT_CODECS = 8
_LINGER_NS = 200 * NS_PER_MS
"""Beyond the deepest jitter buffer: for a last request and its answer to cross the network."""
_NEAR_NS = 2 * NS_PER_MS
"""A queue's time-out is too coarse for the rest of the way to an instant."""
_ACKNOWLEDGEMENT = struct.Struct(">Q")
"""When the packet was received."""

Answer = tuple[dict[str, Any], Columns]
Run = Callable[[int, int], Callable[[], Answer]]
"""Streams, in real time, from t0 to when nobody waits any longer; what it returns gathers the
records, which takes tens of ms and would hold up the streams of other cells."""
_Arrived = tuple[int, bytes, int]
"""The number of a track, its packet, and when that was received."""


@lru_cache(maxsize=_KEPT_CODECS)
def _codec(configuration: str) -> Codec:
    """The codec of a canonical JSON configuration; loading weights once per matrix is enough."""
    wanted = json.loads(configuration)
    params = codecs.params_class(wanted["codec"]).model_validate(wanted["params"])
    codec = codecs.create(wanted["codec"], params, _assets_of(wanted))
    # Codecs stay, so that no later collection has to go through them: with a neural one it would
    # take longer than a frame. Of a cell nothing is there yet, or it would stay as well.
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    return codec


def _assets_of(job: dict[str, Any]) -> dict[str, Path]:
    return {name: Path(path) for name, path in job["assets"].items()}


def _codec_of(job: dict[str, Any]) -> Codec:
    configuration = {**job["codec"], "assets": job["assets"]}
    with blamed_on(f"codec {job['codec']['codec']}"):
        return _codec(json.dumps(configuration, sort_keys=True))


def _warm_up(codec: Codec, decoding: bool) -> int:
    """Run a few frames through instances of their own; median ns per frame of the end's own work.

    The first frames of any codec are slow (imports, caches, allocations), and must not be those
    that are measured.
    """
    facts = codec.facts
    encoder, decoder = codec.encoder(), codec.decoder()
    noise = np.random.default_rng(0).normal(0, 1000, facts.frame_samples).astype(np.int16)
    costs = []
    for _ in range(facts.lookahead_frames + _WARM_UP_FRAMES):
        started_ns = monotonic_ns()
        payload = encoder.encode(noise)
        encoded_ns = monotonic_ns()
        if payload is not None and decoding:
            decoder.decode(payload)
            costs.append(monotonic_ns() - encoded_ns)
        elif payload is not None:
            costs.append(encoded_ns - started_ns)
    if decoding:
        decoder.conceal()
    return int(np.median(costs)) if costs else 0


class Agent:
    """One endpoint, idle or prepared for one cell."""

    def __init__(self) -> None:
        self._cell = ExitStack()
        self._run: Run | None = None

    def handlers(self) -> dict[str, control.Handler]:
        """The operations by name."""
        return {
            "describe": self.describe,
            "prepare_receiver": self.prepare_receiver,
            "prepare_sender": self.prepare_sender,
            "lend": self.lend,
            "run": self.run,
            "close": self.close,
        }

    def describe(self, header: dict[str, Any], _: Columns) -> Answer:
        """``codec``, ``assets`` -> ``facts``."""
        return {"facts": asdict(_codec_of(header).facts)}, {}

    def prepare_receiver(self, header: dict[str, Any], _: Columns) -> Answer:
        """``job`` -> ``port``, ``track_ports``, ``facts``, ``frame_cost_ns``."""
        job = header["job"]
        with self._fresh_cell() as cell:
            codec, facts, cost_ns = self._warm_codec(job, decoding=True)
            settings = TransportSettings(**job["transport"])
            frames = frame_count(job["input_samples"], facts)
            schedule = Schedule(facts.frame_ns)
            cores = [
                ReceiverCore(
                    ReceiverSettings(**job["receiver"]),
                    facts,
                    codec.decoder(),
                    stream_id,
                    frames,
                    monotonic_ns,
                    SenderSettings(**job["sender"]),
                    wire_of(settings.wire_format, facts, stream_id, frames),
                    assets=_assets_of(job),
                    schedule=schedule,
                )
                for stream_id in (job["stream_id"], *(t.stream_id for t in _tracks_of(job)))
            ]
            arrived: queue.SimpleQueue[_Arrived] = queue.SimpleQueue()
            gate = Gate(settings.receive_queue, settings.receive_when_full)
            receivers: list[Receiver] = []

            def on_packet(track: int, packet: bytes, recv_ns: int) -> None:
                if gate.enter():
                    arrived.put((track, packet, recv_ns))
                if settings.in_flight:
                    receivers[track].reply(_ACKNOWLEDGEMENT.pack(recv_ns))

            for track in range(len(cores)):
                receiver = transport(settings.transport).listen(
                    job["host"], partial(on_packet, track)
                )
                receivers.append(receiver)
                cell.callback(receiver.close)
            cell.callback(gate.open)  # first, or a thread that waits there could not end

        def run(_: int, stop_ns: int) -> Callable[[], Answer]:
            with blamed_on(f"codec {job['codec']['codec']}"):
                play(cores, arrived, stop_ns, receivers, gate)
            return gathered

        def gathered() -> Answer:
            core = cores[0]
            figures = {**core.figures(), **receivers[0].counts(), **gate.counts()}
            columns: Columns = {"media": core.media(), "played": core.played()}
            for track, one in enumerate(cores):
                columns |= _of_track(track, packets=one.packets(), frames=one.frames())
            return figures | _beside([one.figures() for one in cores]), columns

        self._run = run
        port, *track_ports = [receiver.port for receiver in receivers]
        ports = {"port": port, "track_ports": track_ports}
        return {**ports, "facts": asdict(facts), "frame_cost_ns": cost_ns * len(cores)}, {}

    def prepare_sender(self, header: dict[str, Any], columns: Columns) -> Answer:
        """``job``, ``port``, ``track_ports``, column ``pcm`` -> ``facts``, ``frames``,
        ``frame_cost_ns``.

        ``files`` are sockets that other processes :meth:`lend`: ways to more receivers."""
        job, pcm = header["job"], columns["pcm"].astype(np.int16, casting="safe")
        tracks = _tracks_of(job)
        senders: list[Sender] = []
        lent: list[Sender] = []
        with self._fresh_cell() as cell:
            settings = TransportSettings(**job["transport"])
            borrowed = [
                cell.enter_context(socket.socket(fileno=file)) for file in header.get("files", ())
            ]
            codec, facts, cost_ns = self._warm_codec(job, decoding=False)
            for sock in borrowed:
                lent.append(udp.UdpSender(sock, settings.mtu_bytes))
                cell.callback(lent[-1].close)
            for port in (header["port"], *header.get("track_ports", ())):
                sender = transport(settings.transport).connect(job["host"], port, settings)
                senders.append(sender)
                cell.callback(sender.close)
        streams = [
            (job["stream_id"], pcm, 0),
            *((track.stream_id, track.pcm(pcm), track.start_ns) for track in tracks),
        ]
        encoders = [codec.encoder() for _ in streams]
        protection = SenderSettings(**job["sender"])
        frames = frame_count(len(pcm), facts)
        linger_ns = job["receiver"]["max_ns"] + _LINGER_NS if protection.nack_retries else 0

        ways = [[sender, *lent] for sender in senders]  # tracks have one receiver
        fan = Fan(ways[0])

        def run(t0_ns: int, stop_ns: int) -> Callable[[], Answer]:
            schedule = Schedule(facts.frame_ns)
            cores = [
                SenderCore(
                    facts,
                    encoder,
                    stream_id,
                    audio,
                    t0_ns + start_ns,
                    sender.max_packet_bytes,
                    fan.send
                    if lent
                    else partial(sender.send, deadline_ns=stop_ns)
                    if isinstance(sender, StreamSender)
                    else sender.send,
                    monotonic_ns,
                    protection,
                    wire_of(settings.wire_format, facts, stream_id, frames),
                    gap_ns=settings.gap_ns,
                    blocking=settings.queue > 0 and settings.when_full == "block",
                    receivers=1 + len(lent),
                    schedule=schedule,
                )
                for (stream_id, audio, start_ns), encoder, sender in zip(
                    streams, encoders, senders, strict=True
                )
            ]
            with blamed_on(f"codec {job['codec']['codec']} over {settings.transport}"):
                pace(cores, ways, stop_ns, protection.needs_feedback, linger_ns)
            return partial(gathered, cores)

        def gathered(cores: Sequence[SenderCore]) -> Answer:
            counts = senders[0].counts()
            records: Columns = {}
            for track, one in enumerate(cores):
                unsent = () if track else counts.get("queue_dropped", ())
                records |= _of_track(track, packets=one.packets(unsent), frames=one.sent_frames())
            figures = {**cores[0].figures(), **counts} | _beside([one.figures() for one in cores])
            if lent:
                figures["to"] = [sender.counts() for sender in ways[0]]
                for receiver, refused in enumerate(fan.refused):
                    records |= _prefixed(f"to{receiver}.packets", cores[0].packets(refused))
            return figures, records

        self._run = run
        cost_ns *= len(streams)
        return {"facts": asdict(facts), "frames": frames, "frame_cost_ns": cost_ns}, {}

    def lend(self, header: dict[str, Any], _: Columns) -> Answer:
        """``host``, ``port``, ``transport`` -> in ``files`` a UDP socket of this process's network
        namespace, for the sender of a broadcast that lives in another."""
        settings = TransportSettings(**header["transport"])
        with self._fresh_cell() as cell:
            sock = cell.enter_context(udp.connected(header["host"], header["port"], settings))
        return {"files": [sock.fileno()]}, {}

    def run(self, header: dict[str, Any], _: Columns) -> Answer:
        """``t0_ns``, ``stop_ns`` -> figures and records; answers at ``stop_ns`` at the latest,
        plus the time of one frame in the codec."""
        run, self._run = self._run, None
        if run is None:
            raise CellFailed("the agent was not prepared for a cell")
        gc.disable()
        try:
            with linux.real_time(PACE_PRIORITY) as priority:
                gathered = run(header["t0_ns"], header["stop_ns"])
            figures, columns = gathered()
        except Exception:
            self._cell.close()
            raise
        finally:
            gc.enable()
        cpus = sorted(os.sched_getaffinity(0))
        return {**figures, "priority": priority, "cpus": cpus}, columns

    def close(self, _: dict[str, Any], __: Columns) -> Answer:
        """Back to idle."""
        self._run = None
        self._cell.close()
        return {}, {}

    @contextmanager
    def _fresh_cell(self) -> Iterator[ExitStack]:
        """What is opened inside belongs to the new cell, and is closed if preparing it fails."""
        self._run = None
        self._cell.close()
        with ExitStack() as opened:
            yield opened
            self._cell = opened.pop_all()
        gc.collect()  # what is left of the last cell: now, not while this one runs

    @staticmethod
    def _warm_codec(job: dict[str, Any], decoding: bool) -> tuple[Codec, CodecFacts, int]:
        codec = _codec_of(job)
        with blamed_on(f"codec {job['codec']['codec']}"):
            return codec, codec.facts, _warm_up(codec, decoding)


def pace(
    cores: Sequence[SenderCore],
    ways: Sequence[Sequence[Sender]],
    stop_ns: int,
    hears: bool = False,
    linger_ns: int = 0,
) -> None:
    """Run the schedules of streams, each with its own ``ways`` to its receivers, against the clock;
    back at ``stop_ns`` at the latest.

    Where they ``hear``, they answer their receivers meanwhile, and for ``linger_ns`` after the
    last frame.
    """
    # A core is one state machine, messages come in threads of their own, and what is noted as sent
    # first has to be sent first.
    turn = threading.Lock()
    over = False

    def on_message(core: SenderCore, receiver: int, message: bytes) -> None:
        with turn:
            if not over:
                core.on_feedback(message, receiver)

    if hears:
        for core, senders in zip(cores, ways, strict=True):
            for receiver, sender in enumerate(senders):
                sender.hear(partial(on_message, core, receiver))
    while True:
        readies_ns = [stop_ns if (r := core.next_ready_ns()) is None else r for core in cores]
        ready_ns = min(readies_ns)
        if ready_ns >= stop_ns:
            break
        linux.sleep_until(ready_ns)
        if monotonic_ns() >= stop_ns:
            return
        with turn:
            cores[readies_ns.index(ready_ns)].step()
    if linger_ns:
        linux.sleep_until(min(monotonic_ns() + linger_ns, stop_ns))
    with turn:
        over = True
    for sender in chain.from_iterable(ways):
        sender.flush(stop_ns)


def play(
    cores: Sequence[ReceiverCore],
    arrived: queue.SimpleQueue[_Arrived],
    stop_ns: int,
    receivers: Sequence[Receiver],
    gate: Gate,
) -> None:
    """Run the playout clocks of streams, each with its own receiver; back at ``stop_ns`` at the
    latest."""
    playing = list(zip(cores, receivers, strict=True))
    while playing and (now_ns := monotonic_ns()) < stop_ns:
        answers = [(core, receiver, core.next_feedback_ns()) for core, receiver in playing]
        answer_ns = min((at for _, _, at in answers if at is not None), default=stop_ns)
        if answer_ns <= now_ns:
            for core, receiver, at_ns in answers:
                if at_ns is not None and at_ns <= now_ns:
                    for message in core.feedback(now_ns):
                        receiver.reply(message)
            continue
        pulls_ns = [core.next_pull_ns() for core, _ in playing]
        due_ns = min(answer_ns, stop_ns, *(at for at in pulls_ns if at is not None))
        # What comes may have to be answered at once, or starts the clock, or starts it earlier.
        waits = cores[0].answers or not all(core.has_played for core, _ in playing)
        if waits and due_ns - now_ns > _NEAR_NS:
            with suppress(queue.Empty):
                _take(cores, arrived.get(timeout=(due_ns - _NEAR_NS - now_ns) / NS_PER_S))
            continue
        linux.sleep_until(due_ns)
        _take_all(cores, arrived)
        for (core, _), pull_ns in zip(playing, pulls_ns, strict=True):
            if pull_ns is not None and pull_ns <= due_ns < stop_ns:
                core.pull()
        gate.left(sum(core.done_packets for core in cores))
        playing = [(core, receiver) for core, receiver in playing if not core.finished]
    _take_all(cores, arrived)
    for core in cores:
        core.stop(stop_ns)


def _take_all(cores: Sequence[ReceiverCore], arrived: queue.SimpleQueue[_Arrived]) -> None:
    while not arrived.empty():
        _take(cores, arrived.get_nowait())


def _take(cores: Sequence[ReceiverCore], arrival: _Arrived) -> None:
    track, packet, recv_ns = arrival
    cores[track].on_packet(packet, recv_ns)


def _tracks_of(job: dict[str, Any]) -> list[Track]:
    return [Track(**track) for track in job.get("tracks", ())]


def _beside(figures: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the streams beside the first."""
    return {"tracks": figures[1:]} if len(figures) > 1 else {}


def _of_track(track: int, packets: Columns, frames: Columns) -> Columns:
    start = f"track{track}." if track else ""
    return {**_prefixed(f"{start}packets", packets), **_prefixed(f"{start}frames", frames)}


def _prefixed(table: str, columns: Columns) -> Columns:
    return {f"{table}.{name}": column for name, column in columns.items()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="harness.endpoint.agent", description="An endpoint.")
    parser.add_argument("--socket", type=Path, required=True, help="control socket to connect to")
    parser.add_argument("--name", required=True, help="what to call itself in hello")
    parser.add_argument("--pdeathsig", action="store_true", help="end with the process's parent")
    parser.add_argument("--unshare", action="store_true", help="enter a new network namespace")
    parser.add_argument(
        "--join-user-of", type=int, metavar="PID", help="first enter the user namespace of PID"
    )
    return parser.parse_args()


def main() -> None:
    """Become an endpoint until the orchestrator hangs up."""
    arguments = _arguments()
    if arguments.pdeathsig:
        linux.die_with_parent()
    if arguments.join_user_of is not None:
        linux.join_namespace(arguments.join_user_of, "user")
    if arguments.unshare:
        linux.unshare(linux.CLONE_NEWNET)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by a codec's library when it is loaded
    linux.exact_timers()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    hello = {
        "name": arguments.name,
        **clock_facts(),
        "pid": os.getpid(),
        "cpus": sorted(os.sched_getaffinity(0)),
    }
    control.serve(arguments.socket, hello, Agent().handlers())


if __name__ == "__main__":
    main()

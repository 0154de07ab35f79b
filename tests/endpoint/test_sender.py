"""The sender's schedule in virtual time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness import codecs
from harness.codecs.base import CodecFacts, Pcm
from harness.endpoint.sender import SenderCore, frame_count
from harness.errors import CellFailed
from harness.media.wire import HARNESS

MS = 1_000_000
T0 = 5_000 * MS
FACTS = codecs.create("pcm", codecs.params_class("pcm")(), {}).facts


class Encoder:
    """Returns the frame number as payload, L calls later; keeps what it was fed."""

    def __init__(self, lookahead: int) -> None:
        self.fed: list[Pcm] = []
        self._lookahead = lookahead

    def encode(self, pcm: Pcm) -> bytes | None:
        self.fed.append(pcm)
        frame = len(self.fed) - 1 - self._lookahead
        return f"payload {frame}".encode() if frame >= 0 else None


class Bench:
    """A sender core, its clock and its socket, in the test's hands."""

    def __init__(self, facts: CodecFacts, samples: int, encoder: object | None = None) -> None:
        self.now = T0
        self.sent: list[bytes] = []
        self.takes = True
        self.encoder = encoder or Encoder(facts.lookahead_frames)
        self.pcm = np.arange(1, samples + 1).astype(np.int16)
        self.core = SenderCore(
            facts, self.encoder, 9, self.pcm, T0, 100, self._send, lambda: self.now
        )

    def _send(self, packet: bytes) -> bool:
        self.sent.append(packet)
        return self.takes

    def run(self, late_ns: int = 0) -> None:
        while (ready := self.core.next_ready_ns()) is not None:
            self.now = ready + late_ns
            self.core.step()


def test_every_frame_leaves_when_its_last_sample_is_captured() -> None:
    bench = Bench(FACTS, 320 * 10)
    bench.run()
    frames, packets = bench.core.sent_frames(), bench.core.packets()
    assert frames["frame"].tolist() == list(range(10))
    assert frames["ready_ns"].tolist() == [T0 + 20 * (k + 1) * MS for k in range(10)]
    assert (frames["sent_ns"] == frames["ready_ns"]).all()
    assert (packets["send_ns"] == frames["ready_ns"]).all()
    assert packets["seq"].tolist() == list(range(10))
    assert packets["size_bytes"].tolist() == [len(packet) for packet in bench.sent]
    assert [HARNESS.parse(packet).end for packet in bench.sent] == [False] * 9 + [True]
    assert bench.core.finished


def test_lookahead_and_delay_are_fed_out() -> None:
    facts = replace(FACTS, lookahead_frames=2, delay_samples=100)
    bench = Bench(facts, 320 * 10)
    bench.run()
    assert frame_count(3200, facts) == 11
    assert bench.core.sent_frames()["frame"].tolist() == list(range(11))
    assert bench.core.sent_frames()["ready_ns"][0] == T0 + 3 * 20 * MS
    fed = np.concatenate(bench.encoder.fed)
    assert len(fed) == 13 * 320
    np.testing.assert_array_equal(fed[:3200], bench.pcm)
    assert not fed[3200:].any()


def test_the_schedule_of_44_1_khz_frames_does_not_drift() -> None:
    bench = Bench(replace(FACTS, sample_rate_hz=44_100, frame_samples=1024), 1024 * 500)
    bench.run()
    ready = bench.core.sent_frames()["ready_ns"] - T0
    exact = np.array([(k + 1) * 1024 * 10**9 // 44_100 for k in range(500)])
    np.testing.assert_array_equal(ready, exact)


def test_lateness_is_seen() -> None:
    bench = Bench(FACTS, 320 * 4)
    bench.run(late_ns=3 * MS)
    assert bench.core.figures()["lateness"]["worst_ns"] == 3 * MS
    assert bench.core.figures()["late_frames"] == 0
    bench = Bench(FACTS, 320 * 4)
    bench.run(late_ns=20 * MS + 1)
    assert bench.core.figures()["late_frames"] == 4
    assert (bench.core.sent_frames()["ready_ns"][0]) == T0 + 20 * MS, "the schedule does not move"


def test_a_packet_that_the_socket_refused_was_never_sent() -> None:
    bench = Bench(FACTS, 640)
    bench.takes = False
    bench.run()
    assert bench.core.packets()["send_ns"].tolist() == [-1, -1]


class Returns:
    def __init__(self, payload: object) -> None:
        self.payload = payload

    def encode(self, pcm: Pcm) -> object:  # noqa: ARG002
        if isinstance(self.payload, Exception):
            raise self.payload
        return self.payload


@pytest.mark.parametrize(
    ("payload", "lookahead", "says"),
    [
        (None, 0, "expected a payload"),
        (b"", 0, "expected a payload"),
        (bytearray(3), 0, "expected a payload"),
        (b"early", 1, "expected None"),
        (RuntimeError("boom"), 0, "crashed at input frame 0: RuntimeError: boom"),
    ],
)
def test_an_encoder_that_breaks_its_contract_fails_the_cell(
    payload: object, lookahead: int, says: str
) -> None:
    bench = Bench(replace(FACTS, lookahead_frames=lookahead), 320, Returns(payload))
    with pytest.raises(CellFailed, match=says):
        bench.core.step()

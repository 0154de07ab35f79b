"""A cell in virtual time: sender core -> arrivals chosen by the test -> receiver core."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from harness import codecs
from harness.codecs.base import CodecFacts, Encoder, Pcm
from harness.endpoint.sender import SenderCore
from harness.media.playout import ReceiverCore
from harness.media.settings import ReceiverSettings
from harness.records import Columns, Verdict

MS = 1_000_000
STREAM = 0xCAFE
T0 = 1_000_000 * MS
PCM20 = codecs.create("pcm", codecs.params_class("pcm")(), {})
FACTS = PCM20.facts  # 16 kHz, 320 samples, 20 ms


class Clock:
    """Stands still unless told; the cores stamp what it says."""

    def __init__(self) -> None:
        self.now = T0

    def __call__(self) -> int:
        return self.now


def voiced(samples: int, rate_hz: int = 16_000, pitch_hz: float = 125.0) -> Pcm:
    """A sum of harmonics: exactly periodic, and unlike itself at other lags."""
    phase = 2 * np.pi * pitch_hz * np.arange(samples) / rate_hz
    wave = sum(np.sin(n * phase + n) / n for n in range(1, 8))
    return np.rint(6000 * wave).astype(np.int16)


class ScriptedDecoder:
    """Decodes PCM payloads and writes down what it was asked; ``refused`` payload numbers raise.

    Concealed audio is all 1000, recovered audio all 2000, so that a test sees where it went.
    """

    def __init__(self, facts: CodecFacts, refused: tuple[int, ...] = ()) -> None:
        self.calls: list[str] = []
        self._facts = facts
        self._refused = refused
        self._decoded = 0

    def decode(self, payload: bytes) -> Pcm:
        self._decoded += 1
        self.calls.append("decode")
        if self._decoded - 1 in self._refused:
            raise ValueError("refused")
        return np.frombuffer(payload, "<i2").astype(np.int16)

    def conceal(self) -> Pcm | None:
        self.calls.append("conceal")
        return self._constant(1000) if self._facts.conceals else None

    def recover(self, later_payload: bytes, frames_back: int = 1) -> Pcm | None:  # noqa: ARG002
        self.calls.append("recover")
        return self._constant(2000)

    def _constant(self, value: int) -> Pcm:
        return np.full(self._facts.frame_samples, value, np.int16)


@dataclass
class Sent:
    """What the sender gave to the network, with the records it keeps."""

    packets: list[tuple[int, bytes]]  # send_ns, bytes
    packet_rows: Columns
    frame_rows: Columns
    frames: int


def send(
    pcm: Pcm,
    facts: CodecFacts = FACTS,
    encoder: Encoder | None = None,
    max_packet_bytes: int | None = None,
    stream_id: int = STREAM,
) -> Sent:
    """Everything a sender that is never late sends."""
    clock = Clock()
    packets: list[tuple[int, bytes]] = []

    def take(packet: bytes) -> bool:
        packets.append((clock.now, packet))
        return True

    core = SenderCore(
        facts,
        encoder or PCM20.encoder(),
        stream_id,
        pcm,
        T0,
        max_packet_bytes,
        take,
        clock,
    )
    while (ready := core.next_ready_ns()) is not None:
        clock.now = ready
        core.step()
    return Sent(packets, core.packets(), core.sent_frames(), core.frames)


def arrivals(
    sent: Sent, delay: Callable[[int], int | None] | list[int | None]
) -> list[tuple[int, bytes]]:
    """Packet i arrives ``delay(i)`` ns after it was sent, or never (None). A list is cyclic."""
    if isinstance(delay, list):
        cyclic = list(islice(cycle(delay), len(sent.packets)))
        return arrivals(sent, lambda i: cyclic[i])
    found = []
    for i, (send_ns, packet) in enumerate(sent.packets):
        delay_ns = delay(i)
        if delay_ns is not None:
            found.append((send_ns + delay_ns, packet))
    return sorted(found, key=lambda arrival: arrival[0])


@dataclass
class Heard:
    """What came of it at the receiver."""

    core: ReceiverCore
    decoder: ScriptedDecoder
    packets: Columns = field(default_factory=dict)
    frames: Columns = field(default_factory=dict)

    def verdicts(self) -> list[str]:
        return [Verdict(int(v)).name for v in self.packets["verdict"]]


def listen(
    came: list[tuple[int, bytes]],
    frames: int,
    settings: ReceiverSettings | None = None,
    facts: CodecFacts = FACTS,
    decoder: ScriptedDecoder | None = None,
    stop_ns: int = T0 + 60_000 * MS,
    assets: Mapping[str, Path] | None = None,
) -> Heard:
    """Run a receiver over arrivals (time, bytes) in order; pulls happen when they are due."""
    clock = Clock()
    decoder = decoder or ScriptedDecoder(facts)
    core = ReceiverCore(
        settings or ReceiverSettings(), facts, decoder, STREAM, frames, clock, assets=assets
    )
    coming = list(came)
    while coming or core.next_pull_ns() is not None:
        due = core.next_pull_ns()
        if coming and (due is None or coming[0][0] <= due):
            at, packet = coming.pop(0)
            if at > stop_ns:
                break
            clock.now = max(clock.now, at)
            core.on_packet(packet, at)
        elif due is None or due >= stop_ns:
            break
        else:
            clock.now = max(clock.now, due)
            core.pull()
    core.stop(stop_ns)
    return Heard(core, decoder, core.packets(), core.frames())


def with_plc(facts: CodecFacts = FACTS) -> CodecFacts:
    return replace(facts, conceals=True)


def with_fec(facts: CodecFacts = FACTS) -> CodecFacts:
    return replace(facts, conceals=True, recovery_frames=1)

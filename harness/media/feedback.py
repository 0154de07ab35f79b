"""What a receiver says back to the sender: reports and requests for what is missing.

Two messages, big-endian, each with a CRC-32 like any packet of ours::

    u8 0xB1 | u8 1 (report) | u16 0 | u32 stream id | u32 highest sequence number | u32 received
      | u32 lost | u32 jitter, us | u32 relative delay, us | u32 held, us | u32 CRC-32
    u8 0xB1 | u8 2 (NACK) | u16 count | u32 stream id | u32 each sequence number | u32 CRC-32

The report is RFC 3550's receiver report (6.4.1) with one more figure, the delay of the latest
packets above the least seen (RFC 5481's PDV), which tells a growing queue before it drops. Only
media packets are counted: parity and retransmissions have sequence numbers of their own.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from harness.media.packet import ForeignPacket
from harness.media.settings import SenderSettings
from harness.units import NS_PER_S

_MAGIC = 0xB1
_REPORT, _NACK = 1, 2
_HEAD = struct.Struct(">BBHI")
_FIGURES = struct.Struct(">IIIIII")
_CRC = struct.Struct(">I")
_NS_PER_US = 1000
_MOST_NACKED = 64
"""In one message; the oldest come first, the rest with the next."""
_WINDOW_NS = 10 * NS_PER_S
"""Over which the least delay counts."""


class Report(NamedTuple):
    """How the stream arrives, since its beginning."""

    stream_id: int
    highest_seq: int
    received: int
    lost: int
    """Expected less received (RFC 3550, A.3)."""
    jitter_ns: int
    """Interarrival jitter (RFC 3550, A.8)."""
    delay_ns: int
    """Of the latest packet, above the least of the last 10 s: what waits in queues."""
    held_ns: int
    """Since the packet with the highest number came: the sender takes it off to get the round trip
    (after RFC 3550's DLSR)."""
    reported_ns: int = -1
    """The instant, on the sender's clock, of the last of its own reports that came (LSR), where the
    wire format has such; -1 for none."""
    reported_held_ns: int = 0
    """Since that came (DLSR)."""

    def pack(self) -> bytes:
        times = (self.jitter_ns, self.delay_ns, self.held_ns)
        microseconds = [min(max(ns // _NS_PER_US, 0), 0xFFFF_FFFF) for ns in times]
        body = _HEAD.pack(_MAGIC, _REPORT, 0, self.stream_id) + _FIGURES.pack(
            self.highest_seq, self.received, max(self.lost, 0), *microseconds
        )
        return body + _CRC.pack(zlib.crc32(body))


class Nack(NamedTuple):
    """Packets that are missing and would still be of use (RFC 4585, 6.2.1)."""

    stream_id: int
    seqs: tuple[int, ...]

    def pack(self) -> bytes:
        body = _HEAD.pack(_MAGIC, _NACK, len(self.seqs), self.stream_id)
        body += b"".join(seq.to_bytes(4, "big") for seq in self.seqs)
        return body + _CRC.pack(zlib.crc32(body))


def parse(data: bytes) -> Report | Nack:
    """Raises ForeignPacket where the bytes are no feedback, ValueError on anything damaged."""
    if not data or data[0] != _MAGIC:
        raise ForeignPacket("not feedback of this protocol")
    body, crc = data[: -_CRC.size], data[-_CRC.size :]
    if len(body) < _HEAD.size or _CRC.pack(zlib.crc32(body)) != crc:
        raise ValueError("wrong CRC")
    _, kind, count, stream_id = _HEAD.unpack_from(body)
    rest = body[_HEAD.size :]
    if kind == _REPORT and len(rest) == _FIGURES.size:
        highest, received, lost, *microseconds = _FIGURES.unpack(rest)
        jitter, delay, held = (us * _NS_PER_US for us in microseconds)
        return Report(stream_id, highest, received, lost, jitter, delay, held)
    if kind == _NACK and len(rest) == 4 * count:
        return Nack(stream_id, tuple(seq for (seq,) in struct.iter_unpack(">I", rest)))
    raise ValueError(f"feedback of kind {kind} with {len(rest)} bytes")


@dataclass(slots=True)
class _Missing:
    ask_ns: int
    left: int
    frame: int


class Reporter:
    """The receiver's side: takes media packets as they come, and says what is due."""

    def __init__(self, settings: SenderSettings, stream_id: int) -> None:
        self._settings = settings
        self._stream_id = stream_id
        self._missing: dict[int, _Missing] = {}
        self._received = 0
        self._first_seq = self._highest_seq = -1
        self._highest_frame = -1
        self._highest_ns = 0
        self._transit_ns: int | None = None
        self._jitter_ns = 0.0
        self._transits: deque[tuple[int, int]] = deque()
        self._report_ns: int | None = None
        self._heard: tuple[int, int] | None = None

    def add(self, seq: int, frame: int, media_ns: int, recv_ns: int) -> None:
        """A media packet, copies included. ``media_ns`` is its frame's media time."""
        self._missing.pop(seq, None)
        self._received += 1
        transit_ns = recv_ns - media_ns
        if self._transit_ns is not None:
            # RFC 3550, A.8: J += (|D| - J) / 16
            self._jitter_ns += (abs(transit_ns - self._transit_ns) - self._jitter_ns) / 16
        self._transit_ns = transit_ns
        self._transits.append((recv_ns, transit_ns))
        if self._report_ns is None:
            self._first_seq = seq
            self._report_ns = recv_ns + self._settings.report_every_ns
        elif seq > self._highest_seq:
            self._note_gap(seq, frame, recv_ns)
        if seq > self._highest_seq:
            self._highest_seq, self._highest_frame, self._highest_ns = seq, frame, recv_ns

    def found(self, seq: int) -> None:
        """A retransmission of this packet came."""
        self._missing.pop(seq, None)

    def heard(self, sent_ns: int, recv_ns: int) -> None:
        """A report of the sender came, sent at ``sent_ns`` on its clock."""
        self._heard = sent_ns, recv_ns

    def _note_gap(self, seq: int, frame: int, recv_ns: int) -> None:
        if not self._settings.nack_retries:
            return
        gap = seq - self._highest_seq
        for lost in range(self._highest_seq + 1, seq):
            ahead = (lost - self._highest_seq) * (frame - self._highest_frame) // gap
            ask_ns = recv_ns + self._settings.nack_wait_ns
            self._missing[lost] = _Missing(
                ask_ns, self._settings.nack_retries, self._highest_frame + ahead
            )

    def next_ns(self) -> int | None:
        """When :meth:`take` has something to say; None as long as nothing has come."""
        times = [missing.ask_ns for missing in self._missing.values()]
        if self._settings.needs_reports and self._report_ns is not None:
            times.append(self._report_ns)
        return min(times, default=None)

    def take(self, now_ns: int, due_ns: Callable[[int], int | None]) -> list[Report | Nack]:
        """What is to be sent by now. ``due_ns`` gives the instant at which a frame is to be played,
        None as long as that is not known; what cannot come before it is not asked for."""
        messages: list[Report | Nack] = []
        if seqs := self._to_ask(now_ns, due_ns):
            messages.append(Nack(self._stream_id, tuple(seqs)))
        if (
            self._settings.needs_reports
            and self._report_ns is not None
            and now_ns >= self._report_ns
        ):
            messages.append(self._report(now_ns))
            self._report_ns += self._settings.report_every_ns
        return messages

    def _to_ask(self, now_ns: int, due_ns: Callable[[int], int | None]) -> list[int]:
        seqs: list[int] = []
        for seq, missing in list(self._missing.items()):
            if missing.ask_ns > now_ns:
                continue
            due = due_ns(missing.frame)
            if due is not None and due <= now_ns:
                del self._missing[seq]
            elif len(seqs) < _MOST_NACKED:
                seqs.append(seq)
                missing.left -= 1
                missing.ask_ns = now_ns + self._settings.nack_every_ns
                if not missing.left:
                    del self._missing[seq]
        return seqs

    def _report(self, now_ns: int) -> Report:
        while self._transits and self._transits[0][0] < now_ns - _WINDOW_NS:
            self._transits.popleft()
        least_ns = min((transit for _, transit in self._transits), default=0)
        latest_ns = self._transits[-1][1] if self._transits else least_ns
        expected = self._highest_seq - self._first_seq + 1
        return Report(
            self._stream_id,
            self._highest_seq,
            self._received,
            expected - self._received,
            round(self._jitter_ns),
            latest_ns - least_ns,
            now_ns - self._highest_ns,
            *((-1, 0) if self._heard is None else (self._heard[0], now_ns - self._heard[1])),
        )

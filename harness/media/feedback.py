"""What a receiver says back to the sender: reports and requests for what is missing.

Two messages, big-endian, each with a CRC-32 like any packet of ours::

    u8 0xB1 | u8 1 (report) | u16 0 | u32 stream id | u32 highest sequence number | u32 received
      | u32 lost | u32 overdue | u32 jitter, us | u32 queueing delay, us | u32 held, us | u32 CRC-32
    u8 0xB1 | u8 2 (NACK) | u16 count | u32 stream id | u32 each sequence number | u32 CRC-32

The report is RFC 3550's receiver report (6.4.1) with two more figures, so that a rate can follow a
queue and not jitter. *Queueing delay* is the least delay since the last report above the least of
10 s: a queue delays every packet, jitter only some (RFC 8698, 5.1.1, filters likewise). *Overdue*
is what of the lost is not merely overtaken. Only media packets are counted: parity and
retransmissions have sequence numbers of their own.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from harness.media.packet import ForeignPacket
from harness.media.protection import leaving
from harness.media.settings import SenderSettings
from harness.units import NS_PER_S

_MAGIC = 0xB1
_REPORT, _NACK = 1, 2
_HEAD = struct.Struct(">BBHI")
_FIGURES = struct.Struct(">IIIIIII")
_CRC = struct.Struct(">I")
_NS_PER_US = 1000
MOST_NACKED = 64
"""In one message; the oldest come first, the rest with the next."""
MAX_DROPOUT = 3000
"""A number farther from the highest is believed once the next one follows it (RFC 3550, A.1)."""
_WINDOW_NS = 10 * NS_PER_S
"""Over which the least delay counts."""
_REORDERING_JITTERS = 4
"""A missing packet is overdue so many interarrival jitters after a later one came; as RFC 6298, 2
has four mean deviations."""


class Report(NamedTuple):
    """How the stream arrives, since its beginning."""

    stream_id: int
    highest_seq: int
    received: int
    lost: int
    """Expected less received (RFC 3550, A.3)."""
    overdue: int
    """Of these, what has been missing for so long that it is not merely overtaken."""
    jitter_ns: int
    """Interarrival jitter (RFC 3550, A.8)."""
    delay_ns: int
    """The least since the last report, above the least of the last 10 s: what waits in queues."""
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
            self.highest_seq, self.received, max(self.lost, 0), self.overdue, *microseconds
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
    """Raises ForeignPacket where the bytes are no feedback, ValueError on anything damaged and on a
    request for more packets than any of ours is for."""
    if not data or data[0] != _MAGIC:
        raise ForeignPacket("not feedback of this protocol")
    body, crc = data[: -_CRC.size], data[-_CRC.size :]
    if len(body) < _HEAD.size or _CRC.pack(zlib.crc32(body)) != crc:
        raise ValueError("wrong CRC")
    _, kind, count, stream_id = _HEAD.unpack_from(body)
    rest = body[_HEAD.size :]
    if kind == _REPORT and len(rest) == _FIGURES.size:
        highest, received, lost, overdue, *microseconds = _FIGURES.unpack(rest)
        jitter, delay, held = (us * _NS_PER_US for us in microseconds)
        return Report(stream_id, highest, received, lost, overdue, jitter, delay, held)
    if kind == _NACK and len(rest) == 4 * count and count <= MOST_NACKED:
        return Nack(stream_id, tuple(seq for (seq,) in struct.iter_unpack(">I", rest)))
    raise ValueError(f"feedback of kind {kind} with {len(rest)} bytes")


@dataclass(slots=True)
class _Missing:
    ask_ns: int
    left: int
    frame: int


class Reporter:
    """The receiver's side: takes media packets as they come, and says what is due.

    Its memory is bounded by MAX_DROPOUT numbers, whatever the numbers of the packets are.
    """

    def __init__(self, settings: SenderSettings, stream_id: int) -> None:
        self._settings = settings
        self._stream_id = stream_id
        self._missing: dict[int, _Missing] = {}
        self._overtaken: dict[int, int] = {}  # number: when a later one came
        self._overdue = 0
        self._received = 0
        self._first_seq = self._highest_seq = -1
        self._next_after_jump = -1
        self._highest_frame = -1
        self._highest_ns = 0
        self._transit_ns: int | None = None
        self._jitter_ns = 0.0
        self._transits: deque[tuple[int, int]] = deque()
        self._least_ns: int | None = None  # since the last report
        self._delay_ns = 0
        self._report_ns: int | None = None
        self._heard: tuple[int, int] | None = None

    def add(self, seq: int, frame: int, due_ns: int, recv_ns: int) -> None:
        """A media packet, copies included. ``due_ns`` is when it leaves by the sender's schedule,
        on any clock."""
        if self._report_ns is None:
            self._first_seq, self._highest_seq = seq, seq - 1
            self._report_ns = recv_ns + self._settings.report_every_ns
        ahead = seq - self._highest_seq
        if abs(ahead) > MAX_DROPOUT:
            if seq != self._next_after_jump:
                self._next_after_jump = seq + 1
                return
            self._jump(ahead - 1)
            ahead = 1
        self._missing.pop(seq, None)
        self._overtaken.pop(seq, None)
        self._received += 1
        self._note_transit(recv_ns - due_ns, recv_ns)
        if ahead > 0:
            if ahead > 1:
                self._note_gap(seq, frame, recv_ns)
            self._highest_seq, self._highest_frame, self._highest_ns = seq, frame, recv_ns

    def _jump(self, by: int) -> None:
        """The sender counts from elsewhere; nothing between is missing."""
        self._first_seq += by
        self._highest_seq += by
        self._missing.clear()
        self._overtaken.clear()

    def _note_transit(self, transit_ns: int, recv_ns: int) -> None:
        if self._transit_ns is not None:
            # RFC 3550, A.8: J += (|D| - J) / 16
            self._jitter_ns += (abs(transit_ns - self._transit_ns) - self._jitter_ns) / 16
        self._transit_ns = transit_ns
        self._transits.append((recv_ns, transit_ns))
        if self._least_ns is None or transit_ns < self._least_ns:
            self._least_ns = transit_ns

    def found(self, seq: int) -> None:
        """A retransmission of this packet came."""
        self._missing.pop(seq, None)

    def heard(self, sent_ns: int, recv_ns: int) -> None:
        """A report of the sender came, sent at ``sent_ns`` on its clock."""
        self._heard = sent_ns, recv_ns

    def _note_gap(self, seq: int, frame: int, recv_ns: int) -> None:
        lost = range(self._highest_seq + 1, seq)
        if self._settings.needs_reports:
            self._overtaken |= dict.fromkeys(lost, recv_ns)
            while len(self._overtaken) > MAX_DROPOUT:
                del self._overtaken[next(iter(self._overtaken))]
                self._overdue += 1
        if self._settings.nack_retries:
            ask_ns = recv_ns + self._settings.nack_wait_ns
            left = leaving(self._highest_frame, frame, self._settings.interleave)
            for ahead, number in enumerate(lost, 1):
                guess = left[ahead * (len(left) - 1) // (len(lost) + 1)]
                self._missing[number] = _Missing(ask_ns, self._settings.nack_retries, guess)
            while len(self._missing) > MAX_DROPOUT:
                del self._missing[next(iter(self._missing))]

    def next_ns(self) -> int | None:
        """When :meth:`take` has something to say; None as long as nothing has come."""
        times = [missing.ask_ns for missing in self._missing.values()]
        if self._settings.needs_reports and self._report_ns is not None:
            times.append(self._report_ns)
        return min(times, default=None)

    def take(
        self,
        now_ns: int,
        due_ns: Callable[[int], int | None],
        is_restored: Callable[[int], bool] = lambda _: False,
    ) -> list[Report | Nack]:
        """What is to be sent by now. ``due_ns`` gives the instant at which a frame is to be played,
        None as long as that is not known; what cannot come before it is not asked for, nor what
        redundancy has restored."""
        messages: list[Report | Nack] = []
        if seqs := self._to_ask(now_ns, due_ns, is_restored):
            messages.append(Nack(self._stream_id, tuple(seqs)))
        if (
            self._settings.needs_reports
            and self._report_ns is not None
            and now_ns >= self._report_ns
        ):
            messages.append(self._report(now_ns))
            self._report_ns += self._settings.report_every_ns
        return messages

    def _to_ask(
        self,
        now_ns: int,
        due_ns: Callable[[int], int | None],
        is_restored: Callable[[int], bool],
    ) -> list[int]:
        seqs: list[int] = []
        for seq, missing in list(self._missing.items()):
            if missing.ask_ns > now_ns:
                continue
            due = due_ns(missing.frame)
            if (due is not None and due <= now_ns) or is_restored(missing.frame):
                del self._missing[seq]
            elif len(seqs) < MOST_NACKED:
                seqs.append(seq)
                missing.left -= 1
                missing.ask_ns = now_ns + self._settings.nack_every_ns
                if not missing.left:
                    del self._missing[seq]
        return seqs

    def _report(self, now_ns: int) -> Report:
        while self._transits and self._transits[0][0] < now_ns - _WINDOW_NS:
            self._transits.popleft()
        if self._least_ns is not None:
            self._delay_ns = self._least_ns - min(transit for _, transit in self._transits)
            self._least_ns = None
        patience_ns = _REORDERING_JITTERS * self._jitter_ns
        for seq, since_ns in list(self._overtaken.items()):
            if since_ns + patience_ns <= now_ns:
                del self._overtaken[seq]
                self._overdue += 1
        expected = self._highest_seq - self._first_seq + 1
        return Report(
            self._stream_id,
            self._highest_seq,
            self._received,
            expected - self._received,
            self._overdue,
            round(self._jitter_ns),
            self._delay_ns,
            now_ns - self._highest_ns,
            *((-1, 0) if self._heard is None else (self._heard[0], now_ns - self._heard[1])),
        )

"""RTP (RFC 3550) as a stream's wire format, with RTCP as the form of its feedback.

A media packet is the fixed header of 12 bytes and one payload: version 2, no padding, extension or
contributing sources; the marker on the first packet (RFC 3551, 4.1). Sequence numbers count from 0
and timestamps from 0 at frame 0, as agreed beforehand (RTSP's RTP-Info does that; a random start is
for the sake of encryption); the receiver extends both to their whole length (RFC 3550, A.1). The
SSRC is the stream's id. Frames are told by their timestamps, so a frame is one packet: audio
payload formats do not fragment.

=============  ====  =========  ==================================================================
payload        type  clock      format
=============  ====  =========  ==================================================================
PCMU, PCMA     0, 8  8 kHz      RFC 3551, 4.5.14
G722           9     8 kHz      RFC 3551, 4.5.2: half its sampling rate, an old mistake kept
GSM            3     8 kHz      RFC 3551, 4.5.8
L16            96    as it is   RFC 3551, 4.5.11: network byte order
opus           96    48 kHz     RFC 7587: whatever the sampling rate
AMR, AMR-WB    96    8, 16 kHz  RFC 4867, octet-aligned: no mode request, one table entry, one frame
anything else  96    as it is   none registered here: the codec's payload
=============  ====  =========  ==================================================================

A retransmission is RFC 4588's: a source of its own (SSRC xor 1, type 97), the original's sequence
number (u16) before its payload.

RTCP goes over the same port (RFC 5761), as compound packets with a CNAME: the sender's reports
(6.4.1), the receiver's (6.4.2), each the same interval apart. The receiver's has two words of a
profile's own (6.4.3), which rate control needs and RFC 3550 does not have: the queueing delay in us
and the packets overdue (:mod:`harness.media.feedback`). Requests are generic NACKs (RFC 4585,
6.2.1), sent alone (RFC 5506). NTP timestamps count from the boot (6.4.1 allows that).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from harness.codecs.base import CodecFacts
from harness.errors import Unsupported
from harness.media.encodec_udp import EncodecUdpWire
from harness.media.feedback import MOST_NACKED, Nack, Report
from harness.media.packet import REPORT_TIMES, SEQUENCES, ForeignPacket, Packet, Purpose
from harness.media.wire import HARNESS, BareWire, Wire
from harness.units import NS_PER_S

_VERSION = 2
_HEAD = struct.Struct(">BBHII")
_OSN = struct.Struct(">H")
_DYNAMIC, _RTX = 96, 97
_MARKER = 0x80
_RTX_SOURCE, _LISTENER = 1, 2
"""Which bit of the stream's id the other two sources have turned over."""

_RTCP = struct.Struct(">BBH")
_SR, _RR, _SDES, _RTPFB = 200, 201, 202, 205
_RTCP_TYPES = range(192, 224)
_GENERIC_NACK = 1
_SENDER_INFO = struct.Struct(">IQIII")
_BLOCK = struct.Struct(">IB3sIIII")
_EXTENSION = struct.Struct(">II")
_REQUEST = struct.Struct(">HH")
_CNAME = b"\x01\x07harness"
_LOST_BITS = 23
_NS_PER_US = 1000
_STAMPS_KEPT = 16
_AFTER_PID = 16
"""How many packets after the one that it names a generic NACK's bits cover."""


class _Format(NamedTuple):
    """How a codec's payload looks in RTP."""

    payload_type: int = _DYNAMIC
    clock_hz: int = 0
    """0: the codec's sampling rate."""
    prefix: bytes = b""
    swapped: bool = False
    """16-bit samples, little-endian in the codec's payload, big-endian on the wire."""


_NO_MODE_REQUEST = b"\xf0"
_FORMATS = {
    "": _Format(),
    "PCMU": _Format(0, 8_000),
    "GSM": _Format(3, 8_000),
    "PCMA": _Format(8, 8_000),
    "G722": _Format(9, 8_000),
    "L16": _Format(swapped=True),
    "opus": _Format(clock_hz=48_000),
    "AMR": _Format(prefix=_NO_MODE_REQUEST),
    "AMR-WB": _Format(prefix=_NO_MODE_REQUEST),
}


def wire_of(name: str, facts: CodecFacts, stream_id: int, frames: int) -> Wire:
    """One end's wire format: all but our own have a state, for a stream of so many frames."""
    match name:
        case "rtp":
            return RtpWire(facts, stream_id, frames)
        case "bare":
            return BareWire(stream_id, frames)
        case "encodec-udp-stream":
            return EncodecUdpWire(facts, stream_id, frames)
        case _:
            return HARNESS


@dataclass
class _Loss:
    """What the last report said, in packets."""

    expected: int = 0
    lost: int = 0


class RtpWire:
    """One end of one stream."""

    def __init__(self, facts: CodecFacts, stream_id: int, frames: int) -> None:
        self._format = _FORMATS[facts.payload_format]
        self.header_bytes = _HEAD.size + len(self._format.prefix)
        self._clock_hz = self._format.clock_hz or facts.sample_rate_hz
        self._step = facts.frame_samples * self._clock_hz // facts.sample_rate_hz
        self._stream_id = stream_id
        self._frames = frames
        self._sources = {
            (stream_id, self._format.payload_type): Purpose.MEDIA,
            (stream_id ^ _RTX_SOURCE, _RTX): Purpose.RETRANSMISSION,
        }
        self._highest = {Purpose.MEDIA: 0, Purpose.RETRANSMISSION: 0}
        self._octets = 0
        self._stamps: dict[int, int] = {}
        self._said = _Loss()

    def pack(self, packet: Packet) -> bytes:
        """Raises Unsupported for a payload that needs fragments, and for parity."""
        if packet.purpose == Purpose.REPORT:
            return self._sender_report(packet)
        if packet.fragments > 1:
            raise Unsupported(
                f"frame {packet.frame} does not fit one datagram, and RTP's payload formats for"
                " audio do not fragment; use a shorter codec frame, a larger mtu, or udp"
            )
        seq = packet.seq - SEQUENCES[packet.purpose] & 0xFFFF
        timestamp = packet.frame * self._step & 0xFFFF_FFFF
        if packet.purpose == Purpose.MEDIA:
            self._highest[Purpose.MEDIA] = max(self._highest[Purpose.MEDIA], packet.seq)
            payload_type = self._format.payload_type | (0 if packet.frame else _MARKER)
            payload = self._outward(packet.payload)
            self._octets += len(payload)
            head = _HEAD.pack(_VERSION << 6, payload_type, seq, timestamp, self._stream_id)
            return head + payload
        if packet.purpose != Purpose.RETRANSMISSION:
            raise Unsupported(f"rtp carries no {Purpose(packet.purpose).name.lower()} packets")
        original = _OSN.pack(int.from_bytes(packet.payload[:4], "big") & 0xFFFF)
        source = self._stream_id ^ _RTX_SOURCE
        head = _HEAD.pack(_VERSION << 6, _RTX, seq, timestamp, source)
        return head + original + self._outward(packet.payload[4:])

    def parse(self, data: bytes) -> Packet:
        """Raises ForeignPacket where the bytes are no RTP or another stream's, ValueError on
        anything damaged."""
        if len(data) < _HEAD.size or data[0] >> 6 != _VERSION:
            raise ForeignPacket("not RTP of version 2")
        if data[1] in _RTCP_TYPES:
            return self._parse_sender_report(data)
        first, marked_type, seq, timestamp, source = _HEAD.unpack_from(data)
        if (purpose := self._sources.get((source, marked_type & ~_MARKER))) is None:
            raise ForeignPacket(f"source {source:#x} with payload type {marked_type & ~_MARKER}")
        if first != _VERSION << 6:
            raise ValueError("padding, an extension or contributing sources")
        frame, odd = divmod(timestamp, self._step)
        if odd:
            raise ValueError(f"timestamp {timestamp} is not that of a frame")
        payload = data[_HEAD.size :]
        number = self._extended(seq, purpose)
        if purpose == Purpose.RETRANSMISSION:
            if len(payload) <= _OSN.size:
                raise ValueError(f"a retransmission of {len(payload)} bytes")
            original = _near(_OSN.unpack_from(payload)[0], self._highest[Purpose.MEDIA])
            payload = original.to_bytes(4, "big") + self._inward(payload[_OSN.size :])
        else:
            payload = self._inward(payload)
        end = frame == self._frames - 1
        number += SEQUENCES[purpose]
        return Packet(self._stream_id, number, frame, 0, 1, end, payload, purpose)

    def pack_feedback(self, message: Report | Nack) -> bytes:
        """A receiver report in a compound packet, or a generic NACK."""
        listener = self._stream_id ^ _LISTENER
        if isinstance(message, Nack):
            body = struct.pack(">II", listener, self._stream_id)
            body += b"".join(_REQUEST.pack(*request) for request in _requests(message.seqs))
            return _rtcp(_RTPFB, _GENERIC_NACK, body)
        expected, lost = message.received + message.lost, message.lost
        since, gone = expected - self._said.expected, lost - self._said.lost
        self._said = _Loss(expected, lost)
        most = (1 << _LOST_BITS) - 1
        block = _BLOCK.pack(
            self._stream_id,
            min(max(gone, 0) * 256 // since, 255) if since > 0 else 0,
            min(max(lost, -most - 1), most).to_bytes(3, "big", signed=True),
            message.highest_seq,
            min(message.jitter_ns * self._clock_hz // NS_PER_S, 0xFFFF_FFFF),
            0 if message.reported_ns < 0 else _middle(_ntp(message.reported_ns)),
            0 if message.reported_ns < 0 else (message.reported_held_ns << 16) // NS_PER_S,
        )
        delay_us = min(max(message.delay_ns // _NS_PER_US, 0), 0xFFFF_FFFF)
        extension = _EXTENSION.pack(delay_us, message.overdue)
        report = _rtcp(_RR, 1, listener.to_bytes(4, "big") + block + extension)
        return report + _cname(listener)

    def parse_feedback(self, data: bytes) -> Report | Nack:
        """Raises ForeignPacket where the bytes are no RTCP, ValueError on anything damaged."""
        if len(data) < _RTCP.size or data[0] >> 6 != _VERSION or data[1] not in _RTCP_TYPES:
            raise ForeignPacket("not RTCP of version 2")
        for kind, count, body in _compound(data):
            if kind == _RR and count and len(body) >= 4 + _BLOCK.size + _EXTENSION.size:
                return self._parse_receiver_report(body)
            if kind == _RTPFB and count == _GENERIC_NACK and len(body) >= 8:
                (source,) = struct.unpack_from(">I", body, 4)
                return Nack(source, self._requested(body[8:]))
        raise ValueError("RTCP without a receiver report or a generic NACK")

    def _outward(self, payload: bytes) -> bytes:
        return self._format.prefix + (_swapped(payload) if self._format.swapped else payload)

    def _inward(self, payload: bytes) -> bytes:
        payload = payload.removeprefix(self._format.prefix)
        if not payload:
            raise ValueError("no payload")
        return _swapped(payload) if self._format.swapped else payload

    def _extended(self, seq: int, purpose: Purpose) -> int:
        number = _near(seq, self._highest[purpose])
        self._highest[purpose] = max(self._highest[purpose], number)
        return number

    def _sender_report(self, packet: Packet) -> bytes:
        now_ns, media_ns = REPORT_TIMES.unpack(packet.payload)
        ntp = _ntp(now_ns)
        self._stamps[_middle(ntp)] = now_ns
        if len(self._stamps) > _STAMPS_KEPT:
            del self._stamps[next(iter(self._stamps))]
        info = _SENDER_INFO.pack(
            self._stream_id,
            ntp,
            media_ns * self._clock_hz // NS_PER_S & 0xFFFF_FFFF,
            packet.seq - SEQUENCES[Purpose.REPORT] & 0xFFFF_FFFF,
            self._octets & 0xFFFF_FFFF,
        )
        return _rtcp(_SR, 0, info) + _cname(self._stream_id)

    def _parse_sender_report(self, data: bytes) -> Packet:
        kind, _, body = next(_compound(data))
        if kind != _SR or len(body) < _SENDER_INFO.size:
            raise ForeignPacket(f"RTCP of type {kind}")
        source, ntp, timestamp, packets, _ = _SENDER_INFO.unpack_from(body)
        if source != self._stream_id:
            raise ForeignPacket(f"source {source:#x}")
        # The frame that was being captured: of the stream's last, there is none after it.
        frame = min(timestamp // self._step, self._frames - 1)
        times = REPORT_TIMES.pack(_ns(ntp), timestamp * NS_PER_S // self._clock_hz)
        seq = SEQUENCES[Purpose.REPORT] + packets & 0xFFFF_FFFF
        end = frame == self._frames - 1
        return Packet(source, seq, frame, 0, 1, end, times, Purpose.REPORT)

    def _parse_receiver_report(self, body: bytes) -> Report:
        source, _, lost_bytes, highest, jitter, lsr, dlsr = _BLOCK.unpack_from(body, 4)
        delay_us, overdue = _EXTENSION.unpack_from(body, 4 + _BLOCK.size)
        lost = int.from_bytes(lost_bytes, "big", signed=True)
        return Report(
            source,
            highest,
            highest + 1 - lost,
            lost,
            overdue,
            jitter * NS_PER_S // self._clock_hz,
            delay_us * _NS_PER_US,
            0,
            self._stamps.get(lsr, -1),
            dlsr * NS_PER_S >> 16,
        )

    def _requested(self, entries: bytes) -> tuple[int, ...]:
        """Raises ValueError on a request for more packets than any of ours is for."""
        numbers: list[int] = []
        for first, bits in _REQUEST.iter_unpack(entries):
            number = _near(first, self._highest[Purpose.MEDIA])
            numbers.append(number)
            numbers += (number + 1 + n for n in range(_AFTER_PID) if bits >> n & 1)
            if len(numbers) > MOST_NACKED:
                raise ValueError(f"a NACK for more than {MOST_NACKED} packets")
        return tuple(numbers)


def _near(low: int, highest: int) -> int:
    """The number that ends in these 16 bits and lies nearest to ``highest`` (RFC 3550, A.1).

    Raises ValueError where that is before the stream's first.
    """
    number = highest + ((low - highest + 0x8000) & 0xFFFF) - 0x8000
    if number < 0:
        raise ValueError(f"sequence number {low} is before the first")
    return number


def _requests(seqs: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Generic NACK entries: a packet's number, and a bit for each missing one of the 16 after."""
    first, bits = -1, 0
    for seq in sorted(seqs):
        if first >= 0 and seq - first <= _AFTER_PID:
            bits |= 1 << (seq - first - 1)
            continue
        if first >= 0:
            yield first & 0xFFFF, bits
        first, bits = seq, 0
    if first >= 0:
        yield first & 0xFFFF, bits


def _rtcp(kind: int, count: int, body: bytes) -> bytes:
    return _RTCP.pack(_VERSION << 6 | count, kind, len(body) // 4) + body


def _cname(source: int) -> bytes:
    """The source description that every compound packet has (6.5.1); ended by a null octet."""
    item = _CNAME + b"\0" * (4 - len(_CNAME) % 4)
    return _rtcp(_SDES, 1, source.to_bytes(4, "big") + item)


def _compound(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, count (or format) and body of each RTCP packet. Raises ValueError where lengths do not
    add up."""
    at = 0
    while at < len(data):
        if len(data) - at < _RTCP.size:
            raise ValueError("RTCP is cut short")
        first, kind, words = _RTCP.unpack_from(data, at)
        end = at + _RTCP.size + 4 * words
        if first >> 6 != _VERSION or end > len(data):
            raise ValueError("RTCP lengths do not add up")
        yield kind, first & 0x1F, data[at + _RTCP.size : end]
        at = end


def _ntp(ns: int) -> int:
    """Nanoseconds as NTP's 64 bits: seconds, and a binary fraction."""
    seconds, rest = divmod(ns, NS_PER_S)
    return (seconds & 0xFFFF_FFFF) << 32 | (rest << 32) // NS_PER_S


def _ns(ntp: int) -> int:
    """The inverse of :func:`_ntp`."""
    return (ntp >> 32) * NS_PER_S + -(-(ntp & 0xFFFF_FFFF) * NS_PER_S >> 32)


def _middle(ntp: int) -> int:
    return ntp >> 16 & 0xFFFF_FFFF


def _swapped(samples: bytes) -> bytes:
    turned = bytearray(samples)
    turned[0::2], turned[1::2] = samples[1::2], samples[0::2]
    return bytes(turned)

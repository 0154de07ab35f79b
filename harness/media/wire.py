"""Wire formats: a packet as the bytes of a datagram or message, and back.

``harness``, 20 bytes, big-endian (RTP, RFC 3550, needs 12; ours also carries fragmentation and a
checksum)::

    u8 magic and version | u8 flags | u8 fragment | u8 fragments
    u32 stream id | u32 sequence number | u32 frame | u32 CRC-32

Bit 0 of the flags is the packet's ``end``, bits 1 and 2 its purpose. The CRC-32 (that of Ethernet
and zlib) covers the header without the CRC itself, and the payload: the 16-bit sums of UDP and TCP
let through what a link corrupts deliberately, and a stream transport has no datagram to drop.

``bare``, nothing at all: the payload, as systems send it whose codec frames itself, or which trust
a stream to keep order. A packet's frame is told by how many came before it.
"""

from __future__ import annotations

import struct
import zlib
from typing import Protocol

from harness.media import feedback
from harness.media.feedback import Nack, Report
from harness.media.packet import ForeignPacket, Packet, Purpose

_LAST_PURPOSE = int(max(Purpose))
_MAGIC = 0xA1  # 0xA0 and the version
_END = 0x01
_HEAD = struct.Struct(">BBBBIII")
_CRC = struct.Struct(">I")
_WHOLE = struct.Struct(">BBBBIIII")


class Wire(Protocol):
    """One stream's format."""

    header_bytes: int
    """Of every packet, beside its payload."""

    def pack(self, packet: Packet) -> bytes: ...

    def parse(self, data: bytes) -> Packet:
        """Raises ForeignPacket where the bytes are not of this format at all, ValueError on
        anything damaged."""
        ...

    def pack_feedback(self, message: Report | Nack) -> bytes:
        """What the receiver says back."""
        ...

    def parse_feedback(self, data: bytes) -> Report | Nack:
        """Raises as :meth:`parse` does."""
        ...


class HarnessWire:
    """Our own."""

    header_bytes = _WHOLE.size

    def pack(self, packet: Packet) -> bytes:
        stream_id, seq, frame, fragment, fragments, end, payload, purpose, _ = packet
        head = _HEAD.pack(_MAGIC, end | purpose << 1, fragment, fragments, stream_id, seq, frame)
        return head + _CRC.pack(zlib.crc32(payload, zlib.crc32(head))) + payload

    def parse(self, data: bytes) -> Packet:
        if not data or data[0] != _MAGIC:
            raise ForeignPacket("not a packet of this protocol")
        if len(data) <= _WHOLE.size:
            raise ValueError(f"packet of {len(data)} bytes is too short")
        _, flags, fragment, fragments, stream_id, seq, frame, crc = _WHOLE.unpack_from(data)
        payload = data[_WHOLE.size :]
        if zlib.crc32(payload, zlib.crc32(data[: _HEAD.size])) != crc:
            raise ValueError("wrong CRC")
        if fragment >= fragments:
            raise ValueError(f"fragment {fragment} of {fragments}")
        purpose = flags >> 1
        if purpose > _LAST_PURPOSE:
            raise ValueError(f"unknown purpose {purpose}")
        end = bool(flags & _END)
        return Packet(stream_id, seq, frame, fragment, fragments, end, payload, purpose)

    def pack_feedback(self, message: Report | Nack) -> bytes:
        return message.pack()

    def parse_feedback(self, data: bytes) -> Report | Nack:
        return feedback.parse(data)


class BareWire:
    """One end of a stream of so many frames, whose packets come whole, once, and in order."""

    header_bytes = 0

    def __init__(self, stream_id: int, frames: int) -> None:
        self._stream_id = stream_id
        self._frames = frames
        self._parsed = 0

    def pack(self, packet: Packet) -> bytes:
        return packet.payload

    def parse(self, data: bytes) -> Packet:
        number = self._parsed
        self._parsed += 1
        end = number == self._frames - 1
        return Packet(self._stream_id, number, number, 0, 1, end, data, Purpose.MEDIA)

    def pack_feedback(self, message: Report | Nack) -> bytes:
        """Raises ForeignPacket: beside the payloads there is no room for anything."""
        raise ForeignPacket(f"bare streams carry no {type(message).__name__}")

    def parse_feedback(self, data: bytes) -> Report | Nack:
        """Raises ForeignPacket, as :meth:`pack_feedback` does."""
        raise ForeignPacket(f"{len(data)} bytes on a stream that carries no feedback")


HARNESS = HarnessWire()

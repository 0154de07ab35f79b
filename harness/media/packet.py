"""Packets: a fixed header before (a fragment of) one codec payload.

Header, 20 bytes, big-endian (RTP, RFC 3550, needs 12; ours also carries fragmentation and a
checksum)::

    u8 magic and version | u8 flags | u8 fragment | u8 fragments
    u32 stream id | u32 sequence number | u32 frame | u32 CRC-32

The CRC-32 (that of Ethernet and zlib) covers the header without the CRC itself, and the payload:
the 16-bit sums of UDP and TCP let through what a link corrupts deliberately, and a stream
transport has no datagram to drop.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from harness.errors import Unsupported

IP_UDP_BYTES = 28
"""IPv4 without options (20) and UDP (8)."""
ETHERNET_BYTES = 14
_MAGIC = 0xA1  # 0xA0 and the version
_END = 0x01
_HEAD = struct.Struct(">BBBBIII")
_CRC = struct.Struct(">I")
_WHOLE = struct.Struct(">BBBBIIII")
HEADER_BYTES = _WHOLE.size
MAX_FRAGMENTS = 255


class ForeignPacket(ValueError):
    """Bytes that no sender of ours made."""


class Packet(NamedTuple):
    """One packet; ``end`` is set on all packets of the stream's last frame."""

    stream_id: int
    seq: int
    frame: int
    fragment: int
    fragments: int
    end: bool
    payload: bytes

    def pack(self) -> bytes:
        """Header and payload."""
        stream_id, seq, frame, fragment, fragments, end, payload = self
        head = _HEAD.pack(_MAGIC, end, fragment, fragments, stream_id, seq, frame)
        return head + _CRC.pack(zlib.crc32(payload, zlib.crc32(head))) + payload


def parse(data: bytes) -> Packet:
    """The inverse of :meth:`Packet.pack`.

    Raises ForeignPacket where the first byte is not ours, ValueError on anything damaged.
    """
    if not data or data[0] != _MAGIC:
        raise ForeignPacket("not a packet of this protocol")
    if len(data) <= HEADER_BYTES:
        raise ValueError(f"packet of {len(data)} bytes is too short")
    _, flags, fragment, fragments, stream_id, seq, frame, crc = _WHOLE.unpack_from(data)
    payload = data[HEADER_BYTES:]
    if zlib.crc32(payload, zlib.crc32(data[: _HEAD.size])) != crc:
        raise ValueError("wrong CRC")
    if fragment >= fragments:
        raise ValueError(f"fragment {fragment} of {fragments}")
    return Packet(stream_id, seq, frame, fragment, fragments, bool(flags & _END), payload)


def packetise(
    payload: bytes,
    *,
    stream_id: int,
    frame: int,
    first_seq: int,
    max_packet_bytes: int | None,
    end: bool = False,
) -> list[Packet]:
    """The packets of one codec payload, in order, numbered from ``first_seq``.

    ``max_packet_bytes`` is the largest packet that the transport takes (our header included);
    None where it takes any. Raises Unsupported if 255 fragments are not enough.
    """
    room = len(payload) if max_packet_bytes is None else max_packet_bytes - HEADER_BYTES
    if 0 < len(payload) <= room:
        return [Packet(stream_id, first_seq & 0xFFFF_FFFF, frame, 0, 1, end, payload)]
    fragments = -(-len(payload) // room) if room > 0 else MAX_FRAGMENTS + 1
    if fragments > MAX_FRAGMENTS:
        raise Unsupported(
            f"a payload of {len(payload)} bytes does not fit {MAX_FRAGMENTS} packets of at most"
            f" {max_packet_bytes} bytes; use a larger mtu_bytes or a shorter codec frame"
        )
    return [
        Packet(
            stream_id,
            (first_seq + i) & 0xFFFF_FFFF,
            frame,
            i,
            fragments,
            end,
            payload[i * room : (i + 1) * room],
        )
        for i in range(fragments)
    ]

"""Packets: what carries (a fragment of) one codec payload, and how many a payload needs.

How a packet looks in a datagram is its wire format's matter: :mod:`harness.media.wire`.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from harness.errors import Unsupported

IP_UDP_BYTES = 28
"""IPv4 without options (20) and UDP (8)."""
UDP_BYTES = 8
ETHERNET_BYTES = 14
LINK_MTU_BYTES = 1500
"""Of the lab's links: a larger datagram travels in IPv4 fragments."""
IP_FRAGMENT_BYTES = LINK_MTU_BYTES - 20
"""What a fragment carries: all of a packet's but the last are multiples of 8 (RFC 791, 3.2)."""
MAX_FRAGMENTS = 255
SEQUENCES = (0, 0x4000_0000, 0x8000_0000, 0xC000_0000)
"""By purpose, the first sequence number: what is not media does not make gaps in its count (RFC
4588 and RFC 5109 give it a stream of its own)."""
REPORT_TIMES = struct.Struct(">QQ")
"""Of a report: its instant on the sender's clock, and the media time captured then, in ns."""


class ForeignPacket(ValueError):
    """Bytes that no sender of ours made."""


class Purpose(IntEnum):
    """Why a packet is sent."""

    MEDIA = 0
    PARITY = 1
    """Redundancy over a group of frames; ``frame`` is the first of them."""
    RETRANSMISSION = 2
    """Again, because the receiver asked: the original's sequence number (u32), then its payload."""
    REPORT = 3
    """What the sender tells of itself (``REPORT_TIMES``); its number counts the media packets sent
    before it."""


class Packet(NamedTuple):
    """One packet; ``end`` is set on all packets of the stream's last frame."""

    stream_id: int
    seq: int
    frame: int
    fragment: int
    fragments: int
    end: bool
    payload: bytes
    purpose: int = Purpose.MEDIA
    whole_bytes: int = 0
    """Of the payload that this may be a fragment of, for formats that tell; 0 where none told."""


@lru_cache(maxsize=4096)
def wire_sizes(packet_bytes: int) -> tuple[int, ...]:
    """Sizes of the Ethernet frames that carry one UDP datagram: a frame, or its IPv4 fragments."""
    whole, last = divmod(packet_bytes + UDP_BYTES - 1, IP_FRAGMENT_BYTES)
    headers = IP_UDP_BYTES - UDP_BYTES + ETHERNET_BYTES
    return (headers + IP_FRAGMENT_BYTES,) * whole + (headers + last + 1,)


def ip_fragments(packet_bytes: int) -> int:
    """How many IPv4 fragments a UDP datagram takes; 0 for one that fits the links' MTU."""
    frames = len(wire_sizes(packet_bytes))
    return frames if frames > 1 else 0


def packetise(
    payload: bytes,
    *,
    stream_id: int,
    frame: int,
    first_seq: int,
    max_packet_bytes: int | None,
    header_bytes: int,
    end: bool = False,
    purpose: int = Purpose.MEDIA,
) -> list[Packet]:
    """The packets of one codec payload, in order, numbered from ``first_seq``.

    ``max_packet_bytes`` is the largest packet that the transport takes, ``header_bytes`` of it the
    wire format's; None where it takes any. Raises Unsupported if 255 fragments are not enough.
    """
    room = len(payload) if max_packet_bytes is None else max_packet_bytes - header_bytes
    if 0 < len(payload) <= room:
        seq = first_seq & 0xFFFF_FFFF
        return [Packet(stream_id, seq, frame, 0, 1, end, payload, purpose, len(payload))]
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
            purpose,
            len(payload),
        )
        for i in range(fragments)
    ]

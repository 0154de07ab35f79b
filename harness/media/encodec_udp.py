"""The packets of ``encodec-udp-stream``, a public system that sends EnCodec over UDP.

A header of seven big-endian u32, then a fragment of one chunk's payload::

    chunk | bytes of the payload | overlaps the chunk before | number of the chunk's first fragment
    fragments of the chunk | fragment | bytes of the fragment

The system counts chunks in the fourth field as in the first; here it counts fragments, so that a
packet can be told by it and its place. There is no stream's number, nor a checksum but UDP's own:
what comes to the port is taken for the stream's, and the end is known beforehand, for the system's
own end mark (a payload of no bytes) may be lost.
"""

from __future__ import annotations

import struct

from harness.codecs.base import CodecFacts
from harness.errors import Unsupported
from harness.media.feedback import Nack, Report
from harness.media.packet import MAX_FRAGMENTS, ForeignPacket, Packet, Purpose

_HEAD = struct.Struct(">7I")


class EncodecUdpWire:
    """One end of a stream of so many frames, which are the system's chunks."""

    header_bytes = _HEAD.size

    def __init__(self, facts: CodecFacts, stream_id: int, frames: int) -> None:
        self._overlaps = facts.delay_samples > 0
        self._stream_id = stream_id
        self._frames = frames

    def pack(self, packet: Packet) -> bytes:
        """Raises Unsupported for what is not media."""
        if packet.purpose != Purpose.MEDIA:
            kind = Purpose(packet.purpose).name.lower()
            raise Unsupported(f"wire: encodec-udp-stream carries no {kind} packets")
        head = _HEAD.pack(
            packet.frame,
            packet.whole_bytes,
            self._overlaps and packet.frame > 0,
            (packet.seq - packet.fragment) & 0xFFFF_FFFF,
            packet.fragments,
            packet.fragment,
            len(packet.payload),
        )
        return head + packet.payload

    def parse(self, data: bytes) -> Packet:
        """Raises ForeignPacket where the bytes hold no fragment, ValueError on anything damaged."""
        if len(data) <= _HEAD.size:
            raise ForeignPacket(f"{len(data)} bytes are no fragment of a chunk")
        frame, whole, _, first, fragments, fragment, size = _HEAD.unpack_from(data)
        payload = data[_HEAD.size :]
        if size != len(payload) or whole < size:
            raise ValueError(f"fragment of {len(payload)} bytes says {size} of {whole}")
        if not fragment < fragments <= MAX_FRAGMENTS:
            raise ValueError(f"fragment {fragment} of {fragments}")
        if frame >= self._frames:
            raise ValueError(f"chunk {frame} of {self._frames}")
        seq = (first + fragment) & 0xFFFF_FFFF
        end = frame == self._frames - 1
        media = Purpose.MEDIA
        return Packet(self._stream_id, seq, frame, fragment, fragments, end, payload, media, whole)

    def pack_feedback(self, message: Report | Nack) -> bytes:
        """Raises ForeignPacket: the system's receiver never answers."""
        raise ForeignPacket(f"encodec-udp-stream has no {type(message).__name__}")

    def parse_feedback(self, data: bytes) -> Report | Nack:
        """Raises ForeignPacket, as :meth:`pack_feedback` does."""
        raise ForeignPacket(f"{len(data)} bytes where encodec-udp-stream says nothing")

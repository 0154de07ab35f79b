"""TCP: each packet behind its length, u32 big-endian."""

from __future__ import annotations

import struct

from harness.transports.base import OnPacket, TransportSettings
from harness.transports.stream import StreamReceiver, StreamSender, connect_stream

_LENGTH = struct.Struct(">I")
_LARGEST = 16 * 1024 * 1024


class LengthPrefix:
    """The framing; no handshake."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def opening(self) -> bytes:
        return b""

    def is_open(self) -> bool:
        return True

    def wrap(self, packet: bytes) -> bytes:
        return _LENGTH.pack(len(packet)) + packet

    def feed(self, data: bytes) -> list[bytes]:
        self._buffer += data
        packets = []
        at = 0
        while len(self._buffer) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, at)
            if length > _LARGEST:
                raise ValueError(f"a packet of {length} bytes")
            end = at + _LENGTH.size + length
            if end > len(self._buffer):
                break
            packets.append(bytes(self._buffer[at + _LENGTH.size : end]))
            at = end
        del self._buffer[:at]
        return packets

    def replies(self) -> bytes:
        return b""


def connect(host: str, port: int, settings: TransportSettings) -> StreamSender:
    return connect_stream(host, port, LengthPrefix(), settings)


def listen(host: str, on_packet: OnPacket) -> StreamReceiver:
    return StreamReceiver(host, on_packet, LengthPrefix)

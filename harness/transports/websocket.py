"""WebSocket (RFC 6455): each packet one unfragmented binary message; no compression, no pings.

The protocol is that of the ``websockets`` library, used without its own I/O, so that the one shell
of all streams paces and stamps it.
"""

from __future__ import annotations

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from harness.transports.base import OnPacket, TransportSettings
from harness.transports.stream import StreamReceiver, StreamSender, connect_stream


class WebSocket:
    """Either end of one connection."""

    def __init__(self, protocol: ClientProtocol | ServerProtocol) -> None:
        self._protocol = protocol

    def opening(self) -> bytes:
        if isinstance(self._protocol, ClientProtocol):
            self._protocol.send_request(self._protocol.connect())
        return self.replies()

    def is_open(self) -> bool:
        return self._protocol.state is State.OPEN

    def wrap(self, packet: bytes) -> bytes:
        self._protocol.send_binary(packet)
        return self.replies()

    def feed(self, data: bytes) -> list[bytes]:
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        packets = []
        for event in self._protocol.events_received():
            if isinstance(event, Request) and isinstance(self._protocol, ServerProtocol):
                self._protocol.send_response(self._protocol.accept(event))
            elif isinstance(event, Frame) and event.opcode is Opcode.BINARY:
                packets.append(bytes(event.data))
        error = self._protocol.handshake_exc or self._protocol.parser_exc
        if error is not None:
            raise ValueError(str(error)) from error
        return packets

    def replies(self) -> bytes:
        return b"".join(self._protocol.data_to_send())


def connect(host: str, port: int, settings: TransportSettings) -> StreamSender:
    protocol = ClientProtocol(parse_uri(f"ws://{host}:{port}/"))
    return connect_stream(host, port, WebSocket(protocol), settings)


def listen(host: str, on_packet: OnPacket) -> StreamReceiver:
    return StreamReceiver(host, on_packet, lambda: WebSocket(ServerProtocol()))

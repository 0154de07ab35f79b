"""QUIC datagrams (RFC 9221): each packet one DATAGRAM frame, never sent again when it is lost."""

from __future__ import annotations

from harness.transports.base import OnPacket, TransportSettings
from harness.transports.quic import QuicReceiver, QuicSender


def connect(host: str, port: int, settings: TransportSettings) -> QuicSender:
    return QuicSender(host, port, settings.mtu_bytes, stream=False)


def listen(host: str, on_packet: OnPacket) -> QuicReceiver:
    return QuicReceiver(host, on_packet)

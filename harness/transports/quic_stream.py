"""A QUIC stream: one, unidirectional, each packet behind its length as over TCP."""

from __future__ import annotations

from harness.transports.base import OnPacket, TransportSettings
from harness.transports.quic import QuicReceiver, QuicSender


def connect(host: str, port: int, settings: TransportSettings) -> QuicSender:
    return QuicSender(host, port, settings.mtu_bytes, stream=True)


def listen(host: str, on_packet: OnPacket) -> QuicReceiver:
    return QuicReceiver(host, on_packet)

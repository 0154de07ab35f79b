"""Sizes and numbers that a peer decides are bounded by the receiving end."""

from __future__ import annotations

import socket
import struct

import pytest

from harness.transports import transport
from harness.transports.base import MOST_PEERS, TransportSettings

HOST = "127.0.0.1"


def ignore(packet: bytes, recv_ns: int) -> None:
    """Packets are of no interest here."""


def hung_up(sock: socket.socket) -> bool:
    sock.settimeout(20)
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("name", ["tcp", "webrtc"])
def test_an_absurd_length_ends_the_connection(name: str) -> None:
    receiver = transport(name).listen(HOST, ignore)
    try:
        with socket.create_connection((HOST, receiver.port)) as sock:
            sock.sendall(struct.pack(">I", 2**31))
            assert hung_up(sock)
        assert receiver.counts()["broken_connections"] == 1
    finally:
        receiver.close()


@pytest.mark.parametrize("name", ["tcp", "websocket"])
def test_so_many_connections_at_a_time(name: str) -> None:
    receiver = transport(name).listen(HOST, ignore)
    socks = [socket.create_connection((HOST, receiver.port)) for _ in range(MOST_PEERS + 4)]
    try:
        assert all(hung_up(sock) for sock in socks[MOST_PEERS:])
        assert receiver.counts()["connections"] == MOST_PEERS
    finally:
        for sock in socks:
            sock.close()
        receiver.close()


class TestQuic:
    def test_data_on_a_second_stream_ends_the_connection(self) -> None:
        quic = pytest.importorskip("harness.transports.quic")
        receiver = transport("quic-stream").listen(HOST, ignore)
        sender = transport("quic-stream").connect(HOST, receiver.port, TransportSettings())
        try:
            assert sender.send(b"first")
            with sender._turn:
                other = sender._connection.get_next_available_stream_id(is_unidirectional=True)
                assert other != sender._stream_id
                sender._connection.send_stream_data(other, b"second")
                sender._socket.send(sender._connection)
                assert sender._turn.wait_for(lambda: sender._ended is not None, 20)
            assert f"data on stream {other}" in sender._ended
            assert isinstance(receiver, quic.QuicReceiver)
            assert receiver.counts()["broken_connections"] == 1
        finally:
            sender.close()
            receiver.close()

    def test_so_many_peers_at_a_time(self) -> None:
        quic = pytest.importorskip("harness.transports.quic")
        receiver = quic.QuicReceiver(HOST, ignore)
        try:
            client = quic.QuicConnection(configuration=quic._configuration(is_client=True))
            client.connect((HOST, 9), 0.0)
            ((initial, _), *_) = client.datagrams_to_send(0.0)
            with receiver._turn:
                accepted = [
                    receiver._accept(initial, (HOST, port)) for port in range(MOST_PEERS + 4)
                ]
                receiver._peers.clear()
            assert sum(peer is not None for peer in accepted) == MOST_PEERS
        finally:
            receiver.close()

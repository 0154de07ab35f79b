"""Each transport over the loopback interface, real sockets and threads."""

from __future__ import annotations

import errno
import queue
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.server import ServerProtocol

from harness.errors import CellFailed, Unsupported
from harness.transports import TRANSPORTS, is_reliable, stream, transport
from harness.transports.base import Receiver, Sender, TransportSettings
from harness.transports.tcp import LengthPrefix
from harness.transports.websocket import WebSocket
from harness.units import NS_PER_S, monotonic_ns

HOST = "127.0.0.1"
STREAMS = [name for name in TRANSPORTS if is_reliable(name)]
Arrived = "queue.SimpleQueue[tuple[bytes, int]]"


@contextmanager
def ends(name: str) -> Iterator[tuple[Sender, Receiver, Arrived]]:
    arrived: queue.SimpleQueue[tuple[bytes, int]] = queue.SimpleQueue()
    receiver = transport(name).listen(HOST, lambda packet, at: arrived.put((packet, at)))
    try:
        sender = transport(name).connect(HOST, receiver.port, TransportSettings())
        try:
            yield sender, receiver, arrived
        finally:
            sender.close()
    finally:
        receiver.close()


@pytest.mark.parametrize("name", TRANSPORTS)
def test_packets_arrive_whole_in_order_and_stamped(name: str) -> None:
    packets = [bytes([i]) * (1 + 37 * i) for i in range(36)]
    with ends(name) as (sender, receiver, arrived):
        before_ns = monotonic_ns()
        assert all(sender.send(packet) for packet in packets)
        got = [arrived.get(timeout=10) for _ in packets]
        assert [packet for packet, _ in got] == packets
        assert all(before_ns < at <= monotonic_ns() for _, at in got)
        assert [at for _, at in got] == sorted(at for _, at in got)
        counts = {**sender.counts(), **receiver.counts()}
    assert counts.pop("connections", 1) == 1
    assert counts.pop("congestion_control", "none, for datagrams")  # CUBIC where it may be chosen
    assert not any(counts.values()), counts


@pytest.mark.parametrize("name", TRANSPORTS)
@pytest.mark.parametrize("first", [0, 1])
def test_either_end_may_close_first_and_new_ends_can_be_made(name: str, first: int) -> None:
    for _ in range(2):
        arrived: queue.SimpleQueue[tuple[bytes, int]] = queue.SimpleQueue()
        receiver = transport(name).listen(HOST, lambda packet, at: arrived.put((packet, at)))  # noqa: B023
        sender = transport(name).connect(HOST, receiver.port, TransportSettings())
        sender.send(b"x")
        assert arrived.get(timeout=10)[0] == b"x"
        both = (receiver, sender)
        both[first].close()
        both[1 - first].close()


def test_udp_counts_what_nobody_listens_to_and_goes_on() -> None:
    with ends("udp") as (sender, receiver, _):
        assert sender.max_packet_bytes == 1472
        receiver.close()
        # Loopback answers a datagram to a closed port before the next call.
        assert all(sender.send(b"x") for _ in range(5))
        assert sender.counts()["unreachable_errors"] >= 1


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOBUFS])
def test_udp_refuses_rather_than_waits_when_a_buffer_is_full(number: int) -> None:
    class Full(socket.socket):
        def send(self, *_: object) -> int:
            raise OSError(number, "full")

    with ends("udp") as (sender, _, __):
        sender._socket.close()  # type: ignore[attr-defined]
        sender._socket = Full(socket.AF_INET, socket.SOCK_DGRAM)  # type: ignore[attr-defined]
        assert sender.send(b"x") is False
        assert sender.counts()["refused_packets"] == 1


def test_udp_does_not_hide_what_no_waiting_can_mend() -> None:
    with ends("udp") as (sender, _, __), pytest.raises(OSError, match="long"):
        sender.send(bytes(70_000))


@pytest.mark.parametrize("name", STREAMS)
def test_a_stalled_stream_never_blocks_the_sender_and_loses_nothing(name: str) -> None:
    """The peer reads nothing while 40 MB are sent: more than kernel buffers take."""
    framing = LengthPrefix() if name == "tcp" else WebSocket(ServerProtocol())
    connection: list[socket.socket] = []
    with socket.create_server((HOST, 0)) as server:
        server.settimeout(10)

        def accept() -> None:
            connection.append(server.accept()[0])
            if name == "websocket":
                framing.feed(connection[0].recv(65536))
                connection[0].sendall(framing.replies())

        thread = threading.Thread(target=accept)
        thread.start()
        sender = transport(name).connect(HOST, server.getsockname()[1], TransportSettings())
        thread.join()
        packets = [struct.pack(">I", i) * 25_000 for i in range(400)]
        assert all(sender.send(packet) for packet in packets)
        assert sender.counts()["longest_backlog_bytes"] > 0
        sender.flush(monotonic_ns())  # returns although nothing moves
        got: list[bytes] = []
        connection[0].settimeout(10)
        while len(got) < len(packets):
            got += framing.feed(connection[0].recv(1 << 20))
        assert got == packets
        sender.flush(monotonic_ns() + 10 * NS_PER_S)
        connection[0].close()
        sender.close()


@pytest.mark.parametrize("name", STREAMS)
def test_nonsense_on_a_connection_ends_it_and_nothing_else(name: str) -> None:
    with ends(name) as (sender, receiver, arrived):
        with socket.create_connection((HOST, receiver.port), 10) as stranger:
            stranger.sendall(b"\xff" * 64 + b"\r\n\r\n")
            stranger.settimeout(10)
            with suppress(ConnectionResetError):
                while stranger.recv(4096):
                    pass
        sender.send(b"still here")
        assert arrived.get(timeout=10)[0] == b"still here"
        assert receiver.counts() == {"connections": 2, "broken_connections": 1}


@pytest.mark.parametrize("name", STREAMS)
def test_nobody_listening_is_said_with_the_address(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "CONNECT_TIMEOUT_S", 0.0)
    with socket.socket() as unused:
        unused.bind((HOST, 0))  # bound but not listening: refuses
        port = unused.getsockname()[1]
        with pytest.raises(CellFailed, match=f"{HOST}:{port}"):
            transport(name).connect(HOST, port, TransportSettings())


def test_an_unknown_transport_is_named_with_the_known_ones() -> None:
    with pytest.raises(Unsupported, match=r"'quic'.*udp, tcp, websocket"):
        transport("quic")


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=10), st.data())
def test_length_prefix_survives_any_cut(packets: list[bytes], data: st.DataObject) -> None:
    framing = LengthPrefix()
    wire = b"".join(framing.wrap(packet) for packet in packets)
    got: list[bytes] = []
    while wire:
        cut = data.draw(st.integers(1, len(wire)))
        got += framing.feed(wire[:cut])
        wire = wire[cut:]
    assert got == packets

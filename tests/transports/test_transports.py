"""Each transport over the loopback interface, real sockets and threads."""

from __future__ import annotations

import errno
import queue
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.server import ServerProtocol

from harness.errors import CellFailed, Unsupported
from harness.transports import TRANSPORTS, base, quic, stream, transport
from harness.transports.base import Receiver, Sender, TransportSettings
from harness.transports.tcp import LengthPrefix
from harness.transports.websocket import WebSocket
from harness.units import NS_PER_S, monotonic_ns

HOST = "127.0.0.1"
STREAMS = ["tcp", "websocket"]
"""Over TCP."""
QUIC = ["quic-datagram", "quic-stream"]
Arrived = "queue.SimpleQueue[tuple[bytes, int]]"


def need(name: str) -> None:
    """Skip what this machine cannot do."""
    if name == "webrtc":
        pytest.importorskip("aiortc", reason="pip install aiortc")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(("192.0.2.1", 9))  # sends nothing
            except OSError:
                pytest.skip("WebRTC needs an address beside 127.0.0.1")


@contextmanager
def ends(name: str) -> Iterator[tuple[Sender, Receiver, Arrived]]:
    need(name)
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
    packets = [bytes([i]) * (1 + 3 * i) for i in range(36)]
    with ends(name) as (sender, receiver, arrived):
        before_ns = monotonic_ns()
        assert all(sender.send(packet) for packet in packets)
        got = [arrived.get(timeout=10) for _ in packets]
        assert [packet for packet, _ in got] == packets
        assert all(before_ns < at <= monotonic_ns() for _, at in got)
        assert [at for _, at in got] == sorted(at for _, at in got)
        counts = {**sender.counts(), **receiver.counts()}
    assert counts.pop("connections", 1) == 1
    stamped = name in ("udp", "rtp", *QUIC)
    assert ("read_lateness" in counts) == stamped, "the kernel stamps datagrams and nothing else"
    assert counts.pop("read_lateness", {"count": 1})["count"] > 0
    assert counts.pop("congestion_control", "none, for datagrams")  # CUBIC where it may be chosen
    if name == "webrtc":  # its loop takes them one by one
        assert counts.pop("longest_backlog_bytes") < sum(map(len, packets))
    for usual in ("quic_packets", "congestion_window_bytes", "least_congestion_window_bytes"):
        assert counts.pop(usual, 1), usual
    assert not any(counts.values()), counts


@pytest.mark.parametrize("name", TRANSPORTS)
@pytest.mark.parametrize("first", [0, 1])
def test_either_end_may_close_first_and_new_ends_can_be_made(name: str, first: int) -> None:
    need(name)
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
        assert receiver.counts()["connections"] == 2
        assert receiver.counts()["broken_connections"] == 1


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
    with pytest.raises(Unsupported, match=r"'quic'.*udp, rtp, quic-datagram, quic-stream"):
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


def test_the_table_and_the_settings_name_the_same_transports() -> None:
    assert set(TRANSPORTS) == set(base.NAMES)


Passes = Callable[[int, int, int], bool]
"""Direction (0 forward), number of the datagram in it, its size."""


class Between:
    """A link between a sender and a receiver of UDP, in its own thread; sizes are on record."""

    def __init__(self, port: int, passes: Passes) -> None:
        self.sizes: tuple[list[int], list[int]] = ([], [])
        self._front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._front.bind((HOST, 0))
        self.port = self._front.getsockname()[1]
        self._back = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._back.connect((HOST, port))
        self._passes = passes
        self._closing = False
        self._thread = threading.Thread(target=self._carry)
        self._thread.start()

    def _carry(self) -> None:
        client = None
        while not self._closing:
            ready, _, _ = select.select([self._front, self._back], [], [], 0.05)
            for end in ready:
                data, peer = end.recvfrom(65_535)
                direction = int(end is self._back)
                client = client if direction else peer
                self.sizes[direction].append(len(data))
                if self._passes(direction, len(self.sizes[direction]) - 1, len(data)):
                    if direction:
                        self._front.sendto(data, client)
                    else:
                        self._back.send(data)

    def close(self) -> None:
        self._closing = True
        self._thread.join()
        self._front.close()
        self._back.close()


@contextmanager
def quic_ends(
    name: str, passes: Passes, mtu_bytes: int = 1500
) -> Iterator[tuple[quic.QuicSender, Receiver, Arrived, Between]]:
    arrived: queue.SimpleQueue[tuple[bytes, int]] = queue.SimpleQueue()
    receiver = transport(name).listen(HOST, lambda packet, at: arrived.put((packet, at)))
    link = Between(receiver.port, passes)
    settings = TransportSettings(mtu_bytes=mtu_bytes)
    sender = transport(name).connect(HOST, link.port, settings)
    assert isinstance(sender, quic.QuicSender)
    try:
        yield sender, receiver, arrived, link
    finally:
        sender.close()
        receiver.close()
        link.close()


def test_a_quic_datagram_that_is_lost_stays_lost_and_is_counted() -> None:
    def passes(direction: int, number: int, size: int) -> bool:
        return direction == 1 or number < 4 or size < 700

    packets = [b"%02d" % number * (400 if number == 5 else 1) for number in range(20)]
    with quic_ends("quic-datagram", passes) as (sender, _, arrived, __):
        for number, packet in enumerate(packets):
            sender.send(packet)
            if number != 5:
                assert arrived.get(timeout=10)[0] == packet
        assert arrived.empty()
        assert sender.counts()["quic_packets_lost"] >= 1


def test_a_quic_stream_repairs_what_the_link_loses() -> None:
    def passes(direction: int, number: int, size: int) -> bool:  # noqa: ARG001
        return direction == 1 or number < 6 or number % 4 != 0

    packets = [bytes([i]) * 400 for i in range(40)]
    with quic_ends("quic-stream", passes) as (sender, _, arrived, __):
        for packet in packets:
            sender.send(packet)
        assert [arrived.get(timeout=10)[0] for _ in packets] == packets
        counts = sender.counts()
        assert counts["quic_packets_lost"] >= 1
        assert counts["retransmitted_bytes"] >= 400


@pytest.mark.parametrize("name", QUIC)
def test_a_handshake_survives_the_loss_of_its_first_datagrams(name: str) -> None:
    with quic_ends(name, lambda _, number, __: number > 0) as (sender, _, arrived, __):
        sender.send(b"through")
        assert arrived.get(timeout=10)[0] == b"through"


def test_the_largest_quic_datagram_fills_the_mtu() -> None:
    with quic_ends("quic-datagram", lambda *_: True, mtu_bytes=1400) as (sender, _, arrived, link):
        assert sender.max_packet_bytes == 1400 - 28 - quic.DATAGRAM_OVERHEAD_BYTES
        sender.send(bytes(sender.max_packet_bytes))
        assert arrived.get(timeout=10)[0] == bytes(sender.max_packet_bytes)
        assert max(link.sizes[0]) == 1400 - 28


def test_a_quic_receiver_answers_with_datagrams() -> None:
    heard: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with ends("quic-datagram") as (sender, receiver, arrived):
        sender.hear(heard.put)
        sender.send(b"x")
        arrived.get(timeout=10)
        receiver.reply(b"heard")
        assert heard.get(timeout=10) == b"heard"


@pytest.mark.parametrize("name", QUIC)
def test_strangers_do_not_disturb_a_quic_receiver(name: str) -> None:
    with ends(name) as (sender, receiver, arrived):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for nonsense in (b"x", bytes(1200), b"\xc0" + bytes(1199), b"\x40" * 50):
                stranger.sendto(nonsense, (HOST, receiver.port))
        sender.send(b"still here")
        assert arrived.get(timeout=10)[0] == b"still here"
        assert receiver.counts()["broken_connections"] == 0


@pytest.mark.parametrize("name", QUIC)
def test_a_quic_connection_that_the_receiver_closed_is_said_to_be_broken(name: str) -> None:
    with ends(name) as (sender, receiver, _):
        receiver.close()
        sender.flush(monotonic_ns() + 10 * NS_PER_S)

        def send_on() -> None:
            while True:
                sender.send(b"x")

        with pytest.raises(ConnectionError, match="QUIC connection ended"):
            send_on()


def test_waking_a_quic_thread_never_waits_for_it() -> None:
    """Whoever wakes it holds the lock that it may be waiting for."""
    waiting = quic._Socket()
    waking = threading.Thread(
        target=lambda: [waiting.wake() for _ in range(100_000)], name="waking", daemon=True
    )
    waking.start()
    waking.join(timeout=10)
    assert not waking.is_alive()
    assert not waiting.wait()  # woken, and nothing came
    waiting.close()


def test_a_quic_receiver_that_is_not_there_is_said_with_the_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quic, "CONNECT_TIMEOUT_S", 0.1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind((HOST, 0))
        port = deaf.getsockname()[1]
        with pytest.raises(CellFailed, match=f"{HOST}:{port}: no handshake within"):
            transport("quic-stream").connect(HOST, port, TransportSettings())


def test_webrtc_cuts_payloads_where_sctp_would() -> None:
    with ends("webrtc") as (sender, _, arrived):
        assert sender.max_packet_bytes is not None
        sender.send(bytes(sender.max_packet_bytes))
        assert arrived.get(timeout=10)[0] == bytes(sender.max_packet_bytes)


def test_a_webrtc_receiver_answers() -> None:
    heard: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with ends("webrtc") as (sender, receiver, arrived):
        sender.hear(heard.put)
        sender.send(b"x")
        arrived.get(timeout=10)
        receiver.reply(b"heard")
        assert heard.get(timeout=10) == b"heard"
        sender.flush(monotonic_ns() + NS_PER_S)


def test_a_webrtc_receiver_survives_strangers() -> None:
    heard: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with ends("webrtc") as (sender, receiver, arrived):
        for nonsense in (b"\0\0\0\4oops", b"\0"):
            with socket.create_connection((HOST, receiver.port), 10) as stranger:
                stranger.sendall(nonsense)
                stranger.shutdown(socket.SHUT_WR)
                stranger.settimeout(10)
                while stranger.recv(4096):
                    pass
        sender.hear(heard.put)
        sender.send(b"still here")
        assert arrived.get(timeout=10)[0] == b"still here"
        receiver.reply(b"and heard")
        assert heard.get(timeout=10) == b"and heard"
        assert receiver.counts() == {"connections": 3, "broken_connections": 1}


def test_a_webrtc_receiver_that_is_not_there_is_said_with_the_address() -> None:
    pytest.importorskip("aiortc", reason="pip install aiortc")
    with socket.socket() as unused:
        unused.bind((HOST, 0))
        port = unused.getsockname()[1]
        with pytest.raises(CellFailed, match=f"no WebRTC connection to {HOST}:{port}"):
            transport("webrtc").connect(HOST, port, TransportSettings())

"""The two ends of a QUIC connection (RFC 9000), whether packets go as datagrams or on a stream.

The protocol is that of the ``aioquic`` library, used without its own I/O: sockets, timers and
threads are ours, so that packets are paced and stamped as over any other transport. TLS and the
handshake are done before the first packet; congestion control is CUBIC, with aioquic's pacing.

What congestion control, pacing or flow control hold back waits inside the connection, and a thread
of its own sends it when its time comes, serves the timers and takes acknowledgements. Figures come
from aioquic's own log of events (qlog), of which nothing but these sums is kept.

Peers are told apart by their addresses: nobody migrates here. The certificate is made once a
process and signed by itself; the sender does not verify it, for there is nobody between two network
namespaces whom it could protect from, and verification is not part of what is measured.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import select
import socket
import ssl
import threading
from array import array
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import (
    ConnectionTerminated,
    DatagramFrameReceived,
    HandshakeCompleted,
    QuicEvent,
    StreamDataReceived,
)
from aioquic.quic.logger import QuicLogger, QuicLoggerTrace
from aioquic.quic.packet import QuicPacketType, pull_quic_header
from aioquic.tls import load_pem_private_key, load_pem_x509_certificates
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from harness.errors import CellFailed
from harness.lateness import Lateness
from harness.linux import exact_timers, real_time, receive_stamped, stamp_arrivals
from harness.media.packet import IP_UDP_BYTES
from harness.transports.base import (
    CONNECT_TIMEOUT_S,
    MOST_PEERS,
    QUIC_LEAST_MTU_BYTES,
    RECEIVE_PRIORITY,
    OnPacket,
)
from harness.transports.tcp import LengthPrefix
from harness.units import NS_PER_S, monotonic_ns

DATAGRAM_OVERHEAD_BYTES = 30
"""Of QUIC itself, around a packet in a DATAGRAM frame: flags 1, connection id 8, packet number 2,
frame type 1, length 2 (1 below 64 bytes), authentication tag 16 (RFC 9000, 17.3; RFC 9221, 4)."""
_PROTOCOL = "harness"
_BUFFER_BYTES = 4 * 1024 * 1024
_LARGEST = 65_535
_CONNECTION_ID_BYTES = 8
_IDLE_TIMEOUT_S = 600.0
_REFUSED = (errno.EAGAIN, errno.ENOBUFS)
_FAR_NS = 2**62


@lru_cache(maxsize=1)
def _certificate() -> tuple[Any, Any]:
    """A self-signed certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _PROTOCOL)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (loaded,) = load_pem_x509_certificates(certificate.public_bytes(pem))
    return loaded, load_pem_private_key(private)


def _configuration(**changes: Any) -> QuicConfiguration:
    return QuicConfiguration(
        alpn_protocols=[_PROTOCOL],
        congestion_control_algorithm="cubic",
        connection_id_length=_CONNECTION_ID_BYTES,
        idle_timeout=_IDLE_TIMEOUT_S,
        max_datagram_frame_size=_LARGEST,
        **changes,
    )


class _Trace(QuicLoggerTrace):
    """What one connection did, in sums."""

    def __init__(self, **of: Any) -> None:
        super().__init__(**of)
        self.packets = self.lost = 0
        self.taken_bytes = self.stream_bytes = 0
        self.window_bytes = 0
        self.least_window_bytes = 0

    def log_event(self, *, category: str, event: str, data: dict[str, Any]) -> None:  # noqa: ARG002
        if event == "packet_sent":
            self.packets += 1
            for frame in data["frames"]:
                self._sent(frame)
        elif event == "packet_lost":
            self.lost += 1
        elif event == "metrics_updated" and (window := data.get("cwnd")) is not None:
            self.window_bytes = window
            self.least_window_bytes = min(window, self.least_window_bytes or window)

    def _sent(self, frame: dict[str, Any]) -> None:
        if frame["frame_type"] == "datagram":
            self.taken_bytes += frame["length"]
        elif frame["frame_type"] == "stream":
            self.stream_bytes += frame["length"]
            self.taken_bytes = max(self.taken_bytes, frame["offset"] + frame["length"])


class _Traces(QuicLogger):
    """Hands out sums in place of traces."""

    def __init__(self) -> None:
        self.trace = _Trace(is_client=True, odcid=b"")

    def start_trace(self, is_client: bool, odcid: bytes) -> QuicLoggerTrace:
        self.trace = _Trace(is_client=is_client, odcid=odcid)
        return self.trace

    def end_trace(self, trace: QuicLoggerTrace) -> None:
        """Nothing is kept."""


def _now_s() -> float:
    return monotonic_ns() / NS_PER_S


class _Socket:
    """A UDP socket, what was waited for on it, and a way of waking who waits."""

    def __init__(self) -> None:
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        self.udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self.udp.setblocking(False)
        stamp_arrivals(self.udp)
        self.errors = self.refused = 0
        self.late_ns = array("q")
        """From each datagram's arrival to its being read."""
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)  # whoever wakes holds the lock that the woken waits for
        self._woken.setblocking(False)
        self.until_ns = 0
        """When whoever waits will wake by itself; 0 while nobody waits."""

    def send(self, connection: QuicConnection) -> None:
        """Whatever a connection has to send by now. A datagram that the socket refuses is lost,
        and its loss is detected as any other."""
        for data, peer in connection.datagrams_to_send(_now_s()):
            try:
                self.udp.sendto(data, peer)
            except OSError as error:
                self.refused += error.errno in _REFUSED
                self.errors += error.errno not in _REFUSED
        # Who waits may have to wake earlier than was known when the waiting began.
        due_s = connection.get_timer()
        if due_s is not None and due_s * NS_PER_S < self.until_ns:
            self.wake()

    def wake(self) -> None:
        with contextlib.suppress(OSError):
            self._waker.send(b"x")

    def wait(self) -> bool:
        """Until ``until_ns``, or until something comes or somebody wakes us; whether it came."""
        left_s = min(max(self.until_ns - monotonic_ns(), 0) / NS_PER_S, _IDLE_TIMEOUT_S)
        ready, _, _ = select.select([self.udp, self._woken], [], [], left_s)
        if self._woken in ready:
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(4096)
        return self.udp in ready

    def receive(self) -> tuple[bytes, Any, int] | None:
        """A datagram, its sender and when it arrived; None where there is none."""
        try:
            data, peer, recv_ns = receive_stamped(self.udp, _LARGEST)
        except BlockingIOError:
            return None
        except OSError:
            self.errors += 1
            return None
        self.late_ns.append(monotonic_ns() - recv_ns)
        return data, peer, recv_ns

    def close(self) -> None:
        for one in (self.udp, self._waker, self._woken):
            one.close()


def _timer_ns(connection: QuicConnection) -> int:
    due_s = connection.get_timer()
    return _FAR_NS if due_s is None else round(due_s * NS_PER_S)


def _serve_timer(connection: QuicConnection) -> None:
    if _timer_ns(connection) <= monotonic_ns():
        connection.handle_timer(_now_s())


class QuicSender:
    """The connecting end; ``connect_quic`` makes it."""

    def __init__(self, host: str, port: int, mtu_bytes: int, stream: bool) -> None:
        datagram_bytes = max(mtu_bytes, QUIC_LEAST_MTU_BYTES) - IP_UDP_BYTES
        self.max_packet_bytes: int | None = (
            None if stream else datagram_bytes - DATAGRAM_OVERHEAD_BYTES
        )
        self._traces = _Traces()
        self._connection = QuicConnection(
            configuration=_configuration(
                is_client=True,
                max_datagram_size=datagram_bytes,
                quic_logger=self._traces,
                verify_mode=ssl.CERT_NONE,
            )
        )
        self._socket = _Socket()
        self._framing = LengthPrefix() if stream else None
        self._stream_id = 0
        self._handed_bytes = self._longest_backlog = 0
        self._on_message: Callable[[bytes], None] | None = None
        self._open = self._closing = False
        self._ended: str | None = None
        # Every call of the connection is made in turn: it has no locks of its own.
        self._turn = threading.Condition()
        try:
            self._handshake(host, port)
        except BaseException:
            self._socket.close()
            raise
        self._thread = threading.Thread(target=self._serve, name="quic-sender", daemon=True)
        self._thread.start()

    def send(self, packet: bytes) -> bool:
        with self._turn:
            if self._ended is not None:
                raise ConnectionError(f"the QUIC connection ended: {self._ended}")
            if self._framing is None:
                self._connection.send_datagram_frame(packet)
                self._handed_bytes += len(packet)
            else:
                data = self._framing.wrap(packet)
                self._connection.send_stream_data(self._stream_id, data)
                self._handed_bytes += len(data)
            self._socket.send(self._connection)
            self._longest_backlog = max(self._longest_backlog, self._backlog())
        return True

    def hear(self, on_message: Callable[[bytes], None]) -> None:
        self._on_message = on_message

    def flush(self, deadline_ns: int) -> None:
        with self._turn:
            left_s = (deadline_ns - monotonic_ns()) / NS_PER_S
            self._turn.wait_for(lambda: not self._backlog() or self._ended, max(left_s, 0))

    def counts(self) -> dict[str, int | str]:
        trace = self._traces.trace
        counts: dict[str, int | str] = {
            "longest_backlog_bytes": self._longest_backlog,
            "refused_packets": self._socket.refused,
            "unreachable_errors": self._socket.errors,
            "quic_packets": trace.packets,
            "quic_packets_lost": trace.lost,
            "congestion_window_bytes": trace.window_bytes,
            "least_congestion_window_bytes": trace.least_window_bytes,
            "congestion_control": "cubic (aioquic)",
        }
        if self._framing is not None:
            counts["retransmitted_bytes"] = trace.stream_bytes - trace.taken_bytes
        return counts

    def close(self) -> None:
        with self._turn:
            self._closing = True
            self._connection.close()
            self._socket.send(self._connection)
        self._socket.wake()
        self._thread.join()
        self._socket.close()

    def _backlog(self) -> int:
        return self._handed_bytes - self._traces.trace.taken_bytes

    def _handshake(self, host: str, port: int) -> None:
        deadline_ns = monotonic_ns() + round(CONNECT_TIMEOUT_S * NS_PER_S)
        self._connection.connect((host, port), _now_s())
        self._socket.send(self._connection)
        while not self._open:
            if self._ended is not None or monotonic_ns() >= deadline_ns:
                why = self._ended or f"no handshake within {CONNECT_TIMEOUT_S:.0f} s"
                raise CellFailed(f"no QUIC connection to {host}:{port}: {why}")
            self._step(deadline_ns)
        if self._framing is not None:
            self._stream_id = self._connection.get_next_available_stream_id(is_unidirectional=True)

    def _serve(self) -> None:
        exact_timers()
        with real_time(RECEIVE_PRIORITY):
            while not self._closing and self._ended is None:
                self._step(_FAR_NS)

    def _step(self, latest_ns: int) -> None:
        with self._turn:
            self._socket.until_ns = min(_timer_ns(self._connection), latest_ns)
        came = self._socket.wait()
        messages: list[bytes] = []
        with self._turn:
            self._socket.until_ns = 0
            while came and (one := self._socket.receive()) is not None:
                self._connection.receive_datagram(one[0], one[1], _now_s())
            _serve_timer(self._connection)
            while (event := self._connection.next_event()) is not None:
                self._note(event, messages)
            if not self._closing:
                self._socket.send(self._connection)
            self._turn.notify_all()
        if self._on_message is not None:
            for message in messages:
                self._on_message(message)

    def _note(self, event: QuicEvent, messages: list[bytes]) -> None:
        if isinstance(event, HandshakeCompleted):
            self._open = True
        elif isinstance(event, DatagramFrameReceived):
            messages.append(event.data)
        elif isinstance(event, ConnectionTerminated):
            self._ended = event.reason_phrase or f"error {event.error_code:#x}"


class _Peer:
    """One connection at the listening end."""

    def __init__(self, connection: QuicConnection) -> None:
        self.connection = connection
        self.framing = LengthPrefix()
        self.stream_id: int | None = None

    def feed(self, event: StreamDataReceived) -> list[bytes]:
        """Packets completed by data of the peer's one stream. Raises ValueError on any other."""
        if self.stream_id is None:
            self.stream_id = event.stream_id
        if event.stream_id != self.stream_id:
            raise ValueError(f"data on stream {event.stream_id} beside {self.stream_id}")
        return self.framing.feed(event.data)


class QuicReceiver:
    """A bound socket, its connections, and the one thread that serves them."""

    def __init__(self, host: str, on_packet: OnPacket) -> None:
        self._on_packet = on_packet
        self._socket = _Socket()
        self._socket.udp.bind((host, 0))
        self.port = int(self._socket.udp.getsockname()[1])
        certificate, key = _certificate()
        self._configuration = _configuration(
            is_client=False, certificate=certificate, private_key=key
        )
        self._peers: dict[Any, _Peer] = {}
        self._latest: _Peer | None = None
        self._broken = self._connections = self._strays = 0
        self._open = self._closing = False
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._serve, name="quic-receiver", daemon=True)
        self._thread.start()

    def reply(self, message: bytes) -> None:
        with self._turn:
            if self._latest is not None:
                self._latest.connection.send_datagram_frame(message)
                self._socket.send(self._latest.connection)

    def counts(self) -> dict[str, Any]:
        return {
            "connections": self._connections,
            "broken_connections": self._broken,
            "stray_datagrams": self._strays,
            "socket_errors": self._socket.errors + self._socket.refused,
            "read_lateness": Lateness.of(self._socket.late_ns).figures(),
        }

    def close(self) -> None:
        with self._turn:
            self._closing = True
            for peer in self._peers.values():
                peer.connection.close()
                self._socket.send(peer.connection)
        self._socket.wake()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        exact_timers()
        # A handshake is some 10 ms of Python's arithmetic: in real time it would hold up the other
        # cells, which stream meanwhile.
        while not self._closing and not self._open:
            self._step()
        self._socket.late_ns = array("q")
        with real_time(RECEIVE_PRIORITY):
            while not self._closing:
                self._step()

    def _step(self) -> None:
        with self._turn:
            timers = [_timer_ns(peer.connection) for peer in self._peers.values()]
            self._socket.until_ns = min(timers, default=_FAR_NS)
        came = self._socket.wait()
        with self._turn:
            self._socket.until_ns = 0
            while came and (one := self._socket.receive()) is not None:
                self._take(*one)
            for address, peer in list(self._peers.items()):
                _serve_timer(peer.connection)
                self._note_events(address, peer, monotonic_ns())
                if not self._closing:
                    self._socket.send(peer.connection)

    def _take(self, data: bytes, address: Any, recv_ns: int) -> None:
        peer = self._peers.get(address) or self._accept(data, address)
        if peer is None:
            self._strays += 1
            return
        peer.connection.receive_datagram(data, address, _now_s())
        self._note_events(address, peer, recv_ns)

    def _accept(self, data: bytes, address: Any) -> _Peer | None:
        """A new peer, where its datagram begins a handshake."""
        try:
            header = pull_quic_header(Buffer(data=data), host_cid_length=_CONNECTION_ID_BYTES)
        except ValueError:
            return None
        if header.packet_type is not QuicPacketType.INITIAL or len(self._peers) >= MOST_PEERS:
            return None
        connection = QuicConnection(
            configuration=self._configuration,
            original_destination_connection_id=header.destination_cid,
        )
        self._connections += 1
        self._peers[address] = self._latest = _Peer(connection)
        return self._latest

    def _note_events(self, address: Any, peer: _Peer, recv_ns: int) -> None:
        while (event := peer.connection.next_event()) is not None:
            if isinstance(event, HandshakeCompleted):
                self._open = True
            elif isinstance(event, DatagramFrameReceived):
                self._on_packet(event.data, recv_ns)
            elif isinstance(event, StreamDataReceived):
                try:
                    packets = peer.feed(event)
                except ValueError as error:
                    self._broken += 1
                    peer.connection.close(reason_phrase=str(error))
                    return
                for packet in packets:
                    self._on_packet(packet, recv_ns)
            elif isinstance(event, ConnectionTerminated):
                self._broken += bool(event.error_code)
                del self._peers[address]
                if self._latest is peer:
                    self._latest = None

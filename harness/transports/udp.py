"""UDP: one packet, one datagram.

With an MTU above the links' own (``LINK_MTU_BYTES``), datagrams may be larger than these: the
kernel then sends them in IPv4 fragments, with no path MTU discovery, as programs do that leave all
this to it.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import threading
from array import array
from collections.abc import Callable
from typing import Any

from harness.lateness import Lateness
from harness.linux import exact_timers, real_time, receive_stamped, stamp_arrivals
from harness.media.packet import IP_UDP_BYTES, LINK_MTU_BYTES, ip_fragments
from harness.transports.base import RECEIVE_PRIORITY, OnPacket, TransportSettings
from harness.units import monotonic_ns

_BUFFER_BYTES = 4 * 1024 * 1024
"""Asked for in both directions: a shaper in the middle can hold the sender's own buffer (its
packets stay charged to the socket until they leave), and queues are the link's matter, not ours."""
_LARGEST = 65_535
_REFUSED = (errno.EAGAIN, errno.ENOBUFS)
_IP_MTU_DISCOVER, _IP_PMTUDISC_DONT = 10, 0
"""linux/in.h: Python's ``socket`` does not name them."""


class UdpSender:
    """Datagrams from a socket that :func:`connected` made, in this process or in another."""

    def __init__(self, sock: socket.socket, mtu_bytes: int) -> None:
        self.max_packet_bytes: int | None = mtu_bytes - IP_UDP_BYTES
        self._refused = self._unreachable = self._ip_fragments = 0
        self._closing = False
        self._thread: threading.Thread | None = None
        self._socket = sock

    def send(self, packet: bytes) -> bool:
        while True:
            try:
                self._socket.send(packet)
            except ConnectionRefusedError:
                # The answer to an earlier datagram; this one was not sent yet.
                self._unreachable += 1
            except OSError as error:
                if error.errno not in _REFUSED:
                    raise
                self._refused += 1
                return False
            else:
                self._ip_fragments += ip_fragments(len(packet))
                return True

    def hear(self, on_message: Callable[[bytes], None]) -> None:
        self._on_message = on_message
        self._thread = threading.Thread(target=self._listen, name="udp-feedback", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        exact_timers()
        with real_time(RECEIVE_PRIORITY):
            while not self._closing:
                # The socket does not block, for sending's sake.
                select.select([self._socket], [], [])
                if self._closing:
                    return
                try:
                    message = self._socket.recv(_LARGEST)
                except OSError:
                    self._unreachable += not self._closing
                    continue
                self._on_message(message)

    def flush(self, deadline_ns: int) -> None:
        """Nothing is ever held back."""

    def counts(self) -> dict[str, int | str]:
        return {
            "refused_packets": self._refused,
            "unreachable_errors": self._unreachable,
            "ip_fragments": self._ip_fragments,
        }

    def close(self) -> None:
        self._closing = True
        if self._thread is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RD)  # the thread wakes
            self._thread.join()
        self._socket.close()


class UdpReceiver:
    """A bound socket and its thread."""

    def __init__(self, host: str, on_packet: OnPacket) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        stamp_arrivals(self._socket)
        self._socket.bind((host, 0))
        self.port = int(self._socket.getsockname()[1])
        self._on_packet = on_packet
        self._closing = False
        self._errors = 0
        self._late_ns = array("q")
        self._peer: tuple[str, int] | None = None
        self._thread = threading.Thread(target=self._receive, name="udp-receiver", daemon=True)
        self._thread.start()

    def reply(self, message: bytes) -> None:
        if self._peer is None:
            return
        try:
            self._socket.sendto(message, self._peer)
        except OSError:
            self._errors += 1

    def counts(self) -> dict[str, Any]:
        lateness = Lateness.of(self._late_ns)
        return {"socket_errors": self._errors, "read_lateness": lateness.figures()}

    def close(self) -> None:
        self._closing = True
        # On Linux this wakes a blocked recv() although a UDP socket is not connected (ENOTCONN).
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _receive(self) -> None:
        exact_timers()
        with real_time(RECEIVE_PRIORITY):
            while not self._closing:
                try:
                    packet, peer, recv_ns = receive_stamped(self._socket, _LARGEST)
                except OSError:
                    self._errors += not self._closing
                    continue
                self._late_ns.append(monotonic_ns() - recv_ns)
                if not self._closing:
                    self._peer = peer
                    self._on_packet(packet, recv_ns)


def connected(host: str, port: int, settings: TransportSettings) -> socket.socket:
    """A non-blocking socket in the network namespace of the calling thread."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        if settings.mtu_bytes > LINK_MTU_BYTES:
            sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DONT)
        sock.setblocking(False)
        sock.connect((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def connect(host: str, port: int, settings: TransportSettings) -> UdpSender:
    return UdpSender(connected(host, port, settings), settings.mtu_bytes)


def listen(host: str, on_packet: OnPacket) -> UdpReceiver:
    return UdpReceiver(host, on_packet)

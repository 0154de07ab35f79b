"""The two ends of a packet stream over one TCP connection, whatever marks the packets off.

The sender writes from the pacing thread while the kernel takes everything at once, which is the
case on any network that keeps up. What the kernel does not take waits in a backlog that a thread
of its own empties: back-pressure delays packets, it does not distort the capture schedule.
``send`` has then done its part, so time in the backlog counts as network time.

Both ends close by reset: nothing of an old cell is left on the link when the next one starts.
"""

from __future__ import annotations

import select
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, cast

from harness.errors import CellFailed, Unsupported
from harness.linux import exact_timers, real_time
from harness.transports.base import CONNECT_TIMEOUT_S, RECEIVE_PRIORITY, OnPacket
from harness.units import NS_PER_S, monotonic_ns

_CHUNK = 1 << 16
_ATTEMPT_S = 3.5
"""Per connection attempt: the first SYN, and one more after a time-out of 1 s and one of 2 s."""
_RETRY_S = 0.05
_CONGESTION_CONTROL = "cubic"
"""Linux's own default (RFC 9438), which the virtual lab models; a machine may have another."""


class Framing(Protocol):
    """How packets are marked off in one direction of a byte stream; sans-IO."""

    def opening(self) -> bytes:
        """What the connecting end says first."""
        ...

    def is_open(self) -> bool:
        """Whether packets may be sent."""
        ...

    def wrap(self, packet: bytes) -> bytes:
        """A packet as bytes of the stream."""
        ...

    def feed(self, data: bytes) -> list[bytes]:
        """Packets completed by these bytes. Raises ValueError where the stream makes no sense."""
        ...

    def replies(self) -> bytes:
        """What the framing itself has to say to the peer."""
        ...


def _prepare(connection: socket.socket) -> None:
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _choose_congestion_control(connection: socket.socket) -> None:
    """CUBIC where this process may choose it: a container may not, unless the host allows it
    (tcp_allowed_congestion_control). What it is in the end stands in :meth:`StreamSender.counts`.
    """
    with suppress(PermissionError, FileNotFoundError):
        connection.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_CONGESTION, _CONGESTION_CONTROL.encode()
        )


class StreamSender:
    """A connected sending end; ``connect_stream`` makes it."""

    max_packet_bytes: int | None = None

    def __init__(self, connection: socket.socket, framing: Framing) -> None:
        self._socket = connection
        self._framing = framing
        self._backlog = bytearray()
        self._longest = 0
        self._error: OSError | None = None
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._write, name="stream-writer", daemon=True)
        self._thread.start()

    def send(self, packet: bytes) -> bool:
        data = self._framing.wrap(packet)
        with self._changed:
            if self._error is not None:
                raise self._error
            taken = 0 if self._backlog else self._offer(data)
            if taken < len(data):
                self._backlog += data[taken:]
                self._longest = max(self._longest, len(self._backlog))
                self._changed.notify()
        return True

    def hear(self, on_message: Callable[[bytes], None]) -> None:  # noqa: ARG002
        raise Unsupported("nack and adapt need datagrams: reports have no way back on a stream")

    def flush(self, deadline_ns: int) -> None:
        with self._changed:
            left_s = (deadline_ns - monotonic_ns()) / NS_PER_S
            self._changed.wait_for(lambda: not self._backlog, max(left_s, 0))

    def counts(self) -> dict[str, int | str]:
        chosen = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
        return {
            "longest_backlog_bytes": self._longest,
            "congestion_control": chosen.rstrip(b"\0").decode(),
        }

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._socket.close()

    def _offer(self, data: bytes | bytearray) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._backlog)
                if self._closing:
                    return
            # A short time-out: closing does not make the socket writable.
            _, writable, _ = select.select([], [self._socket], [], 0.1)
            with self._changed:
                if not writable or self._closing:
                    continue
                try:
                    del self._backlog[: self._offer(self._backlog)]
                except OSError as error:
                    self._error = error
                    self._backlog.clear()
                if not self._backlog:
                    self._changed.notify_all()


def connect_stream(host: str, port: int, framing: Framing) -> StreamSender:
    """Connect, with as many attempts as fit the time-out: SYNs are lost on a bad network too.

    Raises CellFailed.
    """
    deadline = time.monotonic() + CONNECT_TIMEOUT_S
    while True:
        left = deadline - time.monotonic()
        try:
            connection = socket.create_connection((host, port), min(_ATTEMPT_S, max(left, 0.01)))
            break
        except OSError as error:
            if left <= _RETRY_S:
                raise CellFailed(
                    f"no connection to {host}:{port} within {CONNECT_TIMEOUT_S:.0f} s: {error}"
                ) from error
            time.sleep(_RETRY_S)
    try:
        connection.sendall(framing.opening())
        while not framing.is_open():
            connection.settimeout(max(deadline - time.monotonic(), 0.01))
            data = connection.recv(_CHUNK)
            if not data:
                raise ValueError("the receiver hung up")
            framing.feed(data)
        _prepare(connection)
        _choose_congestion_control(connection)
    except (OSError, ValueError) as error:
        connection.close()
        raise CellFailed(f"{host}:{port} did not open the stream: {error}") from error
    return StreamSender(connection, framing)


class StreamReceiver:
    """A listening socket, its connections, and the one thread that serves them.

    More than one connection can be there: on a lossy link an attempt that the sender gave up may
    have reached this end.
    """

    def __init__(self, host: str, on_packet: OnPacket, framing: Callable[[], Framing]) -> None:
        self._on_packet = on_packet
        self._framing = framing
        self._listener = socket.create_server((host, 0))
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        self._wake, self._woken = socket.socketpair()
        self._connections = self._broken = 0
        self._thread = threading.Thread(target=self._serve, name="stream-receiver", daemon=True)
        self._thread.start()

    def reply(self, message: bytes) -> None:
        """Never called: no sender of a stream hears."""

    def counts(self) -> dict[str, int]:
        return {"connections": self._connections, "broken_connections": self._broken}

    def close(self) -> None:
        self._wake.close()
        self._thread.join()
        self._woken.close()
        self._listener.close()

    def _serve(self) -> None:
        exact_timers()
        with selectors.DefaultSelector() as selector, real_time(RECEIVE_PRIORITY):
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            closing = False
            while not closing:
                for key, _ in selector.select():
                    ready = key.fileobj
                    assert isinstance(ready, socket.socket)
                    if ready is self._woken:
                        closing = True
                    elif ready is self._listener:
                        self._accept(selector)
                    elif not self._read(ready, key.data):
                        selector.unregister(ready)
                        ready.close()
            for key in selector.get_map().values():
                if key.data is not None:
                    cast(socket.socket, key.fileobj).close()

    def _accept(self, selector: selectors.BaseSelector) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # gone again before it was accepted
            return
        _prepare(connection)
        selector.register(connection, selectors.EVENT_READ, self._framing())
        self._connections += 1

    def _read(self, connection: socket.socket, framing: Framing) -> bool:
        """Take what has come; False when the connection is over."""
        try:
            data = connection.recv(_CHUNK)
            recv_ns = monotonic_ns()
            packets = framing.feed(data)
            if reply := framing.replies():
                connection.send(reply)
        except BlockingIOError:
            return True
        except (OSError, ValueError):
            self._broken += 1
            return False
        for packet in packets:
            self._on_packet(packet, recv_ns)
        return bool(data)

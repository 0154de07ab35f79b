"""The two ends of a packet stream over one TCP connection, whatever marks the packets off.

The sender writes from the pacing thread while the kernel takes everything at once, which is the
case on any network that keeps up. What the kernel does not take waits in a queue that a thread of
its own empties: back-pressure delays packets, it does not distort the capture schedule. ``send``
has then done its part, so time in the queue counts as network time.

As older systems have it, the queue may be bounded, and then hold up whoever sends, or drop; and
packets may be ``in_flight`` one or a few at a time, the next only leaving when the receiver's
application has acknowledged another. An acknowledgement is a message back, ``recv_ns`` as u64; a
stream keeps order, so each is of the packet that has waited longest.

Both ends close by reset: nothing of an old cell is left on the link when the next one starts.
"""

from __future__ import annotations

import select
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, cast

from harness.errors import CellFailed, Unsupported
from harness.linux import exact_timers, real_time
from harness.transports.base import (
    CONNECT_TIMEOUT_S,
    MOST_PEERS,
    RECEIVE_PRIORITY,
    OnPacket,
    TransportSettings,
)
from harness.units import NS_PER_S, monotonic_ns

_CHUNK = 1 << 16
_ATTEMPT_S = 3.5
"""Per connection attempt: the first SYN, and one more after a time-out of 1 s and one of 2 s."""
_RETRY_S = 0.05
_CONGESTION_CONTROL = "cubic"
"""Linux's own default (RFC 9438), which the virtual lab models; a machine may have another."""
_MOST_SAMPLES = 10_000
"""Of each list of figures: more than a stream of 10 ms frames has in a minute and a half."""


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

    def __init__(
        self, connection: socket.socket, framing: Framing, settings: TransportSettings
    ) -> None:
        self._socket = connection
        self._framing = framing
        self._settings = settings
        self._waiting: deque[tuple[int, bytes]] = deque()  # number of the call, message
        self._waiting_bytes = self._longest = 0
        self._leaving = bytearray()
        self._begun_ns = 0
        self._unacknowledged: deque[int] = deque()
        self._calls = 0
        self._dropped: list[int] = []
        self._blocked_ns = 0
        self._depths: list[tuple[int, int]] = []
        self._send_call_ns: list[int] = []
        self._ack_rtt_ns: list[int] = []
        self._error: OSError | None = None
        self._roused = False
        self._changed = threading.Condition()
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="stream-writer", daemon=True)
        self._thread.start()

    def send(self, packet: bytes, deadline_ns: int | None = None) -> bool:
        """With a bounded queue that blocks, wait for room in it, at most until ``deadline_ns``."""
        with self._changed:
            has_room = not self._is_full() or self._make_room(deadline_ns)
            if self._error is not None:
                raise self._error
            if not has_room:
                self._calls += 1
                return False
            message = self._framing.wrap(packet)
            self._waiting.append((self._calls, message))
            self._waiting_bytes += len(message)
            self._calls += 1
            self._move_on()
            self._note_depth()
            self._longest = max(self._longest, self._waiting_bytes + len(self._leaving))
            if self._leaving and not self._roused:
                self._roused = True
                self._wake.send(b"w")
        return True

    def hear(self, on_message: Callable[[bytes], None]) -> None:  # noqa: ARG002
        raise Unsupported("nack and adapt need datagrams: reports have no way back on a stream")

    def flush(self, deadline_ns: int) -> None:
        self._wait_for(lambda: not self._waiting and not self._leaving, deadline_ns)

    def counts(self) -> dict[str, Any]:
        """With ``in_flight`` or ``queue``, in order of sending: ``send_call_ns``, how long handing
        over each message to the kernel took (as ``sendall`` would have); ``ack_rtt_ns``, from the
        beginning of that to its acknowledgement, None where none came.

        With ``queue``: ``queue_depth``, [instant, messages waiting] at each change;
        ``queue_dropped``, numbers of the calls of ``send`` whose packet was given up;
        ``queue_blocked_ns``, how long ``send`` waited for room in all."""
        chosen = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
        counts: dict[str, Any] = {
            "longest_backlog_bytes": self._longest,
            "congestion_control": chosen.rstrip(b"\0").decode(),
        }
        with self._changed:
            if self._settings.in_flight or self._settings.queue:
                counts["send_call_ns"] = list(self._send_call_ns)
            if self._settings.in_flight:
                unanswered = len(self._unacknowledged) + len(self._waiting)
                counts["ack_rtt_ns"] = [*self._ack_rtt_ns, *[None] * unanswered]
            if self._settings.queue:
                counts["queue_depth"] = list(self._depths)
                counts["queue_dropped"] = list(self._dropped)
                counts["queue_blocked_ns"] = self._blocked_ns
        return counts

    def close(self) -> None:
        self._wake.close()
        self._thread.join()
        self._woken.close()
        self._socket.close()

    def _is_full(self) -> bool:
        return 0 < self._settings.queue <= len(self._waiting)

    def _make_room(self, deadline_ns: int | None) -> bool:
        """Whether the packet may enter the full queue after all."""
        match self._settings.when_full:
            case "drop-newest":
                return False
            case "drop-oldest":
                number, message = self._waiting.popleft()
                self._waiting_bytes -= len(message)
                self._dropped.append(number)
                return True
            case "block":
                began_ns = monotonic_ns()
                self._wait_for(lambda: not self._is_full(), deadline_ns)
                self._blocked_ns += monotonic_ns() - began_ns
                return not self._is_full()

    def _wait_for(self, done: Callable[[], bool], deadline_ns: int | None) -> None:
        with self._changed:
            left_s = None
            if deadline_ns is not None:
                left_s = max((deadline_ns - monotonic_ns()) / NS_PER_S, 0)
            self._changed.wait_for(lambda: done() or self._error is not None, left_s)

    def _note_depth(self) -> None:
        depth, known = len(self._waiting), self._depths[-1][1] if self._depths else 0
        if self._settings.queue and depth != known and len(self._depths) < _MOST_SAMPLES:
            self._depths.append((monotonic_ns(), depth))

    def _move_on(self) -> None:
        """Hand over what the kernel takes and acknowledgements allow."""
        limit = self._settings.in_flight
        while True:
            if self._leaving:
                del self._leaving[: self._offer(self._leaving)]
                if self._leaving:
                    return
                if len(self._send_call_ns) < _MOST_SAMPLES:
                    self._send_call_ns.append(monotonic_ns() - self._begun_ns)
            if not self._waiting or (limit and len(self._unacknowledged) >= limit):
                return
            _, message = self._waiting.popleft()
            self._waiting_bytes -= len(message)
            self._leaving += message
            self._begun_ns = monotonic_ns()
            if limit:
                self._unacknowledged.append(self._begun_ns)

    def _offer(self, data: bytearray) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    def _serve(self) -> None:
        """Go on sending when the kernel has room again, or an acknowledgement came."""
        exact_timers()
        heard = [self._woken, self._socket] if self._settings.in_flight else [self._woken]
        with real_time(RECEIVE_PRIORITY):
            while True:
                with self._changed:
                    held_back = [self._socket] if self._leaving else []
                    self._roused = bool(held_back)
                readable, _, _ = select.select(heard, held_back, [])
                if self._woken in readable and not self._woken.recv(_CHUNK):
                    return
                with self._changed:
                    if self._error is not None:
                        return
                    try:
                        if self._socket in readable:
                            self._take_acknowledgements()
                        self._move_on()
                    except (OSError, ValueError) as error:
                        self._error = OSError(str(error))
                        self._waiting.clear()
                        self._leaving.clear()
                    self._note_depth()
                    self._changed.notify_all()

    def _take_acknowledgements(self) -> None:
        data = self._socket.recv(_CHUNK)
        now_ns = monotonic_ns()
        if not data:
            raise ConnectionError("the receiver hung up")
        for _ in self._framing.feed(data):
            if not self._unacknowledged:
                raise ValueError("an acknowledgement of nothing")
            rtt_ns = now_ns - self._unacknowledged.popleft()
            if len(self._ack_rtt_ns) < _MOST_SAMPLES:
                self._ack_rtt_ns.append(rtt_ns)


def connect_stream(
    host: str, port: int, framing: Framing, settings: TransportSettings
) -> StreamSender:
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
    return StreamSender(connection, framing, settings)


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
        self._connections = self._broken = self._unsaid = 0
        self._peer: tuple[socket.socket, Framing] | None = None
        self._thread = threading.Thread(target=self._serve, name="stream-receiver", daemon=True)
        self._thread.start()

    def reply(self, message: bytes) -> None:
        """To be called by whoever is given a packet, in its thread."""
        assert self._peer is not None
        connection, framing = self._peer
        data = framing.wrap(message)
        try:
            self._unsaid += connection.send(data) < len(data)
        except OSError:
            self._unsaid += 1

    def counts(self) -> dict[str, int]:
        return {
            "connections": self._connections,
            "broken_connections": self._broken,
            "unsaid_replies": self._unsaid,
        }

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
        if len(selector.get_map()) - 2 >= MOST_PEERS:
            self._broken += 1
            connection.close()
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
        self._peer = connection, framing
        for packet in packets:
            self._on_packet(packet, recv_ns)
        return bool(data)

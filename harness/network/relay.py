"""Engine ``relay``: a userspace link between two veth ports, driven by :mod:`.model`.

For kernels without netem, and for losses that must repeat exactly. IPv4 frames go through the
model of their direction and into the log; others (there should be none) pass straight.

A packet's delay counts from the kernel's timestamp of its arrival, so the time until the relay's
thread wakes up costs nothing. The thread sleeps in select(2) (epoll rounds to milliseconds) until
shortly before the next deadline and spins the rest: a sleeping thread wakes tens of microseconds
late.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import threading
from array import array
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import numpy as np

from harness import linux
from harness.errors import CellFailed
from harness.lateness import Lateness
from harness.network.datagrams import Datagrams, Identity
from harness.network.link import LinkPair
from harness.network.link_json import link_summary
from harness.network.model import Ended, LinkModel
from harness.network.packet_socket import ETHERTYPE, IPV4, PacketSocket
from harness.records import LINK_IDENTITY, LINK_LOG, Columns, Outcome
from harness.units import NS_PER_S, monotonic_ns

SPIN_NS = 80_000
"""Busy-wait before a deadline: covers the wake-up time of most sleeps."""
PRIORITY = 20
_BATCH = 16
_BUFFER_BYTES = 8 << 20
_REFUSALS = {errno.ENOBUFS, errno.EAGAIN}
_SCHEMA = LINK_LOG | LINK_IDENTITY
_T = TypeVar("_T")


class _Direction:
    """Frames from one port to the other."""

    def __init__(self, number: int, source: PacketSocket, sink: PacketSocket) -> None:
        self.number = number
        self.source = source
        self.sink = sink
        self.model: LinkModel[tuple[bytes, Identity]]
        self.datagrams = Datagrams()


class _Log:
    """LINK_LOG and LINK_IDENTITY columns that grow and make no work for the garbage collector."""

    def __init__(self) -> None:
        self._columns = [array(np.dtype(dtype).char) for dtype in _SCHEMA.values()]

    def append(self, *row: int) -> None:
        for column, value in zip(self._columns, row, strict=True):
            column.append(value)

    def columns(self) -> Columns:
        return {
            name: np.array(column, dtype)
            for (name, dtype), column in zip(_SCHEMA.items(), self._columns, strict=True)
        }


class Relay:
    """A running relay; ``close`` ends it. The ports must have left their bridge.

    Its random streams follow from ``seed``, the direction and nothing else.
    """

    def __init__(self, sender_port: str, receiver_port: str, pair: LinkPair, seed: int) -> None:
        self._pair = pair
        self._seed = seed
        self._resources = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            sender, receiver = (
                stack.enter_context(PacketSocket(port, outgoing=False, buffer_bytes=_BUFFER_BYTES))
                for port in (sender_port, receiver_port)
            )
            self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            stack.callback(os.close, self._wake_read)
            stack.callback(os.close, self._wake_write)
            self._resources = stack.pop_all()
        self._directions = (_Direction(0, sender, receiver), _Direction(1, receiver, sender))
        self._orders: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._failure: BaseException | None = None
        self._priority = "other"
        self._running = True
        self._reset(monotonic_ns())
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def readback(self) -> dict[str, Any]:
        """What was built: for this engine the description itself is what runs."""
        return {"engine": "relay", "seed": self._seed, **link_summary(self._pair)}

    def restart(self, t0_ns: int) -> None:
        """Models at their seed's first packet, log empty. Frames under way are dropped. Changes
        of the links count from ``t0_ns`` (CLOCK_MONOTONIC)."""
        self._in_loop(lambda: self._reset(t0_ns))

    def in_flight(self) -> int:
        """Packets inside the link now; what waits to be read from a port counts as one."""

        def count() -> int:
            unread = select.select([d.source for d in self._directions], [], [], 0)[0]
            return len(unread) + sum(d.model.in_flight for d in self._directions)

        return self._in_loop(count)

    def collect(self) -> tuple[dict[str, Any], Columns]:
        """Counters, and the LINK_LOG since the last restart. Raises CellFailed if the relay broke.

        ``log_drops`` counts frames that never reached the relay because it was too slow;
        ``refused`` those that an interface would not take (logged as queue drops). ``lateness`` is
        how late packets left, from the instant that the model set; ``clock_bracket_ns`` bounds the
        error of ``in_ns``, which comes from another clock. The log's clock is CLOCK_MONOTONIC.
        """

        def snapshot() -> tuple[dict[str, Any], Columns]:
            counters = {
                "log_drops": sum(d.source.dropped() for d in self._directions) - self._drops_before,
                "refused": self._refused,
                "in_flight": sum(d.model.in_flight for d in self._directions),
                "priority": self._priority,
                "t0_ns": self._t0_ns,
                "clock_bracket_ns": self._widest_ns,
                "lateness": Lateness.of(self._late_ns).figures(),
            }
            return counters, self._log.columns()

        return self._in_loop(snapshot)

    def close(self) -> None:
        self._running = False
        self._wake()
        self._thread.join()
        self._resources.close()

    def _reset(self, t0_ns: int) -> None:
        self._t0_ns = t0_ns
        self._log = _Log()
        self._late_ns = array("q")
        self._widest_ns = 0
        self._refused = 0
        self._drops_before = sum(d.source.dropped() for d in self._directions)
        for d, link in zip(self._directions, (self._pair.forward, self._pair.reverse), strict=True):
            d.model = LinkModel(link, f"{self._seed}/{d.number}", t0_ns)

    def _in_loop(self, action: Callable[[], _T]) -> _T:
        """``action()`` in the relay's thread, between two of its turns."""
        future: Future[_T] = Future()

        def order() -> None:
            try:
                future.set_result(action())
            except BaseException as error:
                future.set_exception(error)

        self._orders.put(order)
        self._wake()
        while True:
            try:
                return future.result(timeout=1)
            except TimeoutError:
                if not self._thread.is_alive():
                    raise CellFailed(f"the relay broke: {self._failure}") from self._failure

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"x")

    def _run(self) -> None:
        linux.exact_timers()
        gc.disable()  # nothing in the loop makes cycles; a collection would delay packets
        try:
            with linux.real_time(PRIORITY) as self._priority:
                while self._running:
                    self._turn()
        except BaseException as error:
            self._failure = error
        finally:
            gc.enable()

    def _turn(self) -> None:
        for source in self._wait():
            if source == self._wake_read:
                os.read(self._wake_read, 4096)
        with contextlib.suppress(Empty):
            while True:
                self._orders.get_nowait()()
        for direction in self._directions:
            self._read(direction)
        for direction in self._directions:
            for ended in direction.model.collect(monotonic_ns()):
                self._finish(direction, ended)

    def _wait(self) -> list[Any]:
        """Until a deadline, a frame or an order; what is readable."""
        deadlines = [ns for d in self._directions if (ns := d.model.next_ns()) is not None]
        timeout_s = None
        if deadlines:
            deadline_ns = min(deadlines)
            timeout_s = max(0, deadline_ns - monotonic_ns() - SPIN_NS) / NS_PER_S
            if timeout_s == 0:
                while monotonic_ns() < deadline_ns:
                    pass
        sources: list[Any] = [*(d.source for d in self._directions), self._wake_read]
        return select.select(sources, [], [], timeout_s)[0]

    def _read(self, direction: _Direction) -> None:
        offset: linux.ClockOffset | None = None
        for _ in range(_BATCH):
            frame = direction.source.receive()
            if frame is None:
                return
            if offset is None:
                offset = linux.clock_offset()
                self._widest_ns = max(self._widest_ns, offset.width_ns)
            if frame.data[ETHERTYPE] != IPV4:
                self._send(direction, frame.data)
                continue
            arrived_ns = frame.realtime_ns - offset.ns
            packet = frame.data, direction.datagrams.identify(frame.data)
            direction.model.offer(packet, len(frame.data), arrived_ns)

    def _finish(self, direction: _Direction, ended: Ended[tuple[bytes, Identity]]) -> None:
        outcome, out_ns = ended.outcome, ended.out_ns
        frame, identity = ended.packet
        if out_ns >= 0:
            if ended.flip_bit is not None:
                frame = flipped(frame, ended.flip_bit)
            if self._send(direction, frame):
                due_ns, out_ns = out_ns, monotonic_ns()
                self._late_ns.append(out_ns - due_ns)
            else:
                outcome, out_ns = Outcome.QUEUE, -1
        size_bytes = ended.size_bytes
        self._log.append(direction.number, ended.in_ns, out_ns, size_bytes, outcome, *identity)

    def _send(self, direction: _Direction, frame: bytes) -> bool:
        try:
            direction.sink.send(frame)
        except OSError as error:
            if error.errno not in _REFUSALS:
                raise
            self._refused += 1
            return False
        return True


def flipped(frame: bytes, bit: int) -> bytes:
    """The frame with one bit inverted, counted from the most significant of byte 0."""
    damaged = bytearray(frame)
    damaged[bit // 8] ^= 0x80 >> (bit % 8)
    return bytes(damaged)

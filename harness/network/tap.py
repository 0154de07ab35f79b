"""The link's own log where the kernel impairs: both ports watched, frames matched by content.

A frame is seen as it enters the middle (ingress of the near port) and as it leaves the qdiscs
(egress of the far port), each time with the kernel's timestamp. Bridge and veth do not change a
frame, so equal bytes are the same packet. Two hashes are kept of each frame, one a half: a frame
with one flipped bit still has one half in common with what went in.

Pure part: :func:`match`, :func:`attribute_queue`. Shell: :class:`Tap`.
"""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict, deque
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from harness.errors import CellFailed
from harness.network.datagrams import NONE, Datagrams, Identity
from harness.network.packet_socket import ETHERTYPE, IPV4, Frame, PacketSocket
from harness.records import LINK_IDENTITY, LINK_LOG, Columns, Outcome, from_rows

_BUFFER_BYTES = 32 << 20
_DRAIN_S = 0.02


class Sighting(NamedTuple):
    """One frame at one port."""

    ns: int
    size_bytes: int
    head: int
    tail: int
    is_ipv4: bool
    identity: Identity = NONE


class Row(NamedTuple):
    """One row of LINK_LOG, without its direction."""

    in_ns: int
    out_ns: int
    size_bytes: int
    outcome: Outcome
    identity: Identity = NONE


def sighting(ns: int, frame: bytes, identity: Identity = NONE) -> Sighting:
    """What is remembered of a frame seen at ``ns``."""
    half = len(frame) // 2
    return Sighting(
        ns, len(frame), hash(frame[:half]), hash(frame[half:]), frame[ETHERTYPE] == IPV4, identity
    )


def match(entered: list[Sighting], left: list[Sighting]) -> tuple[list[Row], int]:
    """Rows for every IPv4 frame that entered, and for every copy; in order of entering.

    Both lists are in order of time. Undelivered packets are LOST here. Also returns the number of
    IPv4 frames that left without ever having entered: a sign that a tap missed some.
    """
    whole: dict[tuple[int, int, int], deque[int]] = defaultdict(deque)
    halves: dict[tuple[int, str, int], deque[int]] = defaultdict(deque)
    for number, seen in enumerate(entered):
        if seen.is_ipv4:
            whole[seen.size_bytes, seen.head, seen.tail].append(number)
            halves[seen.size_bytes, "head", seen.head].append(number)
            halves[seen.size_bytes, "tail", seen.tail].append(number)

    ends: dict[int, tuple[int, Outcome]] = {}
    copies: list[tuple[int, Row]] = []
    damaged: list[Sighting] = []

    def end(number: int, out_ns: int, outcome: Outcome) -> None:
        if number in ends:
            seen = entered[number]
            copy = Row(seen.ns, out_ns, seen.size_bytes, Outcome.DUPLICATE, seen.identity)
            copies.append((number, copy))
        else:
            ends[number] = out_ns, outcome

    for seen in left:
        numbers = whole.get((seen.size_bytes, seen.head, seen.tail))
        if numbers is None:
            damaged.append(seen)
            continue
        end(numbers[0], seen.ns, Outcome.DELIVERED)
        if len(numbers) > 1:  # byte-identical packets: first in, first out
            numbers.popleft()

    unexplained = 0
    for seen in damaged:
        candidates = [
            number
            for key in (("head", seen.head), ("tail", seen.tail))
            for number in halves.get((seen.size_bytes, *key), ())
            if entered[number].ns <= seen.ns
        ]
        if candidates:
            number = min(candidates, key=lambda n: (n in ends, n))
            end(number, seen.ns, Outcome.CORRUPTED)
        elif seen.is_ipv4:
            unexplained += 1

    rows = [
        (number, Row(seen.ns, *_end(ends.get(number), seen.size_bytes), seen.identity))
        for number, seen in enumerate(entered)
        if seen.is_ipv4
    ]
    return [row for _, row in sorted(rows + copies, key=lambda item: item[0])], unexplained


def _end(end: tuple[int, Outcome] | None, size_bytes: int) -> tuple[int, int, Outcome]:
    out_ns, outcome = end or (-1, Outcome.LOST)
    return out_ns, size_bytes, outcome


def attribute_queue(
    rows: list[Row],
    queue_drops: int,
    delays_ns: Sequence[int],
    certain: Collection[int] = (),
) -> list[Row]:
    """Name as QUEUE as many of the LOST rows as the queue itself counted.

    Where the qdisc's counter does not settle which (loss model and full queue at once), they are
    the ones that met the longest queue: bytes of packets that had been through the delay
    (``delays_ns`` after entering, one per row) and had not left yet. ``certain`` are rows that the
    loss model took for sure.
    """
    lost = [i for i, row in enumerate(rows) if row.outcome is Outcome.LOST and i not in certain]
    if queue_drops < len(lost):
        reached = [row.in_ns + delay_ns for row, delay_ns in zip(rows, delays_ns, strict=True)]
        through = [i for i, row in enumerate(rows) if row.out_ns >= 0]
        arrivals = _Cumulated([(reached[i], rows[i].size_bytes) for i in through])
        departures = _Cumulated([(rows[i].out_ns, rows[i].size_bytes) for i in through])

        def backlog(i: int) -> int:
            return arrivals.until(reached[i]) - departures.until(reached[i])

        lost = sorted(lost, key=backlog, reverse=True)[:queue_drops]
    full = set(lost)
    return [row._replace(outcome=Outcome.QUEUE) if i in full else row for i, row in enumerate(rows)]


class _Cumulated:
    """Sums of sizes up to a time."""

    def __init__(self, events: list[tuple[int, int]]) -> None:
        times_sizes = np.array(sorted(events), np.int64).reshape(-1, 2)
        self._times = times_sizes[:, 0]
        self._sums = np.concatenate([[0], np.cumsum(times_sizes[:, 1])])

    def until(self, ns: int) -> int:
        return int(self._sums[np.searchsorted(self._times, ns, side="right")])


def log_columns(forward: list[Row], reverse: list[Row]) -> Columns:
    """LINK_LOG and LINK_IDENTITY of both directions."""
    return from_rows(
        LINK_LOG | LINK_IDENTITY,
        [
            (direction, *row[:-1], *row.identity)
            for direction, rows in enumerate((forward, reverse))
            for row in rows
        ],
    )


class Tap:
    """Watches two ports from its making to ``close``; a thread empties the kernel's buffers."""

    def __init__(self, sender_port: str, receiver_port: str) -> None:
        with contextlib.ExitStack() as stack:
            self._sockets = [
                stack.enter_context(PacketSocket(port, outgoing=True, buffer_bytes=_BUFFER_BYTES))
                for port in (sender_port, receiver_port)
            ]
            self._resources = stack.pop_all()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._failure: OSError | None = None
        self._empty()
        self._thread = threading.Thread(target=self._run, name="tap", daemon=True)
        self._thread.start()

    def restart(self) -> None:
        """Forget everything seen so far."""
        with self._lock:
            self._drain()
            self._empty()

    def collect(self) -> tuple[list[list[Sighting]], list[list[Sighting]], int]:
        """(entered, left), each for forward and reverse, and how many frames the taps missed.

        Raises CellFailed if a port went away.
        """
        with self._lock:
            self._drain()
            if self._failure is not None:
                raise CellFailed(f"the tap broke: {self._failure}") from self._failure
            entered = [list(seen) for seen in self._entered]
            left = [list(seen) for seen in self._left]
            return entered, left, self._missed() - self._missed_before

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._resources.close()

    def _empty(self) -> None:
        self._entered: list[list[Sighting]] = [[], []]
        self._left: list[list[Sighting]] = [[], []]
        self._datagrams = Datagrams(), Datagrams()
        self._missed_before = self._missed()

    def _missed(self) -> int:
        return sum(sock.dropped() for sock in self._sockets)

    def _run(self) -> None:
        while not self._stop.wait(_DRAIN_S):
            with self._lock:
                self._drain()

    def _drain(self) -> None:
        try:
            for side, sock in enumerate(self._sockets):
                while (frame := sock.receive()) is not None:
                    self._note(side, frame)
        except OSError as error:  # the thread lives on; collect() tells
            self._failure = error

    def _note(self, side: int, frame: Frame) -> None:
        # Side 0 is the sender's port: what comes in there goes forward, what goes out came back.
        if frame.outgoing:
            self._left[1 - side].append(sighting(frame.realtime_ns, frame.data))
        else:
            identity = self._datagrams[side].identify(frame.data)
            self._entered[side].append(sighting(frame.realtime_ns, frame.data, identity))

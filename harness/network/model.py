"""The seeded link: what happens to each packet and when, as a function of times and sizes alone.

The relay runs it on the real clock, tests and virtual time run it on any other. Its semantics are
those of the kernel's ``net/sched/sch_netem.c`` with ``sch_tbf.c`` as child, so that both engines
give the same statistics:

* duplication and loss are drawn independently; a packet that is both is delivered once; a copy
  goes through loss, corruption and delay on its own, but is never copied again;
* Gilbert-Elliott is stepped once per packet and starts in the good state; whether a packet is lost
  depends on the state before the step;
* a delay is ``delay + jitter * draw``, below zero counts as zero, and packets leave the delay
  queue in order of their due time: jitter reorders;
* a reordered packet (every ``gap``-th, with probability ``p``) skips the delay queue;
* more than ``limit_packets`` in the delay queue, or a rate queue that cannot take the packet's
  bytes, drops the newcomer; one that a queue takes and never lets out again ends as held.

Where the kernel draws everything from one generator, each effect here has its own stream, stepped
per packet: until a queue overflows, the n-th packet meets the same fate whatever its size and time,
so two codecs that send equally many packets see the same loss.

A link that changes is, at each instant, one of its segments: what holds when a packet arrives
decides over loss and delay, and the rate is followed while packets wait for it.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar, assert_never

from harness.network.distributions import SCALE, SIZE, table
from harness.network.link import (
    Bernoulli,
    Deliveries,
    GilbertElliott,
    Link,
    Loss,
    LossTrace,
    MediaTimeLoss,
    Rate,
    Reorder,
)
from harness.records import Outcome
from harness.units import NS_PER_S

P = TypeVar("P")
# Looking a member up in its enum costs as much as the rest of what is done with it.
_DELIVERED, _DUPLICATE = Outcome.DELIVERED, Outcome.DUPLICATE
ETHERNET_BYTES = 14
"""Header of a frame as the link sees it (no FCS)."""


class Ended(NamedTuple, Generic[P]):
    """The end of one packet, or of a copy that the link made of it."""

    packet: P
    """What the caller gave to :meth:`LinkModel.offer`: a number, the frame itself, ..."""
    in_ns: int
    out_ns: int
    """When it leaves; -1 if it was dropped."""
    size_bytes: int
    outcome: Outcome
    flip_bit: int | None
    """Bit of the frame that corruption inverts, counted from the most significant of byte 0."""


class Queue(Protocol):
    """A FIFO before a bottleneck. Packets enter in order of time."""

    def is_full(self, size_bytes: int, now_ns: int) -> bool:
        """Whether it drops such a packet."""
        ...

    def take(self, size_bytes: int, now_ns: int) -> int | None:
        """When a packet leaves for which it is not full; None if it never does."""
        ...

    def enter(self, size_bytes: int, now_ns: int) -> int | None:
        """When the packet leaves, or None if it is dropped or never leaves."""
        return None if self.is_full(size_bytes, now_ns) else self.take(size_bytes, now_ns)


class TokenBucket(Queue):
    """tc-tbf(8) with a byte-limited FIFO, whose rate may change; exact to the nanosecond.

    ``changes`` are (instant, rate from then on) in order, a rate of None being no limit at all.
    Tokens are counted in bit-nanoseconds per second: at R bit/s, t ns are worth R * t of them. The
    bucket never holds more than those of ``burst_bytes``; without one, see :class:`Rate`, a packet
    pays as it is served.
    """

    def __init__(self, rate: Rate | None, changes: Sequence[tuple[int, Rate | None]] = ()) -> None:
        self._rates = [rate, *(changed for _, changed in changes)]
        self._ends_ns = [at_ns for at_ns, _ in changes]
        self._at = 0
        self._updated_ns = 0
        self._queue: deque[tuple[int, int]] = deque()
        self._backlog_bytes = 0
        self._capacity = _capacity(rate)
        self._tokens = self._capacity

    def is_full(self, size_bytes: int, now_ns: int) -> bool:
        """A packet larger than the bucket can never pass, and is dropped."""
        while self._queue and self._queue[0][0] <= now_ns:
            self._backlog_bytes -= self._queue.popleft()[1]
        rate = self._rates[bisect_right(self._ends_ns, now_ns) if self._ends_ns else 0]
        return rate is not None and (
            self._backlog_bytes + size_bytes > rate.queue_limit_bytes()
            or 0 < rate.burst_bytes < size_bytes
        )

    def take(self, size_bytes: int, now_ns: int) -> int | None:
        """One that the last rate, 0, holds for ever stays in the queue."""
        before = self._at, self._updated_ns, self._tokens, self._capacity
        leave_ns = self._served(size_bytes * 8 * NS_PER_S, max(now_ns, self._updated_ns))
        if leave_ns is None:
            self._at, self._updated_ns, self._tokens, self._capacity = before
            self._backlog_bytes += size_bytes
            return None
        if leave_ns > now_ns:
            self._queue.append((leave_ns, size_bytes))
            self._backlog_bytes += size_bytes
        return leave_ns

    def _served(self, cost: int, start_ns: int) -> int | None:
        """The instant at which ``cost`` is paid, for a packet at the head from ``start_ns``; what
        it has paid stays paid when the rate changes.

        At a rate of 0 nothing passes, saved tokens or not.
        """
        while self._at < len(self._ends_ns) and self._ends_ns[self._at] <= start_ns:
            self._earn_until(self._ends_ns[self._at])
            self._next_rate()
        if start_ns > self._updated_ns:
            self._earn_until(start_ns)
        while (rate := self._rates[self._at]) is not None and (
            self._tokens < cost or rate.rate_bps == 0
        ):
            paid = min(self._tokens, cost)
            cost, self._tokens = cost - paid, self._tokens - paid
            last = self._at == len(self._ends_ns)
            if rate.rate_bps:
                leave_ns = self._updated_ns - -cost // rate.rate_bps
                if last or leave_ns <= self._ends_ns[self._at]:
                    self._tokens = (leave_ns - self._updated_ns) * rate.rate_bps
                    self._updated_ns = leave_ns
                    break
            elif last:
                return None
            cost -= (self._ends_ns[self._at] - self._updated_ns) * rate.rate_bps
            self._updated_ns = self._ends_ns[self._at]
            self._next_rate()
        if rate is not None:
            self._tokens -= cost
        return self._updated_ns

    def _earn_until(self, now_ns: int) -> None:
        """Idle until then: tokens come, as many as the bucket holds."""
        rate = self._rates[self._at]
        if rate is not None:
            earned = self._tokens + (now_ns - self._updated_ns) * rate.rate_bps
            self._tokens = min(self._capacity, earned)
        self._updated_ns = now_ns

    def _next_rate(self) -> None:
        unlimited = self._rates[self._at] is None
        self._at += 1
        self._capacity = _capacity(self._rates[self._at])
        self._tokens = self._capacity if unlimited else min(self._tokens, self._capacity)


def _capacity(rate: Rate | None) -> int:
    return 0 if rate is None else rate.burst_bytes * 8 * NS_PER_S


class DeliveryQueue(Queue):
    """Packets leave at given instants only, up to ``bytes_each`` bytes at each of them.

    Bytes are those of the IP packet, as a tunnel interface counts them. A packet leaves with its
    last byte; what is over of an instant is for packets that wait by then, and else gone.
    """

    def __init__(self, deliveries: Deliveries, start_ns: int = 0) -> None:
        self._deliveries = deliveries
        self._start_ns = start_ns
        self._at = 0
        self._left_bytes = deliveries.bytes_each
        self._queue: deque[tuple[int, int]] = deque()
        self._backlog_bytes = 0

    def is_full(self, size_bytes: int, now_ns: int) -> bool:
        while self._queue and self._queue[0][0] <= now_ns:
            self._backlog_bytes -= self._queue.popleft()[1]
        return self._backlog_bytes + size_bytes - ETHERNET_BYTES > self._deliveries.limit_bytes

    def take(self, size_bytes: int, now_ns: int) -> int | None:
        """One that no delivery is left for stays in the queue, and all behind it."""
        size_bytes -= ETHERNET_BYTES
        self._backlog_bytes += size_bytes
        instants = self._deliveries.at_ns
        at, left = self._at, self._left_bytes
        if (next_at := bisect_left(instants, now_ns - self._start_ns, lo=at)) > at:
            at, left = next_at, self._deliveries.bytes_each
        wanted = size_bytes
        while wanted > left:
            wanted -= left
            at, left = at + 1, self._deliveries.bytes_each
        self._at, self._left_bytes = at, left - wanted
        if at >= len(instants):
            return None
        leave_ns = self._start_ns + instants[at]
        self._queue.append((leave_ns, size_bytes))
        return leave_ns


def bottleneck(link: Link, start_ns: int = 0) -> Queue | None:
    """The queue of a fitted link, whose changes count from ``start_ns``; None where it has no
    rate. Raises ValueError where a rate and deliveries follow each other."""
    rates = [(at_ns, part.rate) for at_ns, part in link.segments()]
    if isinstance(link.rate, Deliveries):
        if any(rate != link.rate for _, rate in rates):
            raise ValueError("expected deliveries to hold for the whole of a link")
        return DeliveryQueue(link.rate, start_ns)
    if all(rate is None for _, rate in rates):
        return None
    changes: list[tuple[int, Rate | None]] = []
    latest: Rate | None = link.rate
    for at_ns, rate in rates[1:]:
        if isinstance(rate, Deliveries):
            raise ValueError("expected deliveries to hold for the whole of a link")
        if rate != latest:
            changes.append((start_ns + at_ns, rate))
            latest = rate
    return TokenBucket(link.rate, changes)


class LinkModel(Generic[P]):
    """One direction of a link. Offer packets, then collect what has ended.

    ``link`` is fitted (ValueError else), and its changes count from ``start_ns``. ``seed`` may be
    any text; equal seeds, packets and times give equal ends.
    """

    def __init__(self, link: Link, seed: str, start_ns: int = 0) -> None:
        if not link.is_fitted:
            raise ValueError("expected a fitted link (network/trace.py), got one to be drawn")
        self._loss_draws = random.Random(f"{seed}/loss")
        self._duplicated = random.Random(f"{seed}/duplicate")
        self._corrupted = random.Random(f"{seed}/corrupt")
        self._reordered = random.Random(f"{seed}/reorder")
        self._delay_draws = random.Random(f"{seed}/delay")
        self._loss_processes: dict[Loss | None, Callable[[], bool]] = {}
        self._jitters: dict[tuple[int, str], Callable[[], int]] = {}
        self._changes = deque((start_ns + change.at_ns, change.link) for change in link.changes)
        self._become(link)
        self._since_reordered = 0
        self._bucket = bottleneck(link, start_ns)
        self._delayed: list[tuple[int, int, Ended[P]]] = []
        self._leaving: deque[Ended[P]] = deque()
        self._dropped: list[Ended[P]] = []
        self._entered = 0
        self._now_ns = 0

    def offer(self, packet: P, size_bytes: int, now_ns: int) -> None:
        """A packet arrives. Packets come in order; one that is read late, after a ``collect`` for
        a later time, still has its delay counted from its own arrival."""
        self._advance(now_ns)
        while self._changes and self._changes[0][0] <= now_ns:
            self._become(self._changes.popleft()[1])
        copies = 0
        if self._link.duplicate and self._duplicated.random() < self._link.duplicate:
            copies = 1
        if self._lost():
            copies -= 1
        if copies < 0:
            self._drop(packet, size_bytes, now_ns, Outcome.LOST)
            return
        flip_bit = self._flip(size_bytes)
        if len(self._delayed) >= self._link.limit_packets:
            self._drop(packet, size_bytes, now_ns, Outcome.QUEUE)
            return
        if copies and not self._lost():
            self._enter(packet, size_bytes, now_ns, Outcome.DUPLICATE, self._flip(size_bytes))
        outcome = _DELIVERED if flip_bit is None else Outcome.CORRUPTED
        self._enter(packet, size_bytes, now_ns, outcome, flip_bit)

    def collect(self, now_ns: int) -> list[Ended[P]]:
        """Every packet that was dropped, or was to leave, by now."""
        self._advance(now_ns)
        ended, self._dropped = self._dropped, []
        while self._leaving and self._leaving[0].out_ns <= now_ns:
            ended.append(self._leaving.popleft())
        return ended

    def next_ns(self) -> int | None:
        """When ``collect`` will have something next; None while nothing is under way."""
        if self._dropped:
            return self._now_ns
        times = []
        if self._delayed:
            times.append(self._delayed[0][0])
        if self._leaving:
            times.append(self._leaving[0].out_ns)
        return min(times, default=None)

    @property
    def in_flight(self) -> int:
        """Packets and copies that have neither left nor been dropped."""
        return len(self._delayed) + len(self._leaving)

    def _enter(
        self, packet: P, size_bytes: int, now_ns: int, outcome: Outcome, flip_bit: int | None
    ) -> None:
        if self._link.reorder is not None and self._skips_queue(self._link.reorder):
            due_ns = now_ns
        else:
            due_ns = now_ns + max(0, self._link.delay_ns + self._jitter())
        self._entered += 1
        ended = Ended(packet, now_ns, due_ns, size_bytes, outcome, flip_bit)
        heapq.heappush(self._delayed, (due_ns, self._entered, ended))
        if due_ns <= self._now_ns:
            self._advance(now_ns)

    def _become(self, link: Link) -> None:
        """From here on packets meet ``link``; a process that it had before goes on."""
        self._link = link
        loss, jitter = link.loss, (link.jitter_ns, link.distribution)
        if loss not in self._loss_processes:
            self._loss_processes[loss] = _loss_process(loss, self._loss_draws)
        if jitter not in self._jitters:
            self._jitters[jitter] = _jitter(link, self._delay_draws)
        self._lost = self._loss_processes[loss]
        self._jitter = self._jitters[jitter]

    def _skips_queue(self, reorder: Reorder) -> bool:
        if self._since_reordered < reorder.gap - 1 or self._reordered.random() >= reorder.p:
            self._since_reordered += 1
            return False
        self._since_reordered = 0
        return True

    def _advance(self, now_ns: int) -> None:
        self._now_ns = max(self._now_ns, now_ns)
        while self._delayed and self._delayed[0][0] <= self._now_ns:
            due_ns, _, ended = heapq.heappop(self._delayed)
            if self._bucket is None:
                self._leaving.append(ended)
                continue
            packet, in_ns, _, size_bytes, outcome, flip_bit = ended
            ended_as = Outcome.QUEUE
            if not self._bucket.is_full(size_bytes, due_ns):
                ended_as = Outcome.HELD
                leave_ns = self._bucket.take(size_bytes, due_ns)
                if leave_ns is not None:
                    out = Ended(packet, in_ns, leave_ns, size_bytes, outcome, flip_bit)
                    self._leaving.append(out)
                    continue
            if outcome is not _DUPLICATE:
                self._drop(packet, size_bytes, in_ns, ended_as)

    def _drop(self, packet: P, size_bytes: int, in_ns: int, outcome: Outcome) -> None:
        self._dropped.append(Ended(packet, in_ns, -1, size_bytes, outcome, None))

    def _flip(self, size_bytes: int) -> int | None:
        if not self._link.corrupt or self._corrupted.random() >= self._link.corrupt:
            return None
        return int(self._corrupted.random() * size_bytes * 8)


def _loss_process(loss: Loss | None, generator: random.Random) -> Callable[[], bool]:
    """A function that says, packet by packet, which are lost."""
    match loss:
        case None:
            return lambda: False
        case Bernoulli(p):
            return lambda: generator.random() < p
        case GilbertElliott():
            return _GilbertElliott(loss, generator)
        case LossTrace():
            return _Trace(loss)
        case MediaTimeLoss():
            raise ValueError("expected a loss that is drawn per packet, got one in media time")
        case _:
            assert_never(loss)


class _GilbertElliott:
    def __init__(self, loss: GilbertElliott, generator: random.Random) -> None:
        self._loss = loss
        self._random = generator.random
        self._bad = False

    def __call__(self) -> bool:
        leave, lose = self._random(), self._random()
        if self._bad:
            self._bad = leave >= self._loss.r
            return lose < self._loss.loss_bad
        self._bad = leave < self._loss.p
        return lose < self._loss.loss_good


class _Trace:
    def __init__(self, trace: LossTrace) -> None:
        self._lost = trace.lost
        self._next = 0

    def __call__(self) -> bool:
        lost = bool(self._lost[self._next])
        self._next = (self._next + 1) % len(self._lost)
        return lost


def _jitter(link: Link, generator: random.Random) -> Callable[[], int]:
    """A function that draws the deviation from the delay, in ns (netem's ``tabledist``)."""
    jitter_ns = link.jitter_ns
    if jitter_ns == 0:
        return lambda: 0
    entries = table(link.distribution)
    if entries is None:
        return lambda: generator.randrange(2 * jitter_ns) - jitter_ns
    deviations = [jitter_ns * int(entry) // SCALE for entry in entries]
    return lambda: deviations[generator.randrange(SIZE)]

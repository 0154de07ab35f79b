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
  bytes, drops the newcomer.

Where the kernel draws everything from one generator, each effect here has its own stream, stepped
per packet: until a queue overflows, the n-th packet meets the same fate whatever its size and time,
so two codecs that send equally many packets see the same loss.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar, assert_never

from harness.network.distributions import SCALE, SIZE, table
from harness.network.link import Bernoulli, GilbertElliott, Link, Loss, LossTrace, Rate
from harness.records import Outcome
from harness.units import NS_PER_S

P = TypeVar("P")


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


class TokenBucket:
    """tc-tbf(8) with a byte-limited FIFO, in exact nanoseconds.

    Tokens are time, as in the kernel: the bucket holds the time of ``burst_bytes`` at the rate,
    and a packet takes size * 8 / rate of it.
    """

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._limit_bytes = rate.queue_limit_bytes()
        self._capacity_ns = self._cost_ns(rate.burst_bytes)
        self._tokens_ns = self._capacity_ns
        self._updated_ns = 0
        self._queue: deque[tuple[int, int]] = deque()
        self._backlog_bytes = 0

    def enter(self, size_bytes: int, now_ns: int) -> int | None:
        """When the packet leaves, or None if the queue drops it.

        A packet larger than the bucket can never pass, and is dropped.
        """
        while self._queue and self._queue[0][0] <= now_ns:
            self._backlog_bytes -= self._queue.popleft()[1]
        fits = self._backlog_bytes + size_bytes <= self._limit_bytes
        if not fits or size_bytes > self._rate.burst_bytes:
            return None
        start_ns = max(now_ns, self._updated_ns)  # the one before leaves first
        tokens_ns = min(self._capacity_ns, self._tokens_ns + start_ns - self._updated_ns)
        cost_ns = self._cost_ns(size_bytes)
        leave_ns = start_ns + max(0, cost_ns - tokens_ns)
        self._tokens_ns = tokens_ns + (leave_ns - start_ns) - cost_ns
        self._updated_ns = leave_ns
        if leave_ns > now_ns:
            self._queue.append((leave_ns, size_bytes))
            self._backlog_bytes += size_bytes
        return leave_ns

    def _cost_ns(self, size_bytes: int) -> int:
        return size_bytes * 8 * NS_PER_S // self._rate.rate_bps


class LinkModel(Generic[P]):
    """One direction of a link. Offer packets, then collect what has ended.

    ``seed`` may be any text; equal seeds, packets and times give equal ends.
    """

    def __init__(self, link: Link, seed: str) -> None:
        self._link = link
        self._lost = _loss_process(link.loss, random.Random(f"{seed}/loss"))
        self._duplicated = random.Random(f"{seed}/duplicate")
        self._corrupted = random.Random(f"{seed}/corrupt")
        self._reordered = random.Random(f"{seed}/reorder")
        self._jitter = _jitter(link, random.Random(f"{seed}/delay"))
        self._since_reordered = 0
        self._bucket = TokenBucket(link.rate) if link.rate else None
        self._delayed: list[tuple[int, int, Ended[P]]] = []
        self._leaving: deque[Ended[P]] = deque()
        self._dropped: list[Ended[P]] = []
        self._entered = 0
        self._now_ns = 0

    def offer(self, packet: P, size_bytes: int, now_ns: int) -> None:
        """A packet arrives. Packets come in order; one that is read late, after a ``collect`` for
        a later time, still has its delay counted from its own arrival."""
        self._advance(now_ns)
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
        outcome = Outcome.DELIVERED if flip_bit is None else Outcome.CORRUPTED
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
        if self._skips_queue():
            due_ns = now_ns
        else:
            due_ns = now_ns + max(0, self._link.delay_ns + self._jitter())
        self._entered += 1
        ended = Ended(packet, now_ns, -1, size_bytes, outcome, flip_bit)
        heapq.heappush(self._delayed, (due_ns, self._entered, ended))
        self._advance(now_ns)

    def _skips_queue(self) -> bool:
        reorder = self._link.reorder
        if reorder is None:
            return False
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
                self._leaving.append(ended._replace(out_ns=due_ns))
                continue
            leave_ns = self._bucket.enter(ended.size_bytes, due_ns)
            if leave_ns is not None:
                self._leaving.append(ended._replace(out_ns=leave_ns))
            elif ended.outcome is not Outcome.DUPLICATE:
                self._drop(ended.packet, ended.size_bytes, ended.in_ns, Outcome.QUEUE)

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

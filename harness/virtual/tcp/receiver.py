"""The receiving end: reassembly, and when Linux acknowledges."""

from __future__ import annotations

from collections.abc import Callable

from harness.units import NS_PER_MS
from harness.virtual.tcp.wire import (
    HOST_NS,
    MSS,
    NEVER_NS,
    RTO_MIN_NS,
    SACK_BLOCKS,
    Ack,
    Data,
    Wheel,
)

DELAYED_ACK_NS = 40 * NS_PER_MS
_COMPRESS_NS = NS_PER_MS
"""For so long, at most, reports of what came beyond a gap are put off after the third."""
_QUICK_ACKS = 16
_GROWTH_SEGMENTS = 16
"""So many steps the receive window grows in after the first full segment, which shows how little of
the buffer such segments waste; what makes it grow is acknowledged at once."""


class Receiver:
    """Reassembly and acknowledgements.

    ``reply`` sends one, ``deliver`` is told up to where the application has read. An application
    that reads sends the acknowledgement of what a push, or a small segment, brought; of anything
    else Linux acknowledges every second full segment at once, or one after 40 ms.
    """

    def __init__(
        self,
        reply: Callable[[Ack, int], None],
        deliver: Callable[[int, int], None],
        wheel: Wheel,
        rtt_ns: int,
        pingpong: bool,
    ) -> None:
        self._reply = reply
        self._deliver = deliver
        self._wheel = wheel
        self._pingpong = pingpong
        self._next = 1
        """All before it has been received."""
        self._islands: list[tuple[int, int]] = []
        """What came beyond a gap: ascending, disjoint."""
        self._recent: list[tuple[int, int]] = []
        """The islands again, the one that grew last first (RFC 2018, section 4)."""
        self._echo_ms = 0
        self._acked = 1
        self._read = 1
        self._owed = False
        self._pushed = self._pushed_again = False
        self._quick = 0
        self._full_bytes = 536
        self._growing = -1
        self._last_bytes = 0
        self._interval_ticks = 0
        self._last_tick = 0
        self._longest_wait_ticks = max(wheel.ticks_of(rtt_ns), wheel.ticks_of(DELAYED_ACK_NS))
        self._rto_ticks = wheel.ticks_of(rtt_ns + RTO_MIN_NS)
        self._compress_ns = min(_COMPRESS_NS, rtt_ns // 20)
        self._duplicates = 0
        self._duplicates_at = 0
        self._read_ns = self._delayed_ns = self._compressed_ns = NEVER_NS
        self.timer_ns = NEVER_NS

    def take(self, data: Data, now_ns: int) -> None:
        seq, end = data.seq, data.end
        if seq <= self._acked:
            self._echo_ms = max(self._echo_ms, data.sent_ms)
        duplicate = None
        at_once = False
        if end <= self._next:
            duplicate = (seq, end)
            self._be_quick()
        elif seq <= self._next:
            duplicate = self._fill(seq, end)
            at_once = not self._islands and self._next != end
            self._note(end - seq, data.push, now_ns)
            self._read_ns = min(self._read_ns, now_ns + HOST_NS)
        else:
            duplicate = self._insert(seq, end)
        self._owed = True
        if duplicate is not None or at_once or self._is_due():
            self._acknowledge(now_ns, duplicate)
        elif self._islands:
            self._acknowledge_gap(now_ns)
        else:
            self._delay(now_ns)
        self._set_timer()

    def fire(self, now_ns: int) -> None:
        """What is due by now."""
        if self._read_ns <= now_ns:
            self._read_ns = NEVER_NS
            self._deliver(self._next, now_ns)
            self._read = self._next
            if self._owed and (
                self._next - self._acked > self._full_bytes
                or self._pushed_again
                or (self._pushed and not self._pingpong)
            ):
                self._acknowledge(now_ns)
        if self._compressed_ns <= now_ns:
            self._acknowledge(now_ns)
        if self._delayed_ns <= now_ns:
            if self._pingpong:
                self._pingpong = False
                self._interval_ticks = self._wheel.ticks_of(DELAYED_ACK_NS)
            else:
                self._interval_ticks = min(2 * self._interval_ticks, self._rto_ticks)
            self._acknowledge(now_ns)
        self._set_timer()

    def _set_timer(self) -> None:
        self.timer_ns = min(self._read_ns, self._delayed_ns, self._compressed_ns)

    def _fill(self, seq: int, end: int) -> tuple[int, int] | None:
        """The gap closes, or moves; what of the segment had come before."""
        duplicate = (seq, self._next) if seq < self._next else None
        self._next = end
        while self._islands and self._islands[0][0] <= self._next:
            start, stop = self._islands.pop(0)
            self._recent.remove((start, stop))
            if start < end:
                low = start if duplicate is None else duplicate[0]
                duplicate = (low, min(stop, end))
            self._next = max(self._next, stop)
        return duplicate

    def _insert(self, seq: int, end: int) -> tuple[int, int] | None:
        duplicate = None
        start, stop = seq, end
        kept = []
        for island in self._islands:
            if island[1] < seq or island[0] > end:
                kept.append(island)
                continue
            low, high = max(island[0], seq), min(island[1], end)
            if low < high and duplicate is None:
                duplicate = (low, high)
            start, stop = min(start, island[0]), max(stop, island[1])
            self._recent.remove(island)
        kept.append((start, stop))
        self._islands = sorted(kept)
        self._recent.insert(0, (start, stop))
        return duplicate

    def _note(self, size_bytes: int, push: bool, now_ns: int) -> None:
        """Learn the peer's segment size and pace from a segment that is in order."""
        last_bytes, self._last_bytes = self._last_bytes, 0
        if size_bytes >= self._full_bytes:
            self._full_bytes = min(size_bytes, MSS)
            self._pushed |= push
        else:
            if size_bytes >= 524 or (size_bytes >= 76 and not push):
                self._last_bytes = size_bytes
            if self._last_bytes and size_bytes == last_bytes:
                self._full_bytes = size_bytes
            else:
                self._pushed_again |= self._pushed
                self._pushed = True
        if self._growing < 0 and size_bytes == MSS:
            self._growing = _GROWTH_SEGMENTS
        if self._growing > 0 and size_bytes >= 128:
            self._growing -= 1
            self._quick = max(self._quick, 1)
        tick = now_ns // self._wheel.tick_ns
        since, self._last_tick = tick - self._last_tick, tick
        least = self._wheel.ticks_of(DELAYED_ACK_NS)
        if not self._interval_ticks:
            self._quick = max(self._quick, _QUICK_ACKS)
            self._interval_ticks = least
        elif since <= least // 2:
            self._interval_ticks = self._interval_ticks // 2 + least // 2
        elif since < self._interval_ticks:
            self._interval_ticks = min(self._interval_ticks // 2 + since, self._rto_ticks)
        elif since > self._rto_ticks:
            self._quick = max(self._quick, _QUICK_ACKS)

    def _be_quick(self) -> None:
        self._quick = max(self._quick, _QUICK_ACKS)
        self._pingpong = False
        self._interval_ticks = self._wheel.ticks_of(DELAYED_ACK_NS)

    def _is_due(self) -> bool:
        if self._next - self._acked > self._full_bytes:
            return True
        return self._quick > 0 and not self._pingpong

    def _acknowledge_gap(self, now_ns: int) -> None:
        """Three at once, then one in a while."""
        if self._duplicates_at != self._next:
            self._duplicates_at, self._duplicates = self._next, 0
        if self._duplicates < 3:
            self._duplicates += 1
            self._acknowledge(now_ns)
        else:
            self._compressed_ns = min(self._compressed_ns, now_ns + self._compress_ns)

    def _delay(self, now_ns: int) -> None:
        wait = min(self._interval_ticks, self._longest_wait_ticks)
        if self._delayed_ns <= now_ns + wait // 4 * self._wheel.tick_ns:
            self._acknowledge(now_ns)
            return
        self._delayed_ns = min(self._delayed_ns, self._wheel.expiry_ns(now_ns, wait))

    def _acknowledge(self, now_ns: int, duplicate: tuple[int, int] | None = None) -> None:
        self._delayed_ns = self._compressed_ns = NEVER_NS
        self._owed = self._pushed = self._pushed_again = False
        self._quick = max(self._quick - 1, 0)
        self._acked = self._next
        blocks: tuple[tuple[int, int], ...] = ()
        if self._recent or duplicate is not None:
            first = [] if duplicate is None else [duplicate]
            blocks = tuple((first + self._recent)[:SACK_BLOCKS])
        self._reply(Ack(self._next, self._echo_ms, blocks), now_ns)

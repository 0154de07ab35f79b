"""One-way messages over TCP in virtual time: what Linux does, as a function of times and sizes.

A sans-IO model of one established connection between two Linux hosts (6.x, default settings), whose
data runs over one :class:`LinkModel` and whose acknowledgements over another. What it follows, with
the choices that Linux makes where the standards leave room:

* loss detection by time, with a reordering window that adapts, and tail loss probes
  (RACK-TLP, RFC 8985); selective and duplicate-selective acknowledgements (RFC 2018, RFC 2883);
* recovery at the pace of what arrives (proportional rate reduction, RFC 6937); a reduction that was
  a mistake is taken back (Eifel, RFC 4015, by time stamps, RFC 7323, and by D-SACK, RFC 3708);
* retransmission time-out with exponential back-off (RFC 6298; at least 200 ms above the smoothed
  round trip), and F-RTO after it (RFC 5682);
* CUBIC (RFC 9438) from 10 segments on (RFC 6928); a window that is not used does not grow
  (RFC 7661 in spirit);
* TCP_NODELAY: a message leaves at once while the window allows; what waits leaves in full segments,
  and small neighbours of a retransmitted segment travel with it;
* the receiver acknowledges when the application has read, which it does at once; only full segments
  from the middle of a backlog, and the first of a connection that has just answered (a WebSocket
  server's), wait for the next segment, at most 40 ms (RFC 1122, 4.2.3.2);
* timers fire at the ticks of the timer wheel (HZ = 250): never early, later the longer they are.

Left out: HyStart, pacing, ECN, and the receiver's window with its growth.
``tests/bench/validate_tcp.py`` holds the model against the kernel.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Generic, Literal, NamedTuple, TypeVar

from harness.network.model import Ended, LinkModel
from harness.records import Outcome
from harness.units import NS_PER_MS, NS_PER_S

MSS = 1448
"""Largest payload of a segment: MTU 1500 less IPv4, TCP and the time stamps option."""
HEADER_BYTES = 14 + 20 + 20 + 12
"""Ethernet, IPv4, TCP, time stamps with their padding: the size of a pure acknowledgement too."""
INITIAL_WINDOW = 10
HOST_NS = 50_000
"""From the link's end to a host's TCP, and from there to the application that reads: interrupts and
scheduling. Without it, what really comes one after the other would be at the same instant."""
TICK_NS = 4 * NS_PER_MS
"""One jiffy at HZ = 250."""
RTO_MIN_NS = 200 * NS_PER_MS
RTO_MAX_NS = 120 * NS_PER_S
DELAYED_ACK_NS = 40 * NS_PER_MS
_COMPRESS_NS = NS_PER_MS
_QUICK_ACKS = 16
_NEVER_NS = 1 << 62
_TIMEOUT_MIN_NS = 2 * NS_PER_MS
_REORDERING = 3
_MAX_REORDERING = 300
_REO_WINDOW_PERSIST = 16
_INFINITE = 1 << 30
_SACK_BLOCKS = 3
_SACK_BYTES = 4
_SACK_BLOCK_BYTES = 8
_SOURCE_MAC_BITS = range(6 * 8, 12 * 8)
_CUBIC_SCALE = 410
"""C = 0.4 in 1/1024."""
_CUBIC_BETA = 717
"""0.7 in 1/1024."""
_CUBIC_RENO = 15
"""Eighths of a window to be acknowledged for Reno's window, with that beta, to grow by 1."""
_CUBIC_PAUSE_TICKS = 7

Framing = Literal["tcp", "websocket"]
P = TypeVar("P")


def framed_bytes(framing: Framing, size_bytes: int) -> int:
    """A message with what marks it off: a u32 before it (``transports/tcp.py``), or the header of a
    masked WebSocket frame (RFC 6455, section 5.2)."""
    if framing == "tcp":
        return 4 + size_bytes
    extended = 0 if size_bytes < 126 else 2 if size_bytes < 1 << 16 else 8
    return 2 + extended + 4 + size_bytes


class _Data(NamedTuple):
    """A data segment on the wire."""

    seq: int
    end: int
    sent_ms: int
    push: bool


class _Ack(NamedTuple):
    """A pure acknowledgement on the wire; a D-SACK comes first in ``blocks``."""

    ack: int
    echo_ms: int
    blocks: tuple[tuple[int, int], ...]


class _Wheel:
    """When a timer of so many ticks fires: the kernel rounds up, to 8 ticks from 63 on, to 64 from
    504 on, and so forth."""

    def __init__(self, phase_ns: int) -> None:
        self._phase_ns = phase_ns

    def expiry_ns(self, now_ns: int, ticks: int) -> int:
        at = (now_ns + self._phase_ns) // TICK_NS + ticks
        shift, span = 0, 63
        while ticks >= span:
            shift, span = shift + 3, span * 8
        at = ((at + (1 << shift)) >> shift) << shift
        return at * TICK_NS - self._phase_ns


def _ticks(duration_ns: int) -> int:
    return -(-duration_ns // TICK_NS)


def _stamp(now_ns: int) -> int:
    """A time stamp in the option's unit, 1 ms; 0 is none."""
    return now_ns // NS_PER_MS + 1


class _Receiver:
    """Reassembly and acknowledgements.

    ``reply`` sends one, ``deliver`` is told up to where the application has read. An application
    that reads sends the acknowledgement of what a push, or a small segment, brought; of anything
    else Linux acknowledges every second full segment at once, or one after 40 ms.
    """

    def __init__(
        self,
        reply: Callable[[_Ack, int], None],
        deliver: Callable[[int, int], None],
        wheel: _Wheel,
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
        self._last_bytes = 0
        self._interval_ticks = 0
        self._last_tick = 0
        self._longest_wait_ticks = max(_ticks(rtt_ns), _ticks(DELAYED_ACK_NS))
        self._rto_ticks = _ticks(rtt_ns + RTO_MIN_NS)
        self._compress_ns = min(_COMPRESS_NS, rtt_ns // 20)
        self._duplicates = 0
        self._duplicates_at = 0
        self._read_ns = self._delayed_ns = self._compressed_ns = _NEVER_NS
        self.timer_ns = _NEVER_NS

    def take(self, data: _Data, now_ns: int) -> None:
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
            self._read_ns = _NEVER_NS
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
                self._interval_ticks = _ticks(DELAYED_ACK_NS)
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
        tick = now_ns // TICK_NS
        since, self._last_tick = tick - self._last_tick, tick
        least = _ticks(DELAYED_ACK_NS)
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
        self._interval_ticks = _ticks(DELAYED_ACK_NS)

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
        if self._delayed_ns <= now_ns + wait // 4 * TICK_NS:
            self._acknowledge(now_ns)
            return
        self._delayed_ns = min(self._delayed_ns, self._wheel.expiry_ns(now_ns, wait))

    def _acknowledge(self, now_ns: int, duplicate: tuple[int, int] | None = None) -> None:
        self._delayed_ns = self._compressed_ns = _NEVER_NS
        self._owed = self._pushed = self._pushed_again = False
        self._quick = max(self._quick - 1, 0)
        self._acked = self._next
        blocks: tuple[tuple[int, int], ...] = ()
        if self._recent or duplicate is not None:
            first = [] if duplicate is None else [duplicate]
            blocks = tuple((first + self._recent)[:_SACK_BLOCKS])
        self._reply(_Ack(self._next, self._echo_ms, blocks), now_ns)


class _Cubic:
    """The congestion window's growth and reduction, in segments (RFC 9438). In whole numbers and
    1/1024 s as in ``tcp_cubic.c``: windows of a few segments are made by the rounding."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """After a time-out nothing of the past counts."""
        self._last_max = self._last_window = self._origin = self._k = 0
        self._epoch = self._last_tick = 0
        self._per_segment = self._acked = self._reno = self._count = 0
        self._delay_ns = 0

    def reduced(self, window: int) -> int:
        self._epoch = self._count = 0
        converging = window < self._last_max
        self._last_max = window * (1024 + _CUBIC_BETA) // 2048 if converging else window
        return max(window * _CUBIC_BETA // 1024, 2)

    def paused(self, idle_ns: int, now_ns: int) -> None:
        """Time without anything in flight does not count."""
        if self._epoch and idle_ns > 0:
            self._epoch = min(self._epoch + idle_ns // TICK_NS, now_ns // TICK_NS)

    def sampled(self, rtt_ns: int, now_ns: int) -> None:
        if self._epoch and now_ns // TICK_NS - self._epoch < NS_PER_S // TICK_NS:
            return
        if not self._delay_ns or rtt_ns < self._delay_ns:
            self._delay_ns = rtt_ns

    def grown(self, window: int, acked: int, now_ns: int) -> int:
        """The window after ``acked`` segments in congestion avoidance."""
        self._update(window, acked, now_ns // TICK_NS)
        if self._count >= self._per_segment:
            self._count = 0
            window += 1
        self._count += acked
        if self._count >= self._per_segment:
            steps = self._count // self._per_segment
            self._count -= steps * self._per_segment
            window += steps
        return window

    def _update(self, window: int, acked: int, tick: int) -> None:
        self._acked += acked
        if self._last_window == window and tick - self._last_tick <= _CUBIC_PAUSE_TICKS:
            return
        if not self._epoch or tick != self._last_tick:
            self._last_window, self._last_tick = window, tick
            self._follow_cubic(window, acked, tick)
        step = window * _CUBIC_RENO >> 3
        while self._acked > step:
            self._acked -= step
            self._reno += 1
        if self._reno > window:
            self._per_segment = min(self._per_segment, window // (self._reno - window))
        self._per_segment = max(self._per_segment, 2)

    def _follow_cubic(self, window: int, acked: int, tick: int) -> None:
        if not self._epoch:
            self._epoch, self._acked, self._reno = max(tick, 1), acked, window
            self._origin = max(self._last_max, window)
            self._k = round((((self._origin - window) << 40) / _CUBIC_SCALE) ** (1 / 3))
        at = ((tick - self._epoch + _ticks(self._delay_ns)) * TICK_NS << 10) // NS_PER_S
        away = abs(at - self._k)
        change = _CUBIC_SCALE * away**3 >> 40
        target = self._origin - change if at < self._k else self._origin + change
        self._per_segment = window // (target - window) if target > window else 100 * window
        if not self._last_max:
            self._per_segment = min(self._per_segment, 20)


class _Segment:
    """Sent and not yet acknowledged, with the marks of the sender's scoreboard."""

    __slots__ = (
        "delivered",
        "end",
        "lost",
        "push",
        "retransmitted",
        "sacked",
        "sent_ns",
        "seq",
        "under_way",
    )

    def __init__(self, seq: int, end: int, push: bool, sent_ns: int, delivered: int) -> None:
        self.seq = seq
        self.end = end
        self.push = push
        self.sent_ns = sent_ns
        self.delivered = delivered
        """Segments delivered on this connection when it was sent."""
        self.sacked = False
        self.lost = False
        self.under_way = False
        """A retransmission of it has not been given up."""
        self.retransmitted = False
        """Ever."""


_OPEN, _DISORDER, _CWR, _RECOVERY, _LOSS = range(5)
_NONE, _RTO, _PROBE, _REORDER = range(4)
# What an acknowledgement brought.
_ADVANCED = 1
_DATA_ACKED = 2
_RETRANS_ACKED = 4
_ORIGINAL_DELIVERED = 8
_DATA_SACKED = 16
_DSACK = 32
_DSACK_OF_PROBE = 64
_SET_TIMER = 128
_LOST_RETRANS = 256
_MAYBE_DELAYED = 512


class _Sender:
    """What is in flight, what is lost, what may leave. Sequence numbers begin at 1 and never wrap;
    0 is none."""

    def __init__(
        self, transmit: Callable[[_Data, int], None], wheel: _Wheel, rtt_ns: int, now_ns: int
    ) -> None:
        self._transmit = transmit
        self._wheel = wheel
        self._cubic = _Cubic()
        self.written = 1
        self._nxt = self._una = 1
        self._queue: deque[_Segment] = deque()
        self._packets_out = self._sacked_out = self._lost_out = self._retrans_out = 0
        self._delivered = 1
        self._lost_total = 0
        self.retransmissions = self.probes = self.timeouts = 0
        self._dsacks = 0
        self._sample = 0
        self._highest_sacked = 0

        self._window = INITIAL_WINDOW
        self._threshold = _INFINITE
        self._prior_threshold = 0
        self._prior_window = 0
        self._prr_delivered = self._prr_out = 0
        self._limited = False
        self._max_packets_out = 0
        self._usage_seq = 0
        self._window_used = 0
        self._window_stamp_ns = now_ns
        self._last_sent_ns = now_ns

        self._state = _OPEN
        self._high_seq = 0
        self._undo_marker = 0
        self._undo_retrans = -1
        self._retrans_stamp_ms = 0
        self._timeouts_in_row = 0
        self._frto = False
        self._probe_seq = 0
        self._probe_retransmitted = False

        self._reordering = _REORDERING
        self._reordering_seen = False
        self._rack_sent_ns = -1
        self._rack_end = 0
        self._rack_rtt_ns = 0
        self._rack_advanced = False
        self._rack_dsack = False
        self._rack_steps = 1
        self._rack_persist = 0
        self._rack_delivered = 0

        self._srtt_ns = rtt_ns
        self._mdev_ns = rtt_ns // 2
        self._rttvar_ns = self._mdev_max_ns = max(2 * rtt_ns, RTO_MIN_NS)
        self._rtt_seq = 1
        self._min_rtt_ns = rtt_ns
        self._set_rto()

        self._pending = _NONE
        self.timer_ns = _NEVER_NS

    # What the application and the clock do.

    def write(self, size_bytes: int, now_ns: int) -> None:
        if not self._packets_out:
            self._restart_after_idle(now_ns)
        self.written += size_bytes
        self._push(now_ns)

    def fire(self, now_ns: int) -> None:
        """The timer has expired."""
        pending = self._pending
        self.timer_ns = _NEVER_NS
        if pending == _REORDER:
            self._reorder_timeout(now_ns)
        elif pending == _PROBE:
            self._send_probe(now_ns)
        elif pending == _RTO:
            self._pending = _NONE
            self._retransmission_timeout(now_ns)

    # Sending.

    def _in_flight(self) -> int:
        return self._packets_out - self._sacked_out - self._lost_out + self._retrans_out

    def _push(self, now_ns: int, probe: bool = False) -> None:
        """New segments, as many as the window allows; ``probe``: one, whatever it allows."""
        sent = 0
        while self._nxt < self.written:
            flying = self._in_flight()
            if flying >= self._window and not probe:
                break
            if not flying:
                self._cubic.paused(now_ns - self._last_sent_ns, now_ns)
            end = min(self._nxt + MSS, self.written)
            push = end == self.written
            self._queue.append(_Segment(self._nxt, end, push, now_ns, self._delivered))
            self._transmit(_Data(self._nxt, end, _stamp(now_ns), push), now_ns)
            self._last_sent_ns = now_ns
            self._nxt = end
            self._packets_out += 1
            if self._packets_out == 1 or self._pending == _PROBE:
                self._rearm_rto(now_ns)
            sent += 1
            if probe:
                break
        limited = self._in_flight() >= self._window
        if sent or limited:
            self._validate_window(limited, now_ns)
        if sent:
            if self._state in (_CWR, _RECOVERY):
                self._prr_out += sent
            if not probe:
                self._schedule_probe(now_ns, False)

    def _retransmit(self, segment: _Segment, now_ns: int) -> None:
        """Once more, with as many of the small ones behind it as fit."""
        queue = self._queue
        segment.seq = max(segment.seq, self._una)
        index = queue.index(segment) + 1
        while index < len(queue):
            following = queue[index]
            if following.sacked or following.end - segment.seq > MSS:
                break
            segment.end = following.end
            segment.push |= following.push
            segment.retransmitted |= following.retransmitted
            self._packets_out -= 1
            self._retrans_out -= following.under_way
            self._lost_out -= following.lost
            del queue[index]
        segment.sent_ns = now_ns
        segment.delivered = self._delivered
        segment.retransmitted = True
        self.retransmissions += 1
        self._transmit(_Data(segment.seq, segment.end, _stamp(now_ns), segment.push), now_ns)
        self._last_sent_ns = now_ns

    def _retransmit_counted(self, segment: _Segment, now_ns: int) -> None:
        self._retransmit(segment, now_ns)
        segment.under_way = True
        self._retrans_out += 1
        if not self._retrans_stamp_ms:
            self._retrans_stamp_ms = _stamp(now_ns)
        self._undo_retrans = max(self._undo_retrans, 0) + 1

    def _retransmit_lost(self, now_ns: int) -> None:
        rearm = False
        index = 0
        while index < len(self._queue):
            segment = self._queue[index]
            index += 1
            if self._in_flight() >= self._window or self._retrans_out >= self._lost_out:
                break
            if not segment.lost or segment.sacked or segment.under_way:
                continue
            self._retransmit_counted(segment, now_ns)
            if self._state in (_CWR, _RECOVERY):
                self._prr_out += 1
            if index == 1 and self._pending != _REORDER:
                rearm = True
        if rearm:
            self._arm(_RTO, self._rto_ticks, now_ns)

    # The window.

    def _validate_window(self, limited: bool, now_ns: int) -> None:
        if (
            self._una >= self._usage_seq
            or limited
            or (not self._limited and self._packets_out > self._max_packets_out)
        ):
            self._limited = limited
            self._max_packets_out = self._packets_out
            self._usage_seq = self._nxt
        if self._is_limited():
            self._window_used = 0
            self._window_stamp_ns = now_ns
            return
        self._window_used = max(self._window_used, self._packets_out)
        if now_ns - self._window_stamp_ns >= self._rto_ticks * TICK_NS:
            if self._state == _OPEN:
                used = max(self._window_used, INITIAL_WINDOW)
                if used < self._window:
                    self._threshold = self._current_threshold()
                    self._window = (self._window + used) >> 1
                self._window_used = 0
            self._window_stamp_ns = now_ns

    def _is_limited(self) -> bool:
        if self._limited:
            return True
        return self._window < self._threshold and self._window < 2 * self._max_packets_out

    def _restart_after_idle(self, now_ns: int) -> None:
        rto_ns = self._rto_ticks * TICK_NS
        idle_ns = now_ns - self._last_sent_ns
        if idle_ns <= rto_ns:
            return
        self._threshold = self._current_threshold()
        floor = min(INITIAL_WINDOW, self._window)
        idle_ns -= rto_ns
        while idle_ns > 0 and self._window > floor:
            self._window >>= 1
            idle_ns -= rto_ns
        self._window = max(self._window, floor)
        self._window_used = 0
        self._window_stamp_ns = now_ns

    def _current_threshold(self) -> int:
        if self._state in (_CWR, _RECOVERY):
            return self._threshold
        return max(self._threshold, (self._window >> 1) + (self._window >> 2))

    def _grow(self, acked: int, now_ns: int) -> None:
        if self._is_limited():
            if self._window < self._threshold:
                grown = min(self._window + acked, self._threshold)
                acked -= grown - self._window
                self._window = grown
            if acked:
                self._window = self._cubic.grown(self._window, acked, now_ns)
        self._window_stamp_ns = now_ns

    def _begin_reduction(self) -> None:
        self._high_seq = self._nxt
        self._probe_seq = 0
        self._prior_window = self._window
        self._prr_delivered = self._prr_out = 0
        self._threshold = self._cubic.reduced(self._window)

    def _reduce(self, delivered: int, newly_lost: int, advanced: bool) -> None:
        """Proportional rate reduction."""
        if delivered <= 0 or not self._prior_window:
            return
        flying = self._in_flight()
        room = self._threshold - flying
        self._prr_delivered += delivered
        if room < 0:
            share = self._threshold * self._prr_delivered + self._prior_window - 1
            count = share // self._prior_window - self._prr_out
        else:
            count = max(self._prr_delivered - self._prr_out, delivered)
            if advanced and not newly_lost:
                count += 1
            count = min(room, count)
        count = max(count, 0 if self._prr_out else 1)
        self._window = flying + count

    def _end_reduction(self, now_ns: int) -> None:
        if self._threshold < _INFINITE and (self._state == _CWR or self._undo_marker):
            self._window = self._threshold
            self._window_stamp_ns = now_ns

    # Timers.

    def _arm(self, what: int, ticks: int, now_ns: int) -> None:
        self._pending = what
        self.timer_ns = self._wheel.expiry_ns(now_ns, ticks)

    def _set_rto(self) -> None:
        self._rto_ticks = _ticks(min(self._srtt_ns + self._rttvar_ns, RTO_MAX_NS))

    def _rto_left_ns(self, now_ns: int) -> int:
        return self._queue[0].sent_ns + self._rto_ticks * TICK_NS - now_ns

    def _rearm_rto(self, now_ns: int) -> None:
        if not self._packets_out:
            self._pending = _NONE
            self.timer_ns = _NEVER_NS
            return
        ticks = self._rto_ticks
        if self._pending in (_REORDER, _PROBE):
            ticks = _ticks(max(self._rto_left_ns(now_ns), 1))
        self._arm(_RTO, ticks, now_ns)

    def _schedule_probe(self, now_ns: int, advancing: bool) -> bool:
        if not self._packets_out or self._state not in (_OPEN, _CWR):
            return False
        wait_ns = 2 * self._srtt_ns
        wait_ns += RTO_MIN_NS if self._packets_out == 1 else _TIMEOUT_MIN_NS
        left_ns = self._rto_ticks * TICK_NS if advancing else self._rto_left_ns(now_ns)
        if left_ns > 0:
            wait_ns = min(wait_ns, left_ns)
        self._arm(_PROBE, _ticks(wait_ns), now_ns)
        return True

    def _send_probe(self, now_ns: int) -> None:
        if not self._probe_seq and self._queue:
            self._probe_retransmitted = self._nxt == self.written
            if self._probe_retransmitted:
                self._retransmit(self._queue[-1], now_ns)
            else:
                self._push(now_ns, probe=True)
            self._probe_seq = self._nxt
            self.probes += 1
            self._pending = _NONE
        self._rearm_rto(now_ns)

    def _retransmission_timeout(self, now_ns: int) -> None:
        if not self._packets_out:
            return
        self.timeouts += 1
        self._enter_loss(now_ns)
        self._timeouts_in_row += 1
        self._retransmit_counted(self._queue[0], now_ns)
        self._rto_ticks = min(self._rto_ticks * 2, _ticks(RTO_MAX_NS))
        self._arm(_RTO, self._rto_ticks, now_ns)

    def _enter_loss(self, now_ns: int) -> None:
        fresh = self._state < _RECOVERY
        head = self._queue[0]
        for segment in self._queue:
            if segment is head or self._rack_left_ns(segment, 0, now_ns) <= 0:
                self._mark_lost(segment)
        if (
            self._state <= _DISORDER
            or self._high_seq <= self._una
            or (self._state == _LOSS and not self._timeouts_in_row)
        ):
            self._prior_threshold = self._current_threshold()
            self._prior_window = self._window
            self._threshold = self._cubic.reduced(self._window)
            self._begin_undo()
        self._window = self._in_flight() + 1
        self._window_stamp_ns = now_ns
        if self._state <= _DISORDER and self._sacked_out >= _REORDERING:
            self._reordering = min(self._reordering, _REORDERING)
        self._cubic.restart()
        self._state = _LOSS
        self._high_seq = self._nxt
        self._probe_seq = 0
        self._frto = fresh or self._timeouts_in_row > 0

    def _reorder_timeout(self, now_ns: int) -> None:
        flying, lost = self._in_flight(), self._lost_total
        self._detect_loss(now_ns)
        if flying != self._in_flight():
            if self._state != _RECOVERY:
                self._enter_recovery()
                self._reduce(1, self._lost_total - lost, False)
            self._retransmit_lost(now_ns)
        if self._pending != _RTO:
            self._rearm_rto(now_ns)

    # Acknowledgements.

    def take(self, ack: _Ack, now_ns: int) -> None:
        self._process(ack, now_ns)
        if self._nxt < self.written:
            self._push(now_ns)

    def _process(self, ack: _Ack, now_ns: int) -> None:
        prior_una = self._una
        if ack.ack < prior_una:
            if ack.blocks:
                flags, _, _ = self._tag(ack, prior_una, now_ns)
                _, rexmit = self._alert(flags, prior_una, ack.echo_ms, now_ns)
                self._recover(rexmit, now_ns)
            return
        flags = 0
        if ack.ack > prior_una:
            flags = _ADVANCED
            self._timeouts_in_row = 0
            self._una = ack.ack
        prior_packets = self._packets_out
        prior_delivered, prior_lost = self._delivered, self._lost_total
        prior_sacked = self._sacked_out
        prior_highest = self._highest() if prior_sacked else prior_una
        first_sacked_ns = last_sacked_ns = -1
        if ack.blocks:
            tagged, first_sacked_ns, last_sacked_ns = self._tag(ack, prior_una, now_ns)
            flags |= tagged
        rexmit = _REXMIT_NONE
        if not prior_packets:
            if flags & _DSACK:
                self._alert(flags, prior_una, ack.echo_ms, now_ns)
            if self._probe_seq:
                self._process_probe(ack.ack, flags, now_ns)
            return
        flags = self._clean(
            flags,
            ack,
            prior_una,
            prior_highest,
            prior_sacked,
            prior_delivered,
            first_sacked_ns,
            last_sacked_ns,
            now_ns,
        )
        if self._probe_seq:
            self._process_probe(ack.ack, flags, now_ns)
        if self._state != _OPEN or not flags & _DATA_ACKED or flags & (_DATA_SACKED | _DSACK):
            flags, rexmit = self._alert(flags, prior_una, ack.echo_ms, now_ns)
        if flags & _SET_TIMER and not self._schedule_probe(now_ns, True):
            self._rearm_rto(now_ns)
        delivered = self._delivered - prior_delivered
        if self._state in (_CWR, _RECOVERY):
            lost = self._lost_total - prior_lost
            self._reduce(delivered, lost, bool(flags & _ADVANCED))
        elif flags & _DATA_ACKED or (self._reordering > _REORDERING and flags & _DATA_SACKED):
            self._grow(delivered, now_ns)
        self._recover(rexmit, now_ns)

    def _highest(self) -> int:
        """End of the highest segment that has been selectively acknowledged."""
        return self._highest_sacked if self._sacked_out else self._una

    def _tag(self, ack: _Ack, prior_una: int, now_ns: int) -> tuple[int, int, int]:
        """The scoreboard after the selective acknowledgements: flags, and when the first and the
        last original of those newly acknowledged were sent (-1: none)."""
        flags = 0
        first_ns = last_ns = -1
        reordered = self._nxt
        blocks = ack.blocks
        duplicate = self._is_duplicate(ack)
        if duplicate:
            seen = self._take_dsack(blocks[0], prior_una)
            flags |= seen
            duplicate = bool(seen & _DSACK)
        if not self._packets_out:
            return flags, -1, -1
        for start, end in sorted(blocks):
            if end > self._nxt or start <= self._una or end <= prior_una:
                continue
            again = duplicate and (start, end) == blocks[0]
            for segment in self._queue:
                if segment.seq >= end:
                    break
                if segment.seq < start or segment.end > end:
                    continue
                if again and segment.retransmitted:
                    if (
                        self._undo_marker
                        and self._undo_retrans > 0 < segment.end - self._undo_marker
                    ):
                        self._undo_retrans -= 1
                    if segment.sacked:
                        reordered = min(reordered, segment.seq)
                if not segment.sacked:
                    self._advance_rack(segment, now_ns)
                    if segment.under_way:
                        if segment.lost:
                            segment.lost = segment.under_way = False
                            self._lost_out -= 1
                            self._retrans_out -= 1
                    else:
                        if not segment.retransmitted:
                            if segment.seq < self._highest():
                                reordered = min(reordered, segment.seq)
                            if segment.end <= self._high_seq:
                                flags |= _ORIGINAL_DELIVERED
                            if first_ns < 0:
                                first_ns = segment.sent_ns
                            last_ns = segment.sent_ns
                        if segment.lost:
                            segment.lost = False
                            self._lost_out -= 1
                    self._note_delivery(segment)
                    segment.sacked = True
                    flags |= _DATA_SACKED
                    highest = self._highest()
                    self._sacked_out += 1
                    self._delivered += 1
                    self._highest_sacked = max(highest, segment.end)
                if again and segment.under_way:
                    segment.under_way = False
                    self._retrans_out -= 1
        if self._state != _LOSS or self._undo_marker:
            self._check_reordering(reordered)
        return flags, first_ns, last_ns

    @staticmethod
    def _is_duplicate(ack: _Ack) -> bool:
        """Whether the first block is a D-SACK (RFC 2883, section 4)."""
        start, end = ack.blocks[0]
        if start < ack.ack:
            return True
        return len(ack.blocks) > 1 and ack.blocks[1][0] <= start and end <= ack.blocks[1][1]

    def _take_dsack(self, block: tuple[int, int], prior_una: int) -> int:
        start, end = block
        flags = 0
        count = max(1, -(-(end - start) // MSS))
        if count == 1 and self._probe_seq and self._probe_seq == end:
            flags = _DSACK_OF_PROBE
        self._dsacks += count
        if self._dsacks > self.retransmissions:
            return flags
        if self._reordering_seen and not flags:
            self._rack_dsack = True
        self._delivered += count
        if self._undo_marker and self._undo_retrans > 0 and self._undo_marker < end <= prior_una:
            self._undo_retrans = max(0, self._undo_retrans - count)
        return flags | _DSACK

    def _check_reordering(self, low_seq: int) -> None:
        highest = self._highest()
        if low_seq >= highest:
            return
        distance = highest - low_seq
        if distance > self._reordering * MSS:
            self._reordering = min(-(-distance // MSS), _MAX_REORDERING)
        self._reordering_seen = True

    def _note_delivery(self, segment: _Segment) -> None:
        """Of the segments that one acknowledgement delivers, the one sent last counts."""
        if segment.delivered > self._sample:
            self._sample = segment.delivered

    def _clean(
        self,
        flags: int,
        ack: _Ack,
        prior_una: int,
        prior_highest: int,
        prior_sacked: int,
        prior_delivered: int,
        first_sacked_ns: int,
        last_sacked_ns: int,
        now_ns: int,
    ) -> int:
        """What is acknowledged leaves the queue, and is a sample of the round trip."""
        queue, una = self._queue, self._una
        reordered = self._nxt
        first_ns = last_ns = -1
        count = 0
        while queue and queue[0].end <= una:
            segment = queue.popleft()
            count += 1
            if segment.retransmitted:
                self._retrans_out -= segment.under_way
                flags |= _RETRANS_ACKED
            elif not segment.sacked:
                last_ns = segment.sent_ns
                if first_ns < 0:
                    first_ns = last_ns
                reordered = min(reordered, segment.seq)
                if segment.end <= self._high_seq:
                    flags |= _ORIGINAL_DELIVERED
            if segment.sacked:
                self._sacked_out -= 1
            else:
                self._delivered += 1
                spurious = segment.retransmitted and ack.echo_ms < _stamp(segment.sent_ns)
                if not spurious:
                    self._advance_rack(segment, now_ns)
            self._lost_out -= segment.lost
            self._note_delivery(segment)
        if count:
            flags |= _DATA_ACKED
            self._packets_out -= count
        rtt_ns = path_rtt_ns = sacked_rtt_ns = -1
        if first_ns >= 0 and not flags & _RETRANS_ACKED:
            rtt_ns, path_rtt_ns = now_ns - first_ns, now_ns - last_ns
            if (
                count == 1
                and not prior_sacked
                and una - prior_una < MSS
                and self._sample == prior_delivered
                and not flags & (_DATA_SACKED | _DSACK)
            ):
                flags |= _MAYBE_DELAYED
        if first_sacked_ns >= 0:
            sacked_rtt_ns, path_rtt_ns = now_ns - first_sacked_ns, now_ns - last_sacked_ns
        if rtt_ns < 0:
            rtt_ns = sacked_rtt_ns
        if rtt_ns < 0 and flags & _DATA_ACKED:
            rtt_ns = path_rtt_ns = max(_stamp(now_ns) - ack.echo_ms, 1) * NS_PER_MS
        if rtt_ns >= 0:
            self._measure(rtt_ns, path_rtt_ns, bool(flags & _MAYBE_DELAYED))
        if flags & _DATA_ACKED:
            flags |= _SET_TIMER
            if reordered < prior_highest:
                self._check_reordering(reordered)
        elif queue and sacked_rtt_ns > now_ns - queue[0].sent_ns:
            flags |= _SET_TIMER
        if path_rtt_ns >= 0:
            self._cubic.sampled(path_rtt_ns, now_ns)
        self._adapt_reordering_window()
        return flags

    def _measure(self, rtt_ns: int, path_rtt_ns: int, maybe_delayed: bool) -> None:
        """RFC 6298, with Linux's maximum of the deviation over each round trip."""
        if not (maybe_delayed and path_rtt_ns > self._min_rtt_ns):
            self._min_rtt_ns = min(self._min_rtt_ns, max(path_rtt_ns, 1))
        error_ns = rtt_ns - self._srtt_ns
        self._srtt_ns = max(self._srtt_ns + error_ns // 8, 1)
        excess_ns = abs(error_ns) - self._mdev_ns
        self._mdev_ns += excess_ns // (32 if error_ns < 0 < excess_ns else 4)
        if 4 * self._mdev_ns > self._mdev_max_ns:
            self._mdev_max_ns = 4 * self._mdev_ns
            self._rttvar_ns = max(self._rttvar_ns, self._mdev_max_ns)
        if self._una > self._rtt_seq:
            if self._mdev_max_ns < self._rttvar_ns:
                self._rttvar_ns -= (self._rttvar_ns - self._mdev_max_ns) // 4
            self._rtt_seq = self._nxt
            self._mdev_max_ns = RTO_MIN_NS
        self._set_rto()

    # Loss detection.

    def _advance_rack(self, segment: _Segment, now_ns: int) -> None:
        rtt_ns = now_ns - segment.sent_ns
        if segment.retransmitted and rtt_ns < self._min_rtt_ns:
            return
        self._rack_advanced = True
        self._rack_rtt_ns = rtt_ns
        if (segment.sent_ns, segment.end) > (self._rack_sent_ns, self._rack_end):
            self._rack_sent_ns, self._rack_end = segment.sent_ns, segment.end

    def _adapt_reordering_window(self) -> None:
        sample, self._sample = self._sample, 0
        if not sample:
            return
        if sample < self._rack_delivered:
            self._rack_dsack = False
        if self._rack_dsack:
            self._rack_steps = min(255, self._rack_steps + 1)
            self._rack_dsack = False
            self._rack_delivered = self._delivered
            self._rack_persist = _REO_WINDOW_PERSIST
        elif not self._rack_persist:
            self._rack_steps = 1

    def _reordering_window_ns(self) -> int:
        if not self._reordering_seen and (
            self._state >= _RECOVERY or self._sacked_out >= self._reordering
        ):
            return 0
        return min(self._min_rtt_ns // 4 * self._rack_steps, self._srtt_ns)

    def _rack_left_ns(self, segment: _Segment, window_ns: int, now_ns: int) -> int:
        return self._rack_rtt_ns + window_ns - (now_ns - segment.sent_ns)

    def _detect_loss(self, now_ns: int) -> int:
        """Mark what is lost; how long until more may be (0: nothing is in doubt)."""
        window_ns = self._reordering_window_ns()
        latest = (self._rack_sent_ns, self._rack_end)
        wait_ns = 0
        for segment in self._queue:
            if segment.sacked or (segment.lost and not segment.under_way):
                continue
            if latest <= (segment.sent_ns, segment.end):
                continue
            left_ns = self._rack_left_ns(segment, window_ns, now_ns)
            if left_ns <= 0:
                self._mark_lost(segment)
            else:
                wait_ns = max(wait_ns, left_ns)
        return wait_ns

    def _mark_lost(self, segment: _Segment) -> None:
        if segment.sacked:
            return
        if not segment.lost:
            segment.lost = True
            self._lost_out += 1
            self._lost_total += 1
        elif segment.under_way:
            segment.under_way = False
            self._retrans_out -= 1
            self._lost_total += 1

    def _identify_loss(self, flags: int, now_ns: int) -> int:
        if not self._queue or not self._rack_advanced:
            return flags
        retrans_out = self._retrans_out
        self._rack_advanced = False
        wait_ns = self._detect_loss(now_ns)
        if wait_ns:
            ticks = min(_ticks(wait_ns + _TIMEOUT_MIN_NS), self._rto_ticks)
            self._arm(_REORDER, ticks, now_ns)
            flags &= ~_SET_TIMER
        if retrans_out > self._retrans_out:
            flags |= _LOST_RETRANS
        return flags

    # Recovery, and what takes it back.

    def _alert(self, flags: int, prior_una: int, echo_ms: int, now_ns: int) -> tuple[int, int]:
        """The state machine of an acknowledgement that is not plain: flags, what to retransmit."""
        if self._state == _OPEN:
            self._retrans_stamp_ms = 0
        elif self._una >= self._high_seq:
            if self._state == _CWR:
                if self._una != self._high_seq:
                    self._end_reduction(now_ns)
                    self._state = _OPEN
            elif self._state == _RECOVERY:
                self._undo_at_end(echo_ms, now_ns)
                self._end_reduction(now_ns)
        if self._state == _RECOVERY:
            if flags & _ADVANCED and self._undo_partly(prior_una, echo_ms, now_ns):
                return flags, _REXMIT_NONE
            if self._undo_by_dsack(now_ns):
                self._try_to_open()
            flags = self._identify_loss(flags, now_ns)
            if self._state != _RECOVERY:
                if not self._lost_out:
                    return flags, _REXMIT_NONE
                self._enter_recovery()
            return flags, _REXMIT_LOST
        rexmit = _REXMIT_NONE
        if self._state == _LOSS:
            rexmit = self._process_loss(flags, echo_ms, now_ns)
            flags = self._identify_loss(flags, now_ns)
            if self._state != _OPEN and not flags & _LOST_RETRANS:
                return flags, rexmit
        if self._state <= _DISORDER:
            self._undo_by_dsack(now_ns)
        flags = self._identify_loss(flags, now_ns)
        if not self._lost_out:
            self._try_to_open()
            return flags, rexmit
        self._enter_recovery()
        return flags, _REXMIT_LOST

    def _recover(self, rexmit: int, now_ns: int) -> None:
        if rexmit == _REXMIT_NONE:
            return
        if rexmit == _REXMIT_NEW:
            self._push(now_ns)
            if self._nxt > self._high_seq:
                return
            self._frto = False
        self._retransmit_lost(now_ns)

    def _begin_undo(self) -> None:
        self._undo_marker = self._una
        self._undo_retrans = self._retrans_out
        if self._probe_seq and self._probe_retransmitted:
            self._undo_retrans += 1
        if not self._undo_retrans:
            self._undo_retrans = -1

    def _enter_recovery(self) -> None:
        self._clear_stamp()
        self._prior_threshold = 0
        self._begin_undo()
        if self._state not in (_CWR, _RECOVERY):
            self._prior_threshold = self._current_threshold()
            self._begin_reduction()
        self._state = _RECOVERY

    def _process_loss(self, flags: int, echo_ms: int, now_ns: int) -> int:
        recovered = self._una >= self._high_seq
        if flags & _ADVANCED and self._undo_loss(False, echo_ms, now_ns):
            return _REXMIT_NONE
        if self._frto:
            if flags & _ORIGINAL_DELIVERED and self._undo_loss(True, echo_ms, now_ns):
                return _REXMIT_NONE
            if self._nxt > self._high_seq:
                if flags & _DATA_SACKED or not flags & (_ADVANCED | _DSACK | _DATA_ACKED):
                    self._frto = False
            elif flags & _ADVANCED and not recovered:
                self._high_seq = self._nxt
                if self._nxt < self.written:
                    return _REXMIT_NEW
                self._frto = False
        if recovered:
            self._undo_at_end(echo_ms, now_ns)
            return _REXMIT_NONE
        return _REXMIT_LOST

    def _process_probe(self, ack: int, flags: int, now_ns: int) -> None:
        if ack < self._probe_seq:
            return
        if not self._probe_retransmitted or flags & _DSACK_OF_PROBE:
            self._probe_seq = 0
        elif ack > self._probe_seq:
            self._begin_reduction()
            self._state = _CWR
            self._end_reduction(now_ns)
            self._keep_open()
        elif not flags & (_ADVANCED | _DATA_ACKED | _DATA_SACKED):
            self._probe_seq = 0

    def _any_retransmitted(self) -> bool:
        return self._retrans_out > 0 or bool(self._queue and self._queue[0].retransmitted)

    def _clear_stamp(self) -> None:
        if not self._any_retransmitted():
            self._retrans_stamp_ms = 0

    def _keep_open(self) -> None:
        left = self._sacked_out + self._lost_out
        state = _DISORDER if left or self._any_retransmitted() else _OPEN
        if self._state != state:
            self._state = state
            self._high_seq = self._nxt

    def _try_to_open(self) -> None:
        self._clear_stamp()
        if self._state != _CWR:
            self._keep_open()

    def _was_delayed(self, echo_ms: int) -> bool:
        """What is acknowledged is an original, or nothing was retransmitted at all."""
        return not self._retrans_stamp_ms or 0 < echo_ms < self._retrans_stamp_ms

    def _may_undo(self, echo_ms: int) -> bool:
        return self._undo_marker > 0 and (not self._undo_retrans or self._was_delayed(echo_ms))

    def _undo(self, unmark: bool, now_ns: int) -> None:
        if unmark:
            for segment in self._queue:
                segment.lost = False
            self._lost_out = 0
        if self._prior_threshold:
            self._window = max(self._window, self._prior_window)
            self._threshold = max(self._threshold, self._prior_threshold)
        self._window_stamp_ns = now_ns
        self._undo_marker = 0
        self._rack_advanced = True

    def _undo_at_end(self, echo_ms: int, now_ns: int) -> None:
        if self._may_undo(echo_ms):
            self._undo(False, now_ns)
        elif self._rack_persist:
            self._rack_persist -= 1
        self._state = _OPEN

    def _undo_by_dsack(self, now_ns: int) -> bool:
        if not self._undo_marker or self._undo_retrans:
            return False
        self._rack_persist = min(_REO_WINDOW_PERSIST, self._rack_persist + 1)
        self._undo(False, now_ns)
        return True

    def _undo_loss(self, by_frto: bool, echo_ms: int, now_ns: int) -> bool:
        if not by_frto and not self._may_undo(echo_ms):
            return False
        self._undo(True, now_ns)
        self._timeouts_in_row = 0
        self._state = _OPEN
        return True

    def _undo_partly(self, prior_una: int, echo_ms: int, now_ns: int) -> bool:
        """True where new segments may leave but nothing more is to be retransmitted."""
        if not self._undo_marker or not self._was_delayed(echo_ms):
            return False
        self._check_reordering(prior_una)
        if self._retrans_out:
            return True
        self._clear_stamp()
        self._undo(True, now_ns)
        self._keep_open()
        return False


_REXMIT_NONE, _REXMIT_LOST, _REXMIT_NEW = range(3)


class TcpStream(Generic[P]):
    """Messages from one end of an established connection to the other.

    ``forward`` and ``reverse`` carry nothing else. ``rtt_ns`` is the round trip that the handshake
    measured, ``seed`` decides where between two ticks of the hosts' clocks the time ``start_ns``
    lies (it is what differs from one run to the next on a network without chance).
    """

    def __init__(
        self,
        forward: LinkModel[_Data],
        reverse: LinkModel[_Ack],
        *,
        framing: Framing,
        rtt_ns: int,
        seed: str,
        start_ns: int = 0,
    ) -> None:
        self._links = (forward, reverse)
        self._framing: Framing = framing
        phases = random.Random(f"{seed}/ticks")
        self._receiver = _Receiver(
            self._acknowledge,
            self._read,
            _Wheel(phases.randrange(TICK_NS << 12)),
            rtt_ns,
            framing == "websocket",
        )
        self._sender = _Sender(
            self._transmit, _Wheel(phases.randrange(TICK_NS << 12)), max(rtt_ns, 1), start_ns
        )
        self._waiting: deque[tuple[int, P]] = deque()
        self._readable: list[tuple[P, int]] = []
        self.link_rows: list[tuple[int, int, int, int, int]] = []
        """LINK_LOG rows of the frames whose end has come: direction, in, out, size, outcome."""

    def send(self, packet: P, size_bytes: int, now_ns: int) -> None:
        """The application writes a message. Times never go back."""
        self.advance(now_ns)
        size_bytes = framed_bytes(self._framing, size_bytes)
        self._waiting.append((self._sender.written + size_bytes, packet))
        self._sender.write(size_bytes, now_ns)

    def next_ns(self) -> int | None:
        """When ``advance`` will have something to do next; None while nothing is under way."""
        earliest = min(self._sender.timer_ns, self._receiver.timer_ns)
        for link in self._links:
            ends_ns = link.next_ns()
            if ends_ns is not None and ends_ns + HOST_NS < earliest:
                earliest = ends_ns + HOST_NS
        return None if earliest == _NEVER_NS else earliest

    def advance(self, now_ns: int) -> None:
        """Everything that happens until now, in order."""
        while (time_ns := self.next_ns()) is not None and time_ns <= now_ns:
            self._step(time_ns)

    def received(self) -> list[tuple[P, int]]:
        """Messages that have become readable since the last call, with the instant of each: what
        lies behind a hole waits for it."""
        readable, self._readable = self._readable, []
        return readable

    def counts(self) -> dict[str, int]:
        """What the sender did beyond sending everything once."""
        sender = self._sender
        return {
            "retransmissions": sender.retransmissions,
            "loss_probes": sender.probes,
            "timeouts": sender.timeouts,
        }

    def _step(self, now_ns: int) -> None:
        forward, reverse = self._links
        for data in forward.collect(now_ns - HOST_NS):
            if self._arrives(0, data):
                self._receiver.take(data.packet, now_ns)
        for ack in reverse.collect(now_ns - HOST_NS):
            if self._arrives(1, ack):
                self._sender.take(ack.packet, now_ns)
        for end in (self._receiver, self._sender):
            if end.timer_ns <= now_ns:
                end.fire(now_ns)

    def _arrives(self, direction: int, ended: Ended[_Data] | Ended[_Ack]) -> bool:
        """Log a frame's end; a damaged one fails a checksum, unless it is the sender's address on
        the Ethernet that is damaged, which nobody looks at."""
        _, in_ns, out_ns, size_bytes, outcome, flip_bit = ended
        self.link_rows.append((direction, in_ns, out_ns, size_bytes, outcome))
        if outcome is Outcome.DELIVERED:
            return True
        return out_ns >= 0 and (flip_bit is None or flip_bit in _SOURCE_MAC_BITS)

    def _read(self, complete: int, now_ns: int) -> None:
        while self._waiting and self._waiting[0][0] <= complete:
            self._readable.append((self._waiting.popleft()[1], now_ns))

    def _transmit(self, data: _Data, now_ns: int) -> None:
        self._links[0].offer(data, HEADER_BYTES + data.end - data.seq, now_ns)

    def _acknowledge(self, ack: _Ack, now_ns: int) -> None:
        size_bytes = HEADER_BYTES
        if ack.blocks:
            size_bytes += _SACK_BYTES + _SACK_BLOCK_BYTES * len(ack.blocks)
        self._links[1].offer(ack, size_bytes, now_ns)

"""The sending end: what is in flight, what is lost, what may leave."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from harness.units import NS_PER_MS
from harness.virtual.tcp.cubic import Cubic
from harness.virtual.tcp.wire import (
    MSS,
    NEVER_NS,
    RTO_MAX_NS,
    RTO_MIN_NS,
    Ack,
    Data,
    Wheel,
    stamp,
)

INITIAL_WINDOW = 10
_TIMEOUT_MIN_NS = 2 * NS_PER_MS
_REORDERING = 3
_MAX_REORDERING = 300
_REO_WINDOW_PERSIST = 16
_INFINITE = 1 << 30
_OPEN, _DISORDER, _CWR, _RECOVERY, _LOSS = range(5)
_NONE, _RTO, _PROBE, _REORDER = range(4)
_REXMIT_NONE, _REXMIT_LOST, _REXMIT_NEW = range(3)
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


class _Tagged:
    """What the selective acknowledgements of one frame brought."""

    __slots__ = ("first_ns", "flags", "last_ns", "lowest")

    def __init__(self, lowest: int) -> None:
        self.flags = 0
        self.first_ns = self.last_ns = -1
        """When the first and the last original among them were sent; -1: none."""
        self.lowest = lowest
        """Lowest sequence number that came after a higher one."""


_NOTHING_TAGGED = _Tagged(0)


class Sender:
    """What is in flight, what is lost, what may leave. Sequence numbers begin at 1 and never wrap;
    0 is none."""

    def __init__(
        self, transmit: Callable[[Data, int], None], wheel: Wheel, rtt_ns: int, now_ns: int
    ) -> None:
        self._transmit = transmit
        self._wheel = wheel
        self._cubic = Cubic(wheel)
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
        self.timer_ns = NEVER_NS

    # What the application and the clock do.

    def write(self, size_bytes: int, now_ns: int) -> None:
        if not self._packets_out:
            self._restart_after_idle(now_ns)
        self.written += size_bytes
        self._push(now_ns)

    def fire(self, now_ns: int) -> None:
        """The timer has expired."""
        pending = self._pending
        self.timer_ns = NEVER_NS
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
            self._transmit(Data(self._nxt, end, stamp(now_ns), push), now_ns)
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
        self._transmit(Data(segment.seq, segment.end, stamp(now_ns), segment.push), now_ns)
        self._last_sent_ns = now_ns

    def _retransmit_counted(self, segment: _Segment, now_ns: int) -> None:
        self._retransmit(segment, now_ns)
        segment.under_way = True
        self._retrans_out += 1
        if not self._retrans_stamp_ms:
            self._retrans_stamp_ms = stamp(now_ns)
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
        if now_ns - self._window_stamp_ns >= self._rto_ticks * self._wheel.tick_ns:
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
        rto_ns = self._rto_ticks * self._wheel.tick_ns
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
        self._rto_ticks = self._wheel.ticks_of(min(self._srtt_ns + self._rttvar_ns, RTO_MAX_NS))

    def _rto_left_ns(self, now_ns: int) -> int:
        return self._queue[0].sent_ns + self._rto_ticks * self._wheel.tick_ns - now_ns

    def _rearm_rto(self, now_ns: int) -> None:
        if not self._packets_out:
            self._pending = _NONE
            self.timer_ns = NEVER_NS
            return
        wait_ticks = self._rto_ticks
        if self._pending in (_REORDER, _PROBE):
            wait_ticks = self._wheel.ticks_of(max(self._rto_left_ns(now_ns), 1))
        self._arm(_RTO, wait_ticks, now_ns)

    def _schedule_probe(self, now_ns: int, advancing: bool) -> bool:
        if not self._packets_out or self._state not in (_OPEN, _CWR):
            return False
        wait_ns = 2 * self._srtt_ns
        wait_ns += RTO_MIN_NS if self._packets_out == 1 else _TIMEOUT_MIN_NS
        left_ns = self._rto_ticks * self._wheel.tick_ns if advancing else self._rto_left_ns(now_ns)
        if left_ns > 0:
            wait_ns = min(wait_ns, left_ns)
        self._arm(_PROBE, self._wheel.ticks_of(wait_ns), now_ns)
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
        self._rto_ticks = min(self._rto_ticks * 2, self._wheel.ticks_of(RTO_MAX_NS))
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

    def take(self, ack: Ack, now_ns: int) -> None:
        self._process(ack, now_ns)
        if self._nxt < self.written:
            self._push(now_ns)

    def _process(self, ack: Ack, now_ns: int) -> None:
        prior_una = self._una
        if ack.ack < prior_una:
            if ack.blocks:
                tagged = self._tag(ack, prior_una, now_ns)
                _, rexmit = self._alert(tagged.flags, prior_una, ack.echo_ms, now_ns)
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
        tagged = _NOTHING_TAGGED
        if ack.blocks:
            tagged = self._tag(ack, prior_una, now_ns)
            flags |= tagged.flags
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
            tagged,
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

    def _tag(self, ack: Ack, prior_una: int, now_ns: int) -> _Tagged:
        """The scoreboard after the selective acknowledgements."""
        tagged = _Tagged(self._nxt)
        blocks = ack.blocks
        duplicate = self._is_duplicate(ack)
        if duplicate:
            tagged.flags = self._take_dsack(blocks[0], prior_una)
            duplicate = bool(tagged.flags & _DSACK)
        if not self._packets_out:
            return tagged
        for start, end in sorted(blocks):
            if end > self._nxt or start <= self._una or end <= prior_una:
                continue
            again = duplicate and (start, end) == blocks[0]
            for segment in self._queue:
                if segment.seq >= end:
                    break
                if start <= segment.seq and segment.end <= end:
                    self._tag_one(segment, again, tagged, now_ns)
        if self._state != _LOSS or self._undo_marker:
            self._check_reordering(tagged.lowest)
        return tagged

    def _tag_one(self, segment: _Segment, again: bool, tagged: _Tagged, now_ns: int) -> None:
        """``again``: the receiver says that it had the segment before."""
        if again and segment.retransmitted:
            if 0 < self._undo_marker < segment.end and self._undo_retrans > 0:
                self._undo_retrans -= 1
            if segment.sacked:
                tagged.lowest = min(tagged.lowest, segment.seq)
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
                        tagged.lowest = min(tagged.lowest, segment.seq)
                    if segment.end <= self._high_seq:
                        tagged.flags |= _ORIGINAL_DELIVERED
                    if tagged.first_ns < 0:
                        tagged.first_ns = segment.sent_ns
                    tagged.last_ns = segment.sent_ns
                if segment.lost:
                    segment.lost = False
                    self._lost_out -= 1
            self._note_delivery(segment)
            segment.sacked = True
            tagged.flags |= _DATA_SACKED
            self._highest_sacked = max(self._highest(), segment.end)
            self._sacked_out += 1
            self._delivered += 1
        if again and segment.under_way:
            segment.under_way = False
            self._retrans_out -= 1

    @staticmethod
    def _is_duplicate(ack: Ack) -> bool:
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
        ack: Ack,
        prior_una: int,
        prior_highest: int,
        prior_sacked: int,
        prior_delivered: int,
        tagged: _Tagged,
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
                spurious = segment.retransmitted and ack.echo_ms < stamp(segment.sent_ns)
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
        if tagged.first_ns >= 0:
            sacked_rtt_ns, path_rtt_ns = now_ns - tagged.first_ns, now_ns - tagged.last_ns
        if rtt_ns < 0:
            rtt_ns = sacked_rtt_ns
        if rtt_ns < 0 and flags & _DATA_ACKED:
            rtt_ns = path_rtt_ns = max(stamp(now_ns) - ack.echo_ms, 1) * NS_PER_MS
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
            wait_ticks = min(self._wheel.ticks_of(wait_ns + _TIMEOUT_MIN_NS), self._rto_ticks)
            self._arm(_REORDER, wait_ticks, now_ns)
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

"""CUBIC (RFC 9438) as in Linux."""

from __future__ import annotations

from harness.units import NS_PER_S
from harness.virtual.tcp.wire import Wheel

_SCALE = 410
"""C = 0.4 in 1/1024."""
_BETA = 717
"""0.7 in 1/1024."""
_RENO = 15
"""Eighths of a window to be acknowledged for Reno's window, with that beta, to grow by 1."""
_PAUSE_SHARE = 32
"""For this part of a second the pace of growth holds while the window does."""


class Cubic:
    """The congestion window's growth and reduction, in segments (RFC 9438). In whole numbers and
    1/1024 s as in ``tcp_cubic.c``: windows of a few segments are made by the rounding."""

    def __init__(self, wheel: Wheel) -> None:
        self._wheel = wheel
        self._pause_ticks = wheel.hz // _PAUSE_SHARE
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
        self._last_max = window * (1024 + _BETA) // 2048 if converging else window
        return max(window * _BETA // 1024, 2)

    def paused(self, idle_ns: int, now_ns: int) -> None:
        """Time without anything in flight does not count."""
        if self._epoch and idle_ns > 0:
            self._epoch = min(
                self._epoch + idle_ns // self._wheel.tick_ns, now_ns // self._wheel.tick_ns
            )

    def sampled(self, rtt_ns: int, now_ns: int) -> None:
        if (
            self._epoch
            and now_ns // self._wheel.tick_ns - self._epoch < NS_PER_S // self._wheel.tick_ns
        ):
            return
        if not self._delay_ns or rtt_ns < self._delay_ns:
            self._delay_ns = rtt_ns

    def grown(self, window: int, acked: int, now_ns: int) -> int:
        """The window after ``acked`` segments in congestion avoidance."""
        self._update(window, acked, now_ns // self._wheel.tick_ns)
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
        if self._last_window == window and tick - self._last_tick <= self._pause_ticks:
            return
        if not self._epoch or tick != self._last_tick:
            self._last_window, self._last_tick = window, tick
            self._follow_cubic(window, acked, tick)
        step = window * _RENO >> 3
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
            self._k = round((((self._origin - window) << 40) / _SCALE) ** (1 / 3))
        at = (
            (tick - self._epoch + self._wheel.ticks_of(self._delay_ns)) * self._wheel.tick_ns << 10
        ) // NS_PER_S
        away = abs(at - self._k)
        change = _SCALE * away**3 >> 40
        target = self._origin - change if at < self._k else self._origin + change
        self._per_segment = window // (target - window) if target > window else 100 * window
        if not self._last_max:
            self._per_segment = min(self._per_segment, 20)

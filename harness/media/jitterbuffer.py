"""How deep a jitter buffer is to be: the delay that arrivals ask for.

The relative delay of a packet is its arrival minus the media time of its frame. Only differences
matter, so the sender's clock is not needed: PDV (RFC 5481) is the relative delay less its minimum
over a window. The target depth is a high quantile of PDV, as in WebRTC's NetEQ.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque

from harness.media.settings import ReceiverSettings
from harness.units import NS_PER_MS, NS_PER_S

QUANTILE = 0.97
_WINDOW_NS = 5 * NS_PER_S
_TRUSTED_NS = NS_PER_S
BAND_NS = 20 * NS_PER_MS
"""Depths from target to target + band are left alone: wider than the longest pitch period, so
that one stretch never asks for its opposite."""


class DelayEstimator:
    """Target depth from recent arrivals.

    The window holds as many packets as there are frames in 5 s. Before one second's worth has
    come, the target is the setting's start depth.
    """

    def __init__(self, settings: ReceiverSettings, frame_ns: int) -> None:
        self._settings = settings
        self._frame_ns = frame_ns
        self._length = max(_WINDOW_NS // frame_ns, 2)
        self._trusted = max(_TRUSTED_NS // frame_ns, 2)
        self._recent: deque[int] = deque()
        self._sorted: list[int] = []

    def add(self, relative_delay_ns: int) -> None:
        """One arrival, late ones included (they are what the target must learn from)."""
        if len(self._recent) == self._length:
            del self._sorted[bisect_left(self._sorted, self._recent.popleft())]
        self._recent.append(relative_delay_ns)
        insort(self._sorted, relative_delay_ns)

    @property
    def fastest_ns(self) -> int:
        """Least relative delay in the window; there must have been an arrival."""
        return self._sorted[0]

    def target_ns(self) -> int:
        """Delay to hold above the fastest packet: from a frame to a band below ``max_ns``."""
        if len(self._sorted) < self._trusted:
            wanted = self._settings.start_ns
        else:
            wanted = self._sorted[int(QUANTILE * (len(self._sorted) - 1))] - self._sorted[0]
        return max(min(wanted, self._settings.max_ns - BAND_NS), self._frame_ns)

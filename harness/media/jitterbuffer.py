"""How deep a jitter buffer is to be: the delay that arrivals ask for.

The relative delay of a packet is its arrival minus the media time of its frame. Only differences
matter, so the sender's clock is not needed: PDV (RFC 5481) is the relative delay less its minimum
over a window. The target depth is a high quantile of PDV, as in WebRTC's NetEQ.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from math import ceil

from harness.media.settings import ReceiverSettings
from harness.units import NS_PER_MS, NS_PER_S

QUANTILE = 0.96
"""With the band above it, about 2 % of the frames are late where delays do not change their law."""
_WINDOW_NS = 5 * NS_PER_S
_TRUSTED_NS = NS_PER_S
_ANCHOR_FRAMES = 10
BAND_NS = 14 * NS_PER_MS
"""Depths from target to target + band are left alone, so that one stretch does not ask for its
opposite when the target moves a little."""


class Anchor:
    """What a fixed buffer counts its depth from: the least relative delay among the first ten
    frames, so that one packet that was held up does not deepen the buffer for the whole stream."""

    def __init__(self) -> None:
        self._left = _ANCHOR_FRAMES
        self.least_ns: int | None = None
        """None before the first frame."""

    def add(self, relative_delay_ns: int) -> None:
        """A frame is complete."""
        if self._left:
            self._left -= 1
            least_ns = relative_delay_ns if self.least_ns is None else self.least_ns
            self.least_ns = min(least_ns, relative_delay_ns)


class DelayEstimator:
    """Target depth from recent arrivals.

    The window holds 5 s of frames, each with the delay of its last packet. The setting's start
    depth counts less with every frame, and nothing once one second's worth has come, so that the
    buffer is at its target before speech begins. Delays above it count at once.
    """

    def __init__(self, settings: ReceiverSettings, frame_ns: int) -> None:
        self._settings = settings
        self._frame_ns = frame_ns
        self._length = max(_WINDOW_NS // frame_ns, 2)
        self._trusted = max(_TRUSTED_NS // frame_ns, 2)
        self._recent: OrderedDict[int, int] = OrderedDict()  # by frame, in order of arrival
        self._sorted: list[int] = []

    def add(self, frame: int, relative_delay_ns: int) -> None:
        """One arrival, late ones included (they are what the target must learn from)."""
        held_ns = self._recent.get(frame)
        if held_ns is not None:
            if relative_delay_ns <= held_ns:
                return
            self._forget(held_ns)
        elif len(self._recent) == self._length:
            self._forget(self._recent.popitem(last=False)[1])
        self._recent[frame] = relative_delay_ns
        insort(self._sorted, relative_delay_ns)

    def _forget(self, delay_ns: int) -> None:
        del self._sorted[bisect_left(self._sorted, delay_ns)]

    @property
    def fastest_ns(self) -> int:
        """Least relative delay in the window; there must have been an arrival."""
        return self._sorted[0]

    def target_ns(self) -> int:
        """Delay to hold above the fastest packet: from a frame to a band below ``max_ns``."""
        known = min(len(self._sorted) / self._trusted, 1.0)
        seen_ns = 0
        if self._sorted:
            seen_ns = self._sorted[ceil(QUANTILE * (len(self._sorted) - 1))] - self._sorted[0]
        start_ns = self._settings.start_ns
        wanted_ns = max(seen_ns, round(known * seen_ns + (1 - known) * start_ns))
        return max(min(wanted_ns, self._settings.max_ns - BAND_NS), self._frame_ns)

"""Holding an adaptive buffer's depth to its target by playing frames longer or shorter.

Changes of length are heard in speech and not in pauses. So the depth is brought to its target where
the signal is low; in speech the buffer grows as soon as it is too shallow, since late frames are
heard more than a repeated period, and shrinks only where it is far too deep. WebRTC's NetEQ goes by
the same rules: any seam in background noise, one of high correlation in speech.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from harness.codecs.base import Pcm
from harness.media.jitterbuffer import BAND_NS
from harness.media.stretch import accelerate, expand
from harness.units import NS_PER_MS, NS_PER_S

_QUIET_POWER = (10 ** (-50 / 20) * 32768) ** 2
"""-50 dB of full scale: any seam is inaudible."""
_LOW = 1e-3
"""A frame is low 30 dB below the loudest of late."""
_FORGOTTEN_DB_PER_S = 1.0
_DEEP_NS = 60 * NS_PER_MS
"""Speech is shortened beyond this excess only: 20 ms of gain are not worth a seam that is heard."""
_HASTE_NS = 120 * NS_PER_MS
"""This far from the target the depth matters more than an audible seam."""
_ALIKE = 0.9
_ALIKE_IN_HASTE = 0.5


class DepthControl:
    """Decides for each decoded frame of one stream whether it is stretched."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._loudest = 0.0

    def fit(self, audio: Pcm, last_played: Callable[[], Pcm], excess_ns: int) -> Pcm:
        """``audio``, shape (samples,), longer or shorter by at most one pitch period.

        ``excess_ns`` is how much deeper the buffer is than its target. ``last_played`` gives as
        much of what was played before as a period needs.
        """
        low = self._is_low(audio)
        if 0 <= excess_ns <= (BAND_NS if low else _DEEP_NS):
            return audio
        in_haste = abs(excess_ns) > _HASTE_NS
        likeness = 0.0 if low else _ALIKE_IN_HASTE if in_haste else _ALIKE
        if excess_ns < 0:
            return expand(last_played(), audio, self._rate_hz, likeness)
        spare = excess_ns * self._rate_hz // NS_PER_S
        return accelerate(last_played(), audio, self._rate_hz, likeness, spare)

    def _is_low(self, audio: Pcm) -> bool:
        power = float(np.mean(np.square(audio, dtype=np.float64)))
        forgotten_db = _FORGOTTEN_DB_PER_S * len(audio) / self._rate_hz
        self._loudest = max(power, self._loudest * 10 ** (-forgotten_db / 10))
        return power < max(_QUIET_POWER, self._loudest * _LOW)

"""Playing a frame longer or shorter by one pitch period, without changing its pitch.

Waveform-similarity overlap-add (Verhelst and Roelands, ICASSP 1993), one period at a time as in
WebRTC's NetEQ: voiced speech repeats itself every period, so one can be put in or left out where
the two ends of the seam look alike. Signals are mono int16, shape (samples,).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.codecs.base import Pcm

SHORTEST_PERIOD_S = 0.0025
"""400 Hz, above nearly all voices."""
LONGEST_PERIOD_S = 0.015
"""66 Hz, below nearly all voices (ITU-T G.711 Appendix I searches to the same limit)."""


def period_range(rate_hz: int, longest_samples: int) -> tuple[int, int]:
    """Shortest and longest lag in samples to search; empty (lo > hi) where nothing fits."""
    lowest = round(SHORTEST_PERIOD_S * rate_hz)
    return lowest, min(round(LONGEST_PERIOD_S * rate_hz), longest_samples)


def pitch_period(signal: Pcm, lowest: int, highest: int) -> tuple[int, float]:
    """Lag (samples) at which the end of ``signal`` best resembles itself, and the likeness, 0...1.

    The likeness is the normalised correlation of the last ``highest`` samples with those one lag
    earlier. Needs ``2 * highest`` samples. The lag is ``highest`` and the likeness 0 in silence.
    """
    x = signal[-2 * highest :].astype(np.float64)
    reference = x[highest:]
    lags = highest - lowest + 1
    products = np.correlate(x[: highest + lags - 1], reference, "valid")
    squares = np.concatenate(([0.0], np.cumsum(x * x)))
    energies = squares[highest : highest + lags] - squares[:lags]
    norms = np.sqrt(energies * (reference @ reference))
    likeness = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
    best = int(np.argmax(likeness))
    if likeness[best] <= 0:
        return highest, 0.0
    return highest - best, float(min(likeness[best], 1.0))


def cross_fade(old: NDArray[np.generic], new: NDArray[np.generic]) -> Pcm:
    """From ``old`` to ``new`` (equally long) with linear weights that never reach 0 or 1."""
    weight = np.arange(1, len(new) + 1) / (len(new) + 1)
    mixed = old.astype(np.float64) * (1 - weight) + new.astype(np.float64) * weight
    return np.rint(mixed).astype(np.int16)


def _seam(history: Pcm, frame: Pcm, rate_hz: int, longest: int, likeness: float) -> int | None:
    """A period that may be put in or left out at the start of ``frame``; None if it would show."""
    lowest, highest = period_range(rate_hz, longest)
    signal = np.concatenate((history, frame))
    if highest < lowest or len(signal) < 2 * highest:
        return None
    period, found = pitch_period(signal, lowest, highest)
    return period if found >= likeness else None


def expand(history: Pcm, frame: Pcm, rate_hz: int, likeness: float) -> Pcm:
    """``frame``, one period longer, where ``history`` was played just before it.

    After history (its last period A) naturally follows the frame (its first period B). The period
    put in goes from B to A, so it starts as what follows A and ends as what precedes B. The frame
    itself is returned where the signal is less alike than ``likeness``.
    """
    period = _seam(history, frame, rate_hz, min(len(frame), len(history)), likeness)
    if period is None:
        return frame
    return np.concatenate((cross_fade(frame[:period], history[-period:]), frame))


def accelerate(history: Pcm, frame: Pcm, rate_hz: int, likeness: float, longest: int) -> Pcm:
    """``frame`` without one period of at most ``longest`` samples, or itself where the signal is
    less alike than ``likeness``.

    The start of the frame fades into what comes one period later.
    """
    overlap = round(SHORTEST_PERIOD_S * rate_hz)
    period = _seam(history, frame, rate_hz, min(longest, len(frame) - overlap), likeness)
    if period is None:
        return frame
    return _cut(frame, period, min(period, len(frame) - period))


def leave_out(frame: Pcm, samples: int, rate_hz: int) -> Pcm:
    """``frame`` without so many samples, its start fading within 2.5 ms into what comes after
    them. Empty where they are all of it."""
    overlap = round(SHORTEST_PERIOD_S * rate_hz)
    return _cut(frame, samples, min(overlap, len(frame) - samples))


def _cut(frame: Pcm, samples: int, overlap: int) -> Pcm:
    rest = frame[samples:]
    return np.concatenate((cross_fade(frame[:overlap], rest[:overlap]), rest[overlap:]))

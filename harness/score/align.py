"""Bringing a received track onto its reference, and finding out whether that worked.

A codec's delay D is constant and measured once, without a network (``CodecFacts.delay_samples``):
sample n of the media track is input sample n - D. It is removed exactly, at the codec's rate,
before any resampling. What is then left over should be nothing; it is measured by GCC-PHAT (Knapp
and Carter 1976), or, where a parametric codec keeps no phase, by the envelope. A residual lag is
evidence of a fault in codec or timeline, so it is reported and *never* corrected.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy import fft

Audio = NDArray[np.float32]

BAND_HZ = (100.0, 3600.0)
SEARCH_S = 2.0
MIN_CONFIDENCE = 2.0
"""Below this ratio of the peak to the second peak GCC-PHAT has found nothing."""
MIN_ENVELOPE_CORRELATION = 0.5
_PEAK_S = 0.002
_HOP_S = 0.001
_WINDOW_S = 0.016
_FLOOR_DB = -50.0
_KEPT_SPECTRA = 16


@dataclass(frozen=True)
class Alignment:
    """What verified the calibrated delay, which is what was removed in any case.

    ``gcc-phat`` or ``envelope``: that method found ``lag_ms`` (positive: the track is late).
    ``calibrated``: nothing could verify it, or nothing had to. ``confidence`` is GCC-PHAT's ratio
    of peak to second peak (to four digits), None if it was not asked.
    """

    method: Literal["calibrated", "gcc-phat", "envelope"]
    lag_ms: float | None = None
    confidence: float | None = None


def to_float(pcm: NDArray[Any]) -> Audio:
    """int16 to -1...1; floats as they are."""
    if np.issubdtype(pcm.dtype, np.integer):
        return (pcm / np.float32(32768)).astype(np.float32)
    return pcm.astype(np.float32)


def resampled(audio: Audio, rate_hz: int, to_hz: int) -> Audio:
    """Linear-phase resampling (soxr, VHQ), which delays nothing."""
    if rate_hz == to_hz:
        return audio
    out: Audio = soxr.resample(audio, rate_hz, to_hz, quality="VHQ").astype(np.float32)
    return out


def without_delay(track: Audio, delay_samples: int) -> Audio:
    """The track from the sample that corresponds to input sample 0 on."""
    return track[max(0, delay_samples) :]


def fitted(audio: Audio, samples: int) -> Audio:
    """Cut, or filled up with zeros, to a length."""
    return np.pad(audio[:samples], (0, max(0, samples - len(audio))))


def check(reference: Audio, degraded: Audio, rate_hz: int) -> Alignment:
    """How far ``degraded`` still lies behind ``reference``: two tracks of one rate."""
    lag_s, confidence = gcc_phat(reference, degraded, rate_hz)
    if confidence >= MIN_CONFIDENCE:
        return Alignment("gcc-phat", 1000 * lag_s, confidence)
    lag_s, correlation = envelope_lag(reference, degraded, rate_hz)
    if correlation >= MIN_ENVELOPE_CORRELATION:
        return Alignment("envelope", 1000 * lag_s, confidence)
    return Alignment("calibrated", None, confidence)


def gcc_phat(reference: Audio, degraded: Audio, rate_hz: int) -> tuple[float, float]:
    """Lag in seconds and confidence, from the phase of the cross-spectrum within ``BAND_HZ``.

    The confidence is the peak over the highest one that is more than 2 ms away, within +-2 s;
    0 where a track is silent.
    """
    # So much silence behind the tracks keeps the lags that are searched from meeting themselves.
    longest = max(len(reference), len(degraded))
    size = fft.next_fast_len(longest + round(SEARCH_S * rate_hz) + 1, real=True)
    frequency = fft.rfftfreq(size, 1 / rate_hz)
    low, high = BAND_HZ
    band = slice(np.searchsorted(frequency, low), np.searchsorted(frequency, high, side="right"))
    heard = fft.rfft(degraded.astype(np.float64), size)[band]
    said = _spectrum(reference.astype(np.float64).tobytes(), size)[band]
    cross = heard * np.conj(said)
    magnitude = np.abs(cross)
    kept = magnitude > 0
    if not kept.any():
        return 0.0, 0.0
    whitened = np.zeros(len(frequency), cross.dtype)
    whitened[band] = np.where(kept, cross / np.where(kept, magnitude, 1), 0)
    lags, correlation = _around_zero(fft.irfft(whitened, size), round(SEARCH_S * rate_hz))
    height = np.abs(correlation)
    best = int(height.argmax())
    others = height[np.abs(lags - lags[best]) > _PEAK_S * rate_hz]
    # The last digits hang on where in memory the samples lie (vector or scalar instructions).
    return float(lags[best] / rate_hz), float(f"{height[best] / others.max():.4g}")


@lru_cache(maxsize=_KEPT_SPECTRA)
def _spectrum(samples: bytes, size: int) -> NDArray[np.complexfloating]:
    """Of float64 samples; a reference is compared with the tracks of many cells."""
    return fft.rfft(np.frombuffer(samples, np.float64), size)


def envelope_lag(reference: Audio, degraded: Audio, rate_hz: int) -> tuple[float, float]:
    """Lag in seconds (to 1 ms) and correlation coefficient of the log-energy envelopes."""
    first, second = _log_envelope(reference, rate_hz), _log_envelope(degraded, rate_hz)
    norm = float(np.linalg.norm(first) * np.linalg.norm(second))
    if norm == 0:
        return 0.0, 0.0
    size = fft.next_fast_len(len(first) + len(second), real=True)
    product = fft.irfft(fft.rfft(second, size) * np.conj(fft.rfft(first, size)), size)
    lags, correlation = _around_zero(product, round(SEARCH_S / _HOP_S))
    best = int(correlation.argmax())
    return float(lags[best] * _HOP_S), float(correlation[best] / norm)


def _log_envelope(audio: Audio, rate_hz: int) -> NDArray[np.float64]:
    hop, hops = round(_HOP_S * rate_hz), round(_WINDOW_S / _HOP_S)
    count = len(audio) // hop
    energy = np.square(audio[: count * hop], dtype=np.float64).reshape(count, hop).sum(axis=1)
    smooth = np.convolve(energy, np.ones(hops), "same") if count >= hops else energy
    floor = smooth.max(initial=0.0) * 10 ** (_FLOOR_DB / 10)
    if floor == 0:
        return np.zeros(count)
    level = np.log10(np.maximum(smooth, floor))
    centred: NDArray[np.float64] = level - level.mean()
    return centred


def _around_zero(
    circular: NDArray[np.floating], reach: int
) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
    """Lags -reach...reach of a circular correlation, and its values there."""
    reach = min(reach, (len(circular) - 1) // 2)
    lags = np.arange(-reach, reach + 1)
    return lags, circular[lags]

"""Bringing a received track onto its reference, and finding out whether that worked.

A codec's delay D is constant and measured once, without a network (``CodecFacts.delay_samples``):
sample n of the media track is input sample n - D. It is removed exactly, at the codec's rate,
before any resampling. What is then left over should be nothing; it is measured by GCC-PHAT (Knapp
and Carter 1976), or, where a parametric codec keeps no phase, by the envelope. A residual lag is
evidence of a fault in codec or timeline, so it is reported and *never* corrected.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
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


Spectra = dict[int, NDArray[np.complexfloating]]
"""Of one reference, by length of the transform, for the next track that is held against it."""


def check(
    reference: Audio, degraded: Audio, rate_hz: int, spectra: Spectra | None = None
) -> Alignment:
    """How far ``degraded`` still lies behind ``reference``: two tracks of one rate."""
    lag_s, confidence = gcc_phat(reference, degraded, rate_hz, spectra)
    told = float(f"{confidence:.4g}")
    if confidence >= MIN_CONFIDENCE:
        return Alignment("gcc-phat", 1000 * lag_s, told)
    lag_s, correlation = envelope_lag(reference, degraded, rate_hz)
    if correlation >= MIN_ENVELOPE_CORRELATION:
        return Alignment("envelope", 1000 * lag_s, told)
    return Alignment("calibrated", None, told)


def gcc_phat(
    reference: Audio, degraded: Audio, rate_hz: int, spectra: Spectra | None = None
) -> tuple[float, float]:
    """Lag in seconds and confidence, from the phase of the cross-spectrum within ``BAND_HZ``.

    The confidence is the peak over the highest one that is more than 2 ms away, within +-2 s;
    0 where a track is silent.
    """
    # So much silence behind the tracks keeps the lags that are searched from meeting themselves.
    longest = max(len(reference), len(degraded))
    size = fft.next_fast_len(longest + round(SEARCH_S * rate_hz) + 1, real=True)
    spectra = {} if spectra is None else spectra
    if size not in spectra:
        spectra[size] = np.conj(fft.rfft(reference, size))
    low, high = (frequency * size / rate_hz for frequency in BAND_HZ)
    band = slice(math.ceil(low), math.floor(high) + 1)
    cross = fft.rfft(degraded, size)[band] * spectra[size][band]
    magnitude = np.abs(cross)
    if not magnitude.any():
        return 0.0, 0.0
    magnitude[magnitude == 0] = 1
    whitened = np.zeros(size // 2 + 1, cross.dtype)
    np.divide(cross, magnitude, out=whitened[band])
    lags, correlation = _around_zero(fft.irfft(whitened, size), round(SEARCH_S * rate_hz))
    height = np.abs(correlation)
    best = int(height.argmax())
    near = math.floor(_PEAK_S * rate_hz)
    others = max(
        height[: max(0, best - near)].max(initial=0), height[best + near + 1 :].max(initial=0)
    )
    return float(lags[best] / rate_hz), float(height[best] / others)


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
    return lags, np.concatenate((circular[len(circular) - reach :], circular[: reach + 1]))

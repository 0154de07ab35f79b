"""How far one signal is from another, in dB: of waveforms (SI-SDR) and of spectra (LSD). Pure."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

MOST_DB = 100.0
"""Of SI-SDR either way: beyond what 16 bits resolve, and finite for equal signals."""
_WINDOW_S, _HOP_S = 0.032, 0.008
SPEECH_RANGE_DB, MUSIC_RANGE_DB = 50.0, 80.0
"""Of spectra that are compared. The treble of music lies further below its bass than that of
speech, and a codec that cuts it off should not pass for a good one."""


def si_sdr(reference: NDArray[np.floating], degraded: NDArray[np.floating]) -> float:
    """Scale-invariant signal-to-distortion ratio (Le Roux et al. 2019, eq. 5) in dB, within
    +-``MOST_DB``: what of ``degraded`` is a scaled copy of ``reference``, over what is not."""
    wanted, heard = np.asarray(reference, np.float64), np.asarray(degraded, np.float64)
    target = np.dot(heard, wanted) / np.dot(wanted, wanted) * wanted
    distortion = heard - target
    kept, lost = float(np.dot(target, target)), float(np.dot(distortion, distortion))
    if kept == 0:
        return -MOST_DB
    if lost == 0:
        return MOST_DB
    return max(-MOST_DB, min(10 * math.log10(kept / lost), MOST_DB))


def lsd(
    reference: NDArray[np.floating],
    degraded: NDArray[np.floating],
    rate_hz: int,
    range_db: float = SPEECH_RANGE_DB,
) -> float:
    """Log-spectral distance in dB: root mean square over frequency of the difference of the log
    power spectra (Gray and Markel 1976), mean over frames of 32 ms every 8 ms (Hann).

    Both spectra are clipped ``range_db`` below the reference's peak (Cohen 2004, with 50 dB), so
    that what nobody hears is no distance; digital silence against silence is 0.
    """
    powers = [_power(audio, rate_hz) for audio in (reference, degraded)]
    floor = powers[0].max() * 10 ** (-range_db / 10)
    first, second = (10 * np.log10(np.maximum(power, floor)) for power in powers)
    return float(np.sqrt(np.square(first - second).mean(axis=1)).mean())


def _power(audio: NDArray[np.floating], rate_hz: int) -> NDArray[np.float64]:
    size, hop = round(_WINDOW_S * rate_hz), round(_HOP_S * rate_hz)
    padded = np.pad(np.asarray(audio, np.float64), (0, max(0, size - len(audio))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    power: NDArray[np.float64] = np.abs(np.fft.rfft(frames * np.hanning(size + 1)[:-1])) ** 2
    return power

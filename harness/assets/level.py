"""Active speech and its level, ITU-T P.56 (12/2011) method B, and other levels in dBov.

0 dBov is the power of a full-scale square wave (ITU-T G.100.1): a sample of +-1.0 in floats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

Samples = NDArray[np.float64]

MIN_ACTIVE_SPEECH_S = 3.2
"""Of active speech that a reference of PESQ has at least (ITU-T P.862.3, 7)."""

_TIME_CONSTANT_S = 0.03
_HANGOVER_S = 0.2
_MARGIN_DB = 15.9
_STEP_DB = 20 * math.log10(2)
_THRESHOLDS_DB = [_STEP_DB * bits for bits in range(-15, 0)]  # one 16-bit step ... half full scale


@dataclass(frozen=True)
class SpeechLevel:
    """``level_dbov`` over the active time alone; ``active_ratio`` is that time's share, 0...1."""

    level_dbov: float
    active_ratio: float
    threshold: float
    """The envelope's value that separates activity from pauses."""


def rms_dbov(samples: Samples) -> float:
    """Long-term level; -inf for digital silence. ``samples``: floats of full scale 1, (n,)."""
    power = float(np.mean(np.square(samples))) if len(samples) else 0.0
    return 10 * math.log10(power) if power > 0 else -math.inf


def envelope(samples: Samples, rate_hz: int) -> Samples:
    """P.56 equations for p and q: the rectified signal, smoothed twice with 30 ms."""
    g = math.exp(-1 / (rate_hz * _TIME_CONSTANT_S))
    smooth = np.abs(samples)
    for _ in range(2):
        smooth = lfilter([1 - g], [1, -g], smooth)
    return np.asarray(smooth, np.float64)


def active(smooth: Samples, threshold: float, rate_hz: int) -> NDArray[np.bool_]:
    """Per sample: the envelope is at the threshold, or was within the hangover of 200 ms."""
    index = np.arange(len(smooth))
    last = np.maximum.accumulate(np.where(smooth >= threshold, index, -len(smooth) - rate_hz))
    return index - last <= math.ceil(_HANGOVER_S * rate_hz)


def active_speech_s(samples: NDArray[np.int16] | NDArray[np.floating], rate_hz: int) -> float:
    """Seconds of active speech (method B), to 1 ms; 0 where there is none.

    ``samples``: int16, or floats of full scale 1, shape (n,).
    """
    scale = 32768 if np.issubdtype(samples.dtype, np.integer) else 1
    level = speech_level(samples.astype(np.float64) / scale, rate_hz)
    return round(level.active_ratio * len(samples) / rate_hz, 3) if level else 0.0


def speech_level(samples: Samples, rate_hz: int) -> SpeechLevel | None:
    """Method B: the level over the time in which the envelope exceeds a threshold that lies
    15.9 dB below that very level. None where no threshold does (silence, or no speech at all).

    ``samples``: floats of full scale 1, shape (n,), without DC.
    """
    energy = float(np.sum(np.square(samples)))
    smooth = envelope(samples, rate_hz)
    previous: tuple[float, float] | None = None
    for threshold_db in _THRESHOLDS_DB:
        count = int(active(smooth, 10 ** (threshold_db / 20), rate_hz).sum())
        if count == 0 or energy == 0:
            return None
        level_db = 10 * math.log10(energy / count)
        excess_db = level_db - threshold_db - _MARGIN_DB
        if excess_db <= 0:
            if previous is not None:  # the crossing lies between the last threshold and this one
                before_db, before_excess_db = previous
                share = before_excess_db / (before_excess_db - excess_db)
                threshold_db -= (1 - share) * _STEP_DB
                level_db = before_db + share * (level_db - before_db)
            ratio = energy / len(samples) / 10 ** (level_db / 10)
            return SpeechLevel(level_db, min(1.0, ratio), 10 ** (threshold_db / 20))
        previous = level_db, excess_db
    return None

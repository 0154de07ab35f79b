"""DNSMOS: how listeners would rate speech after noise suppression, by networks that hear it alone.

P.835 (Reddy et al. 2022): quality of the signal (``sig``), of the background (``bak``), and overall
(``ovrl``), corrected by polynomials that were fitted to human ratings. P.808 (Reddy et al. 2021):
overall quality, from a log-mel spectrogram. Both hear 9.01 s at 16 kHz; scores are means over
windows that start every second, and shorter speech is said again until it is long enough. As in
the released code (microsoft/DNS-Challenge, ``DNSMOS/``), whose mel spectrogram is librosa's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.polynomial import polynomial
from numpy.typing import NDArray

from harness.score import onnx

RATE_HZ = 16_000
WINDOW_S = 9.01
_WINDOW = int(WINDOW_S * RATE_HZ)
_FITS = {
    "sig": (0.0052439, 1.22083953, -0.08397278),
    "bak": (-0.39604546, 1.60915514, -0.13166888),
    "ovrl": (0.04602535, 1.11546468, -0.06766283),
}
"""In the order of the model's outputs; coefficients from the constant up."""
_FRAME, _HOP, _BANDS = 321, 160, 120
_AMIN = 1e-10
_LINEAR_HZ, _LINEAR_MELS, _LOG_STEP = 1000.0, 15.0, math.log(6.4) / 27
"""Slaney's mel scale: linear up to 1 kHz, then logarithmic."""


def p835(degraded: NDArray[np.floating], model: Path, mode: str) -> float:
    """MOS ``sig``, ``bak`` or ``ovrl`` of mono speech at ``RATE_HZ``. Raises NoScore without
    onnxruntime."""
    raw = _p835_of_windows(np.asarray(degraded, np.float32).tobytes(), model)
    place = list(_FITS).index(mode)
    return float(np.mean(polynomial.polyval(raw[:, place], _FITS[mode])))


def p808(degraded: NDArray[np.floating], model: Path) -> float:
    """Overall MOS of mono speech at ``RATE_HZ``. Raises NoScore without onnxruntime."""
    return float(
        np.mean(
            [
                onnx.run(model, {"input_1": log_mel(window[:-_HOP])[np.newaxis]}).item()
                for window in _windows(np.asarray(degraded, np.float32))
            ]
        )
    )


def log_mel(audio: NDArray[np.floating]) -> NDArray[np.float32]:
    """Mel spectrogram in dB below its peak (80 at most), shifted and scaled to -1...1: (frames,
    120). Hann windows of 321 samples every 160, centred, with zeros beyond the ends."""
    padded = np.pad(np.asarray(audio, np.float64), _FRAME // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::_HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_FRAME) / _FRAME)
    power = np.abs(np.fft.rfft(frames * hann)) ** 2 @ _mel_filters().T
    level = 10 * np.log10(np.maximum(power, _AMIN))
    level = np.maximum(level - level.max(), -80.0)
    return np.asarray((level + 40) / 40, np.float32)


@lru_cache(maxsize=1)
def _mel_filters() -> NDArray[np.float64]:
    """Triangles of equal area over frequency, evenly spaced in mels up to the Nyquist frequency:
    (120, 161)."""
    edges = _to_hz(np.linspace(0, _to_mels(RATE_HZ / 2), _BANDS + 2))
    bins = np.fft.rfftfreq(_FRAME, 1 / RATE_HZ)
    low, centre, high = (edges[start : start + _BANDS, np.newaxis] for start in range(3))
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    filters: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    return filters


def _to_mels(hz: float) -> float:
    """Of a frequency above 1 kHz."""
    return _LINEAR_MELS + math.log(hz / _LINEAR_HZ) / _LOG_STEP


def _to_hz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = mels * _LINEAR_HZ / _LINEAR_MELS
    logarithmic = _LINEAR_HZ * np.exp(_LOG_STEP * (mels - _LINEAR_MELS))
    return np.where(mels < _LINEAR_MELS, linear, logarithmic)


@lru_cache(maxsize=1)
def _p835_of_windows(samples: bytes, model: Path) -> NDArray[np.float32]:
    """The model's three outputs for each window of float32 samples; kept for the next mode."""
    windows = _windows(np.frombuffer(samples, np.float32))
    return np.concatenate([onnx.run(model, {"input_1": window[np.newaxis]}) for window in windows])


def _windows(audio: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    while len(audio) < _WINDOW:
        audio = np.concatenate((audio, audio))
    for second in range(int(len(audio) // RATE_HZ - WINDOW_S) + 1):
        window = audio[second * RATE_HZ :][:_WINDOW]
        if len(window) == _WINDOW:
            yield window

"""PLCMOS v2 (Diener et al. 2023): how listeners would rate the concealment of lost packets, by a
network that hears the degraded speech alone.

Facts of the released model (microsoft/PLC-Challenge, ``PLCMOS/``): its input is 0.05 ln |STFT|^2 of
16 kHz audio in -1...1, windows of 512 samples (periodic Hamming) every 256, the first of which is
half before the audio; and a *rater*, a normal vector of 64. The score is the mean over 15 raters.
There they are drawn from numpy's legacy generator, seeded with 23 for each file, which is what the
published figures hang on; the package ``speechmos`` draws them unseeded, and so scores an
utterance anew each time, some hundredths apart.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.score import onnx

RATE_HZ = 16_000
_WINDOW, _HOP = 512, 256
_RATERS, _TRAITS, _SEED = 15, 64, 23
_BELOW_LEAST = math.log(10 ** (-120 / 10))
"""Where the spectrum is 0: so far below the least that is not."""


def plcmos(degraded: NDArray[np.floating], model: Path) -> float:
    """MOS of mono speech at ``RATE_HZ`` that is not silent. Raises NoScore without onnxruntime."""
    audio = features(degraded)
    return float(
        np.mean(
            [
                onnx.run(model, {"degraded_audio": audio, "rater_embed": rater}).item()
                for rater in _raters()
            ]
        )
    )


def features(audio: NDArray[np.floating]) -> NDArray[np.float32]:
    """Log power spectra as the model takes them: (1, 1, frames, 257)."""
    count = math.ceil(len(audio) / _HOP) + 1
    padded = np.zeros((count + 1) * _HOP)
    padded[_HOP : _HOP + len(audio)] = audio
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    power = np.abs(np.fft.rfft(frames * np.hamming(_WINDOW + 1)[:-1])) ** 2
    level = np.log(np.where(power > 0, power, power[power > 0].min()))
    level[power == 0] += _BELOW_LEAST
    return np.asarray(level / 20, np.float32)[np.newaxis, np.newaxis]


@lru_cache(maxsize=1)
def _raters() -> NDArray[np.float32]:
    raters = np.random.RandomState(_SEED).normal(size=(_RATERS, 1, _TRAITS))
    return raters.astype(np.float32)

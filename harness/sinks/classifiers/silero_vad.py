"""Silero's voice activity detector, whose package carries its weights: speech, or none.

The network takes 512 samples at a time with the 64 before them, and a state. Here each window
begins with neither, for windows overlap and may come from anywhere; it is speech where the
probability reaches the package's own threshold of 0.5 at any step. On LibriSpeech, windows of 128
ms agree so with the detector that hears the whole utterance in nine cases of ten.
"""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import AssetError, Unsupported
from harness.score import onnx
from harness.sinks.settings import RATE_HZ

_STEP, _CONTEXT = 512, 64
_STATE = (2, 128)
_THRESHOLD = 0.5
_MODEL = Path("data", "silero_vad_16k_op15.onnx")
_REMEDY = "pip install onnxruntime && pip install --no-deps silero-vad"


def create() -> SileroVad:
    """Raises Unsupported without the packages, AssetError for a model that is damaged."""
    found = find_spec("silero_vad")  # only found: the package itself would import torch
    if found is None or found.origin is None:
        raise Unsupported(f"silero-vad is not installed: {_REMEDY}")
    model = Path(found.origin).parent / _MODEL
    if not model.is_file():
        raise Unsupported(f"silero-vad {version('silero-vad')} lacks {_MODEL}: {_REMEDY}")
    try:
        session = onnx.session(model)
    except ImportError as error:
        raise Unsupported(f"silero-vad needs onnxruntime ({error}): {_REMEDY}") from error
    except Exception as error:  # its errors have no common base
        raise AssetError(f"{model}: not a model that can be read: {error}") from error
    return SileroVad(session)


class SileroVad:
    """Labels: ``speech``, ``none``."""

    real_time_factor = 0.004

    def __init__(self, session: Any) -> None:
        self._session = session
        self.library = f"silero-vad {version('silero-vad')}"

    def classify(self, windows: NDArray[np.float32]) -> list[str]:
        return ["speech" if sure >= _THRESHOLD else "none" for sure in self.probabilities(windows)]

    def probabilities(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of speech, shape (windows,): the highest of each window's steps."""
        count, samples = windows.shape
        steps = -(-samples // _STEP)
        padded = np.zeros((count, _CONTEXT + steps * _STEP), np.float32)
        padded[:, _CONTEXT : _CONTEXT + samples] = windows
        state = np.zeros((_STATE[0], count, _STATE[1]), np.float32)
        highest = np.zeros(count, np.float32)
        for step in range(steps):
            heard = padded[:, step * _STEP : (step + 1) * _STEP + _CONTEXT]
            inputs = {"input": heard, "state": state, "sr": np.array(RATE_HZ)}
            probability, state = self._session.run(None, inputs)
            highest = np.maximum(highest, probability[:, 0])
        return highest

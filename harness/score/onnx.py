"""Learned estimators as ONNX files: one thread each, and the same figures in every process."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.score.metrics import NoScore


def run(model: Path, inputs: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """The first output of ``model``. Raises NoScore where onnxruntime is missing."""
    return np.asarray(_session(model).run(None, dict(inputs))[0])


@lru_cache(maxsize=4)
def _session(model: Path) -> Any:
    try:
        return session(model)
    except ImportError as error:
        raise NoScore(f"onnxruntime is missing ({error}): pip install onnxruntime") from error


def session(model: Path) -> Any:
    """An inference session of its own. Raises ImportError without onnxruntime, and whatever that
    raises for a file that is no model: its errors have no common base."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

"""The classifiers, by name: one file each, imported when a stream is to be classified.

A file offers ``create() -> Classifier``, which imports the classifier's own library, and raises
Unsupported with the remedy where that or its weights are missing, AssetError where weights are not
what they should be.
"""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from harness.sinks.settings import ClassifierName

CLASSIFIERS: dict[ClassifierName, str] = {
    "silero-vad": "harness.sinks.classifiers.silero_vad",
    "wav2vec2-gender": "harness.sinks.classifiers.wav2vec2_gender",
}


class Classifier(Protocol):
    """Decides on windows one by one: nothing is carried over from one to the next."""

    @property
    def library(self) -> str:
        """Name and version of what computes."""
        ...

    @property
    def real_time_factor(self) -> float:
        """Time that a window takes over its duration on one core of a server, roughly: what is
        taken where nothing may be measured, so that results are the same on any machine."""
        ...

    def classify(self, windows: NDArray[np.float32]) -> list[str]:
        """A label for each window; shape (windows, samples), full scale 1, at ``RATE_HZ``."""
        ...


@lru_cache(maxsize=2)
def create(name: ClassifierName) -> Classifier:
    """The classifier of that name, ready; made once per process. Raises Unsupported, AssetError."""
    module: Any = importlib.import_module(CLASSIFIERS[name])
    return cast(Classifier, module.create())

"""What the report carries of a run's audio: FLAC files as data URIs, and their waves drawn."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

WIDTH, HEIGHT = 600, 64
"""Of a wave's drawing, in units of its view box."""


class Track(NamedTuple):
    """One FLAC file: mono samples in -1...1, their rate, and the file itself as a data URI."""

    samples: NDArray[np.float32]
    rate_hz: int
    uri: str

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate_hz


class Mark(NamedTuple):
    """A stretch of a wave's drawing, in units of its view box."""

    kind: str
    x: float
    width: float
    second: float


def read_track(path: Path) -> Track | None:
    """None where the file is gone or is no audio: a report is drawn without it."""
    try:
        data = path.read_bytes()
        samples, rate_hz = soundfile.read(path, dtype="float32")
    except (OSError, soundfile.LibsndfileError):
        return None
    return Track(samples, rate_hz, "data:audio/flac;base64," + base64.b64encode(data).decode())


def wave(track: Track, seconds: float) -> str:
    """The ``d`` of an SVG path: the envelope of a track on an axis of ``seconds``."""
    bins = max(1, round(WIDTH / 2 * min(1.0, track.seconds / seconds)))
    parts = np.array_split(track.samples, bins)
    high = [HEIGHT / 2 * (1 - float(part.max(initial=0.0))) for part in parts]
    low = [HEIGHT / 2 * (1 - float(part.min(initial=0.0))) for part in parts]
    there = [f"{2 * i},{y:.1f}" for i, y in enumerate(high)]
    back = [f"{2 * i},{y + 0.4:.1f}" for i, y in reversed(list(enumerate(low)))]
    return "M" + "L".join(there + back) + "Z"


def marks(runs: Sequence[tuple[str, float, float]], seconds: float) -> list[Mark]:
    """Where the stretches (kind, start, length; s) lie on an axis of ``seconds``."""
    scale = WIDTH / seconds
    return [
        Mark(kind, round(start * scale, 1), round(max(1.5, length * scale), 1), round(start, 2))
        for kind, start, length in runs
    ]

"""The tracks of a run's cells as FLAC files."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from harness.store.disk import placed

FLAC_LEVEL = 0.4
"""Of 0 to 1: speech is 1 % longer than at the usual 0.625 and takes two thirds of the time."""
Track = tuple[NDArray[np.int16], int]
"""Samples, mono, shape (samples,), and their rate in Hz."""


def write_audio(
    directory: Path, row: Mapping[str, Any], audio: Mapping[str, Track]
) -> dict[str, str]:
    """Write the tracks as FLAC; the columns of ``cells`` with their paths.

    What was played is written once if it is the media track to the sample.
    """
    paths: dict[str, str] = {}
    for name in sorted(audio):
        if name == "played" and _same(audio["played"], audio.get("media")):
            paths["audio_played"] = paths["audio_media"]
        else:
            paths[f"audio_{name}"] = _write_track(directory, name, row, audio[name])
    return paths


def _write_track(directory: Path, name: str, row: Mapping[str, Any], track: Track) -> str:
    """Write a track as FLAC; the path relative to the run. A reference is written once."""
    pcm, rate_hz = track
    if pcm.dtype != np.int16 or pcm.ndim != 1:
        raise ValueError(f"track {name}: expected int16 mono, got {pcm.dtype} {pcm.shape}")
    stem = f"{row['cell_id']}-{name}"
    if name == "reference":
        digest = hashlib.sha256(pcm.tobytes()).hexdigest()[:8]
        stem = f"reference-{slug(str(row.get('utterance')))}-{rate_hz}-{digest}"
    path = directory / "audio" / f"{stem}.flac"
    if name != "reference" or not path.exists():
        sink = io.BytesIO()
        soundfile.write(
            sink, pcm, rate_hz, format="FLAC", subtype="PCM_16", compression_level=FLAC_LEVEL
        )
        with placed(directory, path) as file:
            file.write(sink.getvalue())
    return path.relative_to(directory).as_posix()


def _same(track: Track, other: Track | None) -> bool:
    return other is not None and track[1] == other[1] and np.array_equal(track[0], other[0])


def slug(text: str) -> str:
    """``text`` as part of a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:80] or "run"

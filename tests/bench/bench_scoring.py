"""How much faster a run is scored by all cores than by one."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from harness.score.pool import Scorer, ScoreTask
from tests.labs.conftest import voice

RATE_HZ = 16_000
SECONDS = 10.0
CELLS_PER_CORE = 6


def measure() -> dict[str, str]:
    """The same cells of 10 s, a tenth of them lost, by one worker and by one a core."""
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        cells = [_cell(Path(folder), number) for number in range(CELLS_PER_CORE * cores)]
        one_s, all_s = _seconds(cells, 1), _seconds(cells, cores)
    return {
        "cells of 10 s, workers": f"{len(cells)}, 1 and {cores}",
        "cells per second, one worker": f"{len(cells) / one_s:.2f}",
        f"cells per second, {cores} workers": f"{len(cells) / all_s:.2f}",
        f"speed-up by {cores} cores (ideal {cores})": f"{one_s / all_s:.2f}",
    }


def _cell(folder: Path, number: int) -> ScoreTask:
    speech = (20_000 * voice(SECONDS, RATE_HZ, number)).astype(np.int16)
    frames = speech.reshape(-1, RATE_HZ // 50).copy()
    frames[np.random.default_rng(number).random(len(frames)) < 0.1] = 0
    paths = {"reference": speech, "received": frames.ravel()}
    for name, pcm in paths.items():
        soundfile.write(folder / f"{number}-{name}.flac", pcm, RATE_HZ)
    received = folder / f"{number}-received.flac"
    return ScoreTask(
        cell_id=str(number),
        reference_path=folder / f"{number}-reference.flac",
        media_path=received,
        played_path=received,
        kind="speech",
        weights="none",
        facts={"sample_rate_hz": RATE_HZ, "delay_samples": 0},
    )


def _seconds(cells: Sequence[ScoreTask], workers: int) -> float:
    """From warm workers on: a run has enough cells for starting them not to count."""
    with Scorer(workers) as scorer:
        wait([scorer.submit(replace(cells[0], cell_id="warm")) for _ in range(2 * workers)])
        began = time.monotonic()
        done, _ = wait([scorer.submit(cell) for cell in cells])
        spent = time.monotonic() - began
    missing = [s["reason"] for future in done for s in future.result() if s["value"] is None]
    if missing:
        raise RuntimeError(f"the bench's own audio had no scores: {missing[0]}")
    return spent

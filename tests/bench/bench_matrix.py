"""How much longer a matrix takes than its audio: streaming phase, set-up and scoring excluded."""

from __future__ import annotations

import tempfile
from pathlib import Path

import soundfile

from harness import store
from harness.run import Options, run
from harness.runners import default_jobs
from tests.labs.conftest import SCENARIO, voice


class _Silent:
    def note(self, text: str) -> None: ...

    def phase(self, name: str, total: int) -> None: ...

    def step(self, text: str, *, trouble: bool = False) -> None: ...


def measure() -> dict[str, str]:
    """The small scenario of the lab tests three times: 24 cells, whole waves of 2, 3, 4, 6 or 8."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        (base / "audio").mkdir()
        soundfile.write(base / "audio" / "buzz.wav", voice(15.0, 16_000, 1), 16_000)
        scenario = base / "tiny.yaml"
        scenario.write_text(SCENARIO + "repetitions: 3\n")
        outcome = run(Options(scenario, out=base), _Silent())
        row = store.load(outcome.directory).runs.iloc[0]
    side_by_side = min(default_jobs(), sum(outcome.statuses.values()))
    ratio = row.stream_s / (row.audio_s / side_by_side)
    return {
        "lab, link": f"{row.lab}, {row.link}",
        "cells": ", ".join(f"{n} {status}" for status, n in outcome.statuses.items()),
        f"wall / (audio / {side_by_side} side by side) (aim <= 1.10)": f"{ratio:.3f}",
    }

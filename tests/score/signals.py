"""Audio of the scoring tests, and measures that misbehave where a worker can import them."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import numpy as np
import pesq
from numpy.typing import NDArray

from harness.score.quality import AudioTask, Measure
from tests.labs.conftest import voice

RATE_HZ = 16_000


def speech(seconds: float = 8.0, rate_hz: int = RATE_HZ, seed: int = 1) -> NDArray[np.int16]:
    return (20_000 * voice(seconds, rate_hz, seed)).astype(np.int16)


def task(reference: NDArray[Any], media: NDArray[Any] | None = None, **changed: Any) -> AudioTask:
    """A cell whose codec has no delay, and whose tracks are alike unless ``played`` is given."""
    track = reference if media is None else media
    facts = {"sample_rate_hz": changed.pop("rate_hz", RATE_HZ), "delay_samples": 0}
    facts["delay_samples"] = changed.pop("delay_samples", 0)
    values = {
        "reference": reference,
        "reference_hz": RATE_HZ,
        "media": track,
        "played": track,
        "kind": "speech",
        "weights": "none",
        "facts": facts,
    }
    return AudioTask(**(values | changed))


def fine(*_: object) -> float:
    return 3.0


def aborts(*_: object) -> float:
    os.abort()


def leaves(*_: object) -> float:
    os._exit(3)


def hangs(*_: object) -> float:
    threading.Event().wait()
    return 0.0


def raises(*_: object) -> float:
    raise ZeroDivisionError("of all things")


def not_a_number(*_: object) -> float:
    return float("nan")


def threads(*_: object) -> float:
    return 2.0 if os.environ.get("OMP_NUM_THREADS") == "1" else 4.0


def segfaults(*_: object) -> float:
    """PESQ itself, on 70 utterances where its code holds 50."""
    noise = np.random.default_rng(0).standard_normal(6400) * 0.1
    utterances = np.tile(np.concatenate((noise, np.zeros(5600))), 70)
    return float(pesq.pesq(RATE_HZ, utterances, utterances, "wb"))


def deaf(*_: object) -> float:
    return 2.0 if signal.getsignal(signal.SIGINT) == signal.SIG_IGN else 4.0


def measure(compute: Any, mode: str = "wb") -> Measure:
    return Measure("pesq", mode, "media", "pesq", compute)

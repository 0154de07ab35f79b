"""The number of threads that numerical libraries have while something is computed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from harness.score.quality import Measure, score_audio
from harness.threads import ENVIRONMENT, ThreadPool, blas_threads, one_thread
from tests.score.signals import speech, task

THREADS = 3


@pytest.fixture
def pools() -> Iterator[list[ThreadPool]]:
    """Every OpenBLAS of this process, with more threads than one."""
    found = blas_threads()
    before = [pool.count() for pool in found]
    for pool in found:
        pool.limit(THREADS)
    yield found
    for pool, count in zip(found, before, strict=True):
        pool.limit(count)


def most_threads(*_: object) -> float:
    return float(max(pool.count() for pool in blas_threads()))


def test_the_libraries_of_numpy_and_scipy_are_found(pools: list[ThreadPool]) -> None:
    assert len(pools) == 2
    assert [pool.count() for pool in pools] == [THREADS] * 2


def test_scores_are_computed_with_one_thread(pools: list[ThreadPool]) -> None:
    measure = Measure("pesq", "wb", "media", "pesq", most_threads)
    (score,) = score_audio(task(speech()), (measure,))
    assert score["value"] == 1
    assert [pool.count() for pool in pools] == [THREADS] * 2


def test_contexts_nest_and_restore_the_count(pools: list[ThreadPool]) -> None:
    with one_thread():
        with pytest.raises(ZeroDivisionError), one_thread():
            raise ZeroDivisionError
        assert most_threads() == 1
    assert [pool.count() for pool in pools] == [THREADS] * 2


def test_a_new_process_has_one_thread() -> None:
    program = (
        "import numpy, scipy.linalg; from harness.threads import *;"
        "print([pool.count() for pool in blas_threads()])"
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2", **ENVIRONMENT}
    out = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert out.stdout == "[1, 1]\n"

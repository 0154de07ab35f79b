"""One codec under ten names: what the report claims of them is false. The bench of the same name
(``python -m tests.bench claims``) streams the cells; here their scores are drawn."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench import bench_claims
from tests.bench.bench_claims import EVENTS, NAMES, UTTERANCES, claims, drawn, streamed, verdict


@pytest.fixture(scope="module")
def scores() -> np.ndarray:
    """As PESQ is over bursts: skewed, against a ceiling, at a level of each utterance's own."""
    draw = np.random.default_rng(2)
    level = draw.normal(3.2, 0.4, (UTTERANCES, 1))
    return np.clip(level - draw.exponential(0.4, (UTTERANCES, EVENTS)), 1.02, 3.3)


def test_a_null_run_seldom_makes_a_claim(scores: np.ndarray) -> None:
    """Of 40 at 5 %, more than 5 are seen once in a hundred times."""
    assert sum(claims(verdict(run)) for run in drawn(scores, 40)) <= 5


def test_the_same_losses_give_no_difference_at_all(scores: np.ndarray) -> None:
    """Ten names in one block meet the same events: all differences are 0, and p is 1."""
    alike = np.repeat(scores[:, :1], EVENTS, axis=1)
    (run,) = drawn(alike, 1)
    assert {one.difference.p_family for one in verdict(run).ranked if one.difference} == {1}


def test_a_planted_difference_is_found_as_often_as_promised(scores: np.ndarray) -> None:
    """Of 20 at 80 %, fewer than 11 are seen once in a hundred times."""
    runs = list(drawn(scores, 20))
    delta = bench_claims.promised(bench_claims.spread(runs), runs=100)
    found = sum(bench_claims.told_apart(bench_claims.planted(run, delta)) for run in runs)
    assert found >= 11


def test_a_cell_is_streamed_and_scored() -> None:
    task = bench_claims.Task(0, 3)
    assert 1 < streamed(task) < 4.64
    assert len(NAMES) == 10

"""What the planner promises of the report's test is what the report's test does."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from harness.stats.difference import SIGNIFICANT, between_all
from harness.stats.power import Aim, utterances_needed
from harness.stats.simulated import (
    Spread,
    level_of_each,
    share_found,
    spread_of,
    utterances_to_find,
)

NAMES = ("a", "b", "c", "d")
PAIRS = list(itertools.combinations(NAMES, 2))


def alike(utterance: float = 0.0, seed: float = 0.04) -> Spread:
    """Four configurations with independent noise over what utterances and events share."""
    ones = np.ones((4, 4))
    return Spread(NAMES, 0.2 * ones + utterance * np.eye(4), 0.1 * ones + seed * np.eye(4))


def table(values: np.ndarray) -> pd.DataFrame:
    """Values of shape (utterances, repetitions, configurations)."""
    rows = [
        (NAMES[c], f"u{u:03}", f"u{u:03}-{r}", value) for (u, r, c), value in np.ndenumerate(values)
    ]
    return pd.DataFrame(rows, columns=["codec", "utterance", "block", "value"])


def test_a_spread_is_that_which_the_pilot_was_drawn_from() -> None:
    draw = np.random.default_rng(1)
    between = np.array([[0.5, 0.3, 0, 0], [0, 0.4, 0, 0], [0, 0, 0.2, 0], [0, 0, 0, 0.1]])
    within = 0.2 * np.eye(4) + 0.1
    values = draw.normal(size=(1500, 1, 4)) @ between + draw.normal(size=(1500, 3, 4)) @ within
    found = spread_of(table(values))
    assert found is not None
    assert found.utterance == pytest.approx(between.T @ between, abs=0.02)
    assert found.seed == pytest.approx(within.T @ within, abs=0.01)
    assert found.of_mean(2) == pytest.approx(found.utterance + found.seed / 2)
    assert spread_of(table(values[:, :1])) is None


def test_the_level_of_each_lies_between_bonferroni_and_none() -> None:
    level = level_of_each(alike(), PAIRS, 1)
    assert 0.05 / 6 < level < 0.05 / 3  # Tukey's range of four: 0.0103
    assert level_of_each(alike(), PAIRS[:1], 1) == pytest.approx(0.05, abs=0.004)
    twice = [("a", "b")] * 5
    assert level_of_each(alike(), twice, 1) == pytest.approx(0.05, abs=0.004)


@pytest.mark.parametrize(("utterances", "seeds"), [(8, 1), (12, 1), (12, 4)])
def test_a_planted_difference_is_found_as_often_as_promised(utterances: int, seeds: int) -> None:
    """Where the planner says 80 %, the report's own comparison of fresh runs finds 80 %: of 150,
    120 with a standard deviation of 5."""
    spread, planted = alike(utterance=0.005), ("a", "b")
    delta = next(
        d
        for d in np.arange(0.02, 2, 0.02)
        if share_found(spread, PAIRS, planted, d, utterances, seeds, runs=200) >= 0.8
    )
    draw = np.random.default_rng(5)
    found = 0
    for _ in range(150):
        shape = (utterances, seeds, 4)
        values = draw.normal(0, 0.04**0.5, shape)
        values += draw.normal(0, 0.005**0.5, (utterances, 1, 4))
        values[..., 0] += delta
        pair = between_all(table(values))[planted]
        found += pair.told_apart and pair.estimate.mean > 0
    assert 104 <= found <= 140


def test_nothing_is_found_where_nothing_is_planted() -> None:
    share = share_found(alike(), PAIRS, ("a", "b"), 0.0, 8, 1)
    assert share <= SIGNIFICANT / 2
    assert share_found(alike(), PAIRS, ("a", "b"), 9.0, 5, 1) == 0, "too few utterances"


def test_the_need_of_many_utterances_is_that_of_students_test_at_the_level_of_each() -> None:
    spread, planted = alike(), ("a", "b")
    aim = Aim(0.2, 0.8, level_of_each(spread, PAIRS, 1))
    analytic = utterances_needed(0.08, "paired", aim)
    found = utterances_to_find(spread, PAIRS, planted, aim.delta, 1, 0.8, analytic, 200, 100)
    assert found == pytest.approx(analytic, rel=0.2)
    assert utterances_to_find(spread, PAIRS, planted, 0.01, 1, 0.8, 6, 8) is None

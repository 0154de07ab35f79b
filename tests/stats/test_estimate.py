"""Intervals that can be reproduced, and silence where there is too little to speak of."""

from __future__ import annotations

import numpy as np
import pytest

from harness.stats import MIN_CLUSTERS, estimate, interval
from harness.stats.resample import drawn, tails

UTTERANCES = [f"u{number}" for number in range(10)]


def test_an_estimate_does_not_depend_on_the_order_of_rows() -> None:
    values = np.random.default_rng(1).normal(3, 1, 30)
    names = UTTERANCES * 3
    one = estimate(values.tolist(), names)
    assert one is not None
    assert one == estimate(values[::-1].tolist(), names[::-1])
    assert one.low is not None
    assert one.high is not None
    assert one.low < one.mean < one.high
    assert (one.clusters, one.cells) == (10, 30)


def test_an_interval_by_hand() -> None:
    """Means 1...6: mean 3.5, s = sqrt(3.5), t(5; 0.975) = 2.5706."""
    found = estimate([1, 2, 3, 4, 5, 6], list("abcdef"))
    assert found is not None
    reach = 2.570582 * (3.5 / 6) ** 0.5
    assert (found.low, found.high) == pytest.approx((3.5 - reach, 3.5 + reach))


def test_the_unit_is_the_utterance() -> None:
    """Repeating each cell must not make the interval narrower."""
    values = np.random.default_rng(2).normal(3, 1, 10)
    once = estimate(values.tolist(), UTTERANCES)
    often = estimate(np.repeat(values, 20).tolist(), np.repeat(UTTERANCES, 20).tolist())
    assert once is not None
    assert often is not None
    assert (often.mean, often.low, often.high) == pytest.approx((once.mean, once.low, once.high))


@pytest.mark.parametrize("repetitions", [1, 4])
@pytest.mark.parametrize("utterances", [6, 8, 12, 24])
def test_an_interval_covers_as_often_as_it_says(utterances: int, repetitions: int) -> None:
    """2,000 samples: the share that covers is within 1 percentage point of its expectation."""
    generator = np.random.default_rng([utterances, repetitions])
    names = np.repeat(np.arange(utterances), repetitions).tolist()
    covered = 0
    for _ in range(2000):
        means = np.repeat(generator.normal(0, 1, utterances), repetitions)
        found = estimate((means + generator.normal(0, 1, len(names))).tolist(), names)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0 <= found.high
    assert 0.93 <= covered / 2000 <= 0.97


@pytest.mark.parametrize("utterances", [6, 8, 12, 24])
@pytest.mark.parametrize(
    ("kind", "least"),
    [("difference of skewed", 0.93), ("ceiling against none", 0.93), ("flat", 0.93),
     ("ceiling", 0.90), ("skewed", 0.87)],
)  # fmt: skip
def test_what_the_interval_covers_where_means_are_not_normal(
    kind: str, least: float, utterances: int
) -> None:
    """As the docstring of ``estimate.py`` says: differences as asked, skewed means too seldom."""
    draw = np.random.default_rng(7)
    shape = (20_000, utterances)

    def ceiling(shape: tuple[int, ...]) -> np.ndarray:
        return np.minimum(draw.normal(4.5, 0.3, shape), 4.64)

    drawn_means, truth = {
        "difference of skewed": lambda: (
            draw.exponential(1, shape) - draw.exponential(1, shape),
            0,
        ),
        "ceiling against none": lambda: (ceiling(shape) - draw.normal(3, 0.3, shape), None),
        "flat": lambda: (draw.uniform(1, 4.5, shape), 2.75),
        "ceiling": lambda: (ceiling(shape), None),
        "skewed": lambda: (draw.exponential(1, shape), 1),
    }[kind]()
    if truth is None:
        truth = ceiling((2_000_000,)).mean() - (3 if "against" in kind else 0)
    _, low, high = interval(drawn_means)
    assert least <= ((low <= truth) & (truth <= high)).mean() <= 0.97


def test_too_few_utterances_give_no_interval() -> None:
    few = MIN_CLUSTERS - 1
    found = estimate([1.0] * few * 9, UTTERANCES[:few] * 9)
    assert found is not None
    assert (found.mean, found.low, found.high) == (1.0, None, None)
    assert estimate([], []) is None


def test_means_of_several_figures_at_once_leave_out_what_is_absent() -> None:
    means = np.array([[1.0, 2, 3, 4, 5, 6, np.nan], [1, 2, 3, 4, 5, np.nan, np.nan]])
    centre, low, high = interval(means)
    assert centre.tolist() == [3.5, 3.0]
    alone = estimate([1, 2, 3, 4, 5, 6], list("abcdef"))
    assert alone is not None
    assert (low[0], high[0]) == (alone.low, alone.high)
    assert np.isnan([low[1], high[1]]).all()


def test_resamples_are_seeded_and_their_tails_wider_than_percentiles() -> None:
    assert (drawn(8, seed=1) == drawn(8, seed=1)).all()
    assert (drawn(8, seed=1) != drawn(8, seed=2)).any()
    assert drawn(8, resamples=5).shape == (5, 8)
    low, high = tails(6)
    assert (low, high) == pytest.approx((0.00243, 0.99757), abs=2e-5)  # Hesterberg 2015, 5.2
    assert tails(10_000)[0] == pytest.approx(0.025, abs=1e-4)

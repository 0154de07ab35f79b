"""Formulas against examples worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.score import figures


def test_jitter_follows_rfc_3550() -> None:
    # D = 16, 16, 0: J = 16/16; 1 + 15/16; 1.9375 - 1.9375/16
    course = figures.interarrival_jitter([10, 26, 10, 10])
    np.testing.assert_allclose(course, [1.0, 1.9375, 1.81640625])
    assert len(figures.interarrival_jitter([5.0])) == 0


def test_pdv_is_above_the_smallest_delay() -> None:
    np.testing.assert_array_equal(figures.pdv([12, 10, 15]), [2, 0, 5])
    assert len(figures.pdv([])) == 0


def test_ipdv_needs_both_packets_of_a_pair() -> None:
    np.testing.assert_array_equal(figures.ipdv([10, 12, np.nan, 20, 15]), [2, -5])


def test_a_percentile_is_a_value_that_occurred() -> None:
    values = np.arange(1, 101)
    assert figures.percentile(values, 0.5) == 50
    assert figures.percentile(values, 0.95) == 95
    assert figures.percentile([7.0] * 6, 0.5) == 7


@pytest.mark.parametrize(("quantile", "needed"), [(0.5, 6), (0.9, 36), (0.95, 72), (0.99, 368)])
def test_a_percentile_that_the_sample_cannot_bear_is_none(quantile: float, needed: int) -> None:
    assert figures.samples_needed(quantile) == needed
    assert figures.percentile(np.arange(needed - 1), quantile) is None
    assert figures.percentile(np.arange(needed), quantile) is not None
    assert quantile ** (needed - 1) > 0.025 >= quantile**needed


def test_bursts_and_gaps_by_hand() -> None:
    # Gmin 3: burst (0...2: 2 of 3), gap (3...10: 1 of 8, isolated), burst (11, 12: 2 of 2)
    missing = [1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1]
    assert figures.bursts(missing, gmin=3) == figures.Bursts(4 / 5, 1 / 8, 2.5, 8.0)
    # with Gmin 5 nothing ends the one burst, and there is no gap
    assert figures.bursts(missing, gmin=5) == figures.Bursts(5 / 13, None, 13.0, None)


def test_gmin_is_16_received_in_a_row() -> None:
    apart = [1, *[0] * 16, 1]
    close = [1, *[0] * 15, 1]
    assert figures.bursts(apart) == figures.Bursts(None, 2 / 18, None, 18.0)
    assert figures.bursts(close) == figures.Bursts(2 / 17, None, 17.0, None)


def test_without_loss_there_is_no_burst() -> None:
    assert figures.bursts([0] * 40) == figures.Bursts(None, 0.0, None, 40.0)
    assert figures.bursts([]) == figures.Bursts(None, None, None, None)
    assert figures.mean_loss_run([0, 0]) is None
    assert figures.burst_ratio([0, 0]) is None


def test_burst_ratio_by_hand() -> None:
    missing = [0, 1, 1, 0, 1, 0, 0, 0, 0, 0]  # runs of 2 and 1; 30 % lost
    assert figures.mean_loss_run(missing) == 1.5
    assert figures.burst_ratio(missing) == pytest.approx(1.5 * 0.7)
    assert figures.burst_ratio([1, 1]) is None


def test_random_loss_has_a_burst_ratio_of_one() -> None:
    missing = np.random.default_rng(1).random(200_000) < 0.1
    assert figures.burst_ratio(missing) == pytest.approx(1, abs=0.02)


@given(st.lists(st.booleans(), min_size=1, max_size=120), st.integers(1, 20))
def test_bursts_and_gaps_account_for_every_loss(missing: list[bool], gmin: int) -> None:
    found = figures.bursts(missing, gmin)
    total = len(missing)
    inside, outside = found.burst_density, found.gap_density
    if inside is None:
        assert outside == sum(missing) / total
    elif outside is None:
        assert inside == sum(missing) / total
    else:
        low, high = sorted((inside, outside))
        assert low <= sum(missing) / total <= high

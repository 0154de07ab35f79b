"""Curves with bands, and crossings that are found where they were put."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from harness.stats import MIN_CLUSTERS, estimate
from harness.stats.curves import Sweep, crossing_at, sweep

LOSS = np.array([0.0, 5, 10, 15, 20, 25, 30])


def cells(
    utterances: int = 12, repetitions: int = 2, noise: float = 0.05, shared: float = 0.4
) -> pd.DataFrame:
    """Two codecs over loss: ``frail`` starts 0.9 above ``tough`` and crosses it at 9 %. Utterances
    differ in how good both are."""
    generator = np.random.default_rng(8)
    rows = []
    for utterance, repetition in itertools.product(range(utterances), range(repetitions)):
        level = generator.normal(0, shared)
        for x in LOSS:
            for line, mean in (("frail", 3.5 - 0.12 * x), ("tough", 2.6 - 0.02 * x)):
                value = mean + level + generator.normal(0, noise)
                rows.append((line, x, f"u{utterance}", repetition, value))
    return pd.DataFrame(rows, columns=["line", "x", "utterance", "repetition", "value"])


def found(table: pd.DataFrame, lines: tuple[str, ...] = ("frail", "tough")) -> Sweep:
    return sweep(table, lines)


def test_a_curve_is_the_means_of_its_points() -> None:
    table = cells()
    curve = found(table).curves[0]
    for i, x in enumerate(LOSS):
        mine = table[(table.line == "frail") & (table.x == x)]
        alone = estimate(mine.value.tolist(), mine.utterance.tolist())
        assert alone is not None
        assert curve.mean[i] == pytest.approx(alone.mean)
        assert (curve.low[i], curve.high[i]) == pytest.approx((alone.low, alone.high))
    assert curve.cells.tolist() == [24] * 7
    assert curve.utterances.tolist() == [12] * 7


def test_equal_tables_give_equal_curves_in_any_order_of_rows() -> None:
    table = cells()
    one, other = found(table), found(table.sample(frac=1, random_state=3))
    np.testing.assert_array_equal(one.resampled, other.resampled)
    assert one.crossings() == other.crossings()


def test_a_crossing_is_found_where_it_is_with_what_utterances_share_taken_off() -> None:
    (crossing,) = found(cells()).crossings()
    assert (crossing.line, crossing.verb, crossing.other) == ("frail", "falls under", "tough")
    assert crossing.certain
    assert crossing.without == 0
    assert crossing.low is not None
    assert crossing.high is not None
    assert crossing.low < crossing.x < crossing.high
    assert crossing.x == pytest.approx(9, abs=0.3)
    # Bands are far wider than the curves' distance there; only what is not shared counts.
    curve = found(cells()).curves[0]
    assert (curve.high - curve.low)[2] / 0.1 > 3 * (crossing.high - crossing.low)


def test_intervals_of_crossings_cover_as_often_as_they_say() -> None:
    """Of 150 samples, 95 % are 142.5 with a standard deviation of 2.7."""
    generator = np.random.default_rng(9)
    base = cells(utterances=8, repetitions=1, noise=0)
    hit = 0
    for _ in range(150):
        table = base.assign(value=base.value + generator.normal(0, 0.3, len(base)))
        (crossing,) = sweep(table, ["frail", "tough"], resamples=400).crossings()
        assert crossing.low is not None
        assert crossing.high is not None
        hit += crossing.low <= 9 <= crossing.high
    assert 137 <= hit <= 149


def test_the_curve_that_changes_is_the_one_that_crosses() -> None:
    table = cells()
    table["x"] = 30 - table["x"]
    (crossing,) = found(table).crossings()
    assert (crossing.line, crossing.verb) == ("frail", "rises above")
    (turned,) = sweep(table, ["tough", "frail"]).crossings()
    assert (turned.line, turned.verb, turned.other) == ("frail", "rises above", "tough")
    assert turned.x == pytest.approx(crossing.x)


def test_a_crossing_that_some_resamples_lack_has_no_interval() -> None:
    table = cells(noise=0.6, utterances=8)
    table.loc[table.line == "tough", "value"] -= 1.7
    sure = sweep(cells(), ["frail", "tough"]).crossings()
    assert sure[0].certain
    doubtful = [one for one in found(table).crossings() if one.verb == "falls under"]
    assert doubtful
    assert not doubtful[0].certain
    assert doubtful[0].without is not None
    assert 0.05 < doubtful[0].without <= 0.5
    assert (doubtful[0].low, doubtful[0].high) == (None, None)


def test_few_utterances_have_curves_and_crossings_but_no_intervals() -> None:
    few = found(cells(utterances=MIN_CLUSTERS - 1))
    assert np.isfinite(few.curves[0].mean).all()
    assert np.isnan(few.curves[0].low).all()
    (crossing,) = few.crossings()
    assert not crossing.certain
    assert crossing.without is None


def test_curves_that_do_not_cross_have_no_crossing() -> None:
    table = cells()
    table.loc[table.line == "frail", "value"] += 4
    assert found(table).crossings() == []


def test_only_the_lines_asked_for_are_compared() -> None:
    table = cells()
    third = table[table.line == "tough"].assign(line="third", value=lambda t: t.value + 0.3)
    everything = sweep(pd.concat([table, third]), ["frail", "tough", "third"])
    assert {(c.line, c.other) for c in everything.crossings()} == {
        ("frail", "tough"),
        ("frail", "third"),
    }
    assert {c.other for c in everything.crossings(["frail", "third"])} == {"third"}


def test_missing_cells_leave_gaps_and_not_zeros() -> None:
    table = cells()
    table.loc[(table.line == "tough") & (table.x == 10), "value"] = np.nan
    table = table[~((table.utterance == "u0") & (table.repetition == 1))]
    result = found(table)
    tough = result.curves[1]
    assert np.isnan(tough.mean[2])
    assert tough.cells[2] == 0
    assert np.isfinite(np.delete(tough.mean, 2)).all()
    (crossing,) = result.crossings()
    assert crossing.x == pytest.approx(9, abs=0.4)
    assert crossing.certain


def test_crossings_by_hand() -> None:
    x = np.array([0.0, 1, 2, 3, 4])

    def at(*gap: float) -> float | None:
        return crossing_at(x, np.array(gap))

    assert at(1, 1, -1, -1, -1) == 1.5
    assert at(3, 1, -3, -3, -3) == 1.25
    assert at(1, 1, 0, -1, -1) == 2.0
    assert at(-1, -1, 1, 1, 1) is None
    assert at(1, 1, 1, 1, 1) is None
    assert at(1, 0, 0, 0, 0) is None
    assert at(2, np.nan, -2, -2, -2) == 1.0


def test_wiggles_on_the_floor_do_not_move_a_crossing() -> None:
    x = np.arange(8.0)
    gap = np.array([2, 1, -1, -1.5, -0.01, 0.02, -0.02, -0.01])
    assert crossing_at(x, gap) == 1.5
    assert crossing_at(x, np.concatenate([[0.01, -0.01], gap[:6]])) == 3.5


def test_a_curve_of_nothing_is_no_error() -> None:
    empty = found(cells().head(0))
    assert empty.crossings() == []
    assert len(empty.x) == 0

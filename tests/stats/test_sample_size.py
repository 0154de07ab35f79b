"""What it takes to tell two codecs apart: variances, needs, and that the needs are enough."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from harness.stats import MIN_CLUSTERS
from harness.stats.power import (
    DESIGNS,
    MOST,
    Aim,
    Comparison,
    Design,
    compare,
    components,
    power,
    utterances_needed,
)

AIM = Aim(delta=0.1)


def pilot(
    utterances: int, seeds: int, seed: int = 0, shared: float = 0.3, own: float = 0.05
) -> pd.DataFrame:
    """Two codecs 0.2 apart. Events move both by ``shared`` and each by ``own``; utterances move
    both by 0.4 and their difference by 0.1 (standard deviations)."""
    draw = np.random.default_rng(seed).normal
    rows = []
    for utterance in range(utterances):
        both, apart = draw(0, 0.4), draw(0, 0.1)
        for repetition in range(seeds):
            event = draw(0, shared)
            for codec, value in (("a", 3.0 + apart), ("b", 2.8)):
                rows.append(
                    {
                        "codec": codec,
                        "utterance": f"u{utterance}",
                        "block": f"u{utterance}-{repetition}",
                        "value": value + both + event + draw(0, own),
                    }
                )
    return pd.DataFrame(rows)


def compared(table: pd.DataFrame) -> Comparison:
    found = compare(table, "a", "b")
    assert found is not None
    return found


def test_components_of_a_worked_layout() -> None:
    """By hand: groups {1, 3}, {4}, {6, 8, 10}; grand mean 32/6, MS between 52/2 and within 10/3."""
    values = np.array([1.0, 3.0, 4.0, 6.0, 8.0, 10.0])
    found = components(values, list("aabccc"))
    assert found is not None
    between = (2 * (2 - 32 / 6) ** 2 + (4 - 32 / 6) ** 2 + 3 * (8 - 32 / 6) ** 2) / 2
    n0 = (6 - (4 + 1 + 9) / 6) / 2
    assert found.seed == pytest.approx(10 / 3)
    assert found.utterance == pytest.approx((between - 10 / 3) / n0)


def test_components_are_those_that_the_values_were_drawn_from() -> None:
    draw = np.random.default_rng(1)
    values = np.repeat(draw.normal(0, 0.5, 2000), 4) + draw.normal(0, 0.2, 8000)
    found = components(values, np.repeat(np.arange(2000), 4).tolist())
    assert found is not None
    assert found.utterance == pytest.approx(0.25, rel=0.05)
    assert found.seed == pytest.approx(0.04, rel=0.05)
    assert found.of_mean(4) == pytest.approx(0.26, rel=0.05)


def test_a_pilot_that_cannot_be_split_gives_nothing() -> None:
    assert components(np.array([1.0, 2.0, 3.0]), ["a", "a", "a"]) is None
    assert components(np.array([1.0, 2.0, 3.0]), ["a", "b", "c"]) is None
    assert compare(pilot(8, 1), "a", "b") is None
    assert compare(pilot(8, 3), "a", "nobody") is None
    gone = pilot(8, 3)
    gone.loc[gone.codec == "a", "value"] = np.nan
    assert compare(gone, "a", "b") is None


def test_power_is_that_of_the_t_test() -> None:
    """Against the noncentral t distribution of another library, and simulated tests."""
    for m, variance in ((8, 0.01), (30, 0.09), (200, 0.25)):
        shift, critical = 0.1 / np.sqrt(variance / m), stats.t.ppf(0.975, m - 1)
        wanted = stats.nct.sf(critical, m - 1, shift)
        assert power(m, variance, "paired", AIM) == pytest.approx(wanted)
    drawn = np.random.default_rng(2).normal(0.1, 0.3, (4000, 73))
    p = stats.ttest_1samp(drawn, 0, axis=1).pvalue
    assert (p < 0.05).mean() == pytest.approx(power(73, 0.09, "paired", AIM), abs=0.02)
    arms = np.random.default_rng(3).normal(0, 0.2, (2, 4000, 64))
    p = stats.ttest_ind(arms[0] + 0.1, arms[1], axis=1).pvalue
    assert (p < 0.05).mean() == pytest.approx(power(64, 0.08, "independent", AIM), abs=0.02)


@pytest.mark.parametrize("variance", [0.02, 0.09, 0.5])
@pytest.mark.parametrize("design", ["paired", "independent"])
def test_the_need_is_the_least_that_is_enough(variance: float, design: str) -> None:
    m = utterances_needed(variance, design, AIM)
    assert power(m, variance, design, AIM) >= 0.8
    assert m == MIN_CLUSTERS or power(m - 1, variance, design, AIM) < 0.8
    large_sample = (1.959964 + 0.841621) ** 2 * variance / 0.1**2
    assert large_sample <= m <= max(MIN_CLUSTERS, large_sample + 4)


def test_the_known_need_of_unpaired_runs() -> None:
    """0.36 PESQ within an arm, 0.1 to be found: about 200 runs per arm."""
    assert utterances_needed(2 * 0.36**2, "independent", AIM) == pytest.approx(204, abs=2)
    assert utterances_needed(0.0, "paired", AIM) == MIN_CLUSTERS
    tiny = [utterances_needed(10.0**-n, "paired", AIM) for n in np.linspace(0, 12, 200)]
    assert tiny == sorted(tiny, reverse=True)
    assert utterances_needed(1e9, "paired", AIM) == MOST


def test_pairs_take_shared_events_and_utterances_out() -> None:
    found = compared(pilot(40, 6))
    assert (found.utterances, found.pairs) == (40, 240)
    assert found.mean == pytest.approx(0.2, abs=0.05)
    u = {design: float(found.components[design].utterance) ** 0.5 for design in DESIGNS}
    s = {design: float(found.components[design].seed) ** 0.5 for design in DESIGNS}
    assert u["paired"] == pytest.approx(0.1, abs=0.03)
    assert s["paired"] == pytest.approx(0.05 * 2**0.5, rel=0.15)
    assert (u["apart"], s["apart"]) == (u["paired"], s["independent"])
    assert s["independent"] == pytest.approx((2 * (0.3**2 + 0.05**2)) ** 0.5, rel=0.15)
    assert u["independent"] == pytest.approx(0.4 * 2**0.5, rel=0.3)
    needs = {design: found.need(design, 1, AIM).utterances for design in DESIGNS}
    assert needs["paired"] * 8 < needs["apart"] < needs["independent"]


def test_seeds_help_as_far_as_seeds_are_the_trouble() -> None:
    found = compared(pilot(40, 6))
    needs = [found.need("apart", seeds, AIM).utterances for seeds in (1, 2, 5, 20, 1000)]
    assert needs == sorted(needs, reverse=True)
    seeds = found.seeds_for("apart", 30, AIM)
    assert seeds is not None
    assert found.need("apart", seeds, AIM).utterances <= 30
    assert found.need("apart", seeds - 1, AIM).utterances > 30
    floor = found.need("apart", MOST, AIM).utterances
    assert found.seeds_for("apart", floor - 1, AIM) is None


@pytest.mark.parametrize("design", ["paired", "apart"])
def test_intervals_hold_the_truth_about_as_often_as_they_say(design: Design) -> None:
    seed_variance = 2 * (0.05**2 + (0.3**2 if design == "apart" else 0))
    truth = utterances_needed(0.1**2 + seed_variance / 2, design, AIM)
    needs = [compared(pilot(12, 4, seed)).need(design, 2, AIM) for seed in range(60)]
    assert sum(low <= truth <= high for _, low, high in needs) >= 52
    assert all(low <= mine <= high for mine, low, high in needs)
    assert np.median([need.utterances for need in needs]) == pytest.approx(truth, rel=0.25)


def test_the_order_of_rows_changes_nothing() -> None:
    table = pilot(8, 3)
    again = table.sample(frac=1, random_state=np.random.RandomState(4))
    for design in DESIGNS:
        assert compared(table).need(design, 2, AIM) == compared(again).need(design, 2, AIM)

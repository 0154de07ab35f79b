"""Intervals that can be reproduced, and silence where there is too little to speak of."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from harness.score.stats import (
    MIN_CLUSTERS,
    corrected,
    effect_size,
    estimate,
    holm,
    paired_differences,
    sign_flip_p,
)

UTTERANCES = [f"u{number}" for number in range(10)]


def cells(effect: float, noise: float = 0.05, utterances: int = 10) -> pd.DataFrame:
    """Two codecs over utterances x 3 repetitions that share what the link did to them."""
    generator = np.random.default_rng(4)
    rows = []
    for utterance, repetition in itertools.product(UTTERANCES[:utterances], range(3)):
        shared = generator.normal(3, 0.5)
        for codec, shift in (("base", 0.0), ("other", effect), ("same", 0.0)):
            value = shared + shift + generator.normal(0, noise)
            rows.append((codec, utterance, f"{utterance}-{repetition}", value))
    return pd.DataFrame(rows, columns=["codec", "utterance", "block", "value"])


def test_an_estimate_does_not_depend_on_chance_or_order() -> None:
    values = np.random.default_rng(1).normal(3, 1, 30)
    names = UTTERANCES * 3
    one = estimate(values.tolist(), names)
    backwards = estimate(values[::-1].tolist(), names[::-1])
    assert one is not None
    assert one == backwards
    assert one.low is not None
    assert one.high is not None
    assert one.low < one.mean < one.high
    assert one != estimate(values.tolist(), names, seed=1)
    assert (one.clusters, one.cells) == (10, 30)


def test_the_unit_is_the_utterance() -> None:
    """Repeating each cell must not make the interval narrower."""
    values = np.random.default_rng(2).normal(3, 1, 10)
    once = estimate(values.tolist(), UTTERANCES)
    often = estimate(np.repeat(values, 20).tolist(), np.repeat(UTTERANCES, 20).tolist())
    assert once is not None
    assert often is not None
    assert once.mean == pytest.approx(often.mean)
    width = [(e.high or 0) - (e.low or 0) for e in (once, often)]
    assert width[1] == pytest.approx(width[0], rel=0.1)


def test_an_interval_covers_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        means = np.repeat(generator.normal(0, 1, 12), 4)
        found = estimate((means + generator.normal(0, 1, 48)).tolist(), np.repeat(range(12), 4))
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0 <= found.high
    assert 0.85 <= covered / 200 <= 0.99


def test_too_few_utterances_give_no_interval() -> None:
    few = MIN_CLUSTERS - 1
    found = estimate([1.0] * few * 9, UTTERANCES[:few] * 9)
    assert found is not None
    assert (found.mean, found.low, found.high) == (1.0, None, None)
    assert estimate([], []) is None
    assert sign_flip_p(np.ones(few)) is None


def test_pairing_finds_what_the_link_hides() -> None:
    table = cells(effect=0.1)
    found = paired_differences(table, "base")
    assert set(found) == {"other", "same"}
    other, same = found["other"], found["same"]
    assert other.estimate.mean == pytest.approx(0.1, abs=0.03)
    assert other.estimate.low is not None
    assert other.estimate.low > 0
    assert other.p_holm is not None
    assert other.p_holm < 0.05
    assert same.p_holm is not None
    assert same.p_holm > 0.05
    assert found == paired_differences(table.sample(frac=1, random_state=1), "base")


def test_a_missing_score_takes_its_pair_along() -> None:
    table = cells(effect=0.1)
    table.loc[(table.codec == "base") & (table.block == "u0-0"), "value"] = np.nan
    assert paired_differences(table, "base")["other"].estimate.cells == 29
    assert paired_differences(table, "absent") == {}


def test_few_utterances_have_a_difference_but_no_p_value() -> None:
    found = paired_differences(cells(effect=1, utterances=3), "base")["other"]
    assert found.estimate.mean == pytest.approx(1, abs=0.1)
    assert (found.p, found.p_holm, found.effect, found.estimate.low) == (None, None, None, None)


def test_an_effect_size_by_hand() -> None:
    differences = np.array([0.1, 0.2, 0.3, 0.1, 0.2, 0.3, 0.2])
    # J(6) = gamma(3) / (sqrt(3) gamma(2.5)): 0.8686 in the table of Hedges (1981).
    d_z = 0.2 / np.sqrt(0.04 / 6)
    assert effect_size(differences) == pytest.approx(0.86863 * d_z, rel=1e-4)
    assert effect_size(-differences) == -(effect_size(differences) or 0)
    assert effect_size(np.full(9, 0.1)) is None
    assert effect_size(differences[: MIN_CLUSTERS - 1]) is None


def test_an_effect_size_does_not_grow_when_there_are_few() -> None:
    generator = np.random.default_rng(5)
    drawn = [effect_size(generator.normal(0.5, 1, 6)) for _ in range(20_000)]
    assert np.mean(np.array(drawn, float)) == pytest.approx(0.5, abs=0.02)


def test_comparisons_made_apart_can_be_corrected_as_one_family() -> None:
    found = paired_differences(cells(effect=0.1), "base")
    once, again = (corrected({"one": found["other"]}), corrected({n: found["other"] for n in "ab"}))
    assert once["one"].p_holm == found["other"].p
    assert again["a"].p_holm == 2 * (found["other"].p or 0)


def test_sign_flips_by_hand() -> None:
    assert sign_flip_p(np.ones(6)) == 2 / 64
    assert sign_flip_p(np.array([1, 1, 1, 1, 1, -1.0])) == 14 / 64  # 1 + 6 patterns, both sides
    drawn = sign_flip_p(np.ones(20))
    assert drawn == sign_flip_p(np.ones(20))
    assert drawn is not None
    assert 0 < drawn < 0.001


def test_holm_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06}
    )
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}
    assert holm({}) == {}

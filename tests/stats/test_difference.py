"""Claims: made where a difference holds in pairs, and seldom where there is none."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from harness.stats import MIN_CLUSTERS
from harness.stats.difference import (
    DRAWN,
    EXACT_CLUSTERS,
    Family,
    against,
    as_family,
    between_all,
    effect_size,
    family_p,
    sign_flip_p,
    smallest_p,
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


def table_of(values: np.ndarray) -> pd.DataFrame:
    """One cell per codec and utterance; ``values`` has shape (codecs, utterances)."""
    rows = [
        (f"c{codec}", f"u{utterance:02}", f"u{utterance:02}", value)
        for (codec, utterance), value in np.ndenumerate(values)
    ]
    return pd.DataFrame(rows, columns=["codec", "utterance", "block", "value"])


def test_pairing_finds_what_the_link_hides() -> None:
    table = cells(effect=0.1)
    found = against(table, "base")
    assert set(found) == {"other", "same"}
    other, same = found["other"], found["same"]
    assert other.estimate.mean == pytest.approx(0.1, abs=0.03)
    assert other.told_apart
    assert same.p_family is not None
    assert same.p_family > 0.05
    assert not same.told_apart
    assert found == against(table.sample(frac=1, random_state=1), "base")


def test_a_missing_score_takes_its_pair_along() -> None:
    table = cells(effect=0.1)
    table.loc[(table.codec == "base") & (table.block == "u0-0"), "value"] = np.nan
    assert against(table, "base")["other"].estimate.cells == 29
    assert against(table, "absent") == {}


def test_few_utterances_have_a_difference_but_no_p_value() -> None:
    found = against(cells(effect=1, utterances=3), "base")["other"]
    assert found.estimate.mean == pytest.approx(1, abs=0.1)
    assert (found.p, found.p_family, found.effect, found.estimate.low) == (None,) * 4
    assert not found.told_apart


def test_all_pairs_are_one_family_and_the_same_both_ways() -> None:
    found = between_all(cells(effect=0.3))
    assert len(found) == 6
    one, back = found["other", "base"], found["base", "other"]
    assert one.estimate.mean == -back.estimate.mean
    assert (one.estimate.low, one.estimate.high) == (-back.estimate.high, -back.estimate.low)  # type: ignore[operator]
    assert one.p_family == back.p_family
    assert one.effect == -(back.effect or 0)
    assert one.told_apart
    assert found["other", "same"].told_apart
    assert not found["base", "same"].told_apart


def test_the_smallest_p_value_does_not_depend_on_the_number_of_comparisons() -> None:
    """Nine comparisons that six utterances all decide alike: 2^-5, where Holm's was 9 * 2^-5."""
    differences = -1.66 + 0.01 * np.arange(6)[:, None] + 0.001 * np.arange(9)
    for comparisons in (1, 2, 8, 9):
        assert family_p(differences[:, :comparisons]).tolist() == [2**-5] * comparisons
    assert smallest_p(6) == 2**-5
    assert smallest_p(12) == 2**-11


def test_comparisons_that_agree_on_nothing_cost_as_much_as_bonferroni() -> None:
    """Each has its own utterances against it: all but the weakest have to beat the others."""
    differences = np.ones((8, 3)) + 0.01
    differences[0, 1] = differences[1, 2] = -1.0
    p = family_p(differences)
    assert p[0] == 2 / 2**8
    assert p[1] > sign_flip_p(differences[:, 1])  # type: ignore[operator]


def test_max_t_by_hand() -> None:
    """Two comparisons, three utterances, four patterns up to a common sign. Column 0 is (1, 1, 1):
    its scaled sums over the patterns are 3, 1, 1, 1 over sqrt 3; column 1 is (2, 1, 0): 3, 1, 3, 1
    over sqrt 5. The larger one, 1.73, is reached by pattern 1 alone. The other, 1.34, among itself
    alone by patterns 1 and 3."""
    differences = np.array([[1.0, 2.0], [1.0, 1.0], [1.0, 0.0]])
    assert family_p(differences).tolist() == [1 / 4, 2 / 4]
    assert family_p(np.zeros((6, 2))).tolist() == [1, 1]
    assert family_p(differences[:, ::-1]).tolist() == [2 / 4, 1 / 4]


def test_a_comparison_may_lack_utterances() -> None:
    differences = np.full((8, 2), 0.5)
    differences[:2, 1] = np.nan
    assert family_p(differences).tolist() == [2**-7, 2**-5]


def test_beyond_exact_enumeration_patterns_are_drawn_and_seeded() -> None:
    ones = np.ones((EXACT_CLUSTERS + 1, 2))
    assert family_p(ones).tolist() == family_p(ones).tolist()
    assert smallest_p(EXACT_CLUSTERS + 1) == 1 / (1 + DRAWN)
    draw = np.random.default_rng(3).normal(0.3, 1, (EXACT_CLUSTERS, 4))
    exact = family_p(draw)
    # With one more utterance that says nothing, the same is drawn instead of enumerated.
    drawn = family_p(np.vstack([draw, np.zeros(4)]))
    assert drawn == pytest.approx(exact, abs=0.02)


def test_sign_flips_by_hand() -> None:
    assert sign_flip_p(np.ones(6)) == 2 / 64
    assert sign_flip_p(np.array([1, 1, 1, 1, 1, -1.0])) == 14 / 64  # 1 + 6 patterns, both sides
    assert sign_flip_p(np.ones(MIN_CLUSTERS - 1)) is None
    drawn = sign_flip_p(np.ones(20))
    assert drawn is not None
    assert 0 < drawn < 0.001


def test_rounding_is_no_difference() -> None:
    values = np.full((2, 8), 4.5)
    values[1] += 1e-13
    assert between_all(table_of(values))["c1", "c0"].p == 1


@pytest.mark.parametrize(
    ("kind", "draw"),
    [
        ("normal", lambda g, shape: g.normal(3, 1, shape)),
        ("ceiling", lambda g, shape: np.minimum(g.normal(4.5, 0.3, shape), 4.64)),
        ("skewed", lambda g, shape: 4.64 - g.exponential(0.3, shape)),
    ],
)
@pytest.mark.parametrize("utterances", [6, 8, 12])
def test_alike_configurations_are_seldom_told_apart(
    kind: str, draw: Callable[[np.random.Generator, tuple[int, int]], np.ndarray], utterances: int
) -> None:
    """Ten that are alike, all compared: any claim at all is false. 100 runs; at a true share of
    5 %, more than 11 are seen once in a hundred times."""
    generator = np.random.default_rng([utterances, len(kind)])
    claims = 0
    for _ in range(100):
        level = generator.normal(0, 0.5, utterances)
        found = between_all(table_of(draw(generator, (10, utterances)) + level))
        claims += any(one.told_apart for one in found.values())
    assert claims <= 11


def test_those_alike_among_others_that_are_not_are_seldom_told_apart() -> None:
    """Three alike and two that are far worse: these are found, and the family still holds."""
    generator = np.random.default_rng(11)
    false = found = 0
    for _ in range(200):
        values = generator.normal(0, 0.2, (5, 12)) - np.array([0, 0, 0, 1.0, 2.0])[:, None]
        pairs = between_all(table_of(values))
        false += any(
            pairs[pair].told_apart for pair in itertools.combinations(("c0", "c1", "c2"), 2)
        )
        found += pairs["c0", "c3"].told_apart and pairs["c3", "c4"].told_apart
    assert false <= 17
    assert found >= 195


def test_a_family_says_how_many_utterances_it_needs() -> None:
    nine = Family(9, 6)
    assert (nine.least, nine.surely, nine.enough) == (6, 9, True)
    assert str(nine) == (
        "9 comparisons need 6 utterances (9 where no two of them agree), you have 6"
    )
    assert not Family(1, 5).enough
    assert str(Family(1, 12)) == "1 comparison needs 6 utterances, you have 12"
    assert Family(45, 12).surely == 11


def test_comparisons_made_apart_can_be_one_family() -> None:
    found = against(cells(effect=0.1), "base")
    again = as_family({name: found["other"] for name in "ab"})
    assert again["a"].p_family == found["other"].p, "a comparison made twice costs nothing"


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

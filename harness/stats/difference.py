"""Paired differences, and the test of a whole family of them.

A *question* of the report ("which of these sounded best here?") makes several comparisons at once.
They are one *family*: with probability 95 % none of its claims is false. The p-values of a family
are those of the step-down max-T procedure of Westfall and Young (1993, 2.6 and 4.1; Romano and Wolf
2005) over sign flips:

* Under the hypothesis that two entries do equally well, an utterance's difference is as likely to
  be its opposite (Fisher 1935, 21). All comparisons of a family have the signs of one utterance
  flipped together, which keeps what they have in common: unlike Holm's, the correction does not
  count what many comparisons all say as often as they say it.
* The statistic of a comparison is |sum d| / sqrt(sum d^2), which ranks flips as |t| does, for the
  sum of squares is the same for all of them. It lies between 0 and sqrt(n).
* The p-value of the comparison with the largest statistic is the share of sign patterns for which
  any comparison's is as large; of the next, the share among the comparisons that are left.

The least that a p-value can be is 2^(1-n) for n utterances, whatever the number of comparisons:
reached where all comparisons point the same way in all utterances. Where each has a sign pattern of
its own it is that times the number of comparisons. Patterns are enumerated up to ``EXACT_CLUSTERS``
utterances; beyond, ``DRAWN`` are drawn, seeded, with the observed one among them (Phipson and Smyth
2010).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.stats.estimate import MIN_CLUSTERS, Estimate, Floats, estimate, grouped

SIGNIFICANT = 0.05
EXACT_CLUSTERS = 14
"""Utterances up to which all 2^(n-1) sign patterns are looked at."""
DRAWN = 10_000
_ROUNDING = 1e-9
"""Share of a value below which a difference of two is rounding."""
_AT_ONCE = 4_000_000

K = TypeVar("K", bound=Hashable)
Pair = tuple[str, str]


@dataclass(frozen=True)
class Difference:
    """Of one entry to another, within blocks. ``p_family`` is None where ``p`` is."""

    entry: str
    estimate: Estimate
    p: float | None
    """Two-sided, of this comparison alone."""
    p_family: float | None
    """The same, corrected for all comparisons of its family."""
    effect: float | None
    """:func:`effect_size` over utterances; of what is told apart, not of how surely."""
    by_utterance: Mapping[Hashable, float]
    """The mean difference in each utterance."""

    @property
    def told_apart(self) -> bool:
        """The family's test and the interval of the difference both exclude zero."""
        low, high = self.estimate.low, self.estimate.high
        if self.p_family is None or low is None or high is None:
            return False
        return self.p_family <= SIGNIFICANT and (low > 0 or high < 0)


@dataclass(frozen=True)
class Family:
    """The comparisons that answer one question, and the utterances to answer it with."""

    comparisons: int
    utterances: int

    @property
    def least(self) -> int:
        """Utterances without which no comparison can be told apart, whatever the data."""
        return max(MIN_CLUSTERS, _utterances_for(1))

    @property
    def surely(self) -> int:
        """Utterances with which a difference that all of them show is told apart even where no two
        comparisons agree on the utterances that favour them."""
        return max(MIN_CLUSTERS, _utterances_for(self.comparisons))

    @property
    def enough(self) -> bool:
        return self.utterances >= self.least

    @property
    def smallest_p(self) -> float:
        """The least that a p-value of the family can be."""
        return smallest_p(self.utterances)

    def __str__(self) -> str:
        many = "s" * (self.comparisons != 1)
        needs = "needs" if self.comparisons == 1 else "need"
        upto = f" ({self.surely} where no two of them agree)" * (self.surely > self.least)
        return (
            f"{self.comparisons} comparison{many} {needs} {self.least} utterances{upto}, you have"
            f" {self.utterances}"
        )


def smallest_p(utterances: int) -> float:
    """The least p-value that sign flips of so many utterances can give."""
    if utterances > EXACT_CLUSTERS:
        return 1 / (1 + DRAWN)
    return 2.0 ** (1 - utterances)


def _utterances_for(comparisons: int) -> int:
    return next(n for n in itertools.count(1) if comparisons * 2.0 ** (1 - n) <= SIGNIFICANT)


def against(
    table: pd.DataFrame,
    baseline: str,
    entry: str = "codec",
    value: str = "value",
    cluster: str = "utterance",
    block: str = "block",
) -> dict[str, Difference]:
    """Every other entry's difference to ``baseline``, over the blocks that have both; one family.

    ``table`` has one row per cell with the columns named. Null values are left out with their
    pair. Entries without a common block are absent.
    """
    names = sorted(set(table[entry]) - {baseline})
    found = _paired(table, [(name, baseline) for name in names], entry, value, cluster, block)
    return as_family({first: one for (first, _), one in found.items()})


def between_all(
    table: pd.DataFrame,
    entry: str = "codec",
    value: str = "value",
    cluster: str = "utterance",
    block: str = "block",
) -> dict[Pair, Difference]:
    """The difference of every two entries (first minus second), as one family, and each way round.

    As :func:`against`. All pairs, since which entry is compared with which is chosen by looking at
    the means: a family of all that could be chosen holds whatever is.
    """
    names = sorted(set(table[entry]))
    found = as_family(
        _paired(table, list(itertools.combinations(names, 2)), entry, value, cluster, block)
    )
    return found | {(b, a): opposite(one, b) for (a, b), one in found.items()}


def opposite(difference: Difference, entry: str) -> Difference:
    """The same comparison seen from the other entry."""
    seen = difference.estimate
    return replace(
        difference,
        entry=entry,
        estimate=replace(
            seen,
            mean=-seen.mean,
            low=None if seen.high is None else -seen.high,
            high=None if seen.low is None else -seen.low,
        ),
        effect=None if difference.effect is None else -difference.effect,
        by_utterance={name: -mean for name, mean in difference.by_utterance.items()},
    )


def as_family(differences: Mapping[K, Difference]) -> dict[K, Difference]:
    """The same with ``p_family`` for all of them as one family."""
    tested = {key: one for key, one in differences.items() if one.p is not None}
    if not tested:
        return dict(differences)
    matrix = pd.DataFrame({number: one.by_utterance for number, one in enumerate(tested.values())})
    matrix = matrix.sort_index(key=lambda index: index.map(str))
    p = family_p(matrix.to_numpy(np.float64))
    adjusted = dict(zip(tested, p.tolist(), strict=True))
    return {key: replace(one, p_family=adjusted.get(key)) for key, one in differences.items()}


def family_p(differences: Floats, seed: int = 0) -> Floats:
    """Two-sided p-values of all columns as one family: step-down max-T over sign flips.

    ``differences`` has shape (utterances, comparisons), NaN where a comparison lacks an utterance;
    the result (comparisons,). A column of zeros has a p-value of 1.
    """
    known = np.nan_to_num(differences)
    norm = np.sqrt((known**2).sum(axis=0))
    scaled = np.divide(known, norm, out=np.zeros_like(known), where=norm > 0)
    observed = np.abs(scaled.sum(axis=0))
    order = np.argsort(-observed, kind="stable")
    limits = observed[order] - 1e-9  # equal sums may differ by rounding
    signs, exact = _sign_patterns(len(known), seed)
    count = np.zeros(len(order))
    step = max(1, _AT_ONCE // max(1, len(order)))
    for start in range(0, len(signs), step):
        reached = np.abs(signs[start : start + step] @ scaled[:, order])
        # In every row, the largest among the comparisons from this one on.
        largest = np.maximum.accumulate(reached[:, ::-1], axis=1)[:, ::-1]
        count += (largest >= limits).sum(axis=0)
    share = count / len(signs) if exact else (1 + count) / (1 + len(signs))
    p = np.empty(len(order))
    p[order] = np.maximum.accumulate(share)
    return p


def sign_flip_p(differences: Floats, seed: int = 0) -> float | None:
    """:func:`family_p` of one comparison alone; shape (utterances,). None below
    ``MIN_CLUSTERS``."""
    if len(differences) < MIN_CLUSTERS:
        return None
    return float(family_p(differences[:, None], seed)[0])


@lru_cache(maxsize=4)
def _sign_patterns(utterances: int, seed: int) -> tuple[NDArray[np.float64], bool]:
    """Signs of shape (patterns, utterances), and whether they are all that there are. The first
    utterance keeps its sign: a pattern and its opposite give the same statistic."""
    if utterances <= EXACT_CLUSTERS:
        bits = np.arange(2 ** (utterances - 1))[:, None] >> np.arange(utterances - 1) & 1
        signs = 1.0 - 2.0 * bits
    else:
        generator = np.random.default_rng(seed)
        signs = 1.0 - 2.0 * generator.integers(2, size=(DRAWN, utterances - 1))
    return np.hstack([np.ones((len(signs), 1)), signs]), utterances <= EXACT_CLUSTERS


def effect_size(differences: Floats) -> float | None:
    """Cohen's d_z of ``differences``, one per utterance, corrected for small samples.

    d_z is the mean over the standard deviation of paired differences (Cohen 1988, 2.3.5). It is too
    large for few utterances; the factor J(n - 1) of Hedges (1981, eq. 6e), about 1 - 3 / (4n - 5),
    makes it unbiased (called g_z or d_z,unb; Lakens 2013). None below ``MIN_CLUSTERS``, and where
    the differences do not differ.
    """
    count = len(differences)
    if count < MIN_CLUSTERS:
        return None
    deviation = float(differences.std(ddof=1))
    mean = float(differences.mean())
    if deviation <= 1e-12 * abs(mean):  # equal differences may differ by rounding
        return None
    free = count - 1
    logarithm = math.lgamma(free / 2) - math.lgamma((free - 1) / 2)
    return mean / deviation * math.exp(logarithm) / math.sqrt(free / 2)


def _paired(
    table: pd.DataFrame, pairs: Iterable[Pair], entry: str, value: str, cluster: str, block: str
) -> dict[Pair, Difference]:
    """The differences of these pairs that share a block, without ``p_family``."""
    rows = table.dropna(subset=[value])
    wide = rows.pivot(index=block, columns=entry, values=value)
    of_block = rows.drop_duplicates(block).set_index(block)[cluster].reindex(wide.index)
    values = {str(name): wide[name].to_numpy(np.float64) for name in wide}
    utterances = of_block.to_numpy()
    found: dict[Pair, Difference] = {}
    for first, second in pairs:
        if first not in values or second not in values:
            continue
        one, other = values[first], values[second]
        both = np.isfinite(one - other)
        gap = (one - other)[both]
        gap[np.abs(gap) <= _ROUNDING * np.abs(one[both])] = 0.0
        clusters = utterances[both].tolist()
        result = estimate(gap.tolist(), clusters)
        if result is None:
            continue
        means = {
            name: float(group.mean()) for name, group in grouped(gap.tolist(), clusters).items()
        }
        vector = np.array(list(means.values()))
        found[first, second] = Difference(
            first, result, sign_flip_p(vector), None, effect_size(vector), means
        )
    return found

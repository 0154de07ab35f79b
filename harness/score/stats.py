"""How sure one can be: intervals, paired differences and their correction for looking often.

The unit of observation is a cell (utterance x repetition), never a packet or a frame. Cells of one
utterance are alike, so utterances are resampled first and repetitions within them (two-stage
cluster bootstrap; Davison and Hinkley 1997, 3.8). Codecs of one *block* (utterance, repetition and
network) met the same link, so they are compared within blocks, against one *baseline* among them.

All functions are pure and seeded: equal arguments give equal results. Below ``MIN_CLUSTERS``
utterances there is no interval and no p-value, but None.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

MIN_CLUSTERS = 6
"""Utterances below which nothing is claimed: 2 * 2^-6 is the first sign-flip p-value below 5 %."""
RESAMPLES = 2000
_EXACT_CLUSTERS = 12
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval; ``low`` and ``high`` are None if there are too few utterances."""

    mean: float
    low: float | None
    high: float | None
    clusters: int
    cells: int


@dataclass(frozen=True)
class Difference:
    """Of an entry to its baseline, within blocks. ``p_holm`` is None where ``p`` is."""

    entry: str
    estimate: Estimate
    p: float | None
    p_holm: float | None
    effect: float | None
    """:func:`effect_size` over utterances; of what is told apart, not of how surely."""


def estimate(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    level: float = 0.95,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate | None:
    """Mean over utterances of the means over their cells, with a percentile-bootstrap interval.

    ``values`` are finite, one per cell; ``clusters`` says which utterance each one is of. None if
    there are no values.
    """
    groups = _groups(values, clusters)
    if not groups:
        return None
    mean = float(np.mean([group.mean() for group in groups]))
    low = high = None
    if len(groups) >= MIN_CLUSTERS:
        drawn = _bootstrap_means(groups, np.random.default_rng(seed), resamples)
        tail = (1 - level) / 2
        low, high = (float(bound) for bound in np.quantile(drawn, (tail, 1 - tail)))
    return Estimate(mean, low, high, len(groups), len(values))


def paired_differences(
    table: pd.DataFrame,
    baseline: str,
    entry: str = "codec",
    value: str = "value",
    cluster: str = "utterance",
    block: str = "block",
    seed: int = 0,
) -> dict[str, Difference]:
    """Every other entry's difference to ``baseline``, over the blocks that have both.

    ``table`` has one row per cell with the columns named. Null values are left out with their
    pair. Entries without a common block are absent. P-values (sign flips of the utterances' mean
    differences) are corrected among all entries returned.
    """
    rows = table.dropna(subset=[value])
    wide = rows.pivot(index=block, columns=entry, values=value)
    of_block = rows.drop_duplicates(block).set_index(block)[cluster]
    if baseline not in wide:
        return {}
    found: dict[str, Difference] = {}
    for name in wide.columns.drop(baseline):
        gap = (wide[name] - wide[baseline]).dropna()
        groups = of_block.loc[gap.index].tolist()
        values = gap.to_numpy(np.float64).tolist()
        result = estimate(values, groups, seed=seed)
        if result is not None:
            means = np.array([group.mean() for group in _groups(values, groups)])
            p = sign_flip_p(means, seed)
            found[str(name)] = Difference(str(name), result, p, None, effect_size(means))
    return corrected(found)


def corrected(differences: Mapping[K, Difference]) -> dict[K, Difference]:
    """The same with ``p_holm`` for all of them as one family of comparisons."""
    adjusted = holm({key: one.p for key, one in differences.items() if one.p is not None})
    return {key: replace(one, p_holm=adjusted.get(key)) for key, one in differences.items()}


def effect_size(differences: NDArray[np.float64]) -> float | None:
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


def sign_flip_p(differences: NDArray[np.float64], seed: int = 0) -> float | None:
    """Two-sided p-value that the mean of ``differences``, one per utterance, is 0.

    Under the hypothesis every sign is as likely as its opposite (Fisher 1935, 21): all sign
    patterns for up to 12 utterances, else 10,000 drawn ones, the observed among them (Phipson and
    Smyth 2010). None below ``MIN_CLUSTERS``.
    """
    count = len(differences)
    if count < MIN_CLUSTERS:
        return None
    observed = abs(differences.mean()) * (1 - 1e-12)  # equal sums may differ by rounding
    if count <= _EXACT_CLUSTERS:
        signs = np.array(list(itertools.product((-1, 1), repeat=count)), np.float64)
        return float((np.abs(signs @ differences / count) >= observed).mean())
    draws = 10_000
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), (draws, count))
    return float((1 + (np.abs(signs @ differences / count) >= observed).sum()) / (1 + draws))


def holm(p_values: Mapping[K, float]) -> dict[K, float]:
    """Holm's step-down correction (Holm 1979), as adjusted p-values of the same names."""
    adjusted: dict[K, float] = {}
    largest = 0.0
    ordered = sorted(p_values.items(), key=lambda item: (item[1], str(item[0])))
    for rank, (name, p) in enumerate(ordered):
        largest = max(largest, min(1.0, p * (len(ordered) - rank)))
        adjusted[name] = largest
    return adjusted


def _groups(values: Sequence[float], clusters: Sequence[Hashable]) -> list[NDArray[np.float64]]:
    """The values of each cluster, in an order that does not depend on that of the rows."""
    by_cluster: dict[Hashable, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        by_cluster.setdefault(cluster, []).append(value)
    return [np.sort(by_cluster[cluster]) for cluster in sorted(by_cluster, key=str)]


def _bootstrap_means(
    groups: list[NDArray[np.float64]], generator: np.random.Generator, resamples: int
) -> NDArray[np.float64]:
    """Means of clusters drawn with replacement, and of cells drawn within each one drawn."""
    sizes = np.array([len(group) for group in groups])
    padded = np.zeros((len(groups), sizes.max()))
    for row, group in enumerate(groups):
        padded[row, : len(group)] = group
    drawn = generator.integers(len(groups), size=(resamples, len(groups)))
    sizes = sizes[drawn][..., None]
    picks = generator.random((*drawn.shape, padded.shape[1])) * sizes
    cells = padded[drawn[..., None], picks.astype(np.int64)]
    kept = np.arange(padded.shape[1]) < sizes
    means: NDArray[np.float64] = ((cells * kept).sum(axis=2) / sizes[..., 0]).mean(axis=1)
    return means

"""How often the report's own test would find a difference, by simulated runs. Pure and seeded.

A run is drawn from a pilot's spread: the mean of an utterance, in all configurations at once, is
normal with the covariance S_u + S_s / seeds, both by the multivariate form of the
analysis-of-variance estimator (Searle, Casella and McCulloch 1992, 11.3; what is not positive
semidefinite is projected). What is planted is tested as the report tests it: sign flips and max-T
over the whole family, and the interval of the difference (:mod:`harness.stats.difference`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from harness.stats.difference import SIGNIFICANT, Pair, family_p
from harness.stats.estimate import MIN_CLUSTERS, Floats, interval

RUNS = 400
_NORMALS = 20_000


@dataclass(frozen=True)
class Spread:
    """Covariances of configurations between utterances and between seeds of one; shapes (k, k)."""

    names: tuple[str, ...]
    utterance: Floats
    seed: Floats

    def of_mean(self, seeds: int) -> Floats:
        """Covariance of an utterance's means over so many seeds."""
        return self.utterance + self.seed / seeds


def spread_of(
    table: pd.DataFrame,
    entry: str = "codec",
    value: str = "value",
    cluster: str = "utterance",
    block: str = "block",
) -> Spread | None:
    """From a pilot with one row per cell, over the blocks that have all entries. None where fewer
    than two utterances are left, or none of them has two blocks."""
    rows = table.dropna(subset=[value])
    wide = rows.pivot(index=block, columns=entry, values=value).dropna()
    of = rows.drop_duplicates(block).set_index(block)[cluster].loc[wide.index].astype(str)
    groups = [group.to_numpy(np.float64) for _, group in wide.groupby(of)]
    sizes = np.array([len(group) for group in groups], np.float64)
    if len(groups) < 2 or sizes.max() < 2:
        return None
    means = np.array([group.mean(axis=0) for group in groups])
    within = sum((g - m).T @ (g - m) for g, m in zip(groups, means, strict=True))
    within = np.asarray(within) / (sizes.sum() - len(groups))
    centred = means - (sizes[:, None] * means).sum(axis=0) / sizes.sum()
    between = (sizes[:, None] * centred).T @ centred / (len(groups) - 1)
    typical = (sizes.sum() - (sizes**2).sum() / sizes.sum()) / (len(groups) - 1)
    utterance = _positive((between - within) / typical)
    return Spread(tuple(map(str, wide.columns)), utterance, within)


def level_of_each(
    spread: Spread, pairs: Sequence[Pair], seeds: int, alpha: float = SIGNIFICANT, seed: int = 0
) -> float:
    """The two-sided level at which one comparison of the family is tested, where all are alike: as
    strict as the largest of their correlated statistics makes it, and no stricter."""
    contrasts = _contrasts(spread, pairs)
    covariance = contrasts @ spread.of_mean(seeds) @ contrasts.T
    deviation = np.sqrt(np.maximum(np.diag(covariance), 1e-24))
    draws = np.random.default_rng(seed).standard_normal((_NORMALS, len(spread.names)))
    scores = draws @ _root(spread.of_mean(seeds)) @ contrasts.T / deviation
    largest = np.quantile(np.abs(scores).max(axis=1), 1 - alpha)
    return min(alpha, float(2 * special.ndtr(-largest)))


def share_found(
    spread: Spread,
    pairs: Sequence[Pair],
    planted: Pair,
    delta: float,
    utterances: int,
    seeds: int,
    runs: int = RUNS,
    seed: int = 0,
) -> float:
    """Share of simulated runs in which the report tells ``planted`` apart, the right way round.

    All configurations are alike but the first of ``planted``, which is ``delta`` better. ``pairs``
    are the family, ``planted`` among them. 0 below ``MIN_CLUSTERS`` utterances.
    """
    if utterances < MIN_CLUSTERS:
        return 0.0
    contrasts = _contrasts(spread, pairs)
    at = list(pairs).index(planted)
    levels = np.zeros(len(spread.names))
    levels[spread.names.index(planted[0])] = delta
    # Runs of different sizes begin with the same draws, so that more utterances are never worse
    # by the luck of the draw alone.
    generators = np.random.default_rng(seed).spawn(runs)
    root, found = _root(spread.of_mean(seeds)), 0
    for generator in generators:
        means = generator.standard_normal((utterances, len(levels))) @ root + levels
        differences = means @ contrasts.T
        _, low, _ = interval(differences[:, at])
        found += bool(low > 0 and family_p(differences)[at] <= SIGNIFICANT)
    return found / runs


def utterances_to_find(
    spread: Spread,
    pairs: Sequence[Pair],
    planted: Pair,
    delta: float,
    seeds: int,
    power: float,
    start: int,
    most: int,
    runs: int = RUNS,
) -> int | None:
    """The least number of utterances that finds it so often; None where ``most`` do not.

    ``start`` is where to look first. Steps double away from it, then halve.
    """

    def enough(utterances: int) -> bool:
        return share_found(spread, pairs, planted, delta, utterances, seeds, runs) >= power

    low = high = min(max(start, MIN_CLUSTERS), most)
    step = 1
    while not enough(high):
        if high == most:
            return None
        low, high, step = high + 1, min(most, high + step), 2 * step
    while low == high and low > MIN_CLUSTERS and enough(low - 1):
        low = high = low - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high


def _contrasts(spread: Spread, pairs: Sequence[Pair]) -> Floats:
    """One row per pair: 1 at its first configuration, -1 at its second."""
    rows = np.zeros((len(pairs), len(spread.names)))
    for row, (first, second) in zip(rows, pairs, strict=True):
        row[spread.names.index(first)] = 1.0
        row[spread.names.index(second)] = -1.0
    return rows


def _root(covariance: Floats) -> Floats:
    values, vectors = np.linalg.eigh(covariance)
    root: Floats = (vectors * np.sqrt(np.maximum(values, 0.0))).T
    return root


def _positive(covariance: Floats) -> Floats:
    root = _root(covariance)
    return root.T @ root

"""Curves over a swept parameter, with bands, and the points where they cross. Pure and seeded.

A point of a curve is a mean over utterances of means over repetitions with its interval, as
:mod:`harness.stats.estimate` has them. Crossings come from a bootstrap with common random numbers
(:mod:`harness.stats.resample`): the same utterances are drawn for all lines and all points at a
time. What the utterances and their links do to all curves alike therefore cancels.

A *crossing* of two curves is a zero of their difference, piecewise linear between the points that
both have. Where noise makes several, it is the one that best parts the sweep in two: the integral
of the difference, from the first point on, is largest there (or least, for the other direction).
With a single crossing that is the crossing itself; small wiggles elsewhere, as where all curves lie
on the floor of a scale, have too little area to move it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.stats.estimate import MIN_CLUSTERS, interval, mean_of
from harness.stats.resample import RESAMPLES, drawn, tails

MOST_WITHOUT = 0.05
"""Share of resamples without a crossing, above which its interval is open."""
_NOISE = 0.5
"""A crossing that more resamples than this do not have is none."""

Verb = Literal["falls under", "rises above"]


@dataclass(frozen=True)
class Curve:
    """One line; NaN where it has no cell. ``low`` and ``high`` are NaN below ``MIN_CLUSTERS``
    utterances. All arrays have shape (points,)."""

    name: str
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    cells: NDArray[np.int64]
    utterances: NDArray[np.int64]


@dataclass(frozen=True)
class Crossing:
    """As x grows, ``line`` (the one of the two that changes more) crosses ``other`` at ``x``.

    The 95 % interval is None where it is open, for more than ``MOST_WITHOUT`` of the resamples
    have no such crossing (``without`` is that share), and where there are too few utterances for
    any (``without`` is None).
    """

    line: str
    verb: Verb
    other: str
    x: float
    low: float | None
    high: float | None
    without: float | None

    @property
    def certain(self) -> bool:
        return self.low is not None


@dataclass(frozen=True)
class Sweep:
    """All curves over ``x`` (ascending, shape (points,)) of one figure."""

    x: NDArray[np.float64]
    curves: tuple[Curve, ...]
    resampled: NDArray[np.float64]
    """Shape (lines, points, resamples); no resamples below ``MIN_CLUSTERS`` utterances."""
    utterances: int

    def crossings(self, among: Sequence[str] | None = None) -> list[Crossing]:
        """Of every two lines (of those named in ``among``; None is all), by x."""
        places = [i for i, one in enumerate(self.curves) if among is None or one.name in among]
        found = [
            crossing
            for one, other in itertools.combinations(places, 2)
            for crossing in self._between(one, other)
        ]
        return sorted(found, key=lambda crossing: (crossing.x, crossing.line, crossing.other))

    def _between(self, one: int, other: int) -> list[Crossing]:
        first, second = self.curves[one], self.curves[other]
        both = np.isfinite(first.mean - second.mean)
        if both.sum() < 2:
            return []
        x, gap = self.x[both], (first.mean - second.mean)[both]
        gaps = (self.resampled[one] - self.resampled[other])[both]
        change = [
            abs(float(curve.mean[both][-1] - curve.mean[both][0])) for curve in (first, second)
        ]
        found = []
        for sign in (1.0, -1.0):
            at = crossing_at(x, sign * gap)
            if at is None:
                continue
            places = np.array(
                [np.nan if (c := crossing_at(x, sign * g)) is None else c for g in gaps.T]
            )
            low = high = without = None
            if len(places):
                without = float(np.isnan(places).mean())
                if without > _NOISE:
                    continue
                if without <= MOST_WITHOUT:
                    bounds = np.nanquantile(places, tails(self.utterances))
                    low, high = (float(bound) for bound in bounds)
            if change[0] >= change[1]:
                verb: Verb = "falls under" if sign > 0 else "rises above"
                found.append(Crossing(first.name, verb, second.name, at, low, high, without))
            else:
                verb = "rises above" if sign > 0 else "falls under"
                found.append(Crossing(second.name, verb, first.name, at, low, high, without))
        return found


def sweep(
    table: pd.DataFrame,
    lines: Sequence[str],
    line: str = "line",
    x: str = "x",
    value: str = "value",
    cluster: str = "utterance",
    repetition: str = "repetition",
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Sweep:
    """Curves of ``lines``, in that order, over all x of ``table``: one row per cell, with the
    columns named; null values are left out. At most one row per line, x, cluster and repetition.
    """
    rows = table.dropna(subset=[value])
    rows = rows[rows[line].isin(lines)]
    points = np.unique(rows[x].to_numpy(np.float64))
    clusters = sorted(rows[cluster].unique(), key=str)
    repetitions = sorted(rows[repetition].unique())
    shape = (len(lines), len(points), len(clusters), len(repetitions))
    values = np.full(shape, np.nan)
    place = (
        rows[line].map({name: i for i, name in enumerate(lines)}).to_numpy(np.int64),
        np.searchsorted(points, rows[x].to_numpy(np.float64)),
        rows[cluster].map({name: i for i, name in enumerate(clusters)}).to_numpy(np.int64),
        rows[repetition].map({name: i for i, name in enumerate(repetitions)}).to_numpy(np.int64),
    )
    values[place] = rows[value].to_numpy(np.float64)
    of_utterance = mean_of(values)
    means, low, high = interval(of_utterance)
    resampled = np.empty((*shape[:2], 0))
    if len(clusters) >= MIN_CLUSTERS:
        picks = drawn(len(clusters), seed, resamples)
        resampled = np.stack([mean_of(of_utterance[..., pick]) for pick in picks], axis=-1)
    there = np.isfinite(values)
    cells, utterances = there.sum(axis=(2, 3)), there.any(axis=3).sum(axis=2)
    return Sweep(
        points,
        tuple(
            Curve(name, means[i], low[i], high[i], cells[i], utterances[i])
            for i, name in enumerate(lines)
        ),
        resampled,
        len(clusters),
    )


def crossing_at(x: NDArray[np.float64], gap: NDArray[np.float64]) -> float | None:
    """Where a piecewise linear difference, above zero before, is below zero after; None where it is
    nowhere so. Shapes (points,), x ascending; see the module on several such places. Points without
    a difference (NaN) are left out."""
    known = np.isfinite(gap)
    x, gap = x[known], gap[known]
    falls = np.flatnonzero((gap[:-1] > 0) & (gap[1:] <= 0))
    falls = falls[[bool((gap[i + 1 :] < 0).any()) for i in falls]] if len(falls) else falls
    if not len(falls):
        return None
    at = x[falls] + np.diff(x)[falls] * gap[falls] / (gap[falls] - gap[falls + 1])
    whole = np.concatenate([[0.0], np.cumsum(np.diff(x) * (gap[:-1] + gap[1:]) / 2)])
    area = whole[falls] + (at - x[falls]) * gap[falls] / 2
    best = int(np.argmax(area))
    # It parts the sweep in two only if there is more to the left, and less to the right, of it.
    return float(at[best]) if area[best] > max(0.0, whole[-1]) else None

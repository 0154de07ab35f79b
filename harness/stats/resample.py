"""The one bootstrap: utterances drawn with replacement, each with all that belongs to it.

Repetitions are not drawn again within an utterance: the spread of the utterances' means contains
theirs already (Davison and Hinkley 1997, 3.8). For a mean, :func:`harness.stats.estimate.interval`
is better and needs no draws; this is for what has no formula.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import special

from harness.stats.estimate import LEVEL

RESAMPLES = 2000


def drawn(clusters: int, seed: int = 0, resamples: int = RESAMPLES) -> NDArray[np.int64]:
    """Which clusters each resample has; shape (resamples, clusters)."""
    return np.random.default_rng(seed).integers(clusters, size=(resamples, clusters))


def tails(clusters: int, level: float = LEVEL) -> tuple[float, float]:
    """Lower and upper quantile of a resampled figure that bound its interval.

    Percentiles of few clusters are too narrow: the spread of a resample is smaller by
    sqrt((n - 1) / n), and normal where Student's t is due. The expanded percentile interval
    (Hesterberg 2015, 5.2) takes the quantiles Phi(-+ sqrt(n / (n - 1)) t(n - 1)) instead.
    """
    reach = special.stdtrit(clusters - 1, (1 + level) / 2) * math.sqrt(clusters / (clusters - 1))
    tail = float(special.ndtr(-reach))
    return tail, 1 - tail

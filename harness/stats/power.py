"""How many utterances and seeds it takes to tell two codecs apart.

The difference of two codecs in cell j of utterance i is modelled as a mean, plus what the utterance
adds (variance s_u), plus what the seed adds (variance s_s): a one-way random-effects layout, seeds
nested in utterances. From a pilot the two are estimated by the analysis-of-variance estimator for
unequal group sizes (Searle, Casella and McCulloch 1992, 3.6):

    s_s = MS_within      s_u = max(0, (MS_between - MS_within) / n0)
    n0 = (N - sum n_i^2 / N) / (a - 1)        a utterances, n_i cells of each, N in all

With m utterances and k seeds of each, the mean difference has the variance V / m, V = s_u + s_s / k
(two-stage sampling; Cochran 1977, 10.3), and the utterances' means are tested by Student's t. Its
power at a true difference d is that of the noncentral t distribution with noncentrality
d / sqrt(V / m); the need is the least m that reaches what is asked. It never falls below
``MIN_CLUSTERS``, under which nothing is claimed.

The report tests a family of comparisons by sign flips; the level that it leaves to each of them,
and how often it finds a difference, are those of :mod:`harness.stats.simulated`. With few
utterances flips find less than t, since their p-values are multiples of 2^(1-m).

Three designs are worked out from the same cells:

* *paired*: both codecs meet the same utterances and the same network events (blocks);
* *apart*: the same utterances, but each codec draws its own losses, as a kernel's netem makes it:
  s_u of the pairs, s_s the sum of both codecs' own;
* *independent*: two arms that share nothing; s_u and s_s are sums, m is per arm, and the test has
  2 (m - 1) degrees of freedom.

All functions are pure and seeded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special
from scipy import stats as distributions

from harness.stats.estimate import MIN_CLUSTERS
from harness.stats.resample import drawn

Design = Literal["paired", "apart", "independent"]
DESIGNS: tuple[Design, ...] = ("paired", "apart", "independent")
MOST = 1_000_000
"""Utterances beyond which nobody asks."""
RESAMPLES = 1000
_LEVEL = 0.95
_LEAST_VARIANCE = 1e-12

Floats = NDArray[np.float64]


class Aim(NamedTuple):
    """What a test is to find: a true difference of ``delta`` with probability ``power``, at a
    two-sided level ``alpha``."""

    delta: float
    power: float = 0.8
    alpha: float = 0.05


@dataclass(frozen=True)
class Components:
    """Variances between utterances and between seeds of one utterance, in squared units.

    Arrays of equal shape (one element per bootstrap sample) or numbers.
    """

    utterance: Floats
    seed: Floats

    def of_mean(self, seeds: int) -> Floats:
        """Variance of the mean of one utterance with so many seeds."""
        return self.utterance + self.seed / seeds

    def __add__(self, other: Self) -> Components:
        return Components(self.utterance + other.utterance, self.seed + other.seed)


class Need(NamedTuple):
    """Utterances that a design needs (per arm where independent), with a 95 % interval; ``MOST``
    stands for that many or more."""

    utterances: int
    low: int
    high: int


@dataclass(frozen=True)
class Comparison:
    """Two codecs in a pilot. ``components`` are by design."""

    mean: float
    """Of the paired differences."""
    utterances: int
    pairs: int
    components: dict[Design, Components]
    resampled: dict[Design, Components]
    """Of bootstrap samples of the pilot's utterances; arrays of shape (``RESAMPLES``,)."""

    def need(self, design: Design, seeds: int, aim: Aim) -> Need:
        """Utterances, where each is run with so many seeds.

        The interval is that of V, whose logarithm is taken to be as spread as over bootstrap
        samples and as heavy-tailed as Student's t: percentiles of so few utterances are too
        narrow (they hold the truth in 80 % of pilots of 12 x 3, this in about 93 %).
        """
        mine = float(self.components[design].of_mean(seeds))
        resampled = self.resampled[design].of_mean(seeds)
        spread = float(np.log(np.maximum(resampled, _LEAST_VARIANCE)).std(ddof=1))
        reach = math.exp(spread * special.stdtrit(self.utterances - 1, (1 + _LEVEL) / 2))
        found = (utterances_needed(v, design, aim) for v in (mine, mine / reach, mine * reach))
        return Need(*found)

    def seeds_for(self, design: Design, utterances: int, aim: Aim) -> int | None:
        """The fewest seeds with which so many utterances are enough; None where no number is."""
        found = self.components[design]
        if utterances_needed(float(found.utterance), design, aim) > utterances:
            return None
        return _least(
            lambda seeds: utterances_needed(float(found.of_mean(seeds)), design, aim) <= utterances,
            1,
        )


def components(values: Floats, utterances: Sequence[object]) -> Components | None:
    """The variances in cells of several utterances; shapes (N,) each.

    None where there are fewer than two utterances, or no utterance has two cells.
    """
    groups = _grouped(values, utterances)
    return _components(groups) if groups.can_be_split else None


def compare(pilot: pd.DataFrame, codec: str, baseline: str, seed: int = 0) -> Comparison | None:
    """Two codecs on one network, over the blocks that have both.

    ``pilot`` has the columns ``codec, utterance, block, value``, one row per cell; null values are
    left out with their pair. None where :func:`components` is.
    """
    rows = pilot.dropna(subset=["value"])
    wide = rows.pivot(index="block", columns="codec", values="value")
    if not {codec, baseline} <= set(wide.columns):
        return None
    pairs = wide[[codec, baseline]].dropna()
    utterance = rows.drop_duplicates("block").set_index("block")["utterance"].loc[pairs.index]
    mine, base = (pairs[name].to_numpy(np.float64) for name in (codec, baseline))
    samples = {
        name: _grouped(values, utterance.tolist())
        for name, values in (("difference", mine - base), ("mine", mine), ("base", base))
    }
    if not samples["difference"].can_be_split:
        return None
    number = len(samples["difference"].sizes)
    picks = drawn(number, seed, RESAMPLES)
    return Comparison(
        mean=float(np.mean(samples["difference"].means)),
        utterances=number,
        pairs=len(pairs),
        components=_by_design({name: _components(found) for name, found in samples.items()}),
        resampled=_by_design(
            {name: _components(found.drawn(picks), True) for name, found in samples.items()}
        ),
    )


def utterances_needed(variance: float, design: Design, aim: Aim) -> int:
    """The least number of utterances, at least ``MIN_CLUSTERS``, whose means vary by ``variance``
    (V of the module's text), that finds what is aimed at; at most ``MOST``."""
    return _least(lambda m: power(m, variance, design, aim) >= aim.power, MIN_CLUSTERS)


def power(utterances: int, variance: float, design: Design, aim: Aim) -> float:
    """Probability that the test finds a difference of ``aim.delta``, and not its opposite."""
    if variance <= 0:
        return 1.0
    freedom = (utterances - 1) * (2 if design == "independent" else 1)
    shift = aim.delta / math.sqrt(variance / utterances)
    critical = special.stdtrit(freedom, 1 - aim.alpha / 2)
    return float(distributions.nct.sf(critical, freedom, shift))


def _least(enough: Callable[[int], bool], first: int) -> int:
    """The least whole number from ``first`` on that is enough; more always is, too."""
    low, high = first, first
    while high < MOST and not enough(high):
        low, high = high + 1, min(2 * high, MOST)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high


@dataclass(frozen=True)
class _Groups:
    """Per utterance (last axis): number of cells, their mean, their squares about it in sum."""

    sizes: Floats
    means: Floats
    squares: Floats

    def drawn(self, picks: NDArray[np.int64]) -> _Groups:
        return _Groups(self.sizes[picks], self.means[picks], self.squares[picks])

    @property
    def can_be_split(self) -> bool:
        return len(self.sizes) > 1 and self.sizes.max() > 1


def _grouped(values: Floats, utterances: Sequence[object]) -> _Groups:
    _, group = np.unique(np.asarray(utterances, dtype=str), return_inverse=True)
    sizes = np.bincount(group).astype(np.float64)
    means = np.bincount(group, values) / sizes
    squares = np.bincount(group, (values - means[group]) ** 2)
    return _Groups(sizes, means.astype(np.float64), squares.astype(np.float64))


def _components(groups: _Groups, resampled: bool = False) -> Components:
    """``resampled``: the utterances were drawn with replacement, which makes them as much more
    alike as the plain variance of a sample is smaller than the unbiased one."""
    sizes, number, cells = groups.sizes, groups.sizes.shape[-1], groups.sizes.sum(axis=-1)
    grand = (sizes * groups.means).sum(axis=-1, keepdims=True) / cells[..., None]
    between = (sizes * (groups.means - grand) ** 2).sum(axis=-1) / (number - 1)
    if resampled:
        between = between * number / (number - 1)
    within = groups.squares.sum(axis=-1) / np.maximum(cells - number, 1)
    typical = (cells - (sizes**2).sum(axis=-1) / cells) / (number - 1)
    return Components(np.maximum(0.0, (between - within) / typical), within)


def _by_design(found: dict[str, Components]) -> dict[Design, Components]:
    own = found["mine"] + found["base"]
    return {
        "paired": found["difference"],
        "apart": Components(found["difference"].utterance, own.seed),
        "independent": own,
    }

"""What chance does to the figures of a link that does as asked: distributions and intervals.

An interval holds all but ``ALPHA`` of the probability (4 sigma of a normal). Everything here is a
pure function of the description and a number of packets, and remembered: cells of a matrix ask for
the same few again and again.

* Medians and quantiles: the distribution-free interval of order statistics, that is the asked
  distribution's own quantiles at q -/+ 4 sqrt(q(1-q)/n) (Conover, Practical Nonparametric
  Statistics, 3rd ed., 3.2).
* Loss counts: the exact distribution of the number of losses of the two-state chain over n
  packets, from its generating function u (A + zB)^n 1 evaluated on the unit circle (Neuts,
  Matrix-Geometric Solutions in Stochastic Models). Bursts make it far wider than a binomial.
* Burst lengths: loss runs are phase-type distributed; the interval is that of the sum of as many
  independent runs as were seen, again by its generating function.
* Duplicates, corruption: binomial. Reordering: renewal theory (Cox, Renewal Theory, 4.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from harness.network.distributions import SCALE, SIZE, table
from harness.network.link import Bernoulli, Distribution, GilbertElliott, Loss, LossTrace, Reorder
from harness.units import NS_PER_MS

Floats = NDArray[np.float64]

SIGMAS = 4.0
ALPHA = math.erfc(SIGMAS / math.sqrt(2))


class Interval(NamedTuple):
    """Counts that chance allows, and the count to expect."""

    low: int
    high: int
    mean: float


# --- delay ----------------------------------------------------------------------------------------


def skip_share(reorder: Reorder | None) -> float:
    """Long-run share of packets that skip the delay: one per gap - 1 forced and 1/p tried."""
    if reorder is None or reorder.p == 0:
        return 0.0
    return 1 / (reorder.gap - 1 + 1 / reorder.p)


class Delays:
    """The asked distribution of delays in ms: ``quantile`` of the delay, clipped and reordered."""

    def __init__(
        self, delay_ns: int, jitter_ns: int, distribution: Distribution, reorder: Reorder | None
    ) -> None:
        entries = table(distribution)
        uniform = 2 * (np.arange(SIZE) + 0.5) / SIZE - 1
        deviations = uniform if entries is None else entries / SCALE
        delays = np.clip(delay_ns + jitter_ns * deviations, 0, None) / NS_PER_MS
        self._delays: Floats = np.sort(delays)
        self._skipping = skip_share(reorder)

    def quantile(self, q: float) -> float:
        if q <= self._skipping:
            return 0.0
        place = min(1.0, (q - self._skipping) / (1 - self._skipping)) * (SIZE - 1)
        below = min(int(place), SIZE - 2)
        low, high = self._delays[below], self._delays[below + 1]
        return float(low + (place - below) * (high - low))

    @cached_property
    def points(self) -> Floats:
        """Delays of equal weight that stand for the whole; shape (512,)."""
        return np.array([self.quantile((n + 0.5) / 512) for n in range(512)])

    def interval(self, q: float, n: int) -> tuple[float, float]:
        half = SIGMAS * math.sqrt(q * (1 - q) / n)
        return self.quantile(max(0.0, q - half)), self.quantile(min(1.0, q + half))


@lru_cache(maxsize=1024)
def delays(
    delay_ns: int, jitter_ns: int, distribution: Distribution, reorder: Reorder | None
) -> Delays:
    return Delays(delay_ns, jitter_ns, distribution, reorder)


# --- loss -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chain:
    """Per packet offered: ``kept`` and ``lost`` are (states, states) matrices of the probability
    of a step with that outcome; ``start`` the first state, ``copied`` P(a copy comes out)."""

    kept: Floats
    lost: Floats
    start: Floats
    copied: float

    @cached_property
    def stationary(self) -> Floats:
        whole = self.kept + self.lost
        values, vectors = np.linalg.eig(whole.T)
        vector = np.real(vectors[:, np.argmax(np.real(values))])
        return np.asarray(vector / vector.sum())

    @cached_property
    def never_loses(self) -> bool:
        return not (self.stationary @ self.lost).sum()

    @cached_property
    def never_recovers(self) -> bool:
        return bool(np.max(np.abs(np.linalg.eigvals(self.lost))) >= 1 - 1e-12)

    def losses(self, points: NDArray[np.complex128], n: int) -> NDArray[np.complex128]:
        """The generating function of the number of losses among the first n packets."""
        if len(self.start) == 1:
            return np.asarray((self.kept[0, 0] + points * self.lost[0, 0]) ** n)
        steps = self.kept + points[:, None, None] * self.lost
        powers = np.linalg.matrix_power(steps, n)
        return np.asarray(self.start @ powers @ np.ones(len(self.start)))

    def after_first_loss(self) -> Floats:
        """State after the first packet of a loss run."""
        state = self.stationary @ self.kept @ self.lost
        return np.asarray(state / state.sum())

    def run_sum_distribution(self, runs: int, longest: int) -> Floats:
        """P(k losses in ``runs`` independent loss runs), k = 0...longest."""
        size = longest + 1
        points = _unit_circle(size)
        identity = np.eye(len(self.start))
        # A run has 1 + j losses, with probability first @ lost^j @ kept @ 1.
        inverse = np.linalg.inv(identity - points[:, None, None] * self.lost)
        first = self.after_first_loss()
        transform = points * (first @ inverse @ self.kept @ np.ones(len(self.start)))
        return np.clip(np.real(np.fft.ifft(transform**runs)), 0, None)

    @cached_property
    def mean_run(self) -> float:
        inverse = np.linalg.inv(np.eye(len(self.start)) - self.lost)
        return float(self.after_first_loss() @ inverse @ np.ones(len(self.start)))


@lru_cache(maxsize=1024)
def chain(loss: Loss | None, duplicate: float) -> Chain:
    """The loss model with duplication, as :mod:`harness.network.model` and netem step it."""
    match loss:
        case GilbertElliott(p, r, loss_bad, loss_good):
            steps = np.array([[1 - p, p], [r, 1 - r]])
            losing = np.array([loss_good, loss_bad])[:, None]  # by the state before the step
        case Bernoulli(p):
            steps, losing = np.array([[1.0]]), np.array([[p]])
        case _:
            steps, losing = np.array([[1.0]]), np.array([[0.0]])
    lost, kept = steps * losing, steps * (1 - losing)
    d = duplicate
    start = np.eye(len(steps))[0]
    found = Chain(
        # Kept; or lost but duplicated; or kept and duplicated, then one more step for the copy.
        kept=kept * (1 - d) + lost * d + d * kept @ steps,
        lost=lost * (1 - d),
        start=start,
        copied=0.0,
    )
    copied = d * float(found.stationary @ kept @ kept @ np.ones(len(start)))
    return Chain(found.kept, found.lost, start, copied)


def losses(groups: Sequence[tuple[Loss | None, float, int]]) -> Interval:
    """Losses among packets of several loss models side by side: (loss, duplicate, packets)."""
    return _losses(tuple(groups))


@lru_cache(maxsize=4096)
def _losses(groups: tuple[tuple[Loss | None, float, int], ...]) -> Interval:
    total = sum(packets for _, _, packets in groups)
    points = _unit_circle(total + 1)
    transform = np.ones(total + 1, np.complex128)
    for loss, duplicate, packets in groups:
        if isinstance(loss, LossTrace):  # certain
            transform *= points ** int(np.resize(loss.lost, packets).sum())
        else:
            transform *= chain(loss, duplicate).losses(points, packets)
    distribution = np.clip(np.real(np.fft.ifft(transform)), 0, None)
    low, high = central(distribution)
    return Interval(low, high, float(distribution @ np.arange(total + 1)))


@lru_cache(maxsize=4096)
def bursts(loss: Loss | None, duplicate: float, runs: int, packets: int) -> Interval:
    """Losses in so many loss runs."""
    stepped = chain(loss, duplicate)
    mean = runs * stepped.mean_run
    longest = max(packets, int(16 * mean))
    return Interval(*central(stepped.run_sum_distribution(runs, longest)), mean)


@lru_cache(maxsize=4096)
def binomial(n: int, p: float) -> Interval:
    low, high = (max(0, int(binom.ppf(q, n, p))) for q in (ALPHA / 2, 1 - ALPHA / 2))
    return Interval(low, high, n * p)


def central(distribution: Floats) -> tuple[int, int]:
    """The counts that hold all but ALPHA / 2 of the probability on either side."""
    below = np.cumsum(distribution)
    low = int(np.searchsorted(below, ALPHA / 2))
    high = int(np.searchsorted(below, below[-1] - ALPHA / 2))
    return low, min(high, len(distribution) - 1)


def _unit_circle(size: int) -> NDArray[np.complex128]:
    return np.asarray(np.exp(-2j * np.pi * np.arange(size) / size))

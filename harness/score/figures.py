"""The formulas of network figures, on plain arrays. Where nothing can be said they say None."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

GMIN = 16
"""Packets received in a row that end a burst (RFC 3611, 4.7.2, recommended value)."""
_TAIL = 0.025


@lru_cache
def samples_needed(quantile: float) -> int:
    """Samples from which a percentile has an upper bound at all.

    The order-statistic interval for a quantile q (Hahn and Meeker 1991, 5.2) is free of any
    assumption on the distribution; its upper 97.5 % limit is the largest sample at best, which it
    is only if q^n <= 2.5 %.
    """
    return math.ceil(math.log(_TAIL) / math.log(max(quantile, 1 - quantile)))


def percentile(values: ArrayLike, quantile: float) -> float | None:
    """The smallest value v with F(v) >= quantile (RFC 2330, 11.3: empirical distribution
    function); None if there are fewer than :func:`samples_needed`."""
    return percentiles(values, [quantile])[0]


def percentiles(values: ArrayLike, quantiles: Sequence[float]) -> list[float | None]:
    """:func:`percentile` of each quantile."""
    data = np.asarray(values, np.float64)
    enough = [quantile for quantile in quantiles if len(data) >= samples_needed(quantile)]
    found = iter(np.quantile(data, enough, method="inverted_cdf").tolist() if enough else ())
    return [next(found) if len(data) >= samples_needed(q) else None for q in quantiles]


def jains_index(shares: ArrayLike) -> float | None:
    """Jain's fairness index (Jain, Chiu and Hawe 1984): (sum x)^2 / (n sum x^2), from 1/n where one
    has all to 1 where all have the same. None where nobody has anything."""
    data = np.asarray(shares, np.float64)
    squares = len(data) * float((data**2).sum())
    return float(data.sum()) ** 2 / squares if squares else None


def interarrival_jitter(transits: ArrayLike) -> NDArray[np.float64]:
    """J after each packet but the first, of transit times in order of arrival.

    RFC 3550, 6.4.1: J(i) = J(i-1) + (|D(i-1, i)| - J(i-1)) / 16, where D is the difference of the
    transit times of two packets that arrive in a row. In the unit of ``transits``.
    """
    jitter = 0.0
    course = []
    for difference in np.abs(np.diff(np.asarray(transits, np.float64))):
        jitter += (difference - jitter) / 16
        course.append(jitter)
    return np.array(course)


def pdv(transits: ArrayLike) -> NDArray[np.float64]:
    """Packet delay variation (RFC 5481, 4.2): one-way delay minus the smallest of the stream."""
    data = np.asarray(transits, np.float64)
    above: NDArray[np.float64] = data - data.min(initial=math.inf)
    return above


def ipdv(transits: ArrayLike) -> NDArray[np.float64]:
    """Inter-packet delay variation (RFC 3393; RFC 5481, 4.1) of packets sent in a row.

    ``transits`` are in order of sending, NaN where the packet never arrived: the pair is then
    undefined and left out. Signed; positive where the later packet took longer.
    """
    difference: NDArray[np.float64] = np.diff(np.asarray(transits, np.float64))
    return difference[~np.isnan(difference)]


class Bursts(NamedTuple):
    """Burst and gap metrics of RFC 3611, 4.7.2; None where there is no burst, or no gap."""

    burst_density: float | None
    gap_density: float | None
    mean_burst_packets: float | None
    mean_gap_packets: float | None


def bursts(missing: ArrayLike, gmin: int = GMIN) -> Bursts:
    """Split a stream into bursts and gaps; ``missing`` is one boolean per packet sent, in order.

    A burst is a longest stretch that starts and ends with a missing packet and holds no ``gmin``
    or more received in a row. A missing packet with as many received on both sides is isolated:
    it belongs to the gap, as in the algorithm of RFC 3611, A.2.
    """
    lost = np.asarray(missing, bool)
    at = np.flatnonzero(lost)
    if not len(lost):
        return Bursts(None, None, None, None)
    cuts = np.flatnonzero(np.diff(at) > gmin) + 1
    spans = [(int(run[0]), int(run[-1]) + 1) for run in np.split(at, cuts) if len(run) > 1]
    in_burst = np.zeros(len(lost), bool)
    for start, end in spans:
        in_burst[start:end] = True
    gaps = _runs(~in_burst)
    return Bursts(
        float(lost[in_burst].mean()) if spans else None,
        float(lost[~in_burst].mean()) if len(gaps) else None,
        float(np.mean([end - start for start, end in spans])) if spans else None,
        float(gaps.mean()) if len(gaps) else None,
    )


def mean_loss_run(missing: ArrayLike) -> float | None:
    """Mean number of packets missing in a row (ITU-T G.1020); None without loss."""
    runs = _runs(np.asarray(missing, bool))
    return float(runs.mean()) if len(runs) else None


def burst_ratio(missing: ArrayLike) -> float | None:
    """BurstR of ITU-T G.107: mean loss run over the one expected of random loss, 1 / (1 - p).

    None without loss, and where everything is lost.
    """
    lost = np.asarray(missing, bool)
    run = mean_loss_run(lost)
    return None if run is None or lost.all() else run * (1 - float(lost.mean()))


def _runs(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Lengths of the stretches of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return edges[1::2] - edges[::2]

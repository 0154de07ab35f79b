"""Delay distributions as tables of inverse-CDF samples: one set for the kernel and the model.

netem draws a delay as ``delay + jitter * table[random] / 8192``, with int16 entries (so no value
lies further out than 4 jitters). The shapes are those of tc-netem(8): normal, Pareto (shape 3) and
their mix of 25 % normal + 75 % Pareto. The tables shipped with iproute2 are not used: their Pareto
is scaled by its variance where the standard deviation was meant, and clipping shifts its mean.
Ours are standardised *after* clipping, so that ``jitter`` is the standard deviation and ``delay``
the mean of what the table yields.
"""

from __future__ import annotations

import functools
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from harness.network.link import Distribution

SCALE = 8192
SIZE = 4096
_LARGEST = 32767
_PARETO_SHAPE = 3.0


@functools.cache
def table(distribution: Distribution) -> NDArray[np.int16] | None:
    """int16, shape (4096,), ascending: quantiles in units of jitter / 8192; None for uniform,
    which netem draws without a table. The cached array is read-only."""
    if distribution == "uniform":
        return None
    normal, pareto = _normal(), _pareto()
    shapes = {"normal": normal, "pareto": pareto, "paretonormal": 0.25 * normal + 0.75 * pareto}
    entries = np.rint(_standardised(shapes[distribution]) * SCALE).astype(np.int16)
    entries.setflags(write=False)
    return entries


def _probabilities() -> NDArray[np.float64]:
    return (np.arange(SIZE) + 0.5) / SIZE


def _normal() -> NDArray[np.float64]:
    return np.array([NormalDist().inv_cdf(float(p)) for p in _probabilities()])


def _pareto() -> NDArray[np.float64]:
    # Minimum 1: mean a/(a-1), variance a/((a-1)^2 (a-2)) (Johnson, Kotz, Balakrishnan, ch. 20).
    a = _PARETO_SHAPE
    x = (1 - _probabilities()) ** (-1 / a)
    sd = (a / ((a - 1) ** 2 * (a - 2))) ** 0.5
    return np.asarray((x - a / (a - 1)) / sd)


def _standardised(shape: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean 0 and standard deviation 1 after clipping to what an int16 holds (fixed point)."""
    limit = _LARGEST / SCALE
    values = shape
    for _ in range(200):
        values = np.clip((values - values.mean()) / values.std(), -limit, limit)
    return values

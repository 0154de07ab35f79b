"""ViSQOL v3 (Chinen et al. 2020) by ``visqol-python``, a port of the reference implementation.

Speech mode: 16 kHz, mapped to MOS by the deep lattice network that the reference uses by default.
Audio mode: 48 kHz, mapped by a support vector machine; made for music and general audio.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.score.metrics import NoScore

INSTALL = "pip install 'visqol-python[lattice]'"


def visqol(
    reference: NDArray[np.floating],
    degraded: NDArray[np.floating],
    rate_hz: int,
    mode: Literal["speech", "audio"],
) -> float:
    """MOS-LQO. Raises NoScore where the package is missing."""
    found = _api(mode).measure_from_arrays(
        np.asarray(reference, np.float64), np.asarray(degraded, np.float64), rate_hz
    )
    return float(found.moslqo)


@lru_cache(maxsize=2)
def _api(mode: str) -> Any:
    try:
        from visqol import VisqolApi

        api = VisqolApi()
        # Asked for, the lattice is missing loudly; else it would be replaced by other figures.
        api.create(mode=mode, use_lattice_model=mode == "speech")
    except ImportError as error:
        raise NoScore(f"ViSQOL is not installed ({error}): {INSTALL}") from error
    return api

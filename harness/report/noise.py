"""How well the rig repeats itself, by its two controls: PCM, a codec that does nothing, and the
clean link, a network that does nothing. Pure functions of a run's tables.

Repetitions of one utterance over the clean link differ by nothing but the rig (and by what a codec
draws). Their pooled standard deviation s is the *repeatability* of the rig, and 2.8 s the
difference that two of them stay within with 95 % probability: the repeatability limit of ISO 5725-6
(4.1.4). A difference between single cells below it is none that the rig could resolve.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from harness.report.links import is_clean
from harness.report.tables import BY_KEY, Shown, ok_cells, scored
from harness.store import Tables

LIMIT = 2.8
"""ISO 5725-6: 1.96 times the square root of 2, rounded as it does."""


def _transit(mode: str, what: str) -> Shown:
    return Shown(
        f"transit_{mode}", f"One-way, {mode}", "transit", mode, "", "ms", "lower", 1, 3,
        f"{what} of the delay from socket to socket",
    )  # fmt: skip


FIGURES: tuple[Shown, ...] = (
    BY_KEY["pesq_wb"]._replace(digits=3),
    BY_KEY["stoi"]._replace(digits=4),
    BY_KEY["missing"]._replace(digits=2),
    _transit("p50", "median"),
    _transit("p95", "95th percentile"),
    _transit("p99", "99th percentile"),
    BY_KEY["delay_p50"]._replace(digits=3),
    BY_KEY["delay_p95"]._replace(digits=3),
)
_COLUMNS = [
    *("control", "name", "transport", "receiver", "figure", "mean", "repeatability"),
    *("between", "low", "high", "limit", "cells", "utterances", "repetitions"),
]
BOTH, NULL_CODEC, NULL_NETWORK = "both", "codec", "network"
"""PCM over the clean link; PCM over every other network; every other codec over the clean link."""


def noise(tables: Tables) -> pd.DataFrame:
    """One row per control, what varies under it (``name``: a network or a codec), transport,
    receiver and figure.

    Columns: ``control``; ``name, transport, receiver, figure`` (a key of ``FIGURES``); ``mean``
    over cells; ``repeatability`` (pooled standard deviation of repetitions within utterances; NaN
    where no utterance has two); ``between`` (standard deviation of the utterances' means; NaN for
    one); ``low, high`` of single cells; ``limit`` (see the module); ``cells``, ``utterances`` and
    the most ``repetitions`` of one.
    """
    cells = ok_cells(tables)
    clean = cells["link_asked"].map(lambda text: is_clean(_text(text))).astype(bool)
    uncoded = cells["codec_kind"] == "pcm"
    found = []
    for control, keep, name in (
        (BOTH, clean & uncoded, "codec"),
        (NULL_CODEC, uncoded & ~clean, "network"),
        (NULL_NETWORK, clean & ~uncoded, "codec"),
    ):
        mine = set(cells.loc[keep, "cell_id"])
        for shown in FIGURES:
            values = scored(tables, shown)
            values = values[values["cell_id"].isin(mine)]
            for key, group in values.groupby([name, "transport", "receiver"], sort=False):
                found.append((control, *key, shown.key, *_spread(group)))
    return pd.DataFrame(found, columns=_COLUMNS)


def repeats(rows: pd.DataFrame) -> bool:
    """Whether some utterance was run more than once, so that repeatability is known at all."""
    return bool(rows["repeatability"].notna().any())


def resolution(rows: pd.DataFrame, figure: str) -> float | None:
    """The largest repeatability limit of a figure among the cells of both controls."""
    mine = rows[(rows["control"] == BOTH) & (rows["figure"] == figure)]["limit"].dropna()
    return float(mine.max()) if len(mine) else None


def _spread(cells: pd.DataFrame) -> Sequence[float]:
    values = cells["value"].astype(np.float64)
    groups = values.groupby(cells["utterance"])
    counts = groups.size()
    free = int((counts - 1).sum())
    pooled = float(((values - groups.transform("mean")) ** 2).sum())
    repeatability = float(np.sqrt(pooled / free)) if free else np.nan
    return (
        float(values.mean()),
        repeatability,
        float(groups.mean().std(ddof=1)) if len(counts) > 1 else np.nan,
        float(values.min()),
        float(values.max()),
        LIMIT * repeatability,
        len(values),
        len(counts),
        int(counts.max()),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None

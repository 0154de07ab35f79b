"""Each codec against the baseline of its run, within blocks: pure functions of a run's tables."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from harness.report.tables import BY_KEY, Shown, added, scored
from harness.stats.agreement import CONFIGURATION
from harness.stats.difference import Difference, against, as_family
from harness.store import Tables

COMPARED = ("pesq_wb_played", "pesq_wb", "stoi", "delay_p50", "delay_p95")
"""Figures (keys of ``FIGURES``) whose differences are shown."""
_COLUMNS = [
    *CONFIGURATION,
    *("figure", "mean", "low", "high", "p", "p_family", "told_apart", "effect"),
    *("utterances", "pairs", "control"),
]


class Baseline(NamedTuple):
    """The codec that differences are taken against, and why that one."""

    codec: str
    why: str


def baseline(tables: Tables) -> Baseline | None:
    """The one that the run names, else PCM, else the one with the highest bitrate; None for a run
    without cells."""
    cells = tables.cells
    codecs = set(cells["codec"])
    named = tables.runs["baseline"].iloc[0] if "baseline" in tables.runs else None
    if named in codecs:
        return Baseline(str(named), "the scenario's baseline")
    uncoded = sorted(cells.loc[cells["codec_kind"] == "pcm", "codec"].unique())
    if uncoded:
        return Baseline(str(uncoded[0]), "no baseline is recorded in this run; this is PCM")
    if not codecs:
        return None
    rates = cells.groupby("codec")["bitrate_nominal_bps"].max().fillna(-1.0)
    highest = rates.sort_index().idxmax()
    return Baseline(
        str(highest), "no baseline is recorded in this run; this is the highest bitrate"
    )


def differences(tables: Tables, baseline: str) -> pd.DataFrame:
    """One row per configuration of another codec and figure of ``COMPARED``.

    Pairs share block, transport and receiver. Columns: those of a configuration, ``figure``,
    ``mean, low, high`` of the difference (in the figure's unit; interval NaN below
    ``MIN_CLUSTERS`` utterances), ``p``, ``p_family`` (NaN without a test; all of a network and
    figure are one family), ``told_apart``, ``effect``, ``utterances``, ``pairs``, ``control`` (it
    is a codec that the scenario did not ask for: shown, but neither tested nor in the family).
    """
    control = added(tables).codec
    rows = [
        row
        for key in COMPARED
        for network, cells in scored(tables, BY_KEY[key]).groupby("network")
        for row in _of_network(str(network), BY_KEY[key], cells, baseline, control)
    ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _of_network(
    network: str, shown: Shown, cells: pd.DataFrame, baseline: str, control: str
) -> list[tuple[object, ...]]:
    asked: dict[tuple[str, str, str], Difference] = {}
    untested: dict[tuple[str, str, str], Difference] = {}
    for (transport, receiver), mine in cells.groupby(["transport", "receiver"]):
        for codec, one in against(mine, baseline).items():
            (untested if codec == control else asked)[str(transport), str(receiver), codec] = one
    asked = as_family(asked)
    return [
        (
            *(network, *name, shown.key, one.estimate.mean),
            *_numbers(one.estimate.low, one.estimate.high),
            *(_numbers(one.p, one.p_family) if name in asked else (np.nan, np.nan)),
            name in asked and one.told_apart,
            *_numbers(one.effect),
            *(one.estimate.clusters, one.estimate.cells, name in untested),
        )
        for name, one in (asked | untested).items()
    ]


def _numbers(*values: float | None) -> tuple[float, ...]:
    return tuple(np.nan if value is None else value for value in values)

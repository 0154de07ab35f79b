"""What older systems would have said of a run's cells, beside what happened: for the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from harness.report import figures
from harness.report.sections import Drawing, Namer
from harness.report.tables import ok_cells
from harness.score.legacy import SYSTEMS, Estimator, System, truth_label
from harness.stats.agreement import CONFIGURATION
from harness.store import Tables

TRUE_COLOUR, SAID_COLOUR = "#0072b2", "#d55e00"
KEY = (("what it would have said", SAID_COLOUR), ("what happened", TRUE_COLOUR))
_MOST_DOTS = 40
"""Rows of one drawing."""


@dataclass(frozen=True)
class Said:
    """One estimator of a system. ``rows`` has one per configuration: ``network``, ``name``,
    ``value, low, high`` (over cells, NaN without one), ``truth``, ``why`` (of a missing value, or
    what was noted)."""

    estimator: Estimator
    truth: str
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class SystemSection:
    """One system: its estimators in numbers, and those that print anything as drawings."""

    system: System
    said: list[Said]
    drawings: list[Drawing]


def legacy_of(
    run: Tables,
    networks: Sequence[str],
    order: Callable[[pd.DataFrame], pd.DataFrame],
    name: Namer,
) -> list[SystemSection]:
    """A section for every system that the run has rows of. ``order`` sorts rows by codec, transport
    and receiver."""
    rows = run.legacy.merge(ok_cells(run)[["cell_id", *CONFIGURATION]], on="cell_id")
    return [
        _section(number, SYSTEMS[system], rows[rows["system"] == system], networks, order, name)
        for number, system in enumerate(SYSTEMS)
        if (rows["system"] == system).any()
    ]


def _section(
    number: int,
    system: System,
    rows: pd.DataFrame,
    networks: Sequence[str],
    order: Callable[[pd.DataFrame], pd.DataFrame],
    name: Namer,
) -> SystemSection:
    said, drawings = [], []
    for at, estimator in enumerate(system.estimators):
        mine = _means(rows[rows["estimator"] == estimator.name])
        ranked = [order(mine[mine["network"] == network]) for network in networks]
        lines = [
            {str(key): value for key, value in row.items()}
            | {"name": name((row["transport"], row["receiver"], row["codec"]))}
            for part in ranked
            for row in part.to_dict("records")
        ]
        said.append(Said(estimator, truth_label(*estimator.truth), lines))
        dots = [row for row in lines if pd.notna(row["value"]) and pd.notna(row["truth"])]
        if dots:
            drawings.append(_drawing(f"legacy{number}-{at}", system, said[-1], dots))
    return SystemSection(system, said, drawings)


def _means(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per configuration, means over its cells."""
    found = []
    for key, cells in rows.groupby(CONFIGURATION):
        value, truth = cells["value"].astype(float), cells["truth"].astype(float)
        told = cells["reason"].dropna() if value.isna().all() else cells["note"].dropna()
        found.append(
            {
                **dict(zip(CONFIGURATION, key, strict=True)),
                "value": value.mean(),
                "low": value.min(),
                "high": value.max(),
                "truth": truth.mean(),
                "cells": len(cells),
                "why": str(told.mode()[0]) if len(told) else "",
            }
        )
    return pd.DataFrame(found, columns=[*CONFIGURATION, "value", "low", "high", "truth", "cells",
                                        "why"])  # fmt: skip


def _drawing(
    identity: str, system: System, said: Said, dots: Sequence[Mapping[str, Any]]
) -> Drawing:
    kept = dots[:_MOST_DOTS]
    several = len({row["network"] for row in dots}) > 1
    labels = [f"{row['network']} · {row['name']}" if several else row["name"] for row in kept]
    left_out = f"; {len(dots) - len(kept)} more in the table" if len(dots) > len(kept) else ""
    return Drawing.of(
        identity,
        said.estimator.name.replace("_", " "),
        [partial(dots_apart, rows=kept, labels=labels, unit=said.estimator.unit)],
        (4.6, 0.75 + 0.22 * len(kept)),
        f"{system.title}: {said.estimator.name} beside {said.truth}",
        f"beside {said.truth}{left_out}",
    )


def dots_apart(
    axes: Axes, rows: Sequence[Mapping[str, Any]], labels: Sequence[str], unit: str
) -> None:
    """What was said (a ring) and what happened (a dot), one row each, from the top down."""
    for place, row in enumerate(rows):
        low, high = sorted((row["value"], row["truth"]))
        axes.hlines(place, low, high, figures.FAINT, linewidth=2.5)
        axes.plot(row["truth"], place, "o", color=TRUE_COLOUR, markersize=6.5, zorder=3)
        axes.plot(
            row["value"], place, "o", mfc="none", mec=SAID_COLOUR, mew=1.7, markersize=7.5, zorder=4
        )
    axes.set_yticks(range(len(rows)), [figures.shortened(label, 34) for label in labels])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.margins(x=0.06)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.set_xlabel(unit)

"""Sweeps of a run as curves: which cells are points of which line. Pure functions of its tables.

The points of a swept entry are entries ``bursty@loss=0%``, ``bursty@loss=2.5%``, ...; without the
mark they are one. A panel holds the lines that may be compared: those of one network, transport and
receiver, as far as these are not what is swept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import pandas as pd

from harness.report.tables import SWEPT, Shown, added, ok_cells, scored
from harness.stats import curves
from harness.store import Tables

SHOWN = ("pesq_wb", "stoi", "missing", "delay_p50", "delay_p95")
_AXES = ("codec", "network", "receiver", "transport")
_COMPARABLE = ("codec", "receiver")
"""Axes on which entries that are not swept stand beside those that are, as level lines."""


@dataclass(frozen=True)
class Line:
    """One curve. ``codec`` is its entry without the sweep's mark, for its colour."""

    name: str
    codec: str
    level: bool
    """Not swept: the same at every x."""
    control: bool


@dataclass(frozen=True)
class Panel:
    """Curves to be read together. ``cells`` has one row per cell and x, with ``cell_id, line, x,
    utterance, repetition``."""

    sweep: str
    unit: str
    title: str
    lines: tuple[Line, ...]
    cells: pd.DataFrame

    @property
    def asked(self) -> list[str]:
        """The lines that are compared: those that the scenario asked for."""
        return [line.name for line in self.lines if not line.control]


def sweep_panels(tables: Tables) -> dict[str, list[Panel]]:
    """The panels of every sweep, by its name; only ``ok`` cells are points."""
    cells = ok_cells(tables)
    points = cells["sweep"].map(lambda text: json.loads(text) if isinstance(text, str) else {})
    names = sorted({name for swept in points for name in swept})
    control = added(tables).codec
    return {name: _panels(name, cells, points, control) for name in names}


def curves_of(tables: Tables, panel: Panel, shown: Shown) -> curves.Sweep:
    """The panel's lines in one figure (in its unit), with bands."""
    values = scored(tables, shown)[["cell_id", "value"]]
    rows = panel.cells.merge(values, on="cell_id")
    return curves.sweep(rows, [line.name for line in panel.lines])


def _panels(name: str, cells: pd.DataFrame, points: pd.Series, control: str) -> list[Panel]:
    swept = points.map(lambda point: name in point).astype(bool)
    mine = cells[swept].assign(x=points[swept].map(lambda point: float(point[name]["x"])))
    unit = str(points[swept].iloc[0][name]["unit"])
    mark = f"{SWEPT}{name}="
    axes = [axis for axis in _AXES if mine[axis].str.contains(mark, regex=False).any()]
    for axis in axes:
        mine[axis] = mine[axis].map(lambda entry: without(entry, name))
    mine = mine.assign(level=False)
    if beside := [axis for axis in axes if axis in _COMPARABLE]:
        others = _levels(mine, cells[~swept], beside)
        mine = pd.concat([mine, others], ignore_index=True)
    by = ["codec", *(axis for axis in axes if axis == "receiver")]
    if mine.loc[mine["codec"] != control, by].drop_duplicates().shape[0] == 1:
        by.append("network")  # one codec: its networks are what can be compared
    apart = [axis for axis in ("network", "transport", "receiver") if axis not in by]
    told = [axis for axis in by if mine[axis].nunique() > 1] or by[:1]
    mine = mine.assign(line=mine[told].agg(" · ".join, axis=1))
    title = [axis for axis in apart if mine[axis].nunique() > 1]
    return [
        Panel(
            name,
            unit,
            " · ".join(group[title].iloc[0]) if title else "",
            _lines(group, control),
            group[["cell_id", "line", "x", "utterance", "repetition"]],
        )
        for _, group in mine.groupby(apart)
        if group["x"].nunique() > 1
    ]


def _lines(cells: pd.DataFrame, control: str) -> tuple[Line, ...]:
    first = cells.drop_duplicates("line").sort_values("line")
    return tuple(
        Line(str(row["line"]), str(row["codec"]), bool(row["level"]), row["codec"] == control)
        for _, row in first.iterrows()
    )


def _levels(mine: pd.DataFrame, others: pd.DataFrame, axes: list[str]) -> pd.DataFrame:
    """The cells that stand beside swept ones, once for every x."""
    fixed = [axis for axis in _AXES if axis not in axes]
    points = mine[[*fixed, "x"]].drop_duplicates()
    return others.merge(points, on=fixed).assign(level=True)


def without(entry: str, sweep: str) -> str:
    """The name of an entry without a sweep's mark."""
    first, *marks = entry.split(SWEPT)
    return SWEPT.join([first, *(mark for mark in marks if not mark.startswith(f"{sweep}="))])

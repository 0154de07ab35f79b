"""What each of several streams on one link gets of it. Pure functions of a run's tables, and what
the page shows of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from harness.report import figures
from harness.report.sections import WAY, Drawing, Drawings, ways
from harness.report.tables import ok_cells
from harness.store import Tables

_SHOWN = {"goodput_kbps": "kbit/s in time", "in_time": "% of frames in time"}


def shares(run: Tables) -> pd.DataFrame:
    """Every track of every cell that has more than one.

    Columns: ``network, codec, receiver, transport, cell_id``, ``goodput_kbps``, ``in_time`` (% of
    its frames), ``rank`` (1 for the track of a cell that got most of its goodput).
    """
    cells = ok_cells(run)
    rows = [
        {
            **{name: getattr(cell, name) for name in (*WAY, "transport", "cell_id")},
            "goodput_kbps": track["goodput_bps"] / 1000,
            "in_time": 100 * track["in_time"],
        }
        for cell in cells[cells["tracks"].notna()].itertuples()
        for track in json.loads(str(cell.tracks))
    ]
    columns = [*WAY, "transport", "cell_id", "goodput_kbps", "in_time"]
    found = pd.DataFrame(rows, columns=columns)
    goodput = found.groupby("cell_id")["goodput_kbps"]
    return found.assign(rank=goodput.rank(method="first", ascending=False).astype(int))


def sharing_of(run: Tables, networks: Sequence[str], transports: Sequence[str]) -> Drawings | None:
    """Goodput and frames in time of the tracks of a cell, from the best to the worst off. None
    where every cell has one track."""
    found = shares(run)
    if found.empty:
        return None
    shown = [name for name in transports if name in set(found["transport"])]
    colours = figures.codec_colours(shown)
    drawings = []
    for number, way, title in ways(found, networks, among=found):
        mine = found[(found[WAY] == way).all(axis=1)]
        note = f"means of {mine['cell_id'].nunique()} cells, and the range over them"
        drawings += [
            Drawing.of(
                f"shares{number}-{of}",
                title,
                [partial(from_best_to_worst, rows=mine, colours=colours, of=of, label=label)],
                (4.2, 2.4),
                f"{label} of the tracks of a call on {title}, from the best to the worst off",
                note,
            )
            for of, label in _SHOWN.items()
        ]
    return Drawings(drawings, list(colours.items()))


def from_best_to_worst(
    axes: Axes, rows: pd.DataFrame, colours: Mapping[str, str], of: str, label: str
) -> None:
    """A level line is a fair share."""
    draw: Callable[..., Any] = axes.plot
    for transport, mine in rows.groupby("transport"):
        spread = mine.groupby("rank")[of].agg(["mean", "min", "max"])
        colour = colours[str(transport)]
        draw(spread.index, spread["mean"], color=colour, marker="o", markersize=4, linewidth=1.6)
        axes.vlines(spread.index, spread["min"], spread["max"], color=colour, alpha=0.4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.set_xlabel("track, from the best to the worst off")
    axes.set_ylabel(label)

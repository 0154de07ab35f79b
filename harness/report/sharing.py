"""What each of several streams on one link gets of it. Pure functions of a run's tables, and what
the page shows of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from harness.report import figures
from harness.report.sections import Drawing
from harness.report.tables import ok_cells
from harness.store import Tables

_WAY = ["network", "codec", "receiver"]
_SHOWN = {"goodput_kbps": "kbit/s in time", "in_time": "% of frames in time"}


@dataclass(frozen=True)
class Sharing:
    """The drawings, by network, and the colours of the transports in them."""

    drawings: list[Drawing]
    key: list[tuple[str, str]]


def shares(run: Tables) -> pd.DataFrame:
    """Every track of every cell that has more than one.

    Columns: ``network, codec, receiver, transport, cell_id``, ``rank`` (1 for the track of a cell
    that got most of its goodput), ``goodput_kbps``, ``in_time`` (% of its frames).
    """
    cells = ok_cells(run)
    rows = [
        {
            **{name: getattr(cell, name) for name in (*_WAY, "transport", "cell_id")},
            "goodput_kbps": track["goodput_bps"] / 1000,
            "in_time": 100 * track["in_time"],
        }
        for cell in cells[cells["tracks"].notna()].itertuples()
        for track in json.loads(str(cell.tracks))
    ]
    columns = [*_WAY, "transport", "cell_id", "rank", "goodput_kbps", "in_time"]
    found = pd.DataFrame(rows, columns=[name for name in columns if name != "rank"])
    goodput = found.groupby("cell_id")["goodput_kbps"]
    return found.assign(rank=goodput.rank(method="first", ascending=False).astype(int))[columns]


def sharing_of(run: Tables, networks: Sequence[str], transports: Sequence[str]) -> Sharing | None:
    """Goodput and frames in time of the tracks of a cell, from the best to the worst off. None
    where every cell has one track."""
    found = shares(run)
    if found.empty:
        return None
    shown = [name for name in transports if name in set(found["transport"])]
    colours = figures.codec_colours(shown)
    tell = [axis for axis in ("codec", "receiver") if found[axis].nunique() > 1]
    drawings = []
    ways = found[_WAY].drop_duplicates()
    for network in networks:
        for number, way in ways[ways["network"] == network].iterrows():
            mine = found[(found[_WAY] == way.tolist()).all(axis=1)]
            title = " · ".join([network, *(str(way[axis]) for axis in tell)])
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
    return Sharing(drawings, list(colours.items()))


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

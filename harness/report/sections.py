"""What the page says of differences, sweeps, the rig and the networks: drawings and rows, made from
the tables of their modules for the template to lay out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes

from harness.report import figures, links, noise
from harness.report.differences import COMPARED, Baseline, baseline, differences
from harness.report.links import Network
from harness.report.sweeps import SHOWN, Panel, curves_of, sweep_panels
from harness.report.tables import BY_KEY, Shown
from harness.score.p862 import UNSTEADY
from harness.stats.curves import Crossing, Curve, Sweep
from harness.store import Tables

Namer = Callable[[Sequence[str]], str]
"""The name of a (transport, receiver, codec) as the page says it."""
MAX_SWEEP_PANELS = 12
WAY = ["network", "codec", "receiver"]
"""Where transports are compared with each other."""
_FOREST = ("pesq_wb", "stoi", "delay_p50")
_SILENCE = 1e-9
_NAME = ["transport", "receiver", "codec"]
_CONTROL_COLOUR = "#7a7a7a"


@dataclass(frozen=True)
class Drawing:
    """A titled drawing; ``note`` stands in small print under its title."""

    title: str
    svg: Markup
    note: str = ""

    @classmethod
    def of(
        cls,
        identity: str,
        title: str,
        draws: Sequence[Callable[[Axes], None]],
        size: tuple[float, float],
        description: str,
        note: str = "",
    ) -> Drawing:
        """Of ``draws`` side by side; see :func:`harness.report.figures.svg_row`."""
        return cls(title, Markup(figures.svg_row(identity, draws, size, description)), note)


@dataclass(frozen=True)
class Drawings:
    """Drawings, by network, and the colours of the transports in them."""

    drawings: list[Drawing]
    key: list[tuple[str, str]]


def ways(
    rows: pd.DataFrame, networks: Sequence[str], among: pd.DataFrame
) -> Iterator[tuple[Any, list[Any], str]]:
    """Every ``WAY`` in ``rows``, in the order of ``networks``: a number of its own, its names, and
    a title of those that tell it apart ``among`` all."""
    tell = [axis for axis in ("codec", "receiver") if among[axis].nunique() > 1]
    found = rows.drop_duplicates(WAY)
    for network in networks:
        for number, way in found[found["network"] == network].iterrows():
            title = " · ".join([network, *(str(way[axis]) for axis in tell)])
            yield number, way[WAY].tolist(), title


# --- differences ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Differences:
    """Every codec against the baseline, by network."""

    baseline: Baseline
    figures: tuple[Shown, ...]
    drawings: list[Drawing]
    rows: list[dict[str, Any]]
    """One per network and configuration: ``network``, ``name``, ``control``, ``cells`` (one per
    figure: a row of ``differences`` or None)."""
    tested: bool
    """There were utterances enough for at least one test."""


def differences_of(
    run: Tables,
    networks: Sequence[str],
    order: Callable[[pd.DataFrame], pd.DataFrame],
    name: Namer,
    colours: Mapping[str, str],
    resolutions: Mapping[str, float | None],
) -> Differences | None:
    """``order`` sorts rows by codec, transport and receiver. None where nothing can be paired."""
    against = baseline(run)
    if against is None:
        return None
    found = differences(run, against.codec)
    if found.empty:
        return None
    found["control"] = found["control"].astype(bool)
    drawings, rows = [], []
    for number, network in enumerate(networks):
        mine = found[found["network"] == network]
        if mine.empty:
            continue
        names = order(mine[[*_NAME, "control"]].drop_duplicates(_NAME))
        labels = [name(key) for key in names[_NAME].itertuples(index=False, name=None)]
        draws = [
            partial(
                figures.forest,
                rows=names.merge(of.drop(columns="control"), on=_NAME, how="left"),
                labels=labels,
                colours=colours,
                shown=BY_KEY[figure],
                resolution=resolutions.get(figure),
            )
            for figure in _FOREST
            if len(of := mine[mine["figure"] == figure])
        ]
        size = (1.7 + 2.0 * len(draws), 0.65 + 0.23 * len(labels))
        description = f"differences to {against.codec} on {network}"
        drawings.append(Drawing.of(f"forest{number}", network, draws, size, description))
        cells = {(*(row[k] for k in _NAME), row["figure"]): row for row in mine.to_dict("records")}
        for label, one in zip(labels, names.to_dict("records"), strict=True):
            rows.append(
                {
                    "network": network,
                    "name": label,
                    "control": one["control"],
                    "cells": [cells.get((*(one[k] for k in _NAME), key)) for key in COMPARED],
                }
            )
    shown = tuple(BY_KEY[key] for key in COMPARED)
    return Differences(against, shown, drawings, rows, bool(found["p"].notna().any()))


# --- sweeps ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """All values of a panel in one figure: a row per x, a column per line."""

    shown: Shown
    lines: list[str]
    rows: list[tuple[str, list[dict[str, Any] | None]]]


@dataclass(frozen=True)
class SweepPanel:
    """Curves that are read together: drawn, in numbers, and where they cross in PESQ-WB."""

    title: str
    drawings: list[Drawing]
    crossings: list[Crossing]
    tables: list[Table]


@dataclass(frozen=True)
class SweepSection:
    """One sweep."""

    name: str
    unit: str
    panels: list[SweepPanel]
    points: int
    levels: bool
    controls: bool


def sweeps_of(run: Tables, bases: Sequence[str]) -> tuple[list[SweepSection], int]:
    """The sections, and how many panels are left out of them. ``bases`` are the codecs in the
    page's order, without the marks of sweeps."""
    room, left_out = MAX_SWEEP_PANELS, 0
    found: list[SweepSection] = []
    for name, panels in sweep_panels(run).items():
        kept = panels[:room]
        room -= len(kept)
        left_out += len(panels) - len(kept)
        if kept:
            lines = [line for panel in kept for line in panel.lines]
            found.append(
                SweepSection(
                    name,
                    kept[0].unit,
                    [
                        _panel(run, one, f"sweep{len(found)}-{i}", bases)
                        for i, one in enumerate(kept)
                    ],
                    max(panel.cells["x"].nunique() for panel in kept),
                    any(line.level for line in lines),
                    any(line.control for line in lines),
                )
            )
    return found, left_out


def _panel(run: Tables, panel: Panel, identity: str, bases: Sequence[str]) -> SweepPanel:
    xlabel = panel.sweep + (f" ({panel.unit})" if panel.unit else "")
    strokes = _strokes(panel, bases)
    found = SweepPanel(panel.title, [], [], [])
    for key in SHOWN:
        shown = BY_KEY[key]
        result = curves_of(run, panel, shown)
        if not len(result.x):
            continue
        crossings = result.crossings(panel.asked) if key == "pesq_wb" else []
        draw = partial(
            figures.curves_over_sweep,
            sweep=result,
            strokes=strokes,
            crossings=crossings,
            shown=shown,
            xlabel=xlabel,
        )
        said = f"{shown.label} over {panel.sweep} {panel.title}".strip()
        found.drawings.append(
            Drawing.of(f"{identity}-{key}", shown.label, [draw], (5.6, 3.5), said)
        )
        found.crossings.extend(crossings)
        found.tables.append(_table(shown, result))
    return found


def _strokes(panel: Panel, bases: Sequence[str]) -> dict[str, figures.Stroke]:
    """Colours by codec where that tells the lines apart, else by line."""
    codecs = [line.codec for line in panel.lines]
    alone = len(set(codecs)) < len(codecs)
    names = [line.name for line in panel.lines] if alone else list(bases)
    colours = figures.codec_colours(names)
    return {
        line.name: figures.Stroke(
            _CONTROL_COLOUR if line.control else colours[line.name if alone else _base(line.codec)],
            line.level,
            line.control,
        )
        for line in panel.lines
    }


def _base(codec: str) -> str:
    return codec.partition("@")[0]


def _table(shown: Shown, result: Sweep) -> Table:
    def point(curve: Curve, i: int) -> dict[str, Any] | None:
        if np.isnan(curve.mean[i]):
            return None
        values = {name: float(getattr(curve, name)[i]) for name in ("mean", "low", "high")}
        return {**values, "n": int(curve.cells[i])}

    return Table(
        shown,
        [curve.name for curve in result.curves],
        [(f"{x:g}", [point(one, i) for one in result.curves]) for i, x in enumerate(result.x)],
    )


# --- the rig --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Noise:
    """The rig's own noise: rows of :func:`harness.report.noise.noise` by control."""

    both: list[dict[str, Any]]
    others: list[tuple[str, list[dict[str, Any]]]]
    """Per control: title and lines (``name`` and ``cells``, one per figure: a row or None)."""
    figures: tuple[Shown, ...]
    repeats: bool
    silent: bool
    """Not one figure of both controls differs between repetitions."""
    virtual: bool


def noise_of(run: Tables, spread: pd.DataFrame, name: Namer) -> Noise | None:
    """None where the run has neither PCM nor a clean link. Swept networks are left out."""
    if spread.empty:
        return None
    both = spread[spread["control"] == noise.BOTH]
    known = both["repeatability"].dropna()
    others = []
    for control, title in (
        (noise.NULL_CODEC, "PCM on every network"),
        (noise.NULL_NETWORK, "Every codec on the clean link"),
    ):
        mine = spread[spread["control"] == control]
        lines: dict[str, dict[str, Any]] = {}
        for row in mine.to_dict("records"):
            label = name((row["transport"], row["receiver"], row["name"]))
            lines.setdefault(label, {})[row["figure"]] = row
        if lines:
            others.append(
                (
                    title,
                    [
                        {"name": label, "cells": [of.get(f.key) for f in noise.FIGURES]}
                        for label, of in lines.items()
                    ],
                )
            )
    by_key = {shown.key: shown for shown in noise.FIGURES}
    return Noise(
        both=[
            {
                **{str(key): value for key, value in row.items()},
                "shown": by_key[row["figure"]],
                "label": name((row["transport"], row["receiver"], row["name"])),
            }
            for row in both.to_dict("records")
        ],
        others=others,
        figures=noise.FIGURES,
        repeats=noise.repeats(both),
        silent=bool(len(known) and (known < _SILENCE).all()),
        virtual=bool((run.cells["lab"] == "virtual").all()),
    )


# --- networks -------------------------------------------------------------------------------------

COMPUTES = {
    "profile": "what each encode and decode call takes is drawn, seeded, from times recorded once"
    " per codec: the same on any machine, but not this machine's",
    "measured": "each encode and decode call takes in virtual time what it took here: latencies"
    " differ from run to run",
    "zero": "encoding and decoding take no time: latencies are those of framing, network and jitter"
    " buffer alone",
}


def drawings_of(run: Tables, networks: Sequence[Network]) -> list[Drawing]:
    """What happens over time on the networks where that is the same for all codecs."""
    drawings = []
    for number, network in enumerate(networks):
        cell = links.example(run, network.name) if network.varies else None
        if cell is None:
            continue
        packets = run.packets_of([cell["cell_id"]], ["media_ns", "transit_ns"])
        steps = links.course(cell["link_asked"])
        seconds = float(cell["media_s"])
        drawn = [
            (
                "delay",
                partial(figures.delay_over_time, steps=steps, packets=packets, seconds=seconds),
                "one-way delay (dots) and losses (ticks) of one cell:"
                f" {cell['codec']}, {cell['utterance']}, repetition {cell['repetition'] + 1}"
                + "; line: delay as asked"
                * bool(len(steps)),
            )
        ]
        for column, label, note in (
            ("rate_kbps", "rate (kbit/s)", "rate as asked; no limit where there is no line"),
            ("loss_percent", "loss (%)", "loss as asked"),
        ):
            if len(steps) and steps[column].nunique(dropna=False) > 1:
                draw = partial(
                    figures.course_over_time,
                    steps=steps,
                    column=column,
                    label=label,
                    seconds=seconds,
                )
                drawn.append((column, draw, note))
        drawings += [
            Drawing.of(
                f"course{number}-{what}", network.name, [draw], (4.2, 2.4), network.name, note
            )
            for what, draw, note in drawn
        ]
    return drawings


def generative_warning(run: Tables) -> str | None:
    """What PESQ and STOI are worth for codecs with learned weights; None where there is none.

    Figures: human ratings (MUSHRA) beside PESQ, from the reference results in the catalogue of the
    sample data that this project is measured on.
    """
    neural = run.cells.loc[run.cells["weights"].isin(["real", "random"]), "codec"]
    if neural.empty:
        return None
    return (
        f"PESQ and STOI mis-rank generative codecs ({', '.join(sorted(neural.unique()))}). When"
        " people rated 16 items in 8 conditions (MUSHRA, 0 to 100), their order and PESQ's had a"
        " Spearman correlation of 0.24: AudioDec, PESQ 2.02, was rated 67, and Lyra at 6 kbit/s,"
        " PESQ 2.86, was rated 46 (reference results in the catalogue of this project's sample"
        " data). Compare such a codec with itself, on other networks and settings; against other"
        " codecs, trust your ears."
    )


def without_pesq(run: Tables) -> str | None:
    """How many utterances have no PESQ in any cell, which and why; None where each has one.

    Codecs with random weights have none by design, and count for nothing here.
    """
    cells = run.cells[(run.cells["kind"] == "speech") & (run.cells["weights"] != "random")]
    of_audio = run.scores[run.scores["metric"].eq("pesq") & run.scores["track"].eq("media")]
    scores = of_audio.merge(cells[["cell_id", "utterance"]], on="cell_id")
    if scores.empty:
        return None
    missing = scores.groupby("utterance")["value"].apply(lambda values: values.isna().all())
    lacking = list(missing.index[missing])
    if not lacking:
        return None
    reasons = scores[scores["utterance"].isin(lacking)].groupby("utterance")["reason"].first()
    causes = reasons.str.partition(", got ")[0]
    told = "; ".join(f"{cause} ({', '.join(mine.index)})" for cause, mine in causes.groupby(causes))
    return f"{len(lacking)} of {len(missing)} utterances have no PESQ: {told}."


LAG_MS = 1.0
"""What is left after a codec's declared delay is taken off, and still is no fault: resampling and
the codec's own phase."""


def misaligned(run: Tables) -> str | None:
    """Which codecs' tracks lag behind their reference after the declared delay is taken off; None
    where none does. Only lags that GCC-PHAT is sure of count (``score.align.MIN_CONFIDENCE``)."""
    scores = run.scores
    sure = scores[scores["alignment"].eq("gcc-phat") & (scores["lag_ms"].abs() > LAG_MS)]
    lagging = sure.drop_duplicates("cell_id").merge(run.cells[["cell_id", "codec"]], on="cell_id")
    if lagging.empty:
        return None
    told = "; ".join(
        f"{codec} by {of['lag_ms'].median():+.1f} ms in {len(of)} cells"
        for codec, of in lagging.groupby("codec")
    )
    return (
        "Tracks lag behind their reference although the codec's declared delay was taken off:"
        f" {told}. That is a fault in the codec's delay or in the timeline, and lowers every score"
        " that compares with the reference."
    )


def unsteady_pesq(run: Tables) -> str | None:
    """In how many cells PESQ-WB is an accident of its frames; None where it is in none."""
    scores = run.scores[run.scores["spread"].notna()]
    unsteady = scores[scores["spread"] > UNSTEADY]
    if unsteady.empty:
        return None
    return (
        f"PESQ-WB is unsteady in {len(unsteady)} of {len(scores)} scores: it moves by more than"
        f" {UNSTEADY} MOS (by {unsteady['spread'].max():.2f} at most) with some milliseconds of"
        " silence before both tracks. Such a score is the median of five; the column plain of the"
        " table scores has what the Recommendation's code gives for the tracks as they are."
    )


def virtual_banner(run: Tables, why: str) -> str | None:
    """What a reader of simulated figures must know first; None for a run in real time."""
    cells = run.cells[run.cells["lab"] == "virtual"]
    if cells.empty:
        return None
    modes = sorted(cells["compute"].dropna().unique())
    told = "; ".join(f"compute {mode}: {COMPUTES.get(mode, 'not known')}" for mode in modes)
    return (
        f"Simulated: no packet crossed a kernel. The virtual lab ({why}) ran the same sender,"
        " receiver, jitter buffer, codecs and link model on a clock of its own"
        f"{'; ' + told if told else ''}. Codec quality and what loss and delay do to it are"
        " computed with the real code; sockets, scheduling and TCP are modelled. How far its"
        " figures agree with those of real labs is told, with a table, in docs/virtual-lab.md of"
        " the harness; check it on your machine with: harness agree FILE."
    )


def sessions_of(run: Tables) -> list[str]:
    """What a reader must know of cells that were streamed again, and of sessions that differ."""
    said = []
    attempts = run.attempts.sort_values(["cell_id", "attempt"])
    before = attempts[attempts.duplicated("cell_id", keep="last")]
    disturbed = set(before.loc[before["blame"] == "machine", "cell_id"])
    if disturbed:
        again = run.cells[run.cells["cell_id"].isin(disturbed)]
        fine = int((again["status"] == "ok").sum())
        said.append(
            f"{len(disturbed)} of {len(run.cells)} cells were streamed again, since the machine had"
            f" disturbed them: {fine} of these are ok now (table attempts)."
        )
    sessions = json.loads(run.runs["sessions"].fillna("[]").iloc[0])
    differing = [
        name
        for name, keys in _COMMON.items()
        if len({json.dumps([session.get(key) for key in keys]) for session in sessions}) > 1
    ]
    if len(sessions) > 1:
        made = f"This run was made in {len(sessions)} sessions"
        said.append(
            f"{made}, not all with the same {', '.join(differing)} (see Provenance)."
            if differing
            else f"{made}, all with the same {' and '.join(_COMMON)}."
        )
    return said


_COMMON = {"host": ("host",), "versions": ("versions", "git_sha", "git_dirty")}
"""What the sessions of a run should share: by its name, keys of a session."""

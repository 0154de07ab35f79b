"""The report's drawings: matplotlib functions from the DataFrames of :mod:`harness.report.tables`.

Each draws one panel onto the axes that it is given, so that a page and a notebook share it.
Colours are those of Okabe and Ito (2008) and Tol (2021), told apart by the colour-blind; a codec
has the same one everywhere. In a page, :func:`svg` makes ``INK`` the colour of the text around it
and ``FAINT`` that of its rules, so that a drawing turns dark with its page.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from harness.report.tables import BIN_S, FATES, Shown, wide
from harness.stats import curves
from harness.stats.agreement import CONFIGURATION

INK = "#1a1b1c"
FAINT = "#c7c8c9"
_CODEC_COLOURS = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999933", "#882255",
    "#7a7a7a", "#332288", "#44aa99", "#ddcc77",
)  # fmt: skip
MARKERS = {"circle": "o", "square": "s", "triangle": "^", "diamond": "D"}
FATE_COLOURS = {
    "played": "#b9d7c8",
    "reordered": "#56b4e9",
    "incomplete": "#cc79a7",
    "undecodable": "#882255",
    "late": "#e69f00",
    "queue": "#0072b2",
    "lost": "#d55e00",
}
KIND_COLOURS = {
    "fec": "#56b4e9",
    "stretched": "#b9b14a",
    "concealed": "#d55e00",
    "silence": "#882255",
}
PART_COLOURS = {
    "fill": "#88ccee",
    "lookahead": "#44aa99",
    "encode": "#117733",
    "send": "#999933",
    "network": "#ddcc77",
    "buffer": "#cc6677",
    "decode": "#882255",
    "playout": "#aa4499",
}
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "harness",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "legend.fontsize": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.grid": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
}


@contextmanager
def style() -> Iterator[None]:
    """The report's look, for whatever is drawn inside; names are text and never markup."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # The reader's own fonts draw the text of an SVG, ours only measure it.
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        yield


def codec_colours(codecs: Sequence[str]) -> dict[str, str]:
    """A colour for each codec, in order; they repeat after twelve."""
    return {name: _CODEC_COLOURS[i % len(_CODEC_COLOURS)] for i, name in enumerate(codecs)}


def transport_markers(transports: Sequence[str]) -> dict[str, str]:
    """The shape (a key of ``MARKERS``) of each transport; they repeat after four."""
    shapes = list(MARKERS)
    return {name: shapes[i % len(shapes)] for i, name in enumerate(transports)}


def quality_against_delay(
    axes: Axes,
    summary: pd.DataFrame,
    network: str,
    colours: Mapping[str, str],
    markers: Mapping[str, str],
) -> None:
    """PESQ-WB over mouth-to-ear p95 on one network; area of a marker by bitrate on the wire.

    ``summary`` is that of :func:`harness.report.tables.summarise`. Axes span all its networks.
    """
    bounds = {bound: wide(summary, bound).set_index(CONFIGURATION) for bound in ("low", "high")}
    points = wide(summary).dropna(subset=["pesq_wb", "delay_p95"])
    every = points["delay_p95"] if len(points) else pd.Series([100.0])
    axes.set_xscale("log")
    axes.set_xlim(every.min() / 1.3, every.max() * 1.3)
    axes.set_ylim(0.85, 4.9)
    axes.grid(axis="both")
    axes.set_axisbelow(True)
    for point in points[points["network"] == network].to_dict("records"):
        low, high = (
            bounds[bound].loc[tuple(point[name] for name in CONFIGURATION)]
            for bound in ("low", "high")
        )
        x, y, colour = point["delay_p95"], point["pesq_wb"], colours[point["codec"]]
        axes.vlines(x, low["pesq_wb"], high["pesq_wb"], colour, linewidth=1.2, alpha=0.7)
        axes.hlines(y, low["delay_p95"], high["delay_p95"], colour, linewidth=1.2, alpha=0.7)
        axes.scatter(
            x,
            y,
            s=marker_area(point["wire"]),
            color=colour,
            marker=MARKERS[markers[point["transport"]]],
            edgecolors=INK,
            linewidths=0.5,
            alpha=0.9,
            zorder=3,
        )
    axes.xaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("mouth to ear, p95 (ms)")
    axes.set_ylabel("PESQ-WB")


def marker_area(kbps: float) -> float:
    """In square points: 10 kbit/s is 20, ten times the rate three times the area."""
    return 20.0 if np.isnan(kbps) else 20.0 * 3 ** float(np.log10(max(kbps, 3.0) / 10))


def latency_bars(axes: Axes, parts: pd.DataFrame, labels: Sequence[str], longest_ms: float) -> None:
    """Stacked bars of the medians of each part, one bar per row of ``parts`` (those of
    :func:`harness.report.tables.latency_parts`), from the top down."""
    places = np.arange(len(parts))
    left = np.zeros(len(parts))
    for name, colour in PART_COLOURS.items():
        width = parts[f"{name}_ms"].fillna(0).to_numpy(np.float64)
        # A part below zero (a frame complete before its last fragment's send call returned) is
        # nothing that a bar could show.
        width = np.clip(width, 0, None)
        axes.barh(places, width, left=left, height=0.72, color=colour, label=name, linewidth=0)
        left = left + width
    for place, total in enumerate(left.tolist()):
        axes.text(total + longest_ms * 0.015, place, f"{total:.0f}", va="center", fontsize=9)
    axes.set_yticks(places, [shortened(label) for label in labels])
    axes.set_ylim(len(parts) - 0.5, -0.5)
    axes.set_xlim(0, longest_ms * 1.12)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.set_xlabel("ms")


def fates_over_time(axes: Axes, shares: pd.DataFrame, top: float) -> None:
    """Stacked shares of packets that were not simply played, along the media.

    ``shares`` are rows of :func:`harness.report.tables.fates` of one network and transport; the
    y axis ends at ``top`` (a share).
    """
    seconds = shares["second"].to_numpy(np.float64)
    bottom = np.zeros(len(shares))
    for fate in reversed(FATES[1:]):
        height = 100 * shares[fate].to_numpy(np.float64)
        if height.any():
            axes.bar(
                seconds,
                height,
                bottom=bottom,
                width=BIN_S,
                align="edge",
                color=FATE_COLOURS[fate],
                label=fate,
                linewidth=0,
            )
        bottom = bottom + height
    axes.set_xlim(0, seconds.max() + BIN_S if len(seconds) else 1)
    axes.set_ylim(0, 100 * top)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.set_xlabel("media time (s)")
    axes.set_ylabel("% of packets")


def fate_strips(
    axes: Axes,
    strips: Sequence[tuple[str, Sequence[tuple[str, float, float]]]],
    seconds: float,
) -> None:
    """One strip per cell: label and what :func:`harness.report.tables.fate_runs` gives."""
    for place, (_, runs) in enumerate(strips):
        axes.broken_barh([(0, seconds)], (place - 0.36, 0.72), color=FATE_COLOURS["played"])
        for fate in FATES[1:]:
            spans = [(start, length) for name, start, length in runs if name == fate]
            if spans:
                axes.broken_barh(
                    spans, (place - 0.36, 0.72), color=FATE_COLOURS[fate], linewidth=0.2
                )
    axes.set_yticks(np.arange(len(strips)), [shortened(label) for label, _ in strips])
    axes.set_ylim(len(strips) - 0.5, -0.5)
    axes.set_xlim(0, seconds)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("media time (s)")


@dataclass(frozen=True)
class Stroke:
    """How a curve is drawn: ``level`` for comparison (dashed), ``faint`` as a control (dotted)."""

    colour: str
    level: bool = False
    faint: bool = False


def curves_over_sweep(
    axes: Axes,
    sweep: curves.Sweep,
    strokes: Mapping[str, Stroke],
    crossings: Sequence[curves.Crossing],
    shown: Shown,
    xlabel: str,
) -> None:
    """Means with their bands over a swept parameter, each curve labelled at its end; a ring at each
    crossing that is certain, with its interval as a bar."""
    ends: dict[str, float] = {}
    for curve in sweep.curves:
        stroke = strokes[curve.name]
        known = np.isfinite(curve.mean)
        if not known.any():
            continue
        x, mean = sweep.x[known], curve.mean[known]
        ends[curve.name] = float(mean[-1])
        axes.fill_between(
            sweep.x, curve.low, curve.high, color=stroke.colour, alpha=0.16, linewidth=0
        )
        axes.plot(
            x,
            mean,
            color=stroke.colour,
            linewidth=1.0 if stroke.faint else 1.7,
            linestyle=(0, (1, 1.5)) if stroke.faint else "--" if stroke.level else "-",
            marker="" if stroke.level or stroke.faint else ".",
            markersize=5,
        )
    for crossing in crossings:
        if crossing.low is not None and crossing.high is not None:
            curve = next(one for one in sweep.curves if one.name == crossing.line)
            known = np.isfinite(curve.mean)
            y = float(np.interp(crossing.x, sweep.x[known], curve.mean[known]))
            axes.hlines(y, crossing.low, crossing.high, INK, linewidth=1.0)
            axes.plot(crossing.x, y, "o", mfc="none", mec=INK, mew=1.1, markersize=7, zorder=4)
    axes.set_xlim(float(sweep.x[0]), float(sweep.x[-1]))
    if len(sweep.x) <= _MOST_TICKS:
        axes.set_xticks(sweep.x, [f"{x:g}" for x in sweep.x])
    if shown.key.startswith("pesq"):
        axes.set_ylim(0.95, 4.75)
    elif shown.unit:
        axes.set_ylim(bottom=0)
    axes.grid(axis="both")
    axes.set_axisbelow(True)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(shown.label + (f" ({shown.unit})" if shown.unit else ""))
    _label_ends(axes, ends, strokes)


_MOST_TICKS = 9
_LINE_HEIGHT = 0.062
"""Of a label at a curve's end, in heights of its axes."""


def _label_ends(axes: Axes, ends: Mapping[str, float], strokes: Mapping[str, Stroke]) -> None:
    """Names beside the right edge, moved apart where curves end close together."""
    bottom, top = axes.get_ylim()
    wanted = {name: (y - bottom) / (top - bottom) for name, y in ends.items()}
    places = _apart(wanted, _LINE_HEIGHT)
    for name, place in places.items():
        axes.plot(
            [1.0, 1.025],
            [wanted[name], place],
            color=strokes[name].colour,
            linewidth=1.0,
            transform=axes.transAxes,
            clip_on=False,
        )
        axes.text(
            1.035,
            place,
            shortened(name, 19),
            transform=axes.transAxes,
            va="center",
            fontsize=9,
            color=INK,
        )


def _apart(wanted: Mapping[str, float], least: float) -> dict[str, float]:
    """Places at least ``least`` apart, each as near as can be to the one wanted, in its order."""
    groups: list[tuple[list[str], float]] = []
    for name in sorted(wanted, key=lambda one: (wanted[one], one)):
        groups.append(([name], wanted[name]))
        while len(groups) > 1:
            (below, low), (above, high) = groups[-2:]
            count = len(below) + len(above)
            if high - low >= least * count / 2:
                break
            middle = (low * len(below) + high * len(above)) / count
            # Below the axes are the labels of x.
            groups[-2:] = [(below + above, max(middle, (count - 1) / 2 * least))]
    return {
        name: middle + (i - (len(names) - 1) / 2) * least
        for names, middle in groups
        for i, name in enumerate(names)
    }


def forest(
    axes: Axes,
    rows: pd.DataFrame,
    labels: Sequence[str],
    colours: Mapping[str, str],
    shown: Shown,
    resolution: float | None,
) -> None:
    """Differences to the baseline with their intervals, one row each, from the top down.

    ``rows`` are those of :func:`harness.report.differences.differences` of one network and figure,
    in the order of ``labels`` (NaN where there is no difference), with ``told_apart``, which fills
    the mark. Shaded: less than the rig can resolve between two cells.
    """
    if resolution:
        axes.axvspan(-resolution, resolution, color=FAINT, alpha=0.5, linewidth=0)
    axes.axvline(0, color=INK, linewidth=0.8)
    for place, row in enumerate(rows.to_dict("records")):
        if pd.isna(row["mean"]):
            continue
        colour = colours[row["codec"]]
        if not np.isnan(row["low"]):
            axes.hlines(place, row["low"], row["high"], colour, linewidth=2.0)
        axes.plot(
            row["mean"],
            place,
            "D" if row["control"] else "o",
            mec=colour,
            mfc=colour if row["told_apart"] else "none",
            mew=1.5,
            markersize=6.5,
            zorder=3,
        )
    axes.set_yticks(np.arange(len(labels)), [shortened(label) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.margins(x=0.08)
    axes.locator_params(axis="x", nbins=5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.set_xlabel(shown.label + (f" ({shown.unit})" if shown.unit else ""))


def delay_over_time(axes: Axes, steps: pd.DataFrame, packets: pd.DataFrame, seconds: float) -> None:
    """What packets of one cell met, along its media: their one-way delay as dots, lost ones as
    ticks below, and as a line the delay that was asked for, where that changes (``steps``, those
    of :func:`harness.report.links.course`)."""
    media_s = packets["media_ns"].to_numpy(np.float64) / 1e9
    transit_ms = packets["transit_ns"].to_numpy(np.float64, na_value=np.nan) / 1e6
    lost = np.isnan(transit_ms)
    if len(steps):
        axes.step(
            [*steps["second"], seconds],
            [*steps["delay_ms"], steps["delay_ms"].iloc[-1]],
            where="post",
            color=INK,
            linewidth=0.9,
            label="asked",
        )
    dots = axes.plot(media_s[~lost], transit_ms[~lost], ".", color="#0072b2", markersize=2.5)
    for dot in dots:
        dot.set_label("measured")
    axes.plot(
        media_s[lost],
        np.full(int(lost.sum()), 0.02),
        "|",
        color=FATE_COLOURS["lost"],
        markersize=7,
        transform=axes.get_xaxis_transform(),
        label="lost",
    )
    axes.set_xlim(0, seconds)
    top = np.nanmax([1.0, *transit_ms[~lost], *(steps["delay_ms"] if len(steps) else [])])
    axes.set_ylim(-0.1 * top, 1.08 * top)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.set_xlabel("media time (s)")
    axes.set_ylabel("one-way delay (ms)")


def course_over_time(
    axes: Axes, steps: pd.DataFrame, column: str, label: str, seconds: float
) -> None:
    """One column of what a link was asked to do over time, as steps."""
    values = [*steps[column], steps[column].iloc[-1]]
    axes.step([*steps["second"], seconds], values, where="post", color=INK, linewidth=1.2)
    axes.fill_between([*steps["second"], seconds], 0, values, step="post", color=FAINT, alpha=0.6)
    axes.set_xlim(0, seconds)
    axes.set_ylim(0, max(1e-9, 1.08 * float(np.nanmax([0, *values]))))
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.set_xlabel("time since sample 0 (s)")
    axes.set_ylabel(label)


def shortened(label: str, longest: int = 26) -> str:
    """A label that leaves room for the drawing: its middle goes."""
    half = (longest - 1) // 2
    return label if len(label) <= longest else f"{label[:half]}…{label[-half:]}"


_PROLOGUE = re.compile(r"^.*?(?=<svg)", re.DOTALL)
_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)
_SIZE = re.compile(r'(<svg\b[^>]*?) (?:width|height)="[^"]*"')
_FONT = re.compile(r"font: ([\d.]+)px [^;\"]*")
_REFERENCES = (
    (re.compile(r'\bid="([^"]+)"'), r'id="{}-\1"'),
    (re.compile(r'href="#([^"]+)"'), r'href="#{}-\1"'),
    (re.compile(r"url\(#([^)]+)\)"), r"url(#{}-\1)"),
)


def svg(
    name: str,
    draw: Callable[[Axes], None],
    size: tuple[float, float],
    description: str,
) -> str:
    """What ``draw`` draws on axes in a figure of ``size`` (inches), as an ``<svg>`` element.

    ``name`` is unique on the page and starts the ids inside; ``description`` is what a screen
    reader says. Byte-stable: the same drawing gives the same text.
    """
    return svg_row(name, [draw], size, description)


def svg_row(
    name: str,
    draws: Sequence[Callable[[Axes], None]],
    size: tuple[float, float],
    description: str,
) -> str:
    """As :func:`svg`, of drawings side by side that share the labels of their y axis."""
    with style():
        figure = Figure(figsize=size, layout="constrained")
        row = figure.subplots(1, len(draws), sharey=len(draws) > 1, squeeze=False)[0]
        for draw, axes in zip(draws, row, strict=True):
            draw(axes)
        sink = io.StringIO()
        figure.savefig(sink, format="svg", metadata={"Date": None})
    text = _PROLOGUE.sub("", sink.getvalue())
    text = _METADATA.sub("", text)
    text = _SIZE.sub(r"\1", _SIZE.sub(r"\1", text))
    text = _FONT.sub(r"font-size: \1px", text)
    for pattern, replacement in _REFERENCES:
        text = pattern.sub(replacement.format(name), text)
    text = text.replace(INK, "currentColor").replace(FAINT, "var(--rule)")
    label = f"<title>{escape(description)}</title>"
    return re.sub(r"(<svg\b[^>]*)>", rf'\1 role="img" class="drawing">{label}', text, count=1)

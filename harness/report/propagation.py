"""Error propagation as a drawing and a table: what ``harness probe-loss`` leaves in a directory."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes

from harness.report.figures import codec_colours, svg
from harness.report.plain import Section, Value, page, write
from harness.score.damage import AUDIBLE_DB, BIN_S, FLOOR_DB, mean_curves
from harness.stats import MIN_CLUSTERS

CURVES = "probe_loss.parquet"
SUMMARY = "probe_loss_summary.parquet"
FACTS = "probe_loss.json"
COLUMNS = ("codec", "depth (dB)", "recovered (ms)", "within ±1 (ms)", "exact (ms)", "losses")
NO_VALUE = "–"
_QUIET_DB = -55.0
_SHORTEST_MS, _LONGEST_MS = 200.0, 1000.0


def error_propagation(
    axes: Axes, means: pd.DataFrame, colours: Mapping[str, str], random: Collection[str] = ()
) -> None:
    """Mean damage over time since the lost packet's first sample, one line per codec, with bands.

    ``means`` are those of :func:`harness.score.damage.mean_curves`; codecs in ``random`` have
    random weights and are dashed.
    """
    loud = means.loc[means["mean"] > _QUIET_DB, "t_ms"].max()
    last_ms = float(np.clip(100 * np.ceil((loud + 1) / 100), _SHORTEST_MS, _LONGEST_MS))
    for codec, rows in means[means["t_ms"] <= last_ms].groupby("codec", sort=False):
        name = str(codec)
        t_ms = rows["t_ms"].to_numpy() + BIN_S * 500
        dashed = "--" if name in random else "-"
        axes.plot(t_ms, rows["mean"], dashed, color=colours[name], linewidth=1.4, label=name)
        if rows["low"].notna().any():
            axes.fill_between(
                t_ms, rows["low"], rows["high"], color=colours[name], alpha=0.15, linewidth=0
            )
    axes.axhline(AUDIBLE_DB, color="#7a7a7a", linewidth=0.8, linestyle=":")
    axes.set_xlim(0, last_ms)
    axes.set_ylim(FLOOR_DB, max(5.0, float(means["high"].fillna(means["mean"]).max()) + 2))
    axes.grid(axis="both")
    axes.set_axisbelow(True)
    axes.set_xlabel("since the first sample of the lost packet (ms)")
    axes.set_ylabel("damage (dB)")


def section(directory: Path, colours: Mapping[str, str] | None = None) -> Section | None:
    """The section of a page; None where nothing was probed. ``colours``: the page's
    :func:`codec_colours`, which codecs that it does not have follow."""
    if not (directory / CURVES).is_file() or not (directory / SUMMARY).is_file():
        return None
    curves = pd.read_parquet(directory / CURVES)
    summary = pd.read_parquet(directory / SUMMARY)
    names = summary["codec"].tolist()
    hues = codec_colours(list(dict.fromkeys([*(colours or {}), *names])))
    random = set(summary.loc[summary["weights"] == "random", "codec"])
    means = mean_curves(curves)
    drawing = svg(
        "probe-loss",
        lambda axes: error_propagation(axes, means, hues, random),
        (8.0, 4.2),
        "Damage in dB over time after one lost packet, by codec",
    )
    utterances = int(summary["utterances"].max())
    texts = [
        "One packet lost in the middle of speech, the rest of the network perfect; averaged over"
        f" {int(summary['positions'].max())} places in {utterances} utterances, the same for every"
        " codec. Damage is the difference to the decoding without loss over the level of speech"
        " there; 0 dB is what a hole gives. Depth is that of the worst 20 ms; recovered means"
        f" {AUDIBLE_DB:g} dB (dotted) is not passed again; exact, that not one sample differs any"
        " more (median; within ±1 of 16 bits before it).",
    ]
    if utterances < MIN_CLUSTERS:
        texts.append(f"No intervals: they need {MIN_CLUSTERS} utterances.")
    if random:
        texts.append(
            f"Random weights (dashed): {', '.join(sorted(random))} was never trained. How long its"
            " state remembers a loss is real; its sound, and so depth and recovery, mean nothing."
        )
    return Section(
        title="One lost packet",
        paragraphs=texts,
        key=[(name, hues[name]) for name in names],
        drawing=Markup(drawing),
        columns=COLUMNS,
        rows=[row_of(row) for _, row in summary.iterrows()],
    )


def write_page(directory: Path) -> Path:
    """Draw ``probe-loss.html`` and ``probe-loss.svg`` from the tables beside them."""
    shown = section(directory)
    assert shown is not None, f"no {CURVES} in {directory}"
    facts = json.loads((directory / FACTS).read_text(encoding="utf-8"))
    notices = [("warn", str(facts["corpus_warning"]))] if facts["corpus_warning"] else []
    notices += [("note", f"{name} was not probed: {why}") for name, why in facts["skipped"].items()]
    buffer_ms = facts["receiver"]["start_ns"] / 1e6
    subtitle = (
        f"{facts['scenario']} · virtual lab, fixed jitter buffer of {buffer_ms:g} ms,"
        f" concealment: {facts['receiver']['concealment']}"
    )
    # As a file of its own the drawing has no page to take its colours from.
    alone = str(shown.drawing).replace("var(--rule)", "#c7c8c9")
    head = '<svg style="color:#1a1b1c;background:#fff;font-family:sans-serif"'
    write(directory / "probe-loss.svg", alone.replace("<svg", head, 1))
    return write(
        directory / "probe-loss.html",
        page("How far one lost packet echoes", subtitle, notices, [shown]),
    )


def row_of(row: pd.Series) -> list[str | Value]:
    """A row of the summary as text, by ``COLUMNS``."""
    entries: list[str | Value] = [str(row["codec"])]
    for figure in ("depth_db", "recover_ms"):
        low, high = row[f"{figure}_low"], row[f"{figure}_high"]
        below = "" if pd.isna(low) else f"[{low:.1f}, {high:.1f}]"
        entries.append(Value(_number(row[f"{figure}_mean"]), below))
    entries += [_number(row["near_ms"]), _number(row["exact_ms"])]
    return [*entries, str(row["positions"])]


def _number(value: float) -> str:
    return NO_VALUE if pd.isna(value) else f"{value:.1f}"

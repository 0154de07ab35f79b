"""What the report says, as tables: pure functions from a run's tables, nothing drawn.

A *configuration* is one combination of network, transport, receiver and codec; its figures are
means over its ``ok`` cells, utterance by utterance (see :mod:`harness.stats`). From
``MIN_CLUSTERS`` utterances on they carry a 95 % interval; below that the lowest and highest mean of
an utterance, which is a *range* and no interval. A figure that is missing has a reason instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from harness.report.links import is_clean
from harness.score.metrics import LATENCY, Better
from harness.score.quality import MEASURES
from harness.score.quality import OPTIONAL as OPTIONAL_MEASURES
from harness.stats import estimate
from harness.stats.agreement import CONFIGURATION
from harness.store import Tables

BIN_S = 0.5
FATES = ("played", "reordered", "incomplete", "undecodable", "late", "queue", "lost")
"""Of packets, from well to worst, as they are stacked."""


class Shown(NamedTuple):
    """A figure as the report shows it: a score times ``scale``, in ``unit``."""

    key: str
    label: str
    metric: str
    mode: str
    track: str
    unit: str
    better: Better
    scale: float
    digits: int
    meaning: str


FIGURES = (
    Shown(
        "pesq_wb", "PESQ-WB", "pesq", "wb", "media", "MOS-LQO", "higher", 1, 2,
        "speech quality of codec and concealment, on the media timeline; 1 to 4.64",
    ),
    Shown(
        "pesq_wb_played", "PESQ-WB as played", "pesq", "wb", "played", "MOS-LQO", "higher", 1, 2,
        "speech quality of what came out of the device, pauses and stretching included",
    ),
    Shown(
        "stoi", "STOI", "stoi", "classic", "media", "", "higher", 1, 3,
        "intelligibility of speech; up to 1",
    ),
    Shown(
        "delay_p95", "Mouth to ear, p95", "mouth_to_ear", "p95", "", "ms", "lower", 1, 0,
        "95 % of the frames that were heard had at most this delay",
    ),
    Shown(
        "missing", "Late or lost", "share_late_or_lost", "", "", "%", "lower", 100, 1,
        "share of packets lost, dropped by a queue, or too late to be played",
    ),
    Shown(
        "concealed", "Concealed", "concealment_ratio", "", "", "%", "lower", 100, 1,
        "share of frames that the listener had to make up",
    ),
    Shown(
        "estoi", "ESTOI", "stoi", "extended", "media", "", "higher", 1, 3,
        "STOI that also looks at correlation between bands",
    ),
    Shown(
        "pesq_nb", "PESQ-NB", "pesq", "nb", "media", "MOS-LQO", "higher", 1, 2,
        "telephone-band quality; 1 to 4.55",
    ),
    Shown(
        "delay_p50", "Mouth to ear, p50", "mouth_to_ear", "p50", "", "ms", "lower", 1, 0,
        "median delay of the frames that were heard",
    ),
    Shown(
        "jitter", "Jitter", "jitter_rfc3550", "mean", "", "ms", "lower", 1, 1,
        "RFC 3550 interarrival jitter, mean",
    ),
    Shown(
        "payload", "Payload", "bitrate", "payload", "", "kbit/s", "neither", 1e-3, 1,
        "codec payloads over media time",
    ),
    Shown(
        "wire", "On the wire", "bitrate", "wire", "", "kbit/s", "neither", 1e-3, 1,
        "Ethernet frames, forward, over media time",
    ),
    Shown(
        "encode_rtf", "Encode time", "real_time_factor", "encode", "", "%", "lower", 100, 2,
        "time of the encode call over the duration of its frame",
    ),
)  # fmt: skip
OPTIONAL = (
    Shown(
        "fairness", "Fairness", "fairness", "goodput", "", "", "higher", 1, 3,
        "Jain's index over the goodput of the tracks on one link; 1 is equal shares",
    ),
    Shown(
        "fairness_in_time", "Fairness in time", "fairness", "in_time", "", "", "higher", 1, 3,
        "Jain's index over the share of each track's frames that were played in time",
    ),
    Shown(
        "task", "Task accuracy", "task_accuracy", "due", "played", "%", "higher", 100, 1,
        "share of the decisions due that a sink's client was given and that agree with the clean"
        " reference's",
    ),
    Shown(
        "decision_p50", "Decision p50", "time_to_decision", "p50", "played", "ms", "lower", 1, 0,
        "from the capture of a window's last sample to the sink's decision, median",
    ),
    Shown(
        "decision_p95", "Decision p95", "time_to_decision", "p95", "played", "ms", "lower", 1, 0,
        "the same, 95th percentile",
    ),
    Shown(
        "undecided", "Undecided", "sink_windows", "missing", "played", "windows", "neither", 1, 0,
        "windows of a sink that nobody was given a decision on",
    ),
    Shown(
        "misdirected", "Misdirected", "sink_windows", "misdirected", "played", "windows",
        "neither", 1, 0, "decisions of a sink given to a client whose audio they are not about",
    ),
    Shown(
        "dropped_chunks", "Dropped", "sink_chunks", "dropped", "played", "chunks", "neither", 1, 0,
        "chunks that a sink's full buffer dropped",
    ),
    Shown(
        "plcmos", "PLCMOS", "plcmos", "", "media", "MOS", "higher", 1, 2,
        "PLCMOS v2: concealment as listeners would rate it, without a reference; 1 to 5",
    ),
    Shown(
        "dnsmos", "DNSMOS OVRL", "dnsmos", "ovrl", "media", "MOS", "higher", 1, 2,
        "DNSMOS P.835, overall, without a reference; 1 to 5",
    ),
    Shown(
        "dnsmos_sig", "DNSMOS SIG", "dnsmos", "sig", "media", "MOS", "higher", 1, 2,
        "DNSMOS P.835 of the voice alone",
    ),
    Shown(
        "dnsmos_bak", "DNSMOS BAK", "dnsmos", "bak", "media", "MOS", "higher", 1, 2,
        "DNSMOS P.835 of what is behind the voice",
    ),
    Shown(
        "dnsmos_p808", "DNSMOS P.808", "dnsmos", "p808", "media", "MOS", "higher", 1, 2,
        "DNSMOS P.808, overall, by another network",
    ),
    Shown(
        "visqol_speech", "ViSQOL speech", "visqol", "speech", "media", "MOS-LQO", "higher", 1, 2,
        "ViSQOL v3, speech mode; 1 to 5",
    ),
    Shown(
        "visqol_audio", "ViSQOL audio", "visqol", "audio", "media", "MOS-LQO", "higher", 1, 2,
        "ViSQOL v3, audio mode, of music; 1 to 5",
    ),
    Shown(
        "lsd", "LSD", "lsd", "wb", "media", "dB", "lower", 1, 2,
        "log-spectral distance of speech, up to 8 kHz",
    ),
    Shown(
        "lsd_music", "LSD of music", "lsd", "fb", "media", "dB", "lower", 1, 2,
        "log-spectral distance of music, up to 24 kHz",
    ),
    Shown(
        "si_sdr", "SI-SDR", "si_sdr", "wb", "media", "dB", "higher", 1, 1,
        "of speech and of codecs that follow the waveform; 100 is equal",
    ),
    Shown(
        "si_sdr_music", "SI-SDR of music", "si_sdr", "fb", "media", "dB", "higher", 1, 1,
        "of music and of codecs that follow the waveform; 100 is equal",
    ),
    Shown(
        "e_model_r", "E-model R", "e_model_r", "", "", "R", "higher", 1, 1,
        "planning estimate of a conversation (ITU-T G.107); 93.2 at best",
    ),
    Shown(
        "e_model", "E-model MOS", "e_model", "", "", "MOS-CQE", "higher", 1, 2,
        "the same as a MOS; 4.41 at best",
    ),
)  # fmt: skip
"""Figures beside those, of what a scenario asked for; shown where it did."""
BY_KEY = {figure.key: figure for figure in (*FIGURES, *OPTIONAL)}
RANKINGS = tuple(map(BY_KEY.__getitem__, ("pesq_wb_played", "pesq_wb", "stoi")))
"""What configurations are ranked by where a scenario does not say: what a listener got, as played,
before codec and concealment alone, on the media timeline."""
MAX_FATE_CELLS = 60
"""Cells of a network and transport whose packets are looked at for :func:`fates`."""
SWEPT = "@"
"""In the name of an entry, before each sweep that it is a point of: ``bursty@loss=5%``."""


def of_cells(tables: Tables, keep: pd.Series) -> Tables:
    """The run as if it had only those of its cells that ``keep`` (a mask of ``cells``) leaves."""
    cells = tables.cells[keep]
    ids = set(cells["cell_id"])
    return Tables(
        tables.runs,
        cells,
        _Lent(tables.packets_of, ids),
        _Lent(tables.frames_of, ids),
        tables.scores[tables.scores["cell_id"].isin(ids)],
        tables.legacy[tables.legacy["cell_id"].isin(ids)],
    )


@dataclass(frozen=True)
class _Lent:
    """The rows of some cells of a table that another holds."""

    of: Callable[[Collection[str], Sequence[str] | None], pd.DataFrame]
    cell_ids: set[str]

    def batches(
        self, cell_ids: Collection[str] | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pd.DataFrame]:
        wanted = self.cell_ids if cell_ids is None else self.cell_ids.intersection(cell_ids)
        yield self.of(sorted(wanted), columns)


class Added(NamedTuple):
    """Names of the codec and of the network that were added to a scenario as controls; empty where
    it asked for one itself."""

    codec: str
    network: str


def added(tables: Tables) -> Added:
    """The controls of a run that have no rank in it."""
    text = tables.runs["added_controls"].iloc[0] if "added_controls" in tables.runs else None
    names = json.loads(text) if isinstance(text, str) else {}
    return Added(names.get("codec") or "", names.get("network") or "")


def condensed(cells: pd.DataFrame) -> pd.Series:
    """A mask of cells: all that are no points of a sweep, and of each sweep those of its first,
    middle and last point."""
    points = cells["sweep"].map(lambda text: json.loads(text) if isinstance(text, str) else {})
    every: dict[str, set[float]] = {}
    for swept in points:
        for name, point in swept.items():
            every.setdefault(name, set()).add(point["x"])
    kept = {name: _ends_and_middle(sorted(xs)) for name, xs in every.items()}
    return points.map(
        lambda swept: all(point["x"] in kept[name] for name, point in swept.items())
    ).astype(bool)


def _ends_and_middle(xs: list[float]) -> set[float]:
    return {xs[0], xs[len(xs) // 2], xs[-1]}


def figures_of(tables: Tables) -> tuple[Shown, ...]:
    """``FIGURES``, and those of ``OPTIONAL`` that some cell has; of a metric that no cell has, all,
    so that the reason is seen."""
    keys = list(_SCORE)
    asked = set(tables.scores[keys].drop_duplicates().itertuples(index=False, name=None))
    known = tables.scores[tables.scores["value"].notna()][keys].drop_duplicates()
    found = set(known.itertuples(index=False, name=None))
    metrics = {metric for metric, _, _ in found}
    there = found | {key for key in asked if key[0] not in metrics}
    optional = (one for one in OPTIONAL if (one.metric, one.mode, one.track) in there)
    return (*FIGURES, *optional)


def summarise(tables: Tables, figures: Sequence[Shown] = FIGURES) -> pd.DataFrame:
    """One row per configuration and figure, configurations without an ``ok`` cell included.

    Columns: ``network, transport, receiver, codec, figure`` (key), ``mean, low, high`` (in the
    figure's unit, NaN where missing), ``spread`` (``interval``, ``range`` or null), ``n`` cells and
    ``utterances`` behind the mean (0 where missing), ``reason`` (null where there is a mean).
    """
    scores = tables.scores.merge(
        ok_cells(tables)[["cell_id", "utterance", *CONFIGURATION]], on="cell_id"
    )
    found = {key: rows for key, rows in scores.groupby([*CONFIGURATION, *_SCORE])}
    rows = []
    for configuration, cells in tables.cells.groupby(CONFIGURATION):
        for shown in figures:
            scored = found.get((*configuration, shown.metric, shown.mode, shown.track))
            rows.append((*configuration, shown.key, *_summary(scored, shown, cells)))
    return pd.DataFrame(rows, columns=[*CONFIGURATION, "figure", *_SUMMARY])


def wide(summary: pd.DataFrame, value: str = "mean") -> pd.DataFrame:
    """One row per configuration, one column per figure key."""
    return summary.pivot(index=CONFIGURATION, columns="figure", values=value).reset_index()


def ok_cells(tables: Tables) -> pd.DataFrame:
    """The cells that enter averages."""
    return tables.cells[tables.cells["status"] == "ok"]


def scored(tables: Tables, shown: Shown) -> pd.DataFrame:
    """The ``ok`` cells that have this figure, with its ``value`` in the figure's unit: what of them
    tells them apart (``CONFIGURATION``, utterance, repetition, block, codec_kind)."""
    mine = (tables.scores[list(_SCORE)] == [shown.metric, shown.mode, shown.track]).all(axis=1)
    values = tables.scores.loc[mine, ["cell_id", "value"]].dropna()
    values["value"] *= shown.scale
    return ok_cells(tables)[_TELLING].merge(values, on="cell_id")


def ranking(tables: Tables) -> Shown:
    """The figure that configurations are ranked by: the one that the scenario names, else the first
    of ``RANKINGS`` that any cell has, else the first of them."""
    named = tables.runs["rank_by"].iloc[0] if "rank_by" in tables.runs else None
    if isinstance(named, str):
        (measure,) = (one for one in (*MEASURES, *OPTIONAL_MEASURES) if one.name == named)
        key = (measure.metric, measure.mode, measure.track)
        return next(one for one in BY_KEY.values() if (one.metric, one.mode, one.track) == key)
    return next((one for one in RANKINGS if len(scored(tables, one))), RANKINGS[0])


def clean_networks(tables: Tables) -> set[str]:
    """Networks whose links were asked to do nothing."""
    rows = tables.cells.drop_duplicates("network")
    links = zip(rows["network"], rows["link_asked"], strict=True)
    return {str(name) for name, asked in links if is_clean(_text(asked))}


@dataclass(frozen=True)
class Order:
    """Names in the order in which everything shows them: clean networks first, then from the least
    to the most impaired (by the mean of the ranking figure); codecs from the highest bitrate set to
    the lowest."""

    networks: tuple[str, ...]
    transports: tuple[str, ...]
    receivers: tuple[str, ...]
    codecs: tuple[str, ...]


def order(tables: Tables, summary: pd.DataFrame) -> Order:
    """The order of a run's names; by name where figures do not tell."""
    cells = tables.cells
    shown = ranking(tables)
    quality = summary[summary["figure"] == shown.key].groupby("network")["mean"].mean()
    quality = quality if shown.better == "higher" else -quality
    clean = clean_networks(tables)
    rates = cells.groupby("codec")["bitrate_nominal_bps"].max()
    return Order(
        tuple(sorted(_by_value(cells["network"], quality), key=lambda name: name not in clean)),
        tuple(sorted(cells["transport"].unique(), key=lambda name: (name != "udp", name))),
        tuple(sorted(cells["receiver"].unique())),
        tuple(_by_value(cells["codec"], rates)),
    )


def latency_parts(tables: Tables) -> pd.DataFrame:
    """Per configuration, the mean over cells of the median of each part: ``fill_ms`` to
    ``playout_ms``. Medians do not add up to the median of the sum."""
    scores = tables.scores[tables.scores["metric"] == "latency_part"]
    rows = ok_cells(tables)[["cell_id", *CONFIGURATION]].merge(scores, on="cell_id")
    parts = rows.pivot_table(index=CONFIGURATION, columns="mode", values="value", aggfunc="mean")
    return parts.reindex(columns=list(LATENCY)).add_suffix("_ms").reset_index()


def fates(tables: Tables, most: int = MAX_FATE_CELLS) -> pd.DataFrame:
    """Share of packets by fate along the media, over the ``ok`` cells of network and transport.

    Of more than ``most`` cells these are whole blocks in order of their ids, which are hashes: as
    good as drawn, and always the same. Columns: ``network, transport, second`` (start of a bin of
    ``BIN_S``), one per fate, ``packets``, and ``cells`` looked at.
    """
    found = []
    for (network, transport), cells in ok_cells(tables).groupby(["network", "transport"]):
        ids = cells.sort_values(["block", "cell_id"])["cell_id"].head(most).tolist()
        packets = tables.packets_of(ids, ["cell_id", "media_ns", "fate"])
        bins = (packets["media_ns"] // int(BIN_S * 1e9)).astype("int64") * BIN_S
        counts = packets.groupby([bins.rename("second"), "fate"]).size().unstack(fill_value=0)
        counts = counts.reindex(columns=list(FATES), fill_value=0)
        total = counts.sum(axis=1)
        shares = counts.div(total, axis=0).assign(packets=total, cells=len(ids)).reset_index()
        found.append(shares.assign(network=str(network), transport=str(transport)))
    columns = ["network", "transport", "second", *FATES, "packets", "cells"]
    return pd.concat(found)[columns] if found else pd.DataFrame(columns=columns)


def fate_runs(tables: Tables, cell_id: str) -> list[tuple[str, float, float]]:
    """What became of one cell's packets along its media: (fate, start, length) in s, neighbours of
    one fate joined; packets that were played in order, or that nothing needed, are left out."""
    packets = tables.packets_of([cell_id], ["media_ns", "fate"])
    packets = packets[packets["fate"].isin(FATES)]
    starts = packets["media_ns"].to_numpy(np.int64)
    frames = np.unique(starts)
    length = int(np.median(np.diff(frames))) if len(frames) > 1 else 0
    worst: dict[int, int] = {}
    for start, fate in zip(starts.tolist(), packets["fate"], strict=True):
        worst[start] = max(worst.get(start, 0), FATES.index(fate))
    return _joined(
        [(start, FATES[rank]) for start, rank in sorted(worst.items())], length, "played"
    )


def frame_runs(tables: Tables, cell_id: str) -> list[tuple[str, float, float]]:
    """How one cell's frames came to be, as :func:`fate_runs`; decoded frames are left out."""
    frames = tables.frames_of([cell_id], ["frame", "media_ns", "kind"])
    frames = frames[frames["frame"].notna()]
    starts = frames["media_ns"].to_numpy(np.int64)
    length = int(np.median(np.diff(np.unique(starts)))) if len(starts) > 1 else 0
    return _joined(sorted(zip(starts.tolist(), frames["kind"], strict=True)), length, "decoded")


class Clip(NamedTuple):
    """A cell whose audio the report carries, and its place by the ranking figure on its network."""

    network: str
    place: str
    cell_id: str


@dataclass(frozen=True)
class Clips:
    """What to listen to: ``clips`` are cells of one utterance and repetition, in order of how much
    they are worth carrying."""

    utterance: str
    repetition: int
    clips: tuple[Clip, ...]


def choose_clips(tables: Tables, networks: Iterable[str]) -> Clips | None:
    """The highest, the lowest and the median cell of each network, all of one utterance.

    The utterance is the one with most ``ok`` cells; among these the one whose ranking figure is
    nearest to the mean of all. Cells without it (music) are placed by how little was concealed.
    None where no cell has audio.
    """
    cells = ok_cells(tables)
    cells = cells[cells["audio_media"].notna() & cells["audio_reference"].notna()]
    cells = cells[cells["codec"] != added(tables).codec]
    if cells.empty:
        return None
    shown = ranking(tables)
    quality = scored(tables, shown).set_index("cell_id")["value"]
    quality = quality if shown.better == "higher" else -quality
    concealed = scored(tables, BY_KEY["concealed"]).set_index("cell_id")["value"]
    cells = cells.assign(
        quality=cells["cell_id"].map(quality), clean=-cells["cell_id"].map(concealed)
    )
    typical = cells["quality"].mean()
    takes = cells.groupby(["utterance", "repetition"]).agg(
        count=("cell_id", "size"), quality=("quality", "mean")
    )
    takes["off"] = (takes["quality"] - typical).abs()
    takes = takes.sort_values(["off"], kind="stable").sort_values(
        "count", ascending=False, kind="stable"
    )
    utterance, repetition = takes.index[0]
    take = cells[(cells["utterance"] == utterance) & (cells["repetition"] == repetition)]
    ranked = take.sort_values([*CONFIGURATION]).sort_values(
        ["quality", "clean"], ascending=False, kind="stable"
    )
    places: dict[str, list[Clip]] = {"highest": [], "lowest": [], "median": []}
    for network in networks:
        ids = ranked.loc[ranked["network"] == network, "cell_id"].tolist()
        for place, at in (("highest", 0), ("lowest", -1), ("median", len(ids) // 2)):
            taken = [clip.cell_id for found in places.values() for clip in found]
            if ids and ids[at] not in taken:
                places[place].append(Clip(network, place, ids[at]))
    chosen = [clip for clips in places.values() for clip in clips]
    return Clips(str(utterance), int(repetition), tuple(chosen))


def rig_check(tables: Tables, summary: pd.DataFrame) -> pd.DataFrame:
    """PCM over a link that was asked to do nothing: rows of ``summary`` and the medians of the
    parts of its latency (:func:`latency_parts`); empty where not measured."""
    cells = tables.cells
    clean = cells["network"].isin(clean_networks(tables))
    rig = cells[clean & (cells["codec_kind"] == "pcm")][CONFIGURATION].drop_duplicates()
    return rig.merge(wide(summary), on=CONFIGURATION).merge(
        latency_parts(tables), on=CONFIGURATION, how="left"
    )


def proof(tables: Tables) -> pd.DataFrame:
    """Asked against measured, per network, transport, direction and figure, of all cells that ran.

    Columns: ``judged, within, idle`` (cells in which the figure was judged, was within its
    tolerance, was not exercised), and of the worst cell ``asked, measured, tolerance, unit, note``.
    """
    rows = [
        {"network": cell.network, "link": cell.link, **figure}
        for cell in tables.cells.itertuples()
        for figure in json.loads(_text(cell.proof) or "[]")
    ]
    if not rows:
        return pd.DataFrame(columns=["network"])
    every = pd.DataFrame(rows)
    found = []
    for key, group in every.groupby(["network", "link", "direction", "figure"], sort=False):
        judged = group[group["ok"].notna()]
        worst = max((judged if len(judged) else group).to_dict("records"), key=_excess)
        found.append(
            {
                **dict(zip(("network", "link", "direction", "figure"), key, strict=True)),
                "judged": len(judged),
                "within": int(judged["ok"].astype(bool).sum()),
                "idle": len(group) - len(judged),
                **{name: worst.get(name) for name in ("asked", "measured", "tolerance")},
                "unit": worst.get("unit") or "",
                "note": worst.get("note") or "",
            }
        )
    return pd.DataFrame(found)


def troubled(tables: Tables) -> pd.DataFrame:
    """Cells that are not ``ok``, the ones of one configuration and reason together.

    Columns: status, network, transport, receiver, codec, reason, cells, utterances (text).
    """
    bad = tables.cells[tables.cells["status"] != "ok"]
    bad = bad.assign(reason=bad["reason"].fillna("no reason recorded"))
    found = bad.groupby(["status", *CONFIGURATION, "reason"]).agg(
        cells=("cell_id", "size"),
        utterances=("utterance", lambda names: ", ".join(sorted(set(names)))),
    )
    return found.reset_index()


def causes(tables: Tables) -> pd.DataFrame:
    """Why cells are not ``ok``, by cause: reasons that differ in their numbers only are one.

    Columns: ``status, example, cells, networks`` (text); commonest first. A cell with several
    causes counts for each.
    """
    bad = troubled(tables)
    bad = bad.assign(example=bad["reason"].str.split("; (?!use fewer)", regex=True)).explode(
        "example"
    )
    bad["cause"] = bad["example"].str.replace(r"\d+(\.\d+)?", "#", regex=True)
    found = bad.groupby(["status", "cause"]).agg(
        example=("example", "first"),
        cells=("cells", "sum"),
        networks=("network", lambda names: ", ".join(sorted(set(names)))),
    )
    return found.reset_index().sort_values("cells", ascending=False, kind="stable")


LATENESS = {
    "sender_ms": "worst_lateness_ms",
    "receiver_ms": "receiver_worst_lateness_ms",
    "reading_ms": "read_worst_lateness_ms",
    "relay_ms": "relay_worst_lateness_ms",
}
"""Who works in real time, and the column of ``cells`` that has its largest lag."""
LATE_MS = 1.0
"""What is later than this is worth a look; the limits are :mod:`harness.lateness`'s."""


def lateness(tables: Tables) -> pd.DataFrame:
    """Per configuration in which anybody was over ``LATE_MS`` late: ``cells`` (in which that was
    so), and the largest lag of each of ``LATENESS``, in ms (NaN where it has no part)."""
    cells = tables.cells.rename(columns={column: who for who, column in LATENESS.items()})
    cells = cells.astype(dict.fromkeys(LATENESS, np.float64))
    late = cells[(cells[list(LATENESS)] > LATE_MS).any(axis=1)]
    found = late.groupby(CONFIGURATION).agg(
        cells=("cell_id", "size"), **{who: (who, "max") for who in LATENESS}
    )
    worst = found[list(LATENESS)].max(axis=1).sort_values(ascending=False, kind="stable")
    return found.loc[worst.index].reset_index()


_TELLING = ["cell_id", *CONFIGURATION, "codec_kind", "utterance", "repetition", "block"]
_SCORE = ("metric", "mode", "track")
_SUMMARY = ("mean", "low", "high", "spread", "n", "utterances", "reason")
_NOTHING = (np.nan, np.nan, np.nan, None, 0, 0)


def _summary(
    scores: pd.DataFrame | None, shown: Shown, cells: pd.DataFrame
) -> tuple[float, float, float, str | None, int, int, str | None]:
    """The columns ``_SUMMARY`` of one figure of one configuration."""
    if not (cells["status"] == "ok").any():
        counts = cells["status"].value_counts().sort_index()
        return *_NOTHING, "no ok cell: " + ", ".join(f"{n} {name}" for name, n in counts.items())
    if scores is None:
        return *_NOTHING, "not scored"
    known = scores.dropna(subset=["value"])
    if known.empty:
        reasons = scores["reason"].dropna()
        return *_NOTHING, reasons.mode()[0] if len(reasons) else "no reason recorded"
    values = known["value"].to_numpy(np.float64) * shown.scale
    of = known["utterance"].tolist()
    found = estimate(values.tolist(), of)
    assert found is not None
    spread = None
    low = high = np.nan
    if found.low is not None and found.high is not None:
        low, high, spread = found.low, found.high, "interval"
    elif found.clusters > 1:
        means = pd.Series(values).groupby(np.array(of)).mean()
        low, high, spread = float(means.min()), float(means.max()), "range"
    return found.mean, low, high, spread, found.cells, found.clusters, None


def _by_value(names: pd.Series, values: pd.Series) -> list[str]:
    """The distinct names, highest value first; those without one last; ties by name."""
    known = values.dropna().to_dict()
    return sorted(names.unique(), key=lambda name: (-known.get(name, -np.inf), name))


def _joined(
    marks: Iterable[tuple[int, str]], length_ns: int, plain: str
) -> list[tuple[str, float, float]]:
    runs: list[tuple[str, int, int]] = []
    for start, name in marks:
        if name == plain:
            continue
        # Media times are whole ns, frames of 1024 samples at 48 kHz are not.
        if runs and runs[-1][0] == name and runs[-1][2] + length_ns // 100 >= start:
            runs[-1] = (name, runs[-1][1], start + length_ns)
        else:
            runs.append((name, start, start + length_ns))
    return [(name, start / 1e9, (end - start) / 1e9) for name, start, end in runs]


def _excess(figure: Mapping[Hashable, Any]) -> float:
    """How far a proof figure is off, in tolerances; -1 where it was not judged."""
    asked, measured, tolerance = (figure.get(name) for name in ("asked", "measured", "tolerance"))
    if figure.get("ok") is None or pd.isna(figure["ok"]):
        return -1.0
    if asked is None or measured is None or pd.isna(asked) or pd.isna(measured):
        return np.inf
    off = float(abs(measured - asked))
    return off / tolerance if tolerance else (np.inf if off else 0.0)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None

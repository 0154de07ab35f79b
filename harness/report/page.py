"""The report: tables with intervals, drawings and chosen audio, in one HTML file.

``write_report`` reads a run's tables and writes ``report.html`` beside them. The page refers to
nothing outside of itself but the run's audio files, by relative links; the same tables give the
same bytes. All names come from scenario files and are escaped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from harness.lateness import P99_LIMIT_NS, WORST_LIMIT_NS
from harness.report import (
    adaptation,
    audio,
    figures,
    legacy,
    links,
    noise,
    plain,
    propagation,
    sections,
    sharing,
    tables,
    verdicts,
)
from harness.report.tables import BY_KEY, FIGURES, Shown
from harness.score.metrics import METRICS
from harness.stats import MIN_CLUSTERS
from harness.stats.agreement import CONFIGURATION
from harness.stats.difference import SIGNIFICANT
from harness.store import Tables, load
from harness.units import NS_PER_MS

LIMIT_BYTES = 9_500_000
"""No report is larger."""
CLIPS_BYTES = 6_000_000
"""Of these, what audio may take."""
MAX_PANELS = 24
MAX_ROWS = 400
MAX_YAML = 40_000
_HEAT = ("pesq_wb", "pesq_wb_played", "stoi", "delay_p95", "missing", "concealed")
_TAKE = ("pesq_wb", "pesq_wb_played", "delay_p95", "concealed")
_SCALES: Mapping[str, tuple[float, float]] = {
    "pesq_wb": (1.0, 4.65),
    "pesq_wb_played": (1.0, 4.65),
    "stoi": (0.5, 1.0),
    "delay_p95": (math.log(50), math.log(1600)),
    "missing": (0.0, math.sqrt(30)),
    "concealed": (0.0, math.sqrt(30)),
    "plcmos": (1.0, 5.0),
    "dnsmos": (1.0, 5.0),
    "visqol_speech": (1.0, 5.0),
    "visqol_audio": (1.0, 5.0),
    "lsd": (0.0, 12.0),
    "lsd_music": (0.0, 12.0),
    "si_sdr": (-5.0, 30.0),
    "si_sdr_music": (-5.0, 30.0),
    "e_model": (1.0, 4.5),
}
"""From worst or best to the other end of a heat map's colours; delays by logarithm, shares by
square root, for both are felt by ratio more than by difference."""
_BENDS: Mapping[str, Callable[[float], float]] = {
    "delay_p95": lambda ms: math.log(max(ms, 1.0)),
    "missing": math.sqrt,
    "concealed": math.sqrt,
}
NO_VALUE = "–"


def write_report(run_dir: Path) -> Path:
    """Draw ``run_dir/report.html`` and return its path.

    Raises BadInput where ``run_dir`` holds no run that can be read.
    """
    return plain.write(run_dir / "report.html", render(load(run_dir), run_dir))


def render(run: Tables, run_dir: Path, limit_bytes: int = LIMIT_BYTES) -> str:
    """The page of a run whose audio lies under ``run_dir``; at most ``limit_bytes`` of UTF-8, as
    far as leaving out audio can bring it there."""
    page = _Page(run, run_dir)
    template = _environment().get_template("page.html.j2")
    bare = len(template.render(page.context([])).encode())
    clips = page.clips(min(CLIPS_BYTES, limit_bytes - bare))
    return template.render(page.context(clips))


@dataclass
class Panel:
    """One drawing of several that are read side by side."""

    title: str
    svg: Markup


@dataclass
class Take:
    """One cell to listen to, beside its reference."""

    network: str
    place: str
    label: str
    figures: str
    reference: str
    """Key of the reference's audio."""
    media: str
    links: list[tuple[str, str]]
    wave_reference: str
    wave_media: str
    marks: list[audio.Mark]
    seconds: float
    uris: dict[str, str] = field(repr=False)


class _Page:
    """Everything that the template shows of one run, made once."""

    def __init__(self, run: Tables, run_dir: Path) -> None:
        self.run = run
        self.run_dir = run_dir
        self.row: dict[str, Any] = {str(k): _plain(v) for k, v in run.runs.iloc[0].items()}
        self.figures = tables.figures_of(run)
        self.every = tables.summarise(run, self.figures)
        self.shown = tables.of_cells(run, tables.condensed(run.cells))
        """Without most points of sweeps, which would flood all but their own section."""
        there = self.shown.cells[CONFIGURATION].drop_duplicates()
        self.summary = self.every.merge(there, on=CONFIGURATION)
        self.order = tables.order(self.shown, self.summary)
        self.networks = links.networks(run)
        self.added = tables.added(run)
        self.bases = list(dict.fromkeys(name.split(tables.SWEPT)[0] for name in self.order.codecs))
        self.colours = figures.codec_colours(
            [*self.bases, *(name for name in self.order.codecs if name not in self.bases)]
        )
        self.markers = figures.transport_markers(self.order.transports)
        self.left_out: list[str] = []
        self._fixed = self._contents()

    def context(self, takes: Sequence[Take]) -> dict[str, Any]:
        """The template's variables, with these takes in the page."""
        uris = {key: uri for take in takes for key, uri in take.uris.items()}
        others = self._other_audio({take.media for take in takes})
        return self._fixed | {
            "takes": takes,
            "uris": uris,
            "others": others[:MAX_ROWS],
            "left_out": [
                *self.left_out,
                *_said(
                    len(others) and f"The audio of {len(others)} cells: it is linked, not embedded."
                ),
                *_said(
                    len(others) > MAX_ROWS
                    and f"Links to the audio of {len(others) - MAX_ROWS} cells (see audio/)."
                ),
            ],
        }

    def clips(self, budget_bytes: int) -> list[Take]:
        """The takes that fit into the budget, in the order in which they are shown."""
        chosen = tables.choose_clips(self.shown, self.order.networks)
        fitting: list[tuple[tables.Clip, Take]] = []
        carried: set[str] = set()
        for clip in chosen.clips if chosen else ():
            take = self._take(clip)
            if take is None:
                continue
            fresh = [uri for key, uri in take.uris.items() if key not in carried]
            size = sum(map(len, fresh)) + 3 * (len(take.wave_media) + len(take.wave_reference))
            if size <= budget_bytes:
                budget_bytes -= size
                carried |= set(take.uris)
                fitting.append((clip, take))
        places = ("highest", "median", "lowest")
        fitting.sort(
            key=lambda pair: (
                self.order.networks.index(pair[0].network),
                places.index(pair[0].place),
            )
        )
        return [take for _, take in fitting]

    def _contents(self) -> dict[str, Any]:
        run = self.run
        counts = run.cells["status"].value_counts().to_dict()
        ranked = [name for name in self.order.networks if name != self.added.network]
        self.rank = tables.ranking(self.shown)
        judged = verdicts.verdicts(self.shown, self.summary, ranked)
        spread = noise.noise(self.shown)
        sweeps, panels_left_out = sections.sweeps_of(run, self.bases)
        if panels_left_out:
            self.left_out.append(f"{panels_left_out} panels of sweeps.")
        troubled = self._rows(tables.troubled(run), "lines of failed, invalid or unsupported cells")
        proof = tables.proof(run)
        condensed = proof["network"].isin(self.order.networks)
        sending = adaptation.sent(self.shown)
        return {
            "run": self.row,
            "warnings": self._warnings(counts, judged),
            "statuses": {name: counts.get(name, 0) for name in _STATUSES},
            "verdicts": judged,
            "rank": self.rank,
            "extreme": "highest" if self.rank.better == "higher" else "lowest",
            "links": {name: self.networks[name].words for name in self.order.networks},
            "differences": sections.differences_of(
                self.shown,
                self.order.networks,
                self._sorted,
                self._name,
                self.colours,
                {shown.key: noise.resolution(spread, shown.key) for shown in noise.FIGURES},
            ),
            "sweeps": sweeps,
            "swept_away": len(run.cells) - len(self.shown.cells),
            "networks": [self.networks[name] for name in self.order.networks],
            "swept_networks": [
                one for name, one in self.networks.items() if name not in self.order.networks
            ],
            "meanings": links.MEANINGS,
            "impairments": {kind for one in self.networks.values() for kind in one.impairment},
            "courses": self._drawings(
                "networks over time",
                sections.drawings_of(run, [self.networks[n] for n in self.order.networks]),
            ),
            "noise": sections.noise_of(run, spread, self._name),
            "noise_limit": noise.LIMIT,
            "added": self.added,
            "legacy": legacy.legacy_of(self.shown, self.order.networks, self._sorted, self._name),
            "legacy_key": legacy.KEY,
            "protection": adaptation.protection_of(
                self.shown, sending, self.order.networks, self.order.transports
            ),
            "protection_cells": adaptation.MOST_CELLS,
            "adaptation": self._limited(
                "rates over time",
                adaptation.adaptation_of(
                    self.shown, sending, self.order.networks, self.order.transports
                ),
            ),
            "sharing": self._limited(
                "shared links",
                sharing.sharing_of(self.shown, self.order.networks, self.order.transports),
            ),
            "propagation": propagation.section(self.run_dir, self.colours),
            "unscored": self._unscored(),
            "min_clusters": MIN_CLUSTERS,
            "conversation_ms": verdicts.CONVERSATION_MS,
            "significant": SIGNIFICANT,
            "rig": tables.rig_check(self.shown, self.summary).to_dict("records"),
            "heat": [
                self._heat(shown)
                for shown in (*map(BY_KEY.__getitem__, _HEAT), *self.figures[len(FIGURES) :])
                if shown.key in _SCALES
            ],
            "spreads": sorted(self.summary["spread"].dropna().unique()),
            "scatter": self._scatter(),
            "latency": self._latency(),
            "over_time": self._fates(),
            "strips": self._strips(),
            "take_of": tables.choose_clips(self.shown, self.order.networks),
            "fate_cells": tables.MAX_FATE_CELLS,
            "causes": self._rows(tables.causes(run), "causes of trouble"),
            "troubled": troubled,
            "lateness": self._rows(tables.lateness(run), "lines of who was late"),
            "late_ms": tables.LATE_MS,
            "late_p99_ms": P99_LIMIT_NS / NS_PER_MS,
            "late_worst_ms": WORST_LIMIT_NS / NS_PER_MS,
            "proof": self._rows(proof[condensed], "lines of the proof"),
            "swept_proof": self._rows(proof[~condensed], "lines of the proof of swept networks"),
            "figures": self.figures,
            "table": self._table(self.summary, self.order),
            "swept_table": self._swept_table(),
            "codec_key": [
                (name, self.colours[name], self._facts(name)) for name in self.order.codecs
            ],
            "transport_key": list(self.markers.items()),
            "fate_key": list(figures.FATE_COLOURS.items()),
            "kind_key": list(figures.KIND_COLOURS.items()),
            "part_key": list(figures.PART_COLOURS.items()),
            "scenario_yaml": self._yaml(),
            "provenance": self._provenance(),
            "items": self._items(),
            "metrics": [
                (metric.name, ", ".join(filter(None, metric.modes)), metric.unit, metric.source)
                for metric in METRICS.values()
            ],
            "name": self._name,
        }

    def _warnings(
        self, counts: Mapping[Any, int], judged: Sequence[verdicts.Verdict]
    ) -> list[tuple[str, str]]:
        """What a reader must know first: (``warn`` or ``note``, text)."""
        cells = self.run.cells
        total = len(cells)
        said = []
        if banner := sections.virtual_banner(self.run, str(self.row["lab_why"])):
            said.append(("warn", banner))
        if self.row["lab"]:
            said.append(
                (
                    "note",
                    f"Lab {self.row['lab']} ({self.row['lab_why']}); link engine"
                    f" {self.row['link']} ({self.row['link_why']}).",
                )
            )
        if split := sum(len(one.split) for one in self.networks.values()):
            said.append(
                (
                    "warn",
                    f"In {split} blocks the cells did not all meet the same impairment trace:"
                    " differences in pairs within them are not to be trusted.",
                )
            )
        if self.row["corpus_warning"]:
            said.append(("warn", str(self.row["corpus_warning"])))
        if not self.row["finished_utc"]:
            said.append(("warn", "This run is not finished: figures are of the cells so far."))
        said += [("note", text) for text in sections.sessions_of(self.run)]
        trouble = [f"{counts[name]} {name}" for name in _STATUSES[1:] if counts.get(name)]
        if total == 0:
            said.append(("warn", "No cell was run."))
        elif not counts.get("ok"):
            said.append(("warn", f"None of the {total} cells is ok ({', '.join(trouble)})."))
        elif trouble:
            said.append(
                (
                    "warn",
                    f"{', '.join(trouble)} of {total} cells; they enter no figure and are listed"
                    " below with their reasons.",
                )
            )
        random = sorted(cells.loc[cells["weights"] == "random", "codec"].unique())
        if random:
            said.append(
                (
                    "warn",
                    f"Random weights: {', '.join(random)} was never trained. Its delays and"
                    " bitrates are real, its sound means nothing and has no quality score.",
                )
            )
        if warning := sections.generative_warning(self.run):
            said.append(("warn", warning))
        if warning := sections.misaligned(self.run):
            said.append(("warn", warning))
        if warning := sections.without_pesq(self.run):
            said.append(("warn", warning))
        if note := sections.unsteady_pesq(self.run):
            said.append(("note", note))
        quality = self.summary[self.summary["figure"] == self.rank.key]
        fine = tables.ok_cells(self.run)["cell_id"]
        unscored = int((~fine.isin(self.run.scores["cell_id"])).sum())
        if unscored:
            said.append(("warn", f"{unscored} of {len(fine)} ok cells are not scored."))
        uneven = [verdict.network for verdict in judged if verdict.uneven]
        if uneven:
            said.append(
                (
                    "warn",
                    f"On {', '.join(uneven)} not all means are over the same utterances, for"
                    " cells dropped out: means there differ by utterance, too; only differences"
                    " in pairs compare like with like.",
                )
            )
        utterances = int(quality["utterances"].max()) if len(quality) else 0
        if 0 < utterances < MIN_CLUSTERS:
            said.append(
                (
                    "warn",
                    f"Only {utterances} utterance{'s' * (utterances > 1)}: no interval and no"
                    f" claim is possible below {MIN_CLUSTERS}. Brackets give the lowest and"
                    " highest mean of an utterance, nothing more.",
                )
            )
        if self.row["git_dirty"]:
            said.append(("warn", "Made by a harness with uncommitted changes."))
        return said

    def _unscored(self) -> dict[str, str]:
        """Per network, the commonest reason for a missing ranking figure."""
        mine = self.summary[self.summary["figure"] == self.rank.key]
        missing = mine[mine["mean"].isna()]
        return {
            str(name): str(rows["reason"].mode()[0]) for name, rows in missing.groupby("network")
        }

    def _name(self, name: Sequence[str]) -> str:
        """Of a (transport, receiver, codec); what a run has only one of goes without saying."""
        transport, receiver, codec = name
        parts = [f"{codec} (control)" if codec == self.added.codec else codec]
        if len(self.order.transports) > 1:
            parts.append(transport)
        if len(self.order.receivers) > 1:
            parts.append(receiver)
        return " · ".join(parts)

    def _rows(self, table: pd.DataFrame, what: str) -> list[dict[Hashable, Any]]:
        if len(table) > MAX_ROWS:
            self.left_out.append(f"{len(table) - MAX_ROWS} of {len(table)} {what}.")
        return table.head(MAX_ROWS).to_dict("records")

    def _heat(self, shown: Shown) -> dict[str, Any]:
        """One table per transport and receiver: codec by network."""
        rows = self.summary[self.summary["figure"] == shown.key]
        found = {tuple(row[n] for n in CONFIGURATION): row for row in rows.to_dict("records")}
        grids = []
        for transport, receiver in self._listeners():
            lines = []
            for codec in self.order.codecs:
                cells = [
                    found.get((network, transport, receiver, codec))
                    for network in self.order.networks
                ]
                if any(cells):
                    lines.append((codec, [_heat_cell(shown, cell) for cell in cells]))
            grids.append((self._listener(transport, receiver), lines))
        return {"shown": shown, "grids": grids, "networks": self.order.networks}

    def _drawings(self, what: str, drawn: list[sections.Drawing]) -> list[sections.Drawing]:
        if len(drawn) > MAX_PANELS:
            self.left_out.append(f"{len(drawn) - MAX_PANELS} of {len(drawn)} drawings of {what}.")
        return drawn[:MAX_PANELS]

    def _limited(self, what: str, found: sections.Drawings | None) -> sections.Drawings | None:
        return found and replace(found, drawings=self._drawings(what, found.drawings))

    def _listeners(self) -> list[tuple[str, str]]:
        pairs = set(zip(self.shown.cells["transport"], self.shown.cells["receiver"], strict=True))
        return [
            (t, r) for t in self.order.transports for r in self.order.receivers if (t, r) in pairs
        ]

    def _listener(self, transport: str, receiver: str) -> str:
        return f"{transport} · {receiver}" if len(self.order.receivers) > 1 else transport

    def _panels(
        self, what: str, draws: Iterable[tuple[str, Callable[[Axes], None], tuple[float, float]]]
    ) -> list[Panel]:
        """SVGs of at most ``MAX_PANELS`` drawings: (title, draw, size in inches)."""
        every = list(draws)
        if len(every) > MAX_PANELS:
            self.left_out.append(f"{len(every) - MAX_PANELS} of {len(every)} drawings of {what}.")
        return [
            Panel(
                title,
                Markup(figures.svg(f"{what.split()[0]}{i}", draw, size, f"{what}: {title}")),
            )
            for i, (title, draw, size) in enumerate(every[:MAX_PANELS])
        ]

    def _scatter(self) -> list[Panel]:
        quality = self.summary[(self.summary["figure"] == "pesq_wb")].dropna(subset=["mean"])

        def draw(network: str) -> Callable[[Axes], None]:
            return lambda axes: figures.quality_against_delay(
                axes, self.summary, network, self.colours, self.markers
            )

        there = set(quality["network"])
        return self._panels(
            "quality against delay",
            ((n, draw(n), (4.2, 3.1)) for n in self.order.networks if n in there),
        )

    def _latency(self) -> list[Panel]:
        parts = tables.latency_parts(self.shown)
        if parts.empty:
            return []
        panels = []
        for network in self.order.networks:
            mine = self._sorted(parts[parts["network"] == network])
            if len(mine):
                names = zip(mine["transport"], mine["receiver"], mine["codec"], strict=True)
                labels = [self._name(name) for name in names]
                longest = float(mine.filter(like="_ms").clip(lower=0).sum(axis=1).max())
                panels.append((network, _bars(mine, labels, longest), _tall(len(mine))))
        return self._panels("latency by part", panels)

    def _sorted(self, rows: pd.DataFrame) -> pd.DataFrame:
        """By codec, transport and receiver, in the report's order."""
        return _sorted(rows, self.order, ("codec", "transport", "receiver"))

    def _fates(self) -> list[Panel]:
        shares = tables.fates(self.shown)
        if shares.empty:
            return []
        lost = list(tables.FATES[1:])
        top = max(0.02, float(shares[lost].sum(axis=1).max()) * 1.05)
        panels = []
        for network in self.order.networks:
            for transport in self.order.transports:
                mine = shares[(shares["network"] == network) & (shares["transport"] == transport)]
                if len(mine) and mine[lost].to_numpy().any():
                    panels.append((f"{network} · {transport}", _areas(mine, top), (4.2, 2.1)))
        return self._panels("fates over time", panels)

    def _strips(self) -> list[Panel]:
        chosen = tables.choose_clips(self.shown, self.order.networks)
        if chosen is None:
            return []
        cells = tables.ok_cells(self.shown)
        cells = cells[
            (cells["utterance"] == chosen.utterance) & (cells["repetition"] == chosen.repetition)
        ]
        panels = []
        for network in self.order.networks:
            strips = []
            for cell in self._sorted(cells[cells["network"] == network]).to_dict("records"):
                runs = tables.fate_runs(self.shown, cell["cell_id"])
                name = self._name((cell["transport"], cell["receiver"], cell["codec"]))
                strips.append((name, runs))
            if any(runs for _, runs in strips):
                seconds = float(cells["media_s"].max())
                panels.append((network, _strips(strips, seconds), _tall(len(strips))))
        return self._panels("packets of one utterance", panels)

    def _take(self, clip: tables.Clip) -> Take | None:
        cells = self.run.cells
        cell = cells[cells["cell_id"] == clip.cell_id].iloc[0]
        reference = audio.read_track(self.run_dir / cell["audio_reference"])
        media = audio.read_track(self.run_dir / cell["audio_media"])
        if reference is None or media is None:
            return None
        seconds = max(reference.seconds, media.seconds, 0.001)
        runs = tables.frame_runs(self.run, clip.cell_id)
        mine = self.run.scores[self.run.scores["cell_id"] == clip.cell_id]
        value = mine.set_index(["metric", "mode", "track"])["value"].to_dict()
        words = [
            f"{shown.label} {number(value[key] * shown.scale, shown.digits)}"
            + f" {shown.unit}" * (shown.metric != "pesq")
            for shown in map(BY_KEY.__getitem__, _TAKE)
            if (key := (shown.metric, shown.mode, shown.track)) in value
            and not _missing(value[key])
        ]
        return Take(
            network=clip.network,
            place=clip.place,
            label=self._name((cell["transport"], cell["receiver"], cell["codec"])),
            figures=", ".join(words),
            reference=cell["audio_reference"],
            media=cell["audio_media"],
            links=_links(cell),
            wave_reference=audio.wave(reference, seconds),
            wave_media=audio.wave(media, seconds),
            marks=audio.marks(runs, seconds),
            seconds=seconds,
            uris={cell["audio_reference"]: reference.uri, cell["audio_media"]: media.uri},
        )

    def _other_audio(self, carried: set[str]) -> list[tuple[str, list[tuple[str, str]]]]:
        """Cells whose audio is not in the page: what they are, and links."""
        cells = self.run.cells[self.run.cells["audio_media"].notna()]
        cells = cells[~cells["audio_media"].isin(carried)]
        cells = cells.sort_values([*CONFIGURATION, "utterance", "repetition"])
        return [
            (
                " / ".join(str(cell[n]) for n in [*CONFIGURATION, "utterance", "repetition"]),
                _links(cell),
            )
            for _, cell in cells.iterrows()
        ]

    def _table(self, summary: pd.DataFrame, order: tables.Order) -> list[dict[str, Any]]:
        """Every configuration of ``summary`` with every figure."""
        rows = summary.to_dict("records")
        found = {(*(row[n] for n in CONFIGURATION), row["figure"]): row for row in rows}
        counts = self.run.cells.groupby([*CONFIGURATION, "status"]).size().to_dict()
        names = _sorted(
            summary[CONFIGURATION].drop_duplicates(),
            order,
            ("network", "codec", "transport", "receiver"),
        )
        lines = [
            {
                "key": key,
                "cells": [(shown, found[(*key, shown.key)]) for shown in self.figures],
                "ok": counts.get((*key, "ok"), 0),
                "of": sum(counts.get((*key, status), 0) for status in _STATUSES),
            }
            for key in names.itertuples(index=False, name=None)
        ]
        if len(lines) > MAX_ROWS:
            self.left_out.append(f"{len(lines) - MAX_ROWS} of {len(lines)} rows of the full table.")
        return lines[:MAX_ROWS]

    def _swept_table(self) -> list[dict[str, Any]]:
        """The configurations that stand for points of sweeps and are shown nowhere else."""
        there = self.summary[CONFIGURATION].drop_duplicates().assign(shown=True)
        rest = self.every.merge(there, on=CONFIGURATION, how="left")
        rest = rest[rest["shown"].isna()].drop(columns="shown")
        return self._table(rest, tables.order(self.run, self.every)) if len(rest) else []

    def _facts(self, codec: str) -> str:
        """What one codec is, in words: kind, bitrate, frame, library."""
        cells = self.run.cells[self.run.cells["codec"] == codec]
        facts = next((json.loads(text) for text in cells["codec_facts"].dropna()), None)
        if facts is None:
            return "never started"
        rate = facts["nominal_bitrate_bps"] / 1000
        frame_ms = 1000 * facts["frame_samples"] / facts["sample_rate_hz"]
        return (
            f"{cells['codec_kind'].iloc[0]}, {rate:g} kbit/s, {frame_ms:.4g} ms frames at"
            f" {facts['sample_rate_hz'] / 1000:g} kHz, {facts['library']}"
        )

    def _yaml(self) -> str:
        text = str(self.row["scenario_yaml"] or "")
        if len(text) > MAX_YAML:
            self.left_out.append(f"All but the first {MAX_YAML} characters of the scenario.")
        return text[:MAX_YAML]

    def _provenance(self) -> list[tuple[str, list[tuple[str, str]]]]:
        row = self.row
        git = (
            None if not row["git_sha"] else f"{row['git_sha']}{' (dirty)' * bool(row['git_dirty'])}"
        )
        run = {
            "run": row["run_id"],
            "scenario": row["scenario"],
            "scenario's hash": row["config_sha256"],
            "started (UTC)": row["started_utc"],
            "finished (UTC)": row["finished_utc"],
            "wall time": row["wall_s"] and f"{row['wall_s']:.0f} s",
            "streaming": row["stream_s"]
            and f"{row['stream_s']:.0f} s for {row['audio_s'] or 0:.0f} s of audio,"
            f" {row['jobs']} cells side by side",
            "harness": git,
            "schema": row["schema_version"],
        }
        sections = {"Run": run}
        for title, column in (("Host", "host"), ("Lab", "engine"), ("Versions", "versions")):
            sections[title] = json.loads(row[column] or "{}")
        for number, later in enumerate(json.loads(row["sessions"] or "[]")[1:], start=2):
            sections[f"Session {number}"] = later
        return [
            (title, [(str(key), _flat(value)) for key, value in facts.items()])
            for title, facts in sections.items()
            if facts
        ]

    def _items(self) -> list[dict[str, str]]:
        used = set(self.run.cells["utterance"])
        items = json.loads(self.row["items"] or "{}")
        return [
            {
                "id": name,
                "corpus": str(item.get("corpus") or ""),
                "seconds": number(item.get("prepared_seconds"), 1),
                "licence": str(item.get("licence") or "not known"),
                "attribution": str(item.get("attribution") or ""),
                "source": str(item.get("source") or ""),
                "steps": "; ".join(_step(step) for step in item.get("steps", [])),
                "warnings": "; ".join(item.get("warnings", [])),
            }
            for name, item in sorted(items.items())
            if name in used
        ]


_STATUSES = ("ok", "invalid", "failed", "unsupported")


def number(value: Any, digits: int = 2) -> str:
    """Fixed digits, thousands apart; a dash where there is no value."""
    if _missing(value):
        return NO_VALUE
    return f"{float(value):,.{digits}f}".replace("-", "−")


def spread(low: Any, high: Any, digits: int = 2) -> str:
    """``[low, high]``; empty where there is none."""
    return "" if _missing(low) else f"[{number(low, digits)}, {number(high, digits)}]"


def signed(value: Any, digits: int = 2) -> str:
    """Of a difference: with its sign."""
    text = number(value, digits)
    return text if text == NO_VALUE or text.startswith("−") else f"+{text}"


def measure(value: Any) -> str:
    """A figure of any size: four significant digits."""
    return NO_VALUE if _missing(value) else f"{float(value):,.4g}"


def p_value(value: Any) -> str:
    """Three digits, and no p-value that looks like zero."""
    return "< 0.001" if not _missing(value) and value < 0.001 else number(value, 3)


def short(value: float) -> str:
    """Three significant digits, for what has an interval beside it."""
    return f"{value:.3g}"


def _sorted(rows: pd.DataFrame, order: tables.Order, by: Sequence[str]) -> pd.DataFrame:
    places: Mapping[str, tuple[str, ...]] = {
        "network": order.networks,
        "codec": order.codecs,
        "transport": order.transports,
        "receiver": order.receivers,
    }
    return rows.sort_values(
        list(by), key=lambda column: column.map(places[str(column.name)].index), kind="stable"
    )


def _environment() -> jinja2.Environment:
    made = plain.environment()
    made.filters |= {
        "number": number,
        "signed": signed,
        "measure": measure,
        "short": short,
        "p_value": p_value,
    }
    made.globals |= {"spread": spread}
    return made


def _heat_cell(shown: Shown, row: Mapping[Hashable, Any] | None) -> dict[str, Any]:
    if row is None:
        return {"text": NO_VALUE, "spread": "", "n": "", "style": "", "title": "not in the matrix"}
    if _missing(row["mean"]):
        return {"text": NO_VALUE, "spread": "", "n": "", "style": "", "title": row["reason"]}
    low, high = _SCALES[shown.key]
    at = (_BENDS.get(shown.key, float)(row["mean"]) - low) / (high - low)
    good = at if shown.better == "higher" else 1 - at
    red, green, blue, _ = mpl.colormaps["cividis"](float(np.clip(good, 0, 1)))
    ink = "#000" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "#fff"
    return {
        "text": number(row["mean"], shown.digits),
        "spread": spread(row["low"], row["high"], shown.digits),
        "n": row["n"],
        "style": f"background:{to_hex((red, green, blue))};color:{ink}",
        "title": f"{row['n']} cells of {row['utterances']} utterances",
    }


def _bars(parts: pd.DataFrame, labels: list[str], longest: float) -> Callable[[Axes], None]:
    return lambda axes: figures.latency_bars(axes, parts, labels, longest)


def _areas(shares: pd.DataFrame, top: float) -> Callable[[Axes], None]:
    return lambda axes: figures.fates_over_time(axes, shares, top)


def _strips(
    strips: list[tuple[str, list[tuple[str, float, float]]]], seconds: float
) -> Callable[[Axes], None]:
    return lambda axes: figures.fate_strips(axes, strips, seconds)


def _tall(rows: int) -> tuple[float, float]:
    """Size in inches of a panel with a line of text for each row."""
    return 4.6, 0.6 + 0.2 * rows


def _links(cell: Mapping[str, Any] | pd.Series) -> list[tuple[str, str]]:
    paths = [(name, _text(cell[f"audio_{name}"])) for name in ("reference", "media", "played")]
    return [(name, quote(path)) for name, path in paths if path]


def _step(step: Mapping[str, Any]) -> str:
    details = ", ".join(f"{key} {_flat(value)}" for key, value in step.items() if key != "step")
    return f"{step.get('step', '')} ({details})" if details else str(step.get("step", ""))


def _flat(value: Any) -> str:
    if value is None:
        return NO_VALUE
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _said(text: Any) -> list[str]:
    return [text] if text else []


def _plain(value: Any) -> Any:
    """None for every kind of null; Python's own number for numpy's."""
    if _missing(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def _missing(value: Any) -> bool:
    return value is None or bool(pd.isna(value))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None

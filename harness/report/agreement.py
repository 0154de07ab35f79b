"""How far labs and engines agree, as a page, as Markdown for documents, and as tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from harness.report.plain import Section, Value, page, write
from harness.stats import MIN_CLUSTERS
from harness.stats.agreement import (
    AGREES,
    CANNOT_TELL,
    CONFIGURATION,
    DIFFERS,
    FIGURES,
    Figure,
)
from harness.stats.difference import SIGNIFICANT

NO_VALUE = "–"
MARKS = {AGREES: "", DIFFERS: " ✗", CANNOT_TELL: " ?"}
_BY_KEY = {figure.key: figure for figure in FIGURES}
_GROUPS = {
    "The network": ("delay_p50", "delay_p95", "delay_p99", "pdv_p95", "loss", "burst", "late"),
    "The listener": ("mouth_to_ear_p50", "mouth_to_ear_p95", "pesq_wb", "stoi"),
}


@dataclass(frozen=True)
class Leg:
    """One run among those compared. ``kind`` is ``lab/link``; ``shared`` counts the cells that are
    ``ok`` here and in the reference; ``why_not`` is the commonest reason of those that are not."""

    name: str
    kind: str
    run: Path
    host: str
    statuses: Mapping[str, int]
    shared: int
    why_not: str | None
    config_sha256: str
    corpus_warning: str | None


@dataclass(frozen=True)
class Compared:
    """``figures`` are :func:`harness.stats.agreement.judged`, ``fates`` those of all legs with
    ``promised`` (must be identical) and ``broken`` (is not); both with the leg's name as
    ``against``. ``absent`` are legs that could not run, with the reason."""

    legs: Sequence[Leg]
    figures: pd.DataFrame
    fates: pd.DataFrame
    absent: Mapping[str, str]

    @property
    def counts(self) -> dict[str, int]:
        """Figures compared, by verdict."""
        found = self.figures["verdict"].value_counts()
        return {verdict: int(found.get(verdict, 0)) for verdict in MARKS}


@dataclass(frozen=True)
class Grid:
    """A table by network and codec of one leg: ``rows`` are configurations, ``entries`` the rows
    of ``figures`` by column (None where not compared)."""

    leg: str
    title: str
    columns: Sequence[Figure]
    names: Sequence[str]
    rows: Sequence[tuple[Sequence[str], Sequence[pd.Series | None]]]


def write_agreement(directory: Path, name: str, compared: Compared) -> None:
    """``agreement.parquet``, ``fates.parquet``, ``legs.json``, ``agree.md``, ``agree.html``."""
    compared.figures.to_parquet(directory / "agreement.parquet", index=False)
    compared.fates.to_parquet(directory / "fates.parquet", index=False)
    legs = [{**asdict(leg), "run": str(leg.run)} for leg in compared.legs]
    write(directory / "legs.json", json.dumps(legs, indent=1))
    write(directory / "agree.md", markdown(name, compared))
    write(directory / "agree.html", _page(name, compared))


def verdict(compared: Compared) -> str:
    """One sentence."""
    counts, total = compared.counts, len(compared.figures)
    proven = int(compared.figures["proven"].sum())
    broken = int(compared.fates["broken"].sum())
    said = (
        f"Of {total} figures {counts[AGREES]} agree ({proven} with their whole interval within the"
        f" resolution), {counts[DIFFERS]} differ, of {counts[CANNOT_TELL]} one cannot tell"
    )
    if broken:
        said += f"; on {broken} networks other packets were lost than should have been"
    return said + "."


def grids(compared: Compared) -> Iterator[Grid]:
    """The comparison as tables, leg by leg, figures of the network and of the listener apart."""
    table = compared.figures
    # Transport and receiver are named only where there are several.
    names = [n for n in CONFIGURATION if n in ("network", "codec") or table[n].nunique() > 1]
    for leg in compared.legs[1:]:
        mine = table[table["against"] == leg.name]
        for title, keys in _GROUPS.items():
            shown = [_BY_KEY[key] for key in keys if (mine["figure"] == key).any()]
            rows = []
            for configuration, found in mine.groupby(CONFIGURATION):
                by_figure = {row["figure"]: row for _, row in found.iterrows()}
                of = dict(zip(CONFIGURATION, configuration, strict=True))
                entries = [by_figure.get(figure.key) for figure in shown]
                if any(entry is not None for entry in entries):
                    rows.append(([str(of[name]) for name in names], entries))
            if rows:
                yield Grid(leg.name, title, shown, names, rows)


def difference(row: pd.Series | None) -> Value:
    """An entry of a grid: difference and mark, coloured where it differs; below it the interval
    and the reference's own mean."""
    if row is None:
        return Value(NO_VALUE)
    digits = _BY_KEY[row["figure"]].digits
    text = f"{_signed(row['difference'], digits)}{MARKS[row['verdict']]}"
    below = f"of {row['reference']:.{digits}f}"
    if not pd.isna(row["low"]):
        low, high = (_signed(row[bound], digits) for bound in ("low", "high"))
        below = f"[{low}, {high}] {below}"
    return Value(text, below, row["verdict"] == DIFFERS)


def markdown(name: str, compared: Compared) -> str:
    """The comparison as GitHub Markdown."""
    lines = [f"# Agreement of labs and engines: {name}", "", verdict(compared), ""]
    lines += [f"* {text}" for text in (*_explained(compared), *_notices(compared))]
    lines += ["", *_md_table(_LEG_COLUMNS, _leg_rows(compared), 2)]
    for grid in grids(compared):
        lines += ["", f"## {grid.leg} against {compared.legs[0].name}: {grid.title.lower()}", ""]
        columns = [*grid.names, *map(_headed, grid.columns)]
        rows = [[*names, *map(str, map(difference, found))] for names, found in grid.rows]
        lines += _md_table(columns, rows, len(grid.names))
    if len(compared.fates):
        lines += ["", "## Lost packets, one by one", ""]
        lines += _md_table(_FATE_COLUMNS, _fate_rows(compared), 3)
    return "\n".join(lines) + "\n"


def _page(name: str, compared: Compared) -> str:
    sections = [Section("Legs", (), columns=_LEG_COLUMNS, rows=_leg_rows(compared), text_columns=2)]
    for grid in grids(compared):
        rows: list[list[str | Value]] = [
            [*names, *map(difference, found)] for names, found in grid.rows
        ]
        sections.append(
            Section(
                f"{grid.leg} against {compared.legs[0].name}: {grid.title.lower()}",
                columns=[*grid.names, *map(_headed, grid.columns)],
                rows=rows,
                text_columns=len(grid.names),
            )
        )
    if len(compared.fates):
        title = "Lost packets, one by one"
        rows = _fate_rows(compared)
        sections.append(Section(title, columns=_FATE_COLUMNS, rows=rows, text_columns=3))
    sections.append(Section("How to read this", _explained(compared)))
    notices = [("note", verdict(compared)), *(("warn", text) for text in _notices(compared))]
    return page(f"Agreement: {name}", "labs and link engines, compared", notices, sections)


_LEG_COLUMNS = ("leg", "host", "ok", "not ok", "ok in the reference, too")
_FATE_COLUMNS = (
    "leg", "network", "impairment", "cells", "with loss", "identical", "packets", "of them in both",
)  # fmt: skip


def _leg_rows(compared: Compared) -> list[list[str | Value]]:
    return [
        [
            leg.name,
            leg.host,
            str(leg.statuses.get("ok", 0)),
            ", ".join(f"{n} {s}" for s, n in sorted(leg.statuses.items()) if s != "ok") or "0",
            str(leg.shared),
        ]
        for leg in compared.legs
    ]


def _fate_rows(compared: Compared) -> list[list[str | Value]]:
    return [
        [
            str(row["against"]),
            str(row["network"]),
            str(row["impairment"]),
            str(row["cells"]),
            str(row["lossy"]),
            Value(str(row["identical"]) + (" ✗" if row["broken"] else ""), bad=row["broken"]),
            str(row["packets"]),
            str(row["shared"]),
        ]
        for _, row in compared.fates.iterrows()
    ]


def _explained(compared: Compared) -> list[str]:
    resolutions = ", ".join(
        f"{figure.label} {figure.resolution:g}{' ' + figure.unit if figure.unit else ''}"
        for figure in FIGURES
    )
    return [
        f"Differences are the leg minus {compared.legs[0].name}, cell by cell, averaged over"
        " utterances, with 95 % intervals (Student's, over utterances), and then the mean of"
        f" {compared.legs[0].name} itself. Only cells that are ok in both count.",
        f"✗ differs: larger than the figure's resolution beyond chance (sign flips about it,"
        f" p ≤ {SIGNIFICANT}, all figures here being one family). ? cannot tell: larger than the"
        " resolution, its interval leaves out 0, but that may be chance; or fewer than"
        f" {MIN_CLUSTERS} utterances. No mark: agrees, within the resolution or with 0 in the"
        " interval.",
        f"Resolutions: {resolutions}.",
        "Under loss in media time a modelled link (the virtual lab's, the relay's) is to lose the"
        " very same packets; elsewhere the packets in common are for information.",
    ]


def _notices(compared: Compared) -> list[str]:
    said = [f"{name} could not run here: {why}" for name, why in compared.absent.items()]
    reference = compared.legs[0]
    for leg in compared.legs:
        if leg.corpus_warning:
            said.append(f"{leg.name}: {leg.corpus_warning}")
        if leg.why_not:
            said.append(f"{leg.name}: cells left out, most for this reason: {leg.why_not}")
        if leg.config_sha256 != reference.config_sha256:
            said.append(f"{leg.name} ran another version of the scenario than {reference.name}")
    return said


def _headed(figure: Figure) -> str:
    return f"{figure.label} ({figure.unit})" if figure.unit else figure.label


def _signed(value: float, digits: int) -> str:
    rounded = f"{value:+.{digits}f}"
    return rounded[1:] if float(rounded) == 0 else rounded


def _md_table(
    columns: Sequence[str], rows: Sequence[Sequence[str | Value]], text_columns: int
) -> list[str]:
    def line(values: Sequence[str | Value]) -> str:
        return "| " + " | ".join(str(value).replace("|", "\\|") for value in values) + " |"

    rule = ["---" if n < text_columns else "---:" for n in range(len(columns))]
    return [line(columns), line(rule), *map(line, rows)]

"""Do the labs and link engines agree? ``harness agree``: the same cells, leg by leg, compared.

A leg is a run of the scenario in one lab on one link engine, made here or, on another machine or
under another kernel, before. The first leg is the reference. :mod:`harness.stats.agreement` says
when two legs agree.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from harness import scenario
from harness.assets import AssetStore
from harness.errors import BadInput, MachineCannot
from harness.network import probe
from harness.report.agreement import Compared, Leg, write_agreement
from harness.run import Options, run
from harness.runners import Observer
from harness.stats.agreement import DIFFERS, compare, fates, judged, values
from harness.store import Tables, load, new_directory

LEGS = {
    "virtual": ("virtual", "model"),
    "netns/relay": ("netns", "relay"),
    "netns/netem": ("netns", "netem"),
    "docker/relay": ("docker", "relay"),
    "docker/netem": ("docker", "netem"),
}
"""What can be run, by name: lab and link engine."""
_MODELLED = {"virtual/model", "netns/relay", "docker/relay"}
"""Legs whose links are the same code and seed: under a trace in media time they lose the same."""


@dataclass(frozen=True)
class Wanted:
    """What the command line says. ``labs`` None: all that run here, unless runs are given."""

    scenario: Path | None
    labs: tuple[str, ...] | None = None
    runs: tuple[Path, ...] = ()
    out: Path = Path("results")
    only: str | None = None
    jobs: int | None = None


@dataclass(frozen=True)
class Outcome:
    """``differing`` counts the figures, and the sets of lost packets, that should not differ."""

    directory: Path
    compared: Compared
    differing: int


def agree(wanted: Wanted, observer: Observer) -> Outcome:
    """Run what is to be run, compare, and write tables, ``agree.md`` and ``agree.html``.

    Raises BadInput where there are not two legs, or they have no cell in common; MachineCannot for
    a lab that was asked for and cannot run.
    """
    labs, absent = _labs(wanted)
    if len(labs) + len(wanted.runs) < 2:
        named = ", ".join([*labs, *map(str, wanted.runs)]) or "none"
        reasons = "".join(f"; {name}: {why}" for name, why in absent.items())
        raise BadInput(
            f"expected two legs at least, got {named}: give --labs, or finished runs by --with"
            f"{reasons}"
        )
    earlier = [(path, load(path)) for path in wanted.runs]
    name = _name(wanted, [tables for _, tables in earlier])
    directory = new_directory(wanted.out, f"agree-{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    runs = []
    for lab in labs:
        assert wanted.scenario is not None
        observer.note(f"leg {lab}")
        kind, link = LEGS[lab]
        options = Options(
            wanted.scenario,
            directory / "legs",
            kind,
            link,
            only=wanted.only,
            jobs=wanted.jobs,
        )
        outcome = run(options, observer)
        if outcome.interrupted:
            raise KeyboardInterrupt
        runs.append((outcome.directory, load(outcome.directory)))
    compared = compare_runs([*runs, *earlier], absent)
    differing = int((compared.figures["verdict"] == DIFFERS).sum())
    differing += int(compared.fates["broken"].sum())
    write_agreement(directory, name, compared)
    return Outcome(directory, compared, differing)


def compare_runs(
    runs: Sequence[tuple[Path, Tables]], absent: dict[str, str] | None = None
) -> Compared:
    """The comparison of finished runs with the first of them. Raises BadInput where one has no
    ``ok`` cell in common with it. ``absent`` names legs that could not be run, with the reason."""
    legs = _legs(runs)
    reference, first = legs[0], runs[0][1]
    mine = values(first.cells, first.scores)
    lost = _lost(first)
    figures, fate_rows = [], []
    for leg, (path, tables) in zip(legs[1:], runs[1:], strict=True):
        shared = first.cells.merge(tables.cells, on="cell_id", suffixes=("", "_leg"))
        both = (shared["status"] == "ok") & (shared["status_leg"] == "ok")
        if not both.any():
            raise BadInput(
                f"{path}: expected cells that are ok here and in {runs[0][0]}, got none;"
                " compare runs of the same version of one scenario"
            )
        figures.append(compare(mine, values(tables.cells, tables.scores)).assign(against=leg.name))
        found = fates((first.cells, tables.cells), (lost, _lost(tables)))
        promised = {reference.kind, leg.kind} <= _MODELLED
        in_media_time = found["impairment"].str.contains("media-time")
        found["promised"] = in_media_time & promised
        found["broken"] = found["promised"] & (found["identical"] < found["lossy"])
        fate_rows.append(found.assign(against=leg.name))
    return Compared(
        legs=legs,
        figures=judged(pd.concat(figures, ignore_index=True)),
        fates=pd.concat(fate_rows, ignore_index=True),
        absent=absent or {},
    )


def possible() -> tuple[list[str], dict[str, str]]:
    """The legs that can run on this machine, and why the others cannot."""
    absent: dict[str, str] = {}
    netem = probe.can_netem()
    try:
        relay = None if probe.on_this_machine()["relay"] else "no packet sockets"
        namespaces = None
    except MachineCannot as error:
        relay, namespaces = None, str(error)
    docker = _reason(_docker)
    for name, (lab, link) in LEGS.items():
        if lab == "virtual":
            continue
        reason = docker if lab == "docker" else namespaces
        reason = reason or (netem if link == "netem" else relay if lab == "netns" else None)
        if reason:
            absent[name] = reason
    return [name for name in LEGS if name not in absent], absent


def _reason(attempt: Callable[[], None]) -> str | None:
    try:
        attempt()
    except MachineCannot as error:
        return str(error)
    return None


def _docker() -> None:
    from harness.labs.docker import connect

    connect().close()


def _labs(wanted: Wanted) -> tuple[list[str], dict[str, str]]:
    labs = wanted.labs
    if labs is None and wanted.runs:
        labs = ()
    if labs is None:
        found, absent = possible()
    else:
        found, absent = [name.removesuffix("/model") for name in labs], {}
        if unknown := [name for name in found if name not in LEGS]:
            raise BadInput(f"--labs: expected some of {', '.join(LEGS)}, got {', '.join(unknown)}")
    if found and wanted.scenario is None:
        raise BadInput("expected a scenario FILE to run, or finished runs by --with alone")
    return found, absent


def _name(wanted: Wanted, earlier: Sequence[Tables]) -> str:
    if wanted.scenario is not None:
        return scenario.load(wanted.scenario, AssetStore.default().content).name
    return str(earlier[0].runs.iloc[0]["scenario"])


def _legs(runs: Sequence[tuple[Path, Tables]]) -> list[Leg]:
    legs: list[Leg] = []
    known = set(runs[0][1].cells.loc[runs[0][1].cells["status"] == "ok", "cell_id"])
    for path, tables in runs:
        row, cells = tables.runs.iloc[0], tables.cells
        kind = name = f"{row['lab']}/{row['link']}"
        if any(leg.name == name for leg in legs):
            name = f"{name} ({row['run_id']})"
        ok = set(cells.loc[cells["status"] == "ok", "cell_id"])
        reasons = cells.loc[cells["status"] != "ok", "reason"].dropna()
        legs.append(
            Leg(
                name=name,
                kind=kind,
                run=path,
                host=_host(row),
                statuses={str(k): int(n) for k, n in cells["status"].value_counts().items()},
                shared=len(ok & known),
                why_not=str(reasons.mode()[0]) if len(reasons) else None,
                config_sha256=str(row["config_sha256"]),
                corpus_warning=None if pd.isna(row["corpus_warning"]) else row["corpus_warning"],
            )
        )
    return legs


def _host(row: pd.Series) -> str:
    host = json.loads(row["host"])
    parts = (host.get(key) for key in ("system", "kernel", "cpu", "cores_usable"))
    return ", ".join(str(part) for part in parts if part is not None) + " cores"


def _lost(tables: Tables) -> pd.DataFrame:
    """``cell_id, seq`` of what the link lost."""
    parts = [
        batch.loc[batch["fate"] == "lost", ["cell_id", "seq"]]
        for batch in tables.packet_batches(["cell_id", "seq", "fate"])
    ]
    return pd.concat(parts, ignore_index=True)

"""What a run began with is what it goes on with, or ``--resume`` says why not.

Cells of one run are compared with each other: they share the scenario, the samples, the lab with
its engine, and the host. Versions of software may differ between sessions; each is kept.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.assets import Corpus, Prepared
from harness.errors import BadInput
from harness.plan import Plan
from harness.scenario import Scenario, config_sha256

SESSION = ("host", "engine", "versions", "git_sha", "git_dirty", "jobs")
"""Columns of ``runs`` that each session has its own of."""
_JSON = ("host", "engine", "versions")
_HOST = ("machine_id", "system", "kernel", "machine", "cpu", "cores")
"""By which facts two hosts are told apart."""
_NAMED = 5
_NEW = "or start a new run"


def check_scenario(row: Mapping[str, Any], wanted: Scenario, run: Path, file: Path) -> None:
    """Raises BadInput where the run was made from another version of the scenario."""
    if row["config_sha256"] not in (None, config_sha256(wanted)):
        raise BadInput(
            f"{run} was made from another version of {file}: its cells and these are not the same;"
            f" start a new run, or restore the scenario from {run}/runs.parquet (column"
            " scenario_yaml)"
        )


def check_samples(
    row: Mapping[str, Any], corpus: Corpus, references: Mapping[str, Prepared], run: Path
) -> None:
    """Raises BadInput where the corpus has other items than it had, or an item other samples."""
    before = set(json.loads(row["corpus"] or "[]"))
    now = {item.id for item in corpus.items}
    if before and before != now:
        gone, new = _named(before - now), _named(now - before)
        raise BadInput(
            f"{run}: began with another corpus: without {gone or 'none of its items'} now, and with"
            f" {new or 'no other'}"
            + (f" ({corpus.warning})" if corpus.warning else "")
            + f"; make its audio reachable again (harness assets list), {_NEW}"
        )
    known = json.loads(row["items"] or "{}")
    replaced = [
        f"{name} ({reference.item.source})"
        for name, reference in sorted(references.items())
        if name in known and known[name]["samples_sha256"] != reference.sha256
    ]
    if replaced:
        raise BadInput(
            f"{run}: began with other samples of {_named(replaced)}; put the files back that it"
            f" began with, {_NEW}"
        )


def check_cells(finished: Collection[str], cells: Plan, run: Path) -> None:
    """Raises BadInput where the run has cells that the whole plan has not."""
    if foreign := set(finished) - {cell.cell_id for cell in cells.cells}:
        raise BadInput(
            f"{run}: has {len(foreign)} cells that this version of the harness would not make of"
            f" its scenario, such as {min(foreign)}; go on with the version that began it (git_sha"
            f" in runs.parquet), {_NEW}"
        )


def check_host(row: Mapping[str, Any], host: Mapping[str, Any], run: Path) -> None:
    """Raises BadInput where the run began on another machine."""
    before = json.loads(row["host"] or "{}")
    differing = [
        f"{key} {before[key]} then, {host[key]} now"
        for key in _HOST
        if before.get(key) is not None and before[key] != host[key]
    ]
    if differing:
        raise BadInput(
            f"{run}: began on another host ({'; '.join(differing)}), and figures of two hosts do"
            f" not compare; go on there, {_NEW}, or mix them all the same with --other-host"
        )


def resumed_choice(what: str, asked: str, before: str | None) -> str:
    """A resumed run goes on in the lab and on the engine it began with. Raises BadInput where
    another is asked for by name."""
    if before is None or asked == before:
        return asked
    if asked == "auto":
        return before
    raise BadInput(f"--{what} {asked}: this run began with {before}; start a new run to change it")


def with_session(row: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The row of ``runs`` with one more session, whose columns of ``SESSION`` are ``facts``; in the
    row itself they stay those of the first."""
    sessions = json.loads(row["sessions"] or "[]")
    if not sessions and row["host"] is not None:  # begun before sessions were kept
        sessions = [_session(row, row["started_utc"])]
    first = not sessions
    sessions.append(_session(facts, datetime.now(UTC).isoformat(timespec="seconds")))
    return {**row, **(facts if first else {}), "sessions": json.dumps(sessions)}


def merged_items(row: Mapping[str, Any], references: Iterable[Prepared]) -> str:
    """The column ``items``: what was known, and the items of this session."""
    now = {reference.item.id: reference.provenance() for reference in references}
    return json.dumps({**json.loads(row["items"] or "{}"), **now})


def _session(facts: Mapping[str, Any], started_utc: str | None) -> dict[str, Any]:
    """Of columns that hold JSON, what they hold."""
    return {
        "started_utc": started_utc,
        **{
            key: json.loads(facts[key]) if key in _JSON and facts.get(key) else facts.get(key)
            for key in SESSION
        },
    }


def _named(names: Iterable[str]) -> str:
    """The first few."""
    names = sorted(names)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more

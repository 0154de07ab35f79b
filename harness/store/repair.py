"""Setting aside what cannot be trusted in a run's directory, so that it is made again.

For the run's owner only: everybody else reads as if damaged parts were not there, and is told of
damaged tables.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.store import parts, tables
from harness.store.disk import disk_errors, placed
from harness.store.layout import PARTS, compacted, part_paths, table_path

_MADE_AGAIN = {"cells": "streamed", "scores": "scored"}


def repair(directory: Path, run: Mapping[str, Any]) -> list[str]:
    """Move damaged parts and tables to ``damaged`` and say what becomes of their cells; drop what a
    killed process was about to write. ``run`` is the row of ``runs``."""
    with disk_errors(directory):
        shutil.rmtree(directory / "parts" / "tmp", ignore_errors=True)
        notes = [
            note for kind in PARTS if (note := _repair_tables(directory, kind, run)) is not None
        ]
    return notes + repair_parts(directory, run)


def repair_parts(directory: Path, run: Mapping[str, Any]) -> list[str]:
    """As :func:`repair`, of the parts alone."""
    notes = []
    with disk_errors(directory):
        for kind, again in _MADE_AGAIN.items():
            for path in part_paths(directory, kind):
                if parts.stamp_of(path, str(run["run_id"])) is None:
                    folder = _set_aside(directory, path)
                    notes.append(
                        f"{path}: damaged, set aside in {folder}; its cell is {again} again"
                    )
    return notes


def _repair_tables(directory: Path, kind: str, run: Mapping[str, Any]) -> str | None:
    """The tables of a kind vouch for each other: if one is damaged or missing, all go."""
    problems = []
    try:
        names = compacted(directory, PARTS[kind])
    except BadInput as error:
        names, problems = [], [_what(error)]
    for name in names:
        try:
            tables.verify(table_path(directory, name), name, str(run["run_id"]))
        except BadInput as error:
            problems.append(_what(error))
    if not problems:
        return None
    # The one that vouches for the others goes first: without it they do not count.
    for name in PARTS[kind]:
        if (path := table_path(directory, name)).exists():
            _set_aside(directory, path)
    if kind != "cells":
        for name in names:  # compacted cells without them would read as damage
            with placed(directory, table_path(directory, name), durable=True) as file:
                tables.write(file, name, [], run)
    return (
        f"{'; '.join(problems)}: the tables {', '.join(PARTS[kind])} are set aside in"
        f" {directory / 'damaged'}; the cells in there are {_MADE_AGAIN[kind]} again"
    )


def _what(error: BadInput) -> str:
    """Without the remedy, which is being applied."""
    return str(error).split(";")[0]


def _set_aside(directory: Path, path: Path) -> Path:
    folder = directory / "damaged"
    folder.mkdir(exist_ok=True)
    path.replace(folder / f"{path.parent.name}-{uuid.uuid4().hex[:6]}-{path.name}")
    return folder

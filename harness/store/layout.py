"""Where a run's directory holds what; see ``run_store.py`` for the picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.store import parts, tables

PARTS = {"cells": ("cells", "packets", "frames", "attempts"), "scores": ("scores", "legacy")}
"""The tables in each kind of part; the first vouches for the others."""
CELL_TABLES = ("legacy", "scores", "packets", "frames", "attempts", "cells")
"""In the order in which compaction puts them in place: the row that vouches for a cell last."""


def table_path(directory: Path, name: str) -> Path:
    """Of a compacted table, or of ``runs``."""
    return directory / f"{name}.parquet"


def part_path(directory: Path, kind: str, cell_id: str) -> Path:
    return directory / "parts" / kind / f"{cell_id}{parts.SUFFIX}"


def part_paths(directory: Path, kind: str) -> list[Path]:
    """Of all parts of a kind, by cell."""
    return sorted((directory / "parts" / kind).glob(f"*{parts.SUFFIX}"))


def compacted(directory: Path, names: Sequence[str] = CELL_TABLES) -> list[str]:
    """Those of ``names`` that compaction made, whether they are still there or not.

    Where cells are compacted, all tables are; but a version of the harness from before a table was
    did not make it. Raises BadInput where the table of cells is to be asked and cannot be read.
    """
    vouching = table_path(directory, "cells")
    return [
        name
        for name in names
        if table_path(directory, name).exists()
        or (vouching.exists() and tables.since(name) <= tables.version_of(vouching, "cells"))
    ]

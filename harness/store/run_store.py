"""One run's directory.

::

    results/
    |- latest -> smoke-20300102-101500
    `- smoke-20300102-101500/
       |- runs.parquet                       one row, rewritten as the run goes on
       |- cells, packets, frames, scores,   .parquet, made by compaction
       |  legacy, attempts
       |- parts/{cells,scores}/CELL.arrow    since the last compaction: the cell with its packets,
       |                                     frames and attempts, its scores with the older
       |                                     systems' figures
       |- damaged/                           what ``repair`` set aside
       |- .owner                             who writes the run (``owner.py``)
       |- decisions/CELL.csv                 of a sink, where the receiver has one
       `- audio/                             FLAC: a track per cell, a reference per item and rate

A file appears under its name when it is whole: it is written under ``parts/tmp`` and renamed. A
cell is finished when its part is there, with its digest. Compaction puts the new tables in place
before it removes parts, cells first, so that at any instant a finished cell is in a table, or in
parts, or alike in both.

The tables are sorted by cell. Their row groups hold whole cells and end with the first cell that
fills ``GROUP_ROWS``: the bytes of a table, its metadata apart, follow from its rows alone, whatever
the order in which cells ended and however often the run was interrupted. Everything but
``RunStore.tables`` works on a row group at a time, so memory does not grow with the run.
"""

from __future__ import annotations

import csv
import heapq
import io
import json
import shutil
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from harness.errors import BadInput
from harness.store import layout, parts, repair, tables
from harness.store.audio import Track, slug, write_audio
from harness.store.disk import disk_errors, new_directory, placed
from harness.store.layout import CELL_TABLES, PARTS
from harness.store.loaded import Tables
from harness.store.schema import RUNS, SCHEMA_VERSION, TABLES

GROUP_ROWS = {
    "cells": 250,
    **dict.fromkeys(("packets", "frames", "scores", "legacy", "attempts"), 32_000),
}
"""From this many rows on, a row group is closed after the cell that it is at."""
READ_ROWS = 32_000


def load(directory: Path) -> Tables:
    """The tables of a run, finished or not.

    Raises BadInput where ``directory`` holds no run, or one that cannot be read, with the remedy.
    """
    return RunStore.open(directory).tables()


class RunStore:
    """Writes a run down, cell by cell; ``write_cell`` may be called from several threads.

    Every write raises CellFailed, with the remedy, when the disk does not take it.
    """

    def __init__(self, directory: Path, run: Mapping[str, Any]) -> None:
        self.directory = directory
        self._run = dict(run)

    @classmethod
    def create(cls, root: Path, scenario_name: str, now: datetime) -> RunStore:
        """A new ``<root>/<scenario>-<time>``, with ``<root>/latest`` pointing at it."""
        stem = f"{slug(scenario_name)}-{now:%Y%m%d-%H%M%S}"
        directory = new_directory(root, stem)
        with disk_errors(root):
            _point(root / "latest", directory.name)
        store = cls(
            directory,
            {
                "run_id": f"{directory.name}-{uuid.uuid4().hex[:6]}",
                "scenario": scenario_name,
                "schema_version": SCHEMA_VERSION,
                "started_utc": now.isoformat(timespec="seconds"),
            },
        )
        store.write_run(store.run_row())
        return store

    @classmethod
    def open(cls, directory: Path) -> RunStore:
        """An existing run. Raises BadInput if there is none, or it is damaged or newer."""
        path = directory / "runs.parquet"
        if not path.is_file():
            raise BadInput(
                f"{directory}: expected the directory of a run, such as results/latest"
                " (it has no runs.parquet)"
            )
        if any(any((directory / "parts" / name).glob("*.parquet")) for name in TABLES):
            raise BadInput(
                f"{directory}: was cut off under an older version of the harness, whose parts this"
                " one does not read; go on with the version that began it (git_sha in"
                f" {path.name}), or start a new run"
            )
        rows = tables.read(path, "runs").to_pylist()
        if len(rows) != 1:
            raise BadInput(f"{path}: expected one row, got {len(rows)}")
        return cls(directory.resolve(), rows[0])

    @property
    def run_id(self) -> str:
        return str(self._run["run_id"])

    def run_row(self) -> dict[str, Any]:
        """The row of ``runs`` as last written; None where nothing is known."""
        return {column: self._run.get(column) for column in RUNS}

    def write_run(self, row: Mapping[str, Any]) -> None:
        """Replace the row of ``runs``. ``run_id`` and ``schema_version`` stay as they are."""
        whole = {
            **row,
            "run_id": self.run_id,
            "schema_version": SCHEMA_VERSION,
        }
        table = tables.from_rows("runs", [whole])
        with self._placed(self.directory / "runs.parquet", durable=True) as file:
            tables.write(file, "runs", [table], whole)
        self._run = table.to_pylist()[0]

    def write_cell(
        self,
        row: Mapping[str, Any],
        packets: Mapping[str, Any],
        frames: Mapping[str, Any],
        audio: Mapping[str, Track],
    ) -> None:
        """Write one cell down; it is finished when this returns, and not before.

        ``packets`` and ``frames`` are columns (without ``cell_id``), ``{}`` for a cell that never
        streamed. ``audio`` has tracks by name: ``reference``, ``media``, ``played``. Scores that
        the cell had are dropped, its earlier attempts are kept. Raises ValueError if the columns
        are not those of the schema.
        """
        cell_id = str(row["cell_id"])
        self._part("scores", cell_id).unlink(missing_ok=True)
        paths = write_audio(self.directory, row, audio)
        part = [
            tables.from_rows("cells", [{**row, **paths}]),
            tables.from_columns("packets", cell_id, packets),
            tables.from_columns("frames", cell_id, frames),
            tables.from_rows("attempts", self._attempts(row)),
        ]
        ending = {key: str(row[key]) for key in ("status", "blame") if row.get(key) is not None}
        self._put_part("cells", cell_id, part, **ending)

    def write_scores(
        self,
        cell_id: str,
        rows: Iterable[Mapping[str, Any]],
        legacy: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """Replace a cell's scores; ``rows`` are rows of ``scores``, with or without cell_id, and
        ``legacy`` those of that table."""
        part = [
            tables.from_rows(name, [{**row, "cell_id": cell_id} for row in given])
            for name, given in (("scores", rows), ("legacy", legacy))
        ]
        self._put_part("scores", cell_id, part)

    def write_decisions(self, cell_id: str, rows: Sequence[NamedTuple]) -> None:
        """Replace what a sink decided on a cell's windows: a CSV file, one row per decision."""
        text = io.StringIO(newline="")
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(rows[0]._fields if rows else ())
        lines.writerows(rows)
        with self._placed(self.directory / "decisions" / f"{cell_id}.csv") as file:
            file.write(text.getvalue().encode())

    def finished(self) -> dict[str, str]:
        """Status by cell_id of all cells that have ended."""
        return {cell: ending.status for cell, ending in sorted(self._endings().items())}

    def disturbed(self) -> set[str]:
        """The finished cells that may end better at another try: it was the machine's fault."""
        return {cell for cell, ending in self._endings().items() if ending.may_end_better}

    def scored(self) -> set[str]:
        """The finished cells that have scores."""
        streamed = self._whole_parts("cells").keys()
        compacted = self._compacted_endings().keys()
        found: set[str] = set()
        for group in self._groups("scores", ["cell_id"]):
            found.update(group["cell_id"].unique().to_pylist())
        newer = self._whole_parts("scores").keys() & (streamed | compacted)
        return (found & compacted) - streamed | newer

    def tables(self) -> Tables:
        """All that is known of the finished cells."""

        for name in reversed(layout.compacted(self.directory)):
            with tables.reading(self._compacted_path(name), name, self.run_id):
                pass  # to be told now, not when its rows are asked for

        def whole(name: str) -> pd.DataFrame:
            return tables.to_pandas(pa.concat_tables(self.batches(name)))

        return Tables(
            runs=tables.to_pandas(tables.from_rows("runs", [self._run])),
            cells=whole("cells"),
            packets=_StoredRows(self, "packets"),
            frames=_StoredRows(self, "frames"),
            scores=whole("scores"),
            legacy=whole("legacy"),
            attempts=whole("attempts"),
        )

    def compact(self) -> None:
        """Make one file per table, sorted by cell, and remove the parts."""
        for name in CELL_TABLES:
            with self._placed(self._compacted_path(name), durable=True) as file:
                tables.write(file, name, self.batches(name), self._run)
        self.__dict__.pop("_earlier", None)
        with disk_errors(self.directory):
            _remove(self.directory / "parts" / "cells")
            _remove(self.directory / "parts")

    def repair(self) -> list[str]:
        """Set aside what is damaged, and say so; see ``repair.py``. For the owner only."""
        return repair.repair(self.directory, self._run)

    def repair_parts(self) -> list[str]:
        """As :meth:`repair`, of what was written since the last compaction."""
        return repair.repair_parts(self.directory, self._run)

    def batches(
        self,
        name: str,
        cell_ids: Collection[str] | None = None,
        columns: Sequence[str] | None = None,
    ) -> Iterator[pa.Table]:
        """The rows of table ``name``: whole cells, in order, ``GROUP_ROWS`` rows or little more at
        a time; at least one batch. ``cell_ids`` and ``columns`` choose some, None is all.
        """
        needed = None if columns is None else list(dict.fromkeys(["cell_id", *columns]))
        held, rows = [tables.conform(name, tables.arrow_schema(name).empty_table(), needed)], 0
        for _, table in self.by_cell(name, cell_ids, needed):
            held.append(table)
            rows += len(table)
            if rows >= GROUP_ROWS[name]:
                yield _joined(held, columns)
                held, rows = [], 0
        if held:
            yield _joined(held, columns)

    def by_cell(
        self,
        name: str,
        cell_ids: Collection[str] | None = None,
        columns: Sequence[str] | None = None,
    ) -> Iterator[tuple[str, pa.Table]]:
        """Cell by cell, in order, the rows of table ``name``: those of the cell's part if there is
        one, else those of the compacted table. A cell without rows may be left out. ``columns``
        has ``cell_id`` or is None for all."""
        newer = set(self._whole_parts("cells", cell_ids))
        older = set(self._compacted_endings()) - newer
        if name in PARTS["scores"]:
            newer = self._whole_parts("scores", cell_ids).keys() & (newer | older)
            older -= newer
        if cell_ids is not None:
            older &= set(cell_ids)
        return heapq.merge(
            self._compacted(name, older, columns),
            ((cell, self._read_part(name, cell, columns)) for cell in sorted(newer)),
            key=itemgetter(0),
        )

    def _endings(self) -> dict[str, _Ending]:
        newer = self._whole_parts("cells")
        return self._compacted_endings() | {
            cell: _Ending(stamp["status"], stamp.get("blame")) for cell, stamp in newer.items()
        }

    def _compacted_endings(self) -> dict[str, _Ending]:
        """Of the cells in the compacted table."""
        found: dict[str, _Ending] = {}
        for group in self._groups("cells", ["cell_id", "status", "blame"]):
            for cell, *ending in zip(
                *(column.to_pylist() for column in group.columns), strict=True
            ):
                found[cell] = _Ending(*ending)
        return found

    def _attempts(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The rows of ``attempts`` of a cell, one for how it ends now and those before."""
        cell_id = str(row["cell_id"])
        if self._whole_parts("cells", [cell_id]):
            before = self._read_part("attempts", cell_id, None).to_pylist()
        else:
            before = self._earlier.get(cell_id, [])
        now = {
            "cell_id": cell_id,
            "attempt": len(before) + 1,
            "session": len(json.loads(self._run.get("sessions") or "[]")),
            **{key: row.get(key) for key in ("status", "reason", "blame")},
            "ended_utc": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        return [*before, now]

    @cached_property
    def _earlier(self) -> dict[str, list[dict[str, Any]]]:
        """The compacted attempts by cell."""
        found: dict[str, list[dict[str, Any]]] = {}
        for group in self._groups("attempts", None):
            for row in group.to_pylist():
                found.setdefault(row["cell_id"], []).append(row)
        return found

    def _compacted(
        self, name: str, cells: set[str], columns: Sequence[str] | None
    ) -> Iterator[tuple[str, pa.Table]]:
        """The rows of these cells in the compacted table, cell by cell, in order."""
        cell, pieces = "", list[pa.Table]()
        for group in self._groups(name, columns, sorted(cells)):
            runs = pc.run_end_encode(group["cell_id"].combine_chunks())
            start = 0
            for found, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
                if found != cell and pieces:  # else the cell goes on from the group before
                    yield cell, pa.concat_tables(pieces)
                    pieces = []
                cell = found
                if cell in cells:
                    pieces.append(group.slice(start, end - start))
                start = end
        if pieces:
            yield cell, pa.concat_tables(pieces)

    def _groups(
        self, name: str, columns: Sequence[str] | None, cells: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """The compacted table, a bounded number of rows at a time; of ``cells``, sorted, only the
        row groups that may have one of them."""
        path = self._compacted_path(name)
        if name not in layout.compacted(self.directory, [name]):
            return
        with tables.reading(path, name, self.run_id) as file:
            groups = [
                index
                for index in range(file.num_row_groups)
                if cells is None or tables.may_hold(file.metadata.row_group(index), cells)
            ]
            for batch in file.iter_batches(READ_ROWS, groups, columns):
                yield tables.conform(name, pa.Table.from_batches([batch]), columns)

    def _compacted_path(self, name: str) -> Path:
        return layout.table_path(self.directory, name)

    def _part(self, kind: str, cell_id: str) -> Path:
        return layout.part_path(self.directory, kind, cell_id)

    def _read_part(self, name: str, cell_id: str, columns: Sequence[str] | None) -> pa.Table:
        kind = next(kind for kind, names in PARTS.items() if name in names)
        table = parts.read(self._part(kind, cell_id), name)
        return tables.conform(name, table, columns)

    def _put_part(self, kind: str, cell_id: str, rows: Sequence[pa.Table], **said: str) -> None:
        stamp = tables.stamp(self._run) | said
        with self._placed(self._part(kind, cell_id)) as file:
            file.write(parts.to_bytes(dict(zip(PARTS[kind], rows, strict=True)), stamp))

    def _whole_parts(
        self, kind: str, cell_ids: Collection[str] | None = None
    ) -> dict[str, dict[str, str]]:
        """The stamp of every cell, of ``cell_ids`` or of all, that has a whole part."""
        if cell_ids is None:
            cell_ids = [path.stem for path in layout.part_paths(self.directory, kind)]
        stamps = {cell: parts.stamp_of(self._part(kind, cell), self.run_id) for cell in cell_ids}
        return {cell: stamp for cell, stamp in stamps.items() if stamp is not None}

    def _placed(self, path: Path, durable: bool = False) -> AbstractContextManager[BinaryIO]:
        return placed(self.directory, path, durable)


class _Ending(NamedTuple):
    """How a cell ended."""

    status: str
    blame: str | None

    @property
    def may_end_better(self) -> bool:
        return self.status == "failed" or self.blame == "machine"


@dataclass(frozen=True)
class _StoredRows:
    """A table that is read from the disk whenever rows of it are asked for."""

    store: RunStore
    name: str

    def batches(
        self, cell_ids: Collection[str] | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pd.DataFrame]:
        return map(tables.to_pandas, self.store.batches(self.name, cell_ids, columns))


def _joined(pieces: Sequence[pa.Table], columns: Sequence[str] | None) -> pa.Table:
    whole = pa.concat_tables(pieces)
    # Copied, for a piece of a file may keep the whole file's bytes in memory.
    return (whole if columns is None else whole.select(list(columns))).combine_chunks()


def _point(link: Path, target: str) -> None:
    if link.exists() and not link.is_symlink():
        raise BadInput(f"{link}: expected a symbolic link to the latest run; move it away")
    fresh = link.with_name(f".{link.name}-{uuid.uuid4().hex}")
    fresh.symlink_to(target)
    fresh.replace(link)


def _remove(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)

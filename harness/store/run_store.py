"""One run's directory.

::

    results/
    |- latest -> smoke-20300102-101500
    `- smoke-20300102-101500/
       |- runs.parquet                       one row, rewritten as the run goes on
       |- cells, packets, frames, scores,   .parquet, made by compaction
       |  legacy
       |- parts/{cells,scores}/CELL.arrow    since the last compaction: the cell with its packets
       |                                     and frames, its scores with the older systems' figures
       |- decisions/CELL.csv                 of a sink, where the receiver has one
       `- audio/                             FLAC: a track per cell, a reference per item and rate

A file appears under its name when it is whole: it is written under ``parts/tmp`` and renamed. A
cell is finished when its part is there, with its footer. Compaction puts the new tables in place
before it removes parts, cells first, so that at any instant a finished cell is in a table, or in
parts, or alike in both.

The tables are sorted by cell. Their row groups hold whole cells and end with the first cell that
fills ``GROUP_ROWS``: the bytes of a table, its metadata apart, follow from its rows alone, whatever
the order in which cells ended and however often the run was interrupted. Everything but
``RunStore.tables`` works on a row group at a time, so memory does not grow with the run.
"""

from __future__ import annotations

import csv
import hashlib
import heapq
import io
import os
import re
import shutil
import threading
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import soundfile
from numpy.typing import NDArray

from harness.errors import BadInput, CellFailed
from harness.store import parts, tables
from harness.store.loaded import Tables
from harness.store.schema import RUNS, SCHEMA_VERSION

FLAC_LEVEL = 0.4
"""Of 0 to 1: speech is 1 % longer than at the usual 0.625 and takes two thirds of the time."""
PARTS = {"cells": ("cells", "packets", "frames"), "scores": ("scores", "legacy")}
"""The tables in each kind of part."""
GROUP_ROWS = {"cells": 250, **dict.fromkeys(("packets", "frames", "scores", "legacy"), 32_000)}
"""From this many rows on, a row group is closed after the cell that it is at."""
READ_ROWS = 32_000
_CELL_TABLES = ("legacy", "scores", "packets", "frames", "cells")
"""In the order in which compaction puts them in place: the row that vouches for a cell last."""
Track = tuple[NDArray[np.int16], int]
"""Samples, mono, shape (samples,), and their rate in Hz."""


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
        stem = f"{_slug(scenario_name)}-{now:%Y%m%d-%H%M%S}"
        directory = new_directory(root, stem)
        with _disk(root):
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
        if any((directory / "parts").glob("*/*.parquet")):
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
        the cell had are dropped. Raises ValueError if the columns are not those of the schema.
        """
        cell_id = str(row["cell_id"])
        self._part("cells", cell_id).unlink(missing_ok=True)
        self._part("scores", cell_id).unlink(missing_ok=True)
        paths = self._write_audio(row, audio)
        part = [
            tables.from_rows("cells", [{**row, **paths}]),
            tables.from_columns("packets", cell_id, packets),
            tables.from_columns("frames", cell_id, frames),
        ]
        self._put_part("cells", cell_id, part, status=str(row["status"]))

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
        """Status by cell_id of all cells that need not be streamed again."""
        parts = self._whole_parts("cells")
        statuses = self._statuses() | {cell: stamp["status"] for cell, stamp in parts.items()}
        return dict(sorted(statuses.items()))

    def scored(self) -> set[str]:
        """The finished cells that have scores."""
        streamed = self._whole_parts("cells").keys()
        compacted = self._statuses().keys()
        found: set[str] = set()
        for group in self._groups("scores", ["cell_id"]):
            found.update(group["cell_id"].unique().to_pylist())
        newer = self._whole_parts("scores").keys() & (streamed | compacted)
        return (found & compacted) - streamed | newer

    def tables(self) -> Tables:
        """All that is known of the finished cells."""

        for name in _CELL_TABLES:
            if (path := self._compacted_path(name)).exists():
                with tables.reading(path, name, self.run_id):
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
        )

    def compact(self) -> None:
        """Make one file per table, sorted by cell, and remove the parts."""
        for name in _CELL_TABLES:
            with self._placed(self._compacted_path(name), durable=True) as file:
                tables.write(file, name, self.batches(name), self._run)
        with _disk(self.directory):
            _remove(self.directory / "parts" / "cells")
            _remove(self.directory / "parts")

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
        older = set(self._statuses()) - newer
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

    def _statuses(self) -> dict[str, str]:
        """Of the cells in the compacted table."""
        found: dict[str, str] = {}
        for group in self._groups("cells", ["cell_id", "status"]):
            found.update(zip(*(column.to_pylist() for column in group.columns), strict=True))
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
        if not path.exists():
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
        return self.directory / f"{name}.parquet"

    def _part(self, kind: str, cell_id: str) -> Path:
        return self.directory / "parts" / kind / f"{cell_id}{parts.SUFFIX}"

    def _read_part(self, name: str, cell_id: str, columns: Sequence[str] | None) -> pa.Table:
        kind = next(kind for kind, names in PARTS.items() if name in names)
        table = parts.read(self._part(kind, cell_id), name)
        return tables.conform(name, table, columns)

    def _put_part(self, kind: str, cell_id: str, rows: Sequence[pa.Table], **said: str) -> None:
        stamp = tables.stamp(self._run) | said
        with self._placed(self._part(kind, cell_id)) as file:
            file.write(parts.to_buffer(dict(zip(PARTS[kind], rows, strict=True)), stamp))

    def _whole_parts(
        self, kind: str, cell_ids: Collection[str] | None = None
    ) -> dict[str, dict[str, str]]:
        """The stamp of every cell, of ``cell_ids`` or of all, that has a whole part."""
        if cell_ids is None:
            found = (self.directory / "parts" / kind).glob(f"*{parts.SUFFIX}")
            cell_ids = [path.stem for path in found]
        stamps = {cell: parts.stamp_of(self._part(kind, cell), self.run_id) for cell in cell_ids}
        return {cell: stamp for cell, stamp in stamps.items() if stamp is not None}

    def _write_audio(self, row: Mapping[str, Any], audio: Mapping[str, Track]) -> dict[str, str]:
        """Write the tracks as FLAC; the columns of ``cells`` with their paths.

        What was played is written once if it is the media track to the sample.
        """
        paths: dict[str, str] = {}
        for name in sorted(audio):
            if name == "played" and _same(audio["played"], audio.get("media")):
                paths["audio_played"] = paths["audio_media"]
            else:
                paths[f"audio_{name}"] = self._write_track(name, row, audio[name])
        return paths

    def _write_track(self, name: str, row: Mapping[str, Any], track: Track) -> str:
        """Write a track as FLAC; the path relative to the run. A reference is written once."""
        pcm, rate_hz = track
        if pcm.dtype != np.int16 or pcm.ndim != 1:
            raise ValueError(f"track {name}: expected int16 mono, got {pcm.dtype} {pcm.shape}")
        stem = f"{row['cell_id']}-{name}"
        if name == "reference":
            digest = hashlib.sha256(pcm.tobytes()).hexdigest()[:8]
            stem = f"reference-{_slug(str(row.get('utterance')))}-{rate_hz}-{digest}"
        path = self.directory / "audio" / f"{stem}.flac"
        if name != "reference" or not path.exists():
            sink = io.BytesIO()
            soundfile.write(
                sink,
                pcm,
                rate_hz,
                format="FLAC",
                subtype="PCM_16",
                compression_level=FLAC_LEVEL,
            )
            with self._placed(path) as file:
                file.write(sink.getvalue())
        return path.relative_to(self.directory).as_posix()

    @contextmanager
    def _placed(self, path: Path, durable: bool = False) -> Iterator[BinaryIO]:
        """A file to fill: ``path`` is what it holds when the block ends, or stays as it was."""
        scratch = self.directory / "parts" / "tmp"
        temporary = scratch / f"{os.getpid()}-{threading.get_ident()}-{path.name}"
        with _disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("wb") as file:
                    yield file
                    if durable:
                        file.flush()
                        os.fsync(file.fileno())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise


@dataclass(frozen=True)
class _StoredRows:
    """A table that is read from the disk whenever rows of it are asked for."""

    store: RunStore
    name: str

    def batches(
        self, cell_ids: Collection[str] | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pd.DataFrame]:
        return map(tables.to_pandas, self.store.batches(self.name, cell_ids, columns))


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CellFailed(
            f"{path}: cannot be written ({error.strerror}); make room there or use another --out,"
            " then go on with: harness run FILE --resume DIR (finished cells are kept)"
        ) from error


def _same(track: Track, other: Track | None) -> bool:
    return other is not None and track[1] == other[1] and np.array_equal(track[0], other[0])


def _joined(pieces: Sequence[pa.Table], columns: Sequence[str] | None) -> pa.Table:
    whole = pa.concat_tables(pieces)
    # Copied, for a piece of a file may keep the whole file's bytes in memory.
    return (whole if columns is None else whole.select(list(columns))).combine_chunks()


def new_directory(root: Path, stem: str) -> Path:
    """A new folder ``stem``, ``stem-2``, ... below ``root``, which is made if need be.

    Raises CellFailed where the disk does not take it.
    """
    with _disk(root):
        root.mkdir(parents=True, exist_ok=True)
        return _first_free(root, stem)


def _first_free(root: Path, stem: str) -> Path:
    for name in (stem, *(f"{stem}-{n}" for n in range(2, 1000))):
        try:
            (root / name).mkdir()
        except FileExistsError:
            continue
        return (root / name).resolve()
    raise BadInput(f"{root}: 999 runs named {stem}; use another --out")


def _point(link: Path, target: str) -> None:
    if link.exists() and not link.is_symlink():
        raise BadInput(f"{link}: expected a symbolic link to the latest run; move it away")
    fresh = link.with_name(f".{link.name}-{uuid.uuid4().hex}")
    fresh.symlink_to(target)
    fresh.replace(link)


def _remove(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)


def _slug(text: str) -> str:
    """``text`` as part of a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:80] or "run"

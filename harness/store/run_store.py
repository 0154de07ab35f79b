"""One run's directory.

::

    results/
    |- latest -> smoke-20300102-101500
    `- smoke-20300102-101500/
       |- runs.parquet                       one row, rewritten as the run goes on
       |- cells, packets, frames, scores     .parquet, made by compaction
       |- parts/{cells,packets,frames,scores}/CELL.parquet      since the last compaction
       `- audio/                             FLAC: a track per cell, a reference per item and rate

A file appears under its name when it is whole: it is written under ``parts/tmp`` and renamed. A
cell's row is written last, and the cell is finished when its row and its tables can be read.
Compaction puts the new tables in place before it removes parts, rows of cells first, so that at
any instant a finished cell is in a table, or in parts, or alike in both.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import soundfile
from numpy.typing import NDArray

from harness.errors import BadInput, CellFailed
from harness.store import tables
from harness.store.schema import RUNS, SCHEMA_VERSION

_CELL_TABLES = ("scores", "packets", "frames", "cells")
"""In the order in which compaction puts them in place: the row that vouches for a cell last."""
Track = tuple[NDArray[np.int16], int]
"""Samples, mono, shape (samples,), and their rate in Hz."""


class Rows(Protocol):
    """The rows of a table that is too long to be held whole."""

    def batches(
        self, cell_ids: Collection[str] | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pd.DataFrame]:
        """Whole cells, in order of ``cell_id``, some at a time; None is all of them."""
        ...


class Tables:
    """The tables of a run as DataFrames with the columns of :mod:`harness.store.schema`.

    ``runs``, ``cells`` and ``scores`` are held. ``packets`` and ``frames`` are read when asked for:
    whole as attributes (every time anew; fine for a run of some hundred cells), some cells of them
    by ``packets_of`` and ``frames_of``, or one batch of cells after the other by
    ``packet_batches`` and ``frame_batches``, in bounded memory whatever the length of the run.
    All but ``runs`` are sorted by ``cell_id``; within a cell packets are in order of sending and
    frames in order of playing.
    """

    def __init__(
        self,
        runs: pd.DataFrame,
        cells: pd.DataFrame,
        packets: pd.DataFrame | Rows,
        frames: pd.DataFrame | Rows,
        scores: pd.DataFrame,
    ) -> None:
        self.runs = runs
        self.cells = cells
        self.scores = scores
        self._packets = _Held(packets) if isinstance(packets, pd.DataFrame) else packets
        self._frames = _Held(frames) if isinstance(frames, pd.DataFrame) else frames

    @property
    def packets(self) -> pd.DataFrame:
        return _whole(self._packets.batches())

    @property
    def frames(self) -> pd.DataFrame:
        return _whole(self._frames.batches())

    def packets_of(
        self, cell_ids: Collection[str], columns: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """Rows of ``packets`` of these cells; only ``columns`` of them, if given."""
        return _whole(self._packets.batches(cell_ids, columns))

    def frames_of(
        self, cell_ids: Collection[str], columns: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """Rows of ``frames`` of these cells; only ``columns`` of them, if given."""
        return _whole(self._frames.batches(cell_ids, columns))

    def packet_batches(self, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """All of ``packets``, some whole cells at a time; there is at least one batch."""
        return self._packets.batches(None, columns)

    def frame_batches(self, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """All of ``frames``, some whole cells at a time; there is at least one batch."""
        return self._frames.batches(None, columns)


@dataclass(frozen=True)
class _Held:
    """Rows that are in memory already."""

    rows: pd.DataFrame

    def batches(
        self, cell_ids: Collection[str] | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pd.DataFrame]:
        rows = self.rows if cell_ids is None else self.rows[self.rows["cell_id"].isin(cell_ids)]
        yield rows if columns is None else rows[list(columns)]


def _whole(batches: Iterable[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(batches, ignore_index=True)


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
        with _disk(root):
            root.mkdir(parents=True, exist_ok=True)
            directory = _make_new(root, stem)
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
        self._put(self.directory / "runs.parquet", tables.to_bytes("runs", table, whole))
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
        paths = {
            f"audio_{name}": self._write_audio(name, row, track) for name, track in audio.items()
        }
        rows = tables.from_rows("cells", [{**row, **paths}])
        self._put_part("packets", cell_id, tables.from_columns("packets", cell_id, packets))
        self._put_part("frames", cell_id, tables.from_columns("frames", cell_id, frames))
        self._put_part("cells", cell_id, rows)

    def write_scores(self, cell_id: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Replace a cell's scores; ``rows`` are rows of ``scores``, with or without cell_id."""
        table = tables.from_rows("scores", [{**row, "cell_id": cell_id} for row in rows])
        self._put_part("scores", cell_id, table)

    def finished(self) -> dict[str, str]:
        """Status by cell_id of all cells that need not be streamed again."""
        cells = self._merged("cells")["cells"]
        return dict(zip(*(cells[name].to_pylist() for name in ("cell_id", "status")), strict=True))

    def scored(self) -> set[str]:
        """The finished cells that have scores."""
        return set(self._merged("scores")["scores"]["cell_id"].to_pylist())

    def tables(self) -> Tables:
        """All that is known of the finished cells."""
        merged = self._merged(*_CELL_TABLES)
        merged["runs"] = tables.from_rows("runs", [self._run])
        return Tables(**{name: tables.to_pandas(table) for name, table in merged.items()})

    def compact(self) -> None:
        """Make one file per table, sorted by cell, and remove the parts."""
        for name, table in self._merged(*_CELL_TABLES).items():
            path = self.directory / f"{name}.parquet"
            self._put(path, tables.to_bytes(name, table, self._run), durable=True)
        with _disk(self.directory):
            _remove(self.directory / "parts" / "cells")
            _remove(self.directory / "parts")

    def _part(self, name: str, cell_id: str) -> Path:
        return self.directory / "parts" / name / f"{cell_id}.parquet"

    def _put_part(self, name: str, cell_id: str, table: pa.Table) -> None:
        self._put(self._part(name, cell_id), tables.to_bytes(name, table, self._run))

    def _whole_parts(self, *names: str) -> set[str]:
        """The cells that have a whole part of each of these tables."""
        return {
            path.stem
            for path in (self.directory / "parts" / names[0]).glob("*.parquet")
            if all(
                tables.is_whole(self._part(name, path.stem), name, self.run_id) for name in names
            )
        }

    def _merged(self, *names: str) -> dict[str, pa.Table]:
        """The compacted tables with the parts written since in place of their rows, by cell."""
        streamed = self._whole_parts("cells", "packets", "frames")
        known = streamed | set(self._compacted("cells")["cell_id"].to_pylist())
        merged = {}
        for name in names:
            parts = streamed if name != "scores" else self._whole_parts("scores") & known
            table = self._compacted(name)
            valid = pa.array(sorted(known - streamed - parts), pa.string())
            kept = table.filter(pc.is_in(table["cell_id"], valid))
            read = [tables.read(self._part(name, c), name, self.run_id) for c in sorted(parts)]
            merged[name] = pa.concat_tables([kept, *read]).sort_by("cell_id")
        return merged

    def _compacted(self, name: str) -> pa.Table:
        path = self.directory / f"{name}.parquet"
        if not path.exists():
            return tables.arrow_schema(name).empty_table()
        return tables.read(path, name, self.run_id)

    def _write_audio(self, name: str, row: Mapping[str, Any], track: Track) -> str:
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
            soundfile.write(sink, pcm, rate_hz, format="FLAC", subtype="PCM_16")
            self._put(path, sink.getvalue())
        return path.relative_to(self.directory).as_posix()

    def _put(self, path: Path, data: bytes, durable: bool = False) -> None:
        """Have ``path`` hold ``data``, whole, or be as it was."""
        scratch = self.directory / "parts" / "tmp"
        with _disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=scratch)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    if durable:
                        file.flush()
                        os.fsync(file.fileno())
                Path(temporary).chmod(0o644)
                Path(temporary).replace(path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CellFailed(
            f"{path}: cannot be written ({error.strerror}); make room there or use another --out,"
            " then go on with: harness run FILE --resume DIR (finished cells are kept)"
        ) from error


def _make_new(root: Path, stem: str) -> Path:
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

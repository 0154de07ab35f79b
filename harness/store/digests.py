"""What the tables of a run hold, as one SHA-256 each, and where two runs part.

A table's digest is over its values alone, as ``load`` gives them: rows in order of cell, columns in
order of the schema. It does not depend on the file that they lie in (version of pyarrow, row
groups, compression, metadata such as the run's id) nor on whether the run is compacted.

A column is hashed as three streams: one byte per row that is 1 where there is a value; the values
of numbers (int64 and float64, little-endian; bool as one byte; null and -0.0 as 0), or the UTF-8 of
all texts; of texts the lengths in bytes as int64. Its digest is the SHA-256 of those of its
streams; the table's that of one line ``column type digest`` per column, after one of ``name rows``.
"""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from harness.store.run_store import RunStore
from harness.store.schema import TABLES

HASHED = ("cells", "packets", "frames", "scores", "legacy")
"""All but ``runs``, which says when and where it was."""


class Digest(NamedTuple):
    rows: int
    sha256: str
    columns: dict[str, str]
    """SHA-256 by column."""


class Difference(NamedTuple):
    """The first place at which two runs differ; ``column`` is null where a cell's rows are not
    equally many, ``row`` counts from 0 within the cell."""

    table: str
    cell_id: str
    column: str | None
    row: int | None
    first: Any
    second: Any


def digests(directory: Path) -> dict[str, Digest]:
    """By table of ``HASHED``, in memory that does not grow with the run. Raises BadInput as
    :func:`harness.store.load`."""
    store = RunStore.open(directory)
    return {name: _digest(store, name) for name in HASHED}


def difference(first: Path, second: Path) -> Difference | None:
    """The first cell, in order of table, cell, column and row, that is not the same in both runs;
    None if there is none. Raises BadInput as :func:`harness.store.load`."""
    stores = RunStore.open(first), RunStore.open(second)
    for name in HASHED:
        for mine, other in _cells_of_both(*stores, name):
            found = _first_of(name, mine, other)
            if found is not None:
                return found
    return None


def disagreements(found: Mapping[Path, Mapping[str, Digest]]) -> list[str]:
    """One line per run whose tables are not those of the first: which, and where they part."""
    (first, tables), *others = found.items()
    return [
        f"{directory}: not the same {', '.join(names)} as {first}; first difference:"
        f" {_in_words(difference(first, directory))}"
        for directory, other in others
        if (names := [name for name in HASHED if other[name].sha256 != tables[name].sha256])
    ]


def _in_words(found: Difference | None) -> str:
    if found is None:
        return "none any more, a run is being written"
    where = f"table {found.table}, cell {found.cell_id}"
    if found.column is None:
        return f"{where}: {found.first} and {found.second} rows"
    values = (textwrap.shorten(repr(value), 80) for value in (found.first, found.second))
    return f"{where}, column {found.column}, row {found.row}: {' and '.join(values)}"


class _Column:
    """The running hash of one column."""

    def __init__(self, kind: pa.DataType) -> None:
        self._kind = kind
        self._streams = [hashlib.sha256() for _ in range(3)]

    def add(self, values: pa.Array) -> None:
        valid, data, lengths = self._streams
        valid.update(_bytes(values.is_valid(), "u1"))
        if pa.types.is_string(self._kind):
            texts = values.fill_null("")
            data.update(_text(texts))
            lengths.update(_bytes(pc.binary_length(texts), "<i8"))
        else:
            plain = {"int64": "<i8", "double": "<f8", "bool": "u1"}[str(self._kind)]
            data.update(_bytes(values.fill_null(pa.scalar(0).cast(self._kind)), plain))

    def hexdigest(self) -> str:
        return hashlib.sha256(b"".join(stream.digest() for stream in self._streams)).hexdigest()


def _digest(store: RunStore, name: str) -> Digest:
    rows, columns = 0, dict[str, _Column]()
    for batch in store.batches(name):
        rows += len(batch)
        for field in batch.schema:
            column = columns.setdefault(field.name, _Column(field.type))
            for chunk in batch[field.name].chunks:
                column.add(chunk)
    found = {column: running.hexdigest() for column, running in columns.items()}
    lines = [f"{name} {rows}"]
    lines += [f"{column} {TABLES[name][column].type} {sha256}" for column, sha256 in found.items()]
    return Digest(rows, hashlib.sha256("\n".join(lines).encode()).hexdigest(), found)


def _cells_of_both(
    first: RunStore, second: RunStore, name: str
) -> Iterator[tuple[tuple[str, pa.Table] | None, tuple[str, pa.Table] | None]]:
    mine, others = (
        (cell for cell in store.by_cell(name) if len(cell[1])) for store in (first, second)
    )
    return zip_longest(mine, others)


def _first_of(
    name: str, mine: tuple[str, pa.Table] | None, other: tuple[str, pa.Table] | None
) -> Difference | None:
    if mine is None or other is None or mine[0] != other[0]:
        # In order of cell, so that the lower id is the one that the other run lacks.
        cell_id = min(cell[0] for cell in (mine, other) if cell is not None)
        counts = [len(c[1]) if c is not None and c[0] == cell_id else 0 for c in (mine, other)]
        return Difference(name, cell_id, None, None, counts[0], counts[1])
    cell_id, (left, right) = mine[0], (mine[1], other[1])
    if left.equals(right):
        return None
    if len(left) != len(right):
        return Difference(name, cell_id, None, None, len(left), len(right))
    for column in left.column_names:
        pairs = zip(left[column].to_pylist(), right[column].to_pylist(), strict=True)
        for row, (a, b) in enumerate(pairs):
            if a != b:
                return Difference(name, cell_id, column, row, a, b)
    return None


def _bytes(values: pa.Array, dtype: str) -> bytes:
    plain = np.asarray(values.to_numpy(zero_copy_only=False), dtype)
    unsigned: NDArray[Any] = np.add(plain, 0, dtype=dtype)  # -0.0 is 0.0
    return unsigned.tobytes()


def _text(texts: pa.Array) -> pa.Buffer:
    """The UTF-8 of all texts, one after the other; none is null."""
    _, offsets, data = texts.buffers()
    if not len(texts) or data is None:
        return pa.py_buffer(b"")
    ends = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return data.slice(int(ends[0]), int(ends[-1] - ends[0]))

"""Parquet files whose columns are those of :mod:`harness.store.schema`, and nothing else.

Every file carries ``run_id``, ``git_sha``, ``config_sha256`` and ``schema_version`` in its
metadata. Integers are nullable in arrow and stay so in pandas (``Int64``); a float that is missing
is null in the file and NaN in pandas.

No flipped bit goes unseen: pages carry the CRC-32 of the Parquet format ("Checksumming"), and the
footer's SHA-256 stands before the footer, where no reader of the format looks.
"""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import BadInput
from harness.store.schema import SCHEMA_VERSION, TABLES

_ARROW = {
    "str": pa.string(),
    "json": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
}
_PANDAS = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
_STAMP = ("run_id", "git_sha", "config_sha256")
_SEAL = b"footer-sha256:"
_TAIL_BYTES = 8
"""Of a parquet file: length of the footer (u32, little-endian), magic."""


@cache
def arrow_schema(name: str) -> pa.Schema:
    """The columns of table ``name`` (a key of ``TABLES``), without metadata."""
    return pa.schema([(column, _ARROW[spec.type]) for column, spec in TABLES[name].items()])


def from_rows(name: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """A table from mappings; a column that a row lacks is null, and so is a float NaN.

    Raises ValueError for a column that the schema does not have.
    """
    rows = list(rows)
    schema = arrow_schema(name)
    for row in rows:
        _refuse_unknown(name, row)
    columns = [
        pa.array([row.get(field.name) for row in rows], field.type, from_pandas=True)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def from_columns(name: str, cell_id: str, columns: Mapping[str, Any]) -> pa.Table:
    """A table of one cell from equally long 1-D arrays, one per column but ``cell_id``.

    Masked entries of a ``numpy.ma.MaskedArray`` are null. No columns at all is no rows. Raises
    ValueError for a column too many or too few.
    """
    schema = arrow_schema(name)
    if not columns:
        return schema.empty_table()
    _refuse_unknown(name, columns)
    missing = [field.name for field in schema if field.name not in {"cell_id", *columns}]
    if missing:
        raise ValueError(f"table {name} of cell {cell_id} lacks the columns {', '.join(missing)}")
    arrays = {key: _array(values, schema.field(key).type) for key, values in columns.items()}
    length = len(next(iter(arrays.values())))
    arrays["cell_id"] = pa.array([cell_id] * length, pa.string())
    return pa.Table.from_arrays([arrays[field.name] for field in schema], schema=schema)


def cell_frame(name: str, cell_id: str, columns: Mapping[str, Any]) -> pd.DataFrame:
    """What :func:`from_columns` makes, as ``Tables`` would give it back."""
    return to_pandas(from_columns(name, cell_id, columns))


def stamp(run: Mapping[str, Any]) -> dict[str, str]:
    """What a file says of where it comes from: its metadata, from the row of ``runs``."""
    said = {key: str(run[key]) for key in _STAMP if run.get(key) is not None}
    return said | {"schema_version": str(SCHEMA_VERSION)}


def write(file: BinaryIO, name: str, batches: Iterable[pa.Table], run: Mapping[str, Any]) -> None:
    """A parquet file: zstd, delta-coded integers, dictionary-coded text, stamped by ``run``.

    Every batch that has rows is one row group. The bytes, metadata apart, follow from the rows and
    their batches alone (and from the version of pyarrow).
    """
    of_type = {
        kind: [column for column, spec in TABLES[name].items() if _ARROW[spec.type] == kind]
        for kind in (pa.int64(), pa.string())
    }
    with pq.ParquetWriter(
        file,
        arrow_schema(name).with_metadata(stamp(run)),
        compression="zstd",
        use_dictionary=of_type[pa.string()],
        column_encoding={column: "DELTA_BINARY_PACKED" for column in of_type[pa.int64()]},
        write_page_checksum=True,
    ) as writer:
        for batch in batches:
            if len(batch):
                # Pages may end where chunks do, so the rows must not show what they came in.
                writer.write_table(batch.combine_chunks(), row_group_size=len(batch))
    _seal(file)


def _footer(file: BinaryIO) -> tuple[int, bytes]:
    """Where the footer of a parquet file begins, and all bytes from there on. Raises ValueError
    where the file is too short for what it says."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL_BYTES))
    start = size - _TAIL_BYTES - int.from_bytes(file.read(4), "little")
    if start < 0:
        raise ValueError("its footer is longer than the file")
    file.seek(start)
    return start, file.read()


def _seal(file: BinaryIO) -> None:
    """Put the footer's digest before it; nothing in a footer counts from its own place."""
    start, footer = _footer(file)
    file.seek(start)
    file.write(_SEAL + hashlib.sha256(footer).digest() + footer)


def _check_seal(file: BinaryIO) -> None:
    """Raises ValueError where the footer is not the one that was written. A file without a seal,
    such as another program's, passes."""
    start, footer = _footer(file)
    size = len(_SEAL) + hashlib.sha256().digest_size
    file.seek(max(0, start - size))
    seal = file.read(size)
    if seal.startswith(_SEAL) and seal[len(_SEAL) :] != hashlib.sha256(footer).digest():
        raise ValueError("its footer is not the one that was written")


@contextmanager
def reading(path: Path, name: str, run_id: str | None = None) -> Iterator[pq.ParquetFile]:
    """A file of table ``name``, open; its rows are what ``conform`` makes of what it yields.

    Raises BadInput, here or in the block, if it is damaged, foreign, of another run or newer.
    """
    try:
        with path.open("rb") as raw:
            _check_seal(raw)
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            found = file.schema_arrow
            version = int(check_stamp(path, found.metadata, run_id)["schema_version"])
            _check_columns(path, name, set(found.names), version)
            yield file
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadInput(
            f"{path}: cannot be read as parquet ({_first_line(error)}); {_REMEDIES[name]}"
        ) from error


_SET_ASIDE = (
    "restore it from a copy, or go on with: harness run FILE --resume DIR (which sets it aside"
)
_REMEDIES = {
    "runs": "it alone describes the run: restore it from a copy, or start a new run",
    **dict.fromkeys(
        ("cells", "packets", "frames", "attempts"), f"{_SET_ASIDE} and streams its cells again)"
    ),
    **dict.fromkeys(("scores", "legacy"), f"{_SET_ASIDE} and scores its cells again)"),
}
"""What helps where a table is damaged or missing."""


def since(name: str) -> int:
    """The schema version that a table came with."""
    return min(column.since for column in TABLES[name].values())


def version_of(path: Path, name: str) -> int:
    """The schema version of a table in a file. Raises as :func:`reading`."""
    with reading(path, name) as file:
        return int(check_stamp(path, file.schema_arrow.metadata, None)["schema_version"])


def verify(path: Path, name: str, run_id: str) -> None:
    """Read all of a table. Raises as :func:`reading`."""
    with reading(path, name, run_id) as file:
        for _ in file.iter_batches():
            pass


def read(path: Path, name: str, run_id: str | None = None) -> pa.Table:
    """The whole table in a file; raises as :func:`reading`."""
    with reading(path, name, run_id) as file:
        return conform(name, file.read())


def may_hold(group: pq.RowGroupMetaData, cells: Sequence[str]) -> bool:
    """False if no row of the group, by its statistics, is of one of ``cells`` (sorted)."""
    column = next(
        column
        for column in map(group.column, range(group.num_columns))
        if column.path_in_schema == "cell_id"
    )
    if column.statistics is None or not column.statistics.has_min_max:
        return True
    at = bisect_left(cells, column.statistics.min)
    return at < len(cells) and cells[at] <= column.statistics.max


def conform(name: str, table: pa.Table, columns: Sequence[str] | None = None) -> pa.Table:
    """The ``columns`` of table ``name``, all for None; null where ``table`` is older than they."""
    schema = arrow_schema(name)
    wanted = list(columns or schema.names)
    for absent in set(wanted).difference(table.column_names):
        field = schema.field(absent)
        table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(wanted).replace_schema_metadata(None)


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """Integers as ``Int64``, booleans as ``boolean``: nullable, so that null stays null."""
    frame: pd.DataFrame = table.to_pandas(types_mapper=_PANDAS.get)
    return frame


def check_stamp(
    path: Path, metadata: Mapping[bytes, bytes] | None, run_id: str | None
) -> dict[str, str]:
    """What the file says of itself; BadInput if it is not ours, of another run, or newer."""
    said = {key.decode(): value.decode() for key, value in (metadata or {}).items()}
    version = said.get("schema_version", "")
    if not version.isdecimal():
        raise BadInput(f"{path}: was not written by this harness (no schema_version in it)")
    if int(version) > SCHEMA_VERSION:
        raise BadInput(
            f"{path}: has schema version {version}, this harness reads {SCHEMA_VERSION};"
            " use the harness that wrote it, or a newer one"
        )
    if run_id is not None and said.get("run_id") != run_id:
        raise BadInput(
            f"{path}: belongs to run {said.get('run_id')}, not to {run_id};"
            " results of two runs cannot share a directory"
        )
    return said


def _check_columns(path: Path, name: str, found: set[str], version: int) -> None:
    missing = [
        column
        for column, spec in TABLES[name].items()
        if spec.since <= version and column not in found
    ]
    if missing:
        raise BadInput(f"{path}: lacks the columns {', '.join(missing)} of table {name}")


def _refuse_unknown(name: str, columns: Mapping[str, Any]) -> None:
    unknown = sorted(set(columns) - set(TABLES[name]))
    if unknown:
        raise ValueError(f"table {name} has no column {', '.join(unknown)}")


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    data = np.ma.getdata(values)
    if data.dtype.kind in "US":
        return pa.array(data.tolist(), kind)
    mask = np.ma.getmask(values)
    return pa.array(data, kind, mask=None if mask is np.ma.nomask else mask, from_pandas=True)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__

"""Parquet files whose columns are those of :mod:`harness.store.schema`, and nothing else.

Every file carries ``run_id``, ``git_sha``, ``config_sha256`` and ``schema_version`` in its
metadata. Integers are nullable in arrow and stay so in pandas (``Int64``); a float that is missing
is null in the file and NaN in pandas.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

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


def to_bytes(name: str, table: pa.Table, run: Mapping[str, Any]) -> bytes:
    """The parquet file: zstd, delta-coded integers, dictionary-coded text, stamped by ``run``."""
    stamp = {key: str(run[key]) for key in _STAMP if run.get(key) is not None}
    stamp["schema_version"] = str(SCHEMA_VERSION)
    of_type = {
        kind: [column for column, spec in TABLES[name].items() if _ARROW[spec.type] == kind]
        for kind in (pa.int64(), pa.string())
    }
    sink = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata(stamp),
        sink,
        compression="zstd",
        use_dictionary=of_type[pa.string()],
        column_encoding={column: "DELTA_BINARY_PACKED" for column in of_type[pa.int64()]},
    )
    return sink.getvalue()


def read(path: Path, name: str, run_id: str | None = None) -> pa.Table:
    """The table in a file. Raises BadInput if it is damaged, foreign, of another run or newer."""
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(
            f"{path}: cannot be read as parquet ({_first_line(error)}); restore it from a copy, or"
            " delete it and go on with: harness run FILE --resume DIR"
        ) from error
    _check(path, name, table.schema, run_id)
    return table.select(list(TABLES[name])).replace_schema_metadata(None)


def is_whole(path: Path, name: str, run_id: str) -> bool:
    """True if the file is there, ends with its footer and belongs to the run."""
    try:
        _check(path, name, pq.read_schema(path), run_id)
    except (pa.ArrowException, OSError, BadInput):
        return False
    return True


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """Integers as ``Int64``, booleans as ``boolean``: nullable, so that null stays null."""
    frame: pd.DataFrame = table.to_pandas(types_mapper=_PANDAS.get)
    return frame


def _check(path: Path, name: str, schema: pa.Schema, run_id: str | None) -> None:
    stamp = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    version = stamp.get("schema_version", "")
    if not version.isdecimal():
        raise BadInput(f"{path}: was not written by this harness (no schema_version in it)")
    if int(version) > SCHEMA_VERSION:
        raise BadInput(
            f"{path}: has schema version {version}, this harness reads {SCHEMA_VERSION};"
            " use the harness that wrote it, or a newer one"
        )
    if run_id is not None and stamp.get("run_id") != run_id:
        raise BadInput(
            f"{path}: belongs to run {stamp.get('run_id')}, not to {run_id};"
            " results of two runs cannot share a directory"
        )
    missing = [column for column in TABLES[name] if column not in schema.names]
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
    mask = np.ma.getmaskarray(values)
    return pa.array(data, mask=mask, from_pandas=True).cast(kind)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__

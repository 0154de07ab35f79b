"""What one cell leaves on disk until compaction: a file with its rows of one table or several.

An Arrow IPC file of one record batch with one row; each table is a column, a list of its rows. It
is not compressed: it is short-lived, and compressing some fifty small columns costs more than all
else. The SHA-256 of all that comes last: a file that does not end with its own is not whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
from pyarrow import ipc

from harness.errors import BadInput
from harness.store import tables

SUFFIX = ".arrow"
_DIGEST_BYTES = hashlib.sha256().digest_size


def to_bytes(rows: Mapping[str, pa.Table], stamp: Mapping[str, str]) -> bytes:
    """The file that holds these tables by name, with ``stamp`` as its metadata."""
    lists = [
        pa.ListArray.from_arrays(
            pa.array([0, len(table)], pa.int32()), table.to_struct_array().combine_chunks()
        )
        for table in rows.values()
    ]
    batch = pa.record_batch(lists, names=list(rows)).replace_schema_metadata(dict(stamp))
    sink = pa.BufferOutputStream()
    with ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    content: bytes = sink.getvalue().to_pybytes()
    return content + hashlib.sha256(content).digest()


def _whole(path: Path) -> pa.BufferReader:
    """What a part holds, its digest verified. Raises OSError, ValueError where it is damaged."""
    data = memoryview(path.read_bytes())
    content, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        raise ValueError("it is not what was written")
    return pa.BufferReader(pa.py_buffer(content))


def stamp_of(path: Path, run_id: str) -> dict[str, str] | None:
    """The metadata of a part; None if it is not there, not whole, or not of this run."""
    try:
        with _whole(path) as source:
            schema = ipc.open_file(source).schema
        return tables.check_stamp(path, schema.metadata, run_id)
    except (pa.ArrowException, OSError, ValueError, BadInput):
        return None


def read(path: Path, name: str) -> pa.Table:
    """Table ``name`` of a part that has a stamp; without rows where the part is older than that
    table. BadInput if it is damaged."""
    try:
        with _whole(path) as source:
            at = ipc.open_file(source).schema.get_field_index(name)
            if at < 0:
                return tables.arrow_schema(name).empty_table()
            wanted = ipc.IpcReadOptions(included_fields=[at])
            rows = ipc.open_file(source, options=wanted).get_batch(0).column(0).flatten()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadInput(
            f"{path}: cannot be read ({error}); go on with: harness run FILE --resume DIR (which"
            " sets it aside and makes it again)"
        ) from error
    return pa.Table.from_struct_array(rows)

"""The tables of a run on disk: written after every cell, compacted at the end, read back whole."""

from harness.store import schema
from harness.store.disk import new_directory
from harness.store.loaded import Tables
from harness.store.owner import owned
from harness.store.run_store import RunStore, load
from harness.store.tables import cell_frame

__all__ = ["RunStore", "Tables", "cell_frame", "load", "new_directory", "owned", "schema"]

"""The tables of a run on disk: written after every cell, compacted at the end, read back whole."""

from harness.store import schema
from harness.store.run_store import RunStore, Tables, load

__all__ = ["RunStore", "Tables", "load", "schema"]

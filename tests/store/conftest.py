"""A run store in an empty folder, and cells with every kind of column to put into it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.store import RunStore, schema

NOW = datetime(2030, 1, 2, 10, 15, tzinfo=UTC)
RATE_HZ = 16_000


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore.create(tmp_path / "results", "smoke", NOW)


def row(cell_id: str, **columns: Any) -> dict[str, Any]:
    return {"cell_id": cell_id, "status": "ok", "utterance": "1089/134691", **columns}


def packets(count: int = 4) -> dict[str, Any]:
    """The last packet never arrived: its transit is masked."""
    columns: dict[str, Any] = {
        name: np.arange(count)
        for name, column in schema.PACKETS.items()
        if column.type == "int" and name != "cell_id"
    }
    last = np.arange(count) == count - 1
    columns["transit_ns"] = np.ma.MaskedArray(np.arange(count) + 2**60 + 1, mask=last)
    columns["fate"] = np.where(last, "lost", "played")
    columns["purpose"] = np.full(count, "media")
    return columns


def frames(count: int = 4) -> dict[str, Any]:
    columns: dict[str, Any] = {
        name: np.arange(count)
        for name, column in schema.FRAMES.items()
        if column.type == "int" and name != "cell_id"
    }
    columns["frame"] = np.ma.MaskedArray(np.arange(count), mask=np.arange(count) == 1)
    columns["kind"] = np.array(["decoded"] * count)
    return columns


def audio(seed: int = 1) -> dict[str, tuple[np.ndarray, int]]:
    generator = np.random.default_rng(seed)
    reference = np.random.default_rng(0).integers(-9000, 9000, 800).astype(np.int16)
    return {
        "reference": (reference, RATE_HZ),
        "media": (generator.integers(-9000, 9000, 800).astype(np.int16), RATE_HZ),
        "played": (generator.integers(-9000, 9000, 900).astype(np.int16), RATE_HZ),
    }


def score(value: float | None = 4.5, metric: str = "pesq") -> dict[str, Any]:
    return {"metric": metric, "mode": "wb", "track": "media", "value": value, "unit": "MOS-LQO"}


def write(store: RunStore, cell_id: str, **columns: Any) -> None:
    store.write_cell(row(cell_id, **columns), packets(), frames(), audio())

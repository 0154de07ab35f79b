"""Who gets what of a shared link, from tables made by hand."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from harness.report import sharing
from harness.store import Tables
from tests.report.test_adaptation import run_of

GOODPUT = {"a": [9_000, 24_000, 3_000], "b": [12_000, 12_000, 12_000], "c": [1_000, 2_000, 3_000]}
"""Bit/s by cell and track."""


def told(goodput: list[int]) -> str:
    return json.dumps([{"goodput_bps": one, "in_time": one / 24_000} for one in goodput])


@pytest.fixture
def run() -> Tables:
    tables = run_of(["plain", "adapt"])
    cells = tables.cells.iloc[[0, 1, 8]].assign(cell_id=list(GOODPUT))
    return with_cells(tables, cells.assign(tracks=[told(one) for one in GOODPUT.values()]))


def with_cells(run: Tables, cells: pd.DataFrame) -> Tables:
    return Tables(run.runs, cells, run.packets, run.frames, run.scores)


def test_tracks_are_ranked_by_what_their_own_cell_gives_them(run: Tables) -> None:
    found = sharing.shares(run)
    ranked = found.pivot(index="cell_id", columns="rank", values="goodput_kbps")
    assert ranked.loc["a"].tolist() == [24, 9, 3]
    assert ranked.loc["b"].tolist() == [12, 12, 12]
    assert found["in_time"].max() == 100
    assert set(found.loc[found["cell_id"] == "c", "transport"]) == {"adapt"}


def test_each_network_has_a_drawing_where_tracks_share_it(run: Tables) -> None:
    found = sharing.sharing_of(run, ["n", "other"], ["plain", "adapt"])
    assert found is not None
    assert [name for name, _ in found.key] == ["plain", "adapt"]
    assert len(found.drawings) == 2
    for drawing in found.drawings:
        assert drawing.title == "n"
        assert "3 cells" in drawing.note
        assert "<svg" in drawing.svg


def test_a_cell_of_one_track_has_nothing_to_share() -> None:
    run = run_of(["plain"])
    bare = with_cells(run, run.cells.assign(tracks=pd.NA))
    assert sharing.sharing_of(bare, ["n"], ["plain"]) is None

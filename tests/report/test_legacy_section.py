"""What older systems would have said, on the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from harness.report import legacy
from harness.report.page import render
from harness.score.legacy import legacy_rows
from harness.store import Tables, load
from harness.store.tables import from_rows, to_pandas
from tests.report.small_run import SmallRun

SYSTEMS = ("udp-aac-blocks", "tcp-esc")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plain = replace(SmallRun(), music=(), troubled=False, audio=False)
    return plain.write(tmp_path_factory.mktemp("legacy"))


@pytest.fixture(scope="module")
def run(directory: Path) -> Tables:
    found = load(directory)
    rows = []
    for cell in found.cells.to_dict("records"):
        mine = cell["cell_id"]
        scores = found.scores[found.scores["cell_id"] == mine]
        made = legacy_rows(
            SYSTEMS,
            found.packets_of([mine]),
            found.frames_of([mine]),
            cell | {"agent_facts": "{}"},
            scores.to_dict("records"),  # type: ignore[arg-type]
        )
        rows += [{**row, "cell_id": mine} for row in made]
    told = to_pandas(from_rows("legacy", rows))
    return Tables(found.runs, found.cells, found.packets, found.frames, found.scores, told)


def test_every_system_stands_beside_what_happened(run: Tables) -> None:
    def by_name(rows: pd.DataFrame) -> pd.DataFrame:
        return rows.sort_values(["codec", "transport"])

    sections = legacy.legacy_of(run, ["lossy", "clean"], by_name, " ".join)
    assert [one.system.title for one in sections] == [
        "ESC over TCP",
        "AAC blocks over UDP with a GUI",
    ]
    said = {one.estimator.name: one for one in sections[1].said}
    latency = said["latency"].rows
    assert [row["network"] for row in latency] == ["lossy"] * 6 + ["clean"] * 6
    assert {row["value"] for row in latency} == {50.0}
    assert all(row["truth"] > 60 for row in latency)
    assert len(sections[1].drawings) == 3
    unknown = {one.estimator.name: one for one in sections[0].said}["send_time"]
    assert all("does not count" in row["why"] for row in unknown.rows)
    assert len(sections[0].drawings) == 1, "only the bitrate is known"


def test_the_page_says_it_where_a_run_asks_and_only_there(run: Tables, directory: Path) -> None:
    html = render(run, directory)
    assert 'id="legacy"' in html
    assert "AAC blocks over UDP with a GUI" in html
    assert 'id="legacy"' not in render(load(directory), directory)

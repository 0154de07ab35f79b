"""A few of the trials of ``tests/bench/kills.py``; ``test_labs.py`` kills a run in containers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.kills import soak

pytestmark = pytest.mark.realtime


@pytest.mark.parametrize(
    ("lab", "count"),
    [
        ("virtual", 2),
        pytest.param("netns", 1, marks=pytest.mark.netns),
    ],
)
def test_a_run_outlives_a_kill_of_any_of_its_processes(
    lab: str, count: int, tmp_path: Path
) -> None:
    for trial in soak(lab, count=count, seed=5, folder=tmp_path, disk_full=False):
        assert trial.problems == [], trial


@pytest.mark.root
def test_a_run_outlives_a_disk_that_is_full_at_compaction(tmp_path: Path) -> None:
    trials = soak("virtual", count=2, seed=5, folder=tmp_path, disk_full=True)
    assert [trial.problems for trial in trials] == [[], []]
    assert any("there was room" not in trial.victim for trial in trials)

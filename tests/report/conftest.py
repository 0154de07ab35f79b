"""The small run, written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report.small_run import SmallRun


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run with every status, speech and music, a codec of random weights."""
    return SmallRun().write(tmp_path_factory.mktemp("results"))

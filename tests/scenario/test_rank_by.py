"""``rank_by``: a metric with one score per cell, among those that the scenario asks for."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from harness.errors import ScenarioError
from harness.scenario import loads
from harness.scenario.model import Metric, RankMetric
from harness.score.quality import measures

SCENARIO = """\
name: small
corpus: [librispeech]
codecs: [g711]
transports: [udp]
networks: [clean]
"""


def rank_by(text: str) -> str | None:
    return loads(SCENARIO + text, "small.yaml", Path()).rank_by


def test_a_scenario_says_what_is_ranked_by() -> None:
    assert rank_by("") is None
    assert rank_by("rank_by: stoi\n") == "stoi"
    assert rank_by("metrics: [plcmos]\nrank_by: plcmos\n") == "plcmos"


def test_a_metric_that_is_not_scored_is_refused() -> None:
    with pytest.raises(ScenarioError, match="expected a metric of this scenario"):
        rank_by("metrics: [stoi]\nrank_by: pesq-wb\n")


def test_every_metric_with_one_score_per_cell_can_be_ranked_by() -> None:
    alone = {name for name in get_args(Metric) if len(measures([name])) == 1}
    assert set(get_args(RankMetric)) == alone

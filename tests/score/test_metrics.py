"""What a score may be: within its metric's bounds, and rounded to what is meant."""

from __future__ import annotations

import math

import pytest

from harness.score.metrics import METRICS, score
from harness.score.quality import Measure, score_audio
from tests.score.signals import speech, task


def below(*_: object) -> float:
    return -0.7


@pytest.mark.parametrize("metric", [name for name, m in METRICS.items() if m.bounds[0] == 0])
def test_a_lower_bound_of_0_is_enforced(metric: str) -> None:
    row = score(metric, -0.7, package="some-package")
    assert row["value"] is None
    assert row["reason"] == "some-package returned -0.7, which is out of bounds"
    assert score(metric, 0.0)["value"] == 0.0


def test_a_measure_below_its_bound_has_no_score() -> None:
    measure = Measure("plcmos", "", "media", "onnxruntime", below)
    (row,) = score_audio(task(speech(1.0)), (measure,))
    assert row["value"] is None
    assert row["reason"] == "onnxruntime returned -0.7, which is out of bounds"


@pytest.mark.parametrize("metric", METRICS)
def test_bounds_hold_for_every_metric(metric: str) -> None:
    low, high = METRICS[metric].bounds
    for bound, beyond in ((low, -1), (high, 1)):
        if bound is not None:
            assert score(metric, bound)["value"] == bound
            assert score(metric, bound + 0.001 * beyond)["value"] is None
    for value in (math.nan, math.inf, -math.inf):
        assert score(metric, value)["value"] is None


def test_a_score_is_rounded_to_its_metrics_decimals() -> None:
    assert score("stoi", 0.4795025207578271)["value"] == 0.479503
    assert score("stoi", 0.4795025207578271) == score("stoi", 0.4795025207578769)

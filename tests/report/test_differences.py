"""Differences to a baseline: in pairs, in families, and never claimed without an interval."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.report.differences import baseline, differences
from harness.store import Tables
from tests.report.small_run import run_of

BASE = [3.0, 3.4, 2.6, 3.9, 2.2, 3.1, 3.3, 2.8]


def rated(*codecs: tuple[str, float, dict[str, object]], count: int = 8) -> Tables:
    """One cell per codec and utterance; PESQ-WB is that of the utterance plus a shift."""
    cells, scores = [], []
    for codec, shift, columns in codecs:
        for number, value in enumerate(BASE[:count]):
            wiggle = 0.01 * (number % 3) * (shift != 0)
            scores.append({"cell_id": str(len(cells)), "value": value + shift + wiggle})
            cells.append(
                {"codec": codec, "utterance": f"u{number}", "block": f"b{number}"} | columns
            )
    return run_of(cells, scores)


def test_the_baseline_is_the_one_that_the_run_names() -> None:
    run = rated(("pcm", 0, {"codec_kind": "pcm"}), ("opus", -1, {"codec_kind": "opus"}))
    run.runs["baseline"] = "opus"
    assert baseline(run) == ("opus", "the scenario's baseline")
    run.runs["baseline"] = None
    found = baseline(run)
    assert found is not None
    assert found.codec == "pcm"
    assert "no baseline is recorded" in found.why


def test_without_pcm_the_baseline_is_the_highest_bitrate() -> None:
    run = rated(
        ("low", 0, {"bitrate_nominal_bps": 6e3}), ("high", 0, {"bitrate_nominal_bps": 24e3})
    )
    found = baseline(run)
    assert found is not None
    assert found.codec == "high"
    assert baseline(run_of([], [])) is None


def test_a_difference_has_its_interval_its_test_and_its_size() -> None:
    found = differences(rated(("a", 0, {}), ("b", -0.5, {}), ("c", 0.3, {})), "a")
    rows = found.set_index("codec")
    assert rows.loc["b", "mean"] == pytest.approx(-0.49, abs=0.005)
    assert rows.loc["b", "low"] < rows.loc["b", "mean"] < rows.loc["b", "high"] < 0
    assert rows.loc["b", "p"] == pytest.approx(2 / 256)
    assert rows.loc["b", "p_family"] == pytest.approx(2 / 256), "both differ in all utterances"
    assert rows.loc["b", "effect"] < -10
    assert rows.loc["b", ["utterances", "pairs"]].tolist() == [8, 8]
    assert rows.loc["b", "told_apart"]
    assert "a" not in rows.index


def test_below_six_utterances_nothing_is_significant() -> None:
    found = differences(rated(("a", 0, {}), ("b", -3.0, {}), count=5), "a")
    (row,) = (row for _, row in found.iterrows())
    assert row["mean"] == pytest.approx(-2.99, abs=0.02)
    assert pd.isna(row[["low", "high", "p", "p_family", "effect"]]).all()
    assert not row["told_apart"]


def test_all_codecs_and_transports_of_a_network_are_one_family() -> None:
    run = rated(
        ("a", 0, {}),
        ("b", -0.5, {}),
        ("a", 0, {"transport": "tcp"}),
        ("b", -0.4, {"transport": "tcp"}),
        ("a", 0, {"network": "other"}),
        ("b", -0.4, {"network": "other"}),
    )
    run.cells["block"] += run.cells["network"]
    tcp = (run.cells["transport"] == "tcp") & (run.cells["codec"] == "b")
    odd = run.cells.loc[tcp, "cell_id"].iloc[0]
    run.scores.loc[run.scores["cell_id"] == odd, "value"] += 0.9
    rows = differences(run, "a").set_index(["network", "transport"])
    alone, together = rows["p"], rows["p_family"]
    assert together[("n", "udp")] == alone[("n", "udp")] == pytest.approx(2 / 256)
    assert together[("n", "tcp")] >= alone[("n", "tcp")] > 2 / 256
    assert together[("other", "udp")] == pytest.approx(2 / 256)


def test_an_added_control_is_shown_but_neither_tested_nor_counted() -> None:
    run = rated(("a", 0, {}), ("b", -0.5, {}), ("pcm", 1.0, {}))
    run.runs["added_controls"] = '{"codec": "pcm", "network": null}'
    rows = differences(run, "a").set_index("codec")
    assert rows["control"].to_dict() == {"b": False, "pcm": True}
    assert rows.loc["pcm", "mean"] == pytest.approx(1.01, abs=0.01)
    assert pd.isna(rows.loc["pcm", "p_family"])
    assert not rows.loc["pcm", "told_apart"]
    assert rows.loc["b", "p_family"] == rows.loc["b", "p"]


def test_an_added_control_can_be_the_baseline() -> None:
    run = rated(("pcm", 0, {}), ("b", -0.5, {}))
    run.runs["added_controls"] = '{"codec": "pcm", "network": null}'
    rows = differences(run, "pcm")
    assert rows["codec"].tolist() == ["b"]
    assert np.isfinite(rows["p_family"]).all()

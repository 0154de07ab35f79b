"""What the rig's controls say of its own noise."""

from __future__ import annotations

import json

import numpy as np
import pytest

from harness.network.link import Bernoulli, Link, LinkPair
from harness.network.link_json import link_to_json
from harness.report import noise
from harness.store import Tables
from tests.report.small_run import run_of

CLEAN, LOSSY = (
    json.dumps(link_to_json(LinkPair(link, link))) for link in (Link(), Link(loss=Bernoulli(0.1)))
)


def repeated(values: dict[str, list[float]], **columns: object) -> Tables:
    """PESQ-WB of PCM over the clean link: per utterance, one value per repetition."""
    cells, scores = [], []
    for utterance, of in values.items():
        for repetition, value in enumerate(of):
            scores.append({"cell_id": str(len(cells)), "value": value})
            cells.append(
                {
                    "codec": "pcm",
                    "codec_kind": "pcm",
                    "utterance": utterance,
                    "repetition": repetition,
                    "link_asked": CLEAN,
                }
                | columns
            )
    return run_of(cells, scores)


def test_repeatability_is_pooled_within_utterances() -> None:
    rows = noise.noise(repeated({"u": [4.0, 4.2], "v": [3.0, 3.2], "w": [2.0]}))
    (row,) = rows.to_dict("records")
    assert (row["control"], row["name"], row["figure"]) == (noise.BOTH, "pcm", "pesq_wb")
    assert row["repeatability"] == pytest.approx(np.sqrt((0.02 + 0.02) / 2))
    assert row["limit"] == pytest.approx(2.8 * row["repeatability"])
    assert row["between"] == pytest.approx(np.std([4.1, 3.1, 2.0], ddof=1))
    assert (row["low"], row["high"]) == (2.0, 4.2)
    assert (row["cells"], row["utterances"], row["repetitions"]) == (5, 3, 2)
    assert noise.repeats(rows)
    assert noise.resolution(rows, "pesq_wb") == pytest.approx(row["limit"])
    assert noise.resolution(rows, "stoi") is None


def test_one_repetition_tells_nothing_of_repeatability() -> None:
    rows = noise.noise(repeated({"u": [4.0], "v": [3.0]}))
    assert not noise.repeats(rows)
    assert noise.resolution(rows, "pesq_wb") is None
    assert np.isnan(rows["limit"]).all()


def test_the_limit_holds_two_repetitions_in_95_of_100_cases() -> None:
    drawn = np.random.default_rng(6).normal(4, 0.05, (400, 2))
    rows = noise.noise(repeated({f"u{i}": pair.tolist() for i, pair in enumerate(drawn)}))
    limit = noise.resolution(rows, "pesq_wb")
    assert limit is not None
    assert (np.abs(np.diff(drawn, axis=1)) < limit).mean() == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(
    ("columns", "control", "name"),
    [
        ({}, noise.BOTH, "pcm"),
        ({"link_asked": LOSSY}, noise.NULL_CODEC, "n"),
        ({"codec": "x", "codec_kind": "opus"}, noise.NULL_NETWORK, "x"),
    ],
)
def test_cells_are_of_the_control_that_they_hold_fast(
    columns: dict[str, object], control: str, name: str
) -> None:
    rows = noise.noise(repeated({"u": [4.0, 4.1]}, **columns))
    assert rows[["control", "name"]].values.tolist() == [[control, name]]


def test_cells_without_a_control_say_nothing_of_the_rig() -> None:
    assert noise.noise(repeated({"u": [4.0, 4.1]}, codec_kind="opus", link_asked=LOSSY)).empty
    assert noise.noise(repeated({"u": [4.0, 4.1]}, status="invalid")).empty

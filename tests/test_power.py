"""``harness power`` as a user meets it: a pilot, what it says, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from harness.cli import main
from harness.power import compared
from harness.store import Tables, load, schema
from harness.store.tables import from_rows, to_pandas
from tests.labs.conftest import voice

SCENARIO = """\
name: small
seed: 3
controls: false
baseline: g711
corpus: [{{folder: audio, kind: {kind}}}]
codecs: {codecs}
transports: [udp]
networks: [{{name: lossy, forward: {{loss: {{model: media-time, loss: 15%, burst: 60ms}}}}}}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven items of 3.6 s; what is written beside them is a scenario of theirs."""
    path = tmp_path_factory.mktemp("power")
    (path / "audio").mkdir()
    for number in range(7):
        soundfile.write(path / "audio" / f"{number}.wav", voice(3.6, 16_000, number), 16_000)
    return path


def scenario(
    folder: Path, kind: str = "speech", codecs: str = "[pcm, g711]", lines: str = ""
) -> str:
    path = folder / "small.yaml"
    path.write_text(SCENARIO.format(kind=kind, codecs=codecs) + lines)
    return str(path)


def test_a_pilot_says_what_is_needed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--metric", "stoi", "--delta", "0.01", "--pilot", "6x2", "--out", str(tmp_path)]
    assert main(["power", scenario(folder), *options, "--jobs", "2"]) == 0
    told = capsys.readouterr().out
    assert "tell 0.01 of stoi from g711" in told
    assert "pcm/udp/lossy" in told
    (run,) = tmp_path.glob("small-pilot-*")
    tables = load(run)
    assert tables.cells.groupby("codec").size().to_dict() == {"g711": 12, "pcm": 12}
    assert tables.cells.utterance.nunique() == 6
    assert set(tables.scores.metric[tables.scores["mode"] == "classic"]) == {"stoi"}
    assert "pesq" not in set(tables.scores.metric)
    (pair,) = compared(tables, "stoi")
    assert pair.comparison is not None
    assert (pair.comparison.utterances, pair.comparison.pairs) == (6, 12)
    paired, apart = (pair.comparison.components[design] for design in ("paired", "apart"))
    assert float(paired.seed) < float(apart.seed) / 4, "both codecs lose the same 20 ms packets"
    rows = re.findall(r"^ (\d+) +(\d+) \[(\d+), (\d+)\] +(\d+) \[", told, re.MULTILINE)
    assert [int(row[0]) for row in rows] == [1, 2, 3, 5, 10, 20]
    for _, mine, low, high, other in rows:
        assert int(low) <= int(mine) <= int(high)
        assert int(mine) <= int(other)
    assert "with the scenario's 7 utterances" in told
    assert "at a level of 0.05 for all comparisons of a network together" in told
    said = re.search(
        r"the report's own test \(1 comparison as one family, 400 simulated runs\): the scenario's"
        r" 7 utterances x 1 seeds find it in \d+%; 80% take \d+ utterances",
        told,
    )
    assert said is not None


def test_codecs_without_scores_have_a_reason() -> None:
    """Of cells that failed, of scores that are null, and of blocks that two codecs do not share."""
    codecs = ("base", "fine", "broken", "random", "elsewhere")
    cells = [
        {
            "cell_id": f"{codec}-{number}",
            "codec": codec,
            "status": "failed" if codec == "broken" else "ok",
            "reason": "it died" if codec == "broken" else None,
            "utterance": f"u{number // 2}",
            "block": f"b{number + (100 if codec == 'elsewhere' else 0)}",
            **{"network": "n", "transport": "udp", "receiver": "r"},
        }
        for codec in codecs
        for number in range(12)
    ]
    draw = np.random.default_rng(1).normal
    scores = [
        {
            "cell_id": cell["cell_id"],
            **{"metric": "pesq", "mode": "wb", "track": "media"},
            "value": None if cell["codec"] == "random" else 3 + draw(),
            "reason": "random weights" if cell["codec"] == "random" else None,
        }
        for cell in cells
        if cell["status"] == "ok"
    ]
    rows = {"runs": [{"run_id": "r", "baseline": "base"}], "cells": cells, "scores": scores}
    run = Tables(**{name: to_pandas(from_rows(name, rows.get(name, []))) for name in schema.TABLES})
    found = {pair.codec: pair for pair in compared(run, "pesq-wb")}
    assert list(found) == sorted(set(codecs) - {"base"})
    assert found["fine"].comparison is not None
    assert {name: pair.reason for name, pair in found.items()} == {
        "fine": None,
        "broken": "broken has no scores (it died)",
        "random": "random has no scores (random weights)",
        "elsewhere": "elsewhere and base share too few blocks",
    }


@pytest.mark.parametrize(
    ("changes", "options", "wrong"),
    [
        ({}, ["--pilot", "8x2"], "expected 6 to 7 utterances"),
        ({}, ["--pilot", "5x2"], "expected 6 to 7 utterances"),
        ({}, ["--pilot", "6x1"], "at least 2 seeds, got 6x1"),
        ({}, ["--metric", "pesq-bw"], 'got "pesq-bw"; did you mean "pesq-wb"?'),
        ({"kind": "music"}, [], "pesq-wb-played: is for speech only"),
        ({"codecs": "[g711]"}, [], "expected two codecs to tell apart, got g711 alone"),
        ({"lines": "exclude: [{utterance: ['5*', '6*']}]\n"}, [], "at least 6 utterances"),
    ],
)
def test_what_cannot_be_piloted_is_refused_before_anything_runs(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    options: list[str],
    wrong: str,
) -> None:
    assert main(["power", scenario(folder, **changes), *options, "--out", str(tmp_path)]) == 2
    assert wrong in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options", [["--delta", "0"], ["--power", "1"], ["--alpha", "x"], ["--pilot", "6"]]
)
def test_numbers_without_sense_are_refused(folder: Path, options: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["power", scenario(folder), *options])
    assert ended.value.code == 2

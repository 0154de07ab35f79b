"""What a report shows of metrics that were asked for, and its warning about generative codecs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from markupsafe import escape

from harness.report import sections, tables
from harness.report.page import render
from harness.store import Tables, load
from tests.report.small_run import SmallRun

HONEST = SmallRun(
    codecs=("pcm", "opus"),
    transports=("udp",),
    networks=("clean", "lossy"),
    utterances=("anna",),
    music=(),
    troubled=False,
    audio=False,
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return HONEST.write(tmp_path_factory.mktemp("honest"))


@pytest.fixture(scope="module")
def run(directory: Path) -> Tables:
    return load(directory)


def with_scores(run: Tables, metric: str, mode: str, value: float | None, track: str) -> Tables:
    """The run with one more score in every cell."""
    more = run.scores.drop_duplicates("cell_id").assign(
        metric=metric,
        mode=mode,
        track=track,
        value=value,
        reason=None if value is not None else "PLCMOS is not here",
    )
    scores = pd.concat([run.scores, more.astype(run.scores.dtypes)], ignore_index=True)
    return Tables(run.runs, run.cells, run.packets, run.frames, scores)


def test_only_what_was_asked_for_is_shown(run: Tables, directory: Path) -> None:
    assert tables.figures_of(run) == tables.FIGURES
    assert "PLCMOS</th>" not in render(run, directory)
    scored = with_scores(run, "plcmos", "", 3.456, "media")
    scored = with_scores(scored, "e_model", "", None, "")
    keys = [shown.key for shown in tables.figures_of(scored)[len(tables.FIGURES) :]]
    assert keys == ["plcmos", "e_model"]
    page = render(scored, directory)
    assert "3.46" in page
    assert "PLCMOS is not here" in page  # why there is no E-model, in its place


def test_a_mode_for_another_kind_of_audio_takes_no_column(run: Tables) -> None:
    scored = with_scores(run, "lsd", "wb", 4.0, "media")
    scored = with_scores(scored, "lsd", "fb", None, "media")
    keys = [shown.key for shown in tables.figures_of(scored)]
    assert "lsd" in keys
    assert "lsd_music" not in keys


@pytest.mark.parametrize("weights", ["real", "random"])
def test_generative_codecs_come_with_a_warning(run: Tables, directory: Path, weights: str) -> None:
    assert sections.generative_warning(run) is None
    assert "mis-rank generative codecs (" not in render(run, directory)
    neural = run.cells["codec"].eq("opus")
    cells = run.cells.assign(weights=run.cells["weights"].mask(neural, weights))
    changed = Tables(run.runs, cells, run.packets, run.frames, run.scores)
    told = sections.generative_warning(changed)
    assert told is not None
    for part in ("(opus)", "0.24", "16 items in 8 conditions", "2.02, was rated 67", "catalogue"):
        assert part in told
    assert str(escape(told)) in render(changed, directory)


def test_utterances_without_a_pesq_are_counted_with_their_reason(
    run: Tables, directory: Path
) -> None:
    assert sections.without_pesq(run) is None
    scores = run.scores.copy()
    mine = scores["metric"].eq("pesq")
    scores.loc[mine, "value"] = None
    scores.loc[mine, "reason"] = "PESQ needs 3.2 s of active speech, got 2.3 s"
    changed = Tables(run.runs, run.cells, run.packets, run.frames, scores)
    said = "1 of 1 utterances have no PESQ: PESQ needs 3.2 s of active speech (anna)."
    assert sections.without_pesq(changed) == said
    assert said in render(changed, directory)


def test_unsteady_scores_are_counted(run: Tables, directory: Path) -> None:
    assert sections.unsteady_pesq(run) is None
    scores = run.scores.copy()
    scores["spread"] = scores["spread"].astype("Float64")
    mine = scores.index[scores["metric"].eq("pesq") & scores["mode"].eq("wb")]
    scores.loc[mine, "spread"] = 0.02
    scores.loc[mine[0], "spread"] = 0.81
    changed = Tables(run.runs, run.cells, run.packets, run.frames, scores)
    said = f"PESQ-WB is unsteady in 1 of {len(mine)} scores: it moves by more than 0.1 MOS (by 0.81"
    assert said in str(sections.unsteady_pesq(changed))
    assert said in render(changed, directory)

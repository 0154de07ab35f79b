"""Who sounded best on a network, who is tied with it, and who does not compete."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from harness.report import tables
from harness.report.page import render
from harness.report.verdicts import Verdict, verdicts
from harness.stats.difference import Family
from harness.store import Tables, load
from harness.store.tables import from_rows, to_pandas
from tests.report.small_run import SmallRun
from tests.report.test_tables import altered, rated


def verdict(run: Tables) -> Verdict:
    (found,) = verdicts(run, tables.summarise(run), ["n"])
    return found


def test_no_winner_with_few_utterances_however_far_apart() -> None:
    found = verdict(rated({"good": [4.5] * 5, "bad": [1.5] * 5}))
    assert found.best.name[2] == "good"
    assert not found.testable
    assert [other.name[2] for other in found.tied] == ["bad"]


def test_a_winner_needs_a_difference_that_holds_in_pairs() -> None:
    base = [3.0, 3.4, 2.6, 3.9, 2.2, 3.1, 3.3, 2.8]
    better = [value + 0.2 + 0.01 * i for i, value in enumerate(base)]
    found = verdict(rated({"base": base, "better": better}))
    assert found.best.name[2] == "better"
    assert found.testable
    assert not found.tied  # although the intervals of the means overlap widely
    assert found.ranked[0].low < found.ranked[1].high
    mixed = [value + (0.2 if i % 2 else -0.15) for i, value in enumerate(base)]
    found = verdict(rated({"base": base, "mixed": mixed}))
    assert found.testable
    assert len(found.tied) == 1


def test_six_utterances_that_agree_are_enough_for_any_number_of_comparisons() -> None:
    """Ten configurations in steps that all six utterances confirm: 45 comparisons, p = 2^-5."""
    base = np.array([3.0, 3.4, 2.6, 3.9, 2.2, 3.1])
    steps = {f"c{i}": (base - 0.1 * i - 0.001 * i * np.arange(6)).tolist() for i in range(10)}
    found = verdict(rated(steps))
    assert found.won
    assert found.family == Family(45, 6)
    assert {one.difference.p_family for one in found.ranked[1:] if one.difference} == {2**-5}
    assert found.closest is not None
    assert found.closest.name[2] == "c1"


def test_what_is_tied_with_the_best_is_named_and_what_is_beaten_is() -> None:
    base = np.array([3.0, 3.4, 2.6, 3.9, 2.2, 3.1, 3.3, 2.8])
    wobble = np.array([0.1, -0.09, 0.1, -0.1, 0.08, -0.1, 0.09, -0.07])
    found = verdict(
        rated({"a": base.tolist(), "b": (base + wobble).tolist(), "c": (base - 0.5).tolist()})
    )
    assert not found.won
    assert {one.name[2] for one in found.best_set} == {"a", "b"}
    assert [one.name[2] for one in found.beaten] == ["c"]


def test_controls_are_no_candidates() -> None:
    """PCM beside other codecs, and the clean link beside other networks."""
    run = rated({"pcm": [4.6] * 8, "good": [3.5 + i / 50 for i in range(8)], "bad": [2.0] * 8})
    run.cells["codec_kind"] = run.cells["codec"]
    found = verdict(run)
    assert [one.name[2] for one in found.ranked] == ["good", "bad"]
    assert [one.name[2] for one in found.controls] == ["pcm"]
    assert found.won
    assert found.family.comparisons == 1
    alone = rated({"pcm": [4.6] * 8})
    alone.cells["codec_kind"] = "pcm"
    assert [one.name[2] for one in verdict(alone).ranked] == ["pcm"], "PCM alone is no control"


def test_the_clean_link_comes_last_and_is_a_control(small_run: Path) -> None:
    run = load(small_run)
    found = verdicts(run, tables.summarise(run), ["clean", "lossy", "narrow"])
    assert [one.network for one in found] == ["lossy", "narrow", "clean"]
    assert [one.is_control for one in found] == [False, False, True]
    (alone,) = verdicts(run, tables.summarise(run), ["clean"])
    assert not alone.is_control


def test_ranks_are_by_what_a_listener_got_unless_the_scenario_says_otherwise() -> None:
    run = rated({"a": [4.0] * 8, "b": [3.5] * 8})
    played = run.scores.assign(
        track="played", value=run.cells["codec"].map({"a": 3.0, "b": 3.4}).to_numpy()
    )
    run = altered(run, scores=pd.concat([run.scores, played], ignore_index=True))
    assert [one.name[2] for one in verdict(run).ranked] == ["b", "a"]
    assert verdict(run).shown.key == "pesq_wb_played"
    run.runs["rank_by"] = "pesq-wb"
    assert [one.name[2] for one in verdict(run).ranked] == ["a", "b"]
    assert verdict(run).ranked[0].media == 4.0


def test_without_common_blocks_nothing_is_claimed() -> None:
    run = rated({"a": [4.0] * 8, "b": [2.0] * 8})
    run.cells["block"] = run.cells["cell_id"]
    found = verdict(run)
    assert found.ranked[1].difference is None
    assert len(found.tied) == 1


def test_a_configuration_that_lacks_an_utterance_or_a_score_is_named() -> None:
    run = rated({"a": [4.0, 3.0], "b": [3.9, 2.9]})
    assert not verdict(run).uneven
    run = rated({"a": [4.0, 3.0], "b": [3.9], "c": [None]})  # type: ignore[list-item]
    run.scores["reason"] = run.scores["value"].isna().map({True: "silent", False: None})
    found = verdict(run)
    assert found.uneven
    assert [one.name[2] for one in found.ranked] == ["b", "a"]
    assert found.unranked == ((("udp", "fixed", "c"), "silent"),)


def test_conversation_ends_where_g_114_says() -> None:
    run = rated({"slow": [4.5, 4.5], "quick": [4.0, 4.0]})
    delays = [
        {"metric": "mouth_to_ear", "mode": "p95", "track": "", "cell_id": str(i), "value": value}
        for i, value in enumerate((900.0, 900.0, 400.0, 400.0))
    ]
    extra = to_pandas(from_rows("scores", delays))
    found = verdict(altered(run, scores=pd.concat([run.scores, extra], ignore_index=True)))
    assert found.best.name[2] == "slow"
    assert found.conversational is not None
    assert found.conversational.name[2] == "quick"
    assert found.quickest.name[2] == "quick"


def test_music_alone_gives_no_verdict(tmp_path: Path) -> None:
    run = load(SmallRun(utterances=(), troubled=False).write(tmp_path))
    summary = tables.summarise(run)
    found = verdicts(run, summary, ["clean"])
    assert found[0].ranked == ()
    clips = tables.choose_clips(run, ["clean"])
    assert clips is not None
    assert clips.utterance == "tune"


def test_a_run_that_scores_no_pesq_is_ranked_by_what_it_has(tmp_path: Path) -> None:
    run = load(SmallRun(codecs=("opus", "g722"), music=(), troubled=False).write(tmp_path))
    run = altered(run, scores=run.scores[run.scores["metric"] != "pesq"])
    (found,) = verdicts(run, tables.summarise(run), ["lossy"])
    assert found.shown.key == "stoi"
    assert found.ranked
    assert "Ranked by STOI" in render(run, tmp_path)

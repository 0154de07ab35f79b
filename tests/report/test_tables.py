"""What the report claims, and what it refuses to claim."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.report import tables
from harness.report.tables import BY_KEY, CONFIGURATION
from harness.score.stats import MIN_CLUSTERS
from harness.store import Tables, load, schema
from harness.store.tables import from_rows, to_pandas
from tests.report.small_run import SmallRun, run_of


def altered(run: Tables, **other: pd.DataFrame) -> Tables:
    return Tables(**({name: getattr(run, name) for name in schema.TABLES} | other))


def rated(quality: dict[str, list[float]], **columns: object) -> Tables:
    """One cell per codec and utterance, with this PESQ-WB."""
    cells, scores = [], []
    for codec, values in quality.items():
        for number, value in enumerate(values):
            scores.append({"cell_id": str(len(cells)), "value": value})
            cells.append(
                {"codec": codec, "utterance": f"u{number}", "block": f"b{number}"} | columns
            )
    return run_of(cells, scores)


def verdict(run: Tables) -> tables.Verdict:
    (found,) = tables.verdicts(run, tables.summarise(run), ["n"])
    return found


def test_a_mean_is_over_utterances_and_a_range_stands_where_no_interval_can() -> None:
    run = run_of(
        [
            {"codec": "a", "utterance": u, "repetition": r}
            for u, r in (("x", 0), ("x", 1), ("y", 0))
        ],
        [{"cell_id": str(i), "value": v} for i, v in enumerate((2.0, 3.0, 4.0))],
    )
    row = tables.summarise(run).set_index("figure").loc["pesq_wb"]
    assert (row["mean"], row.low, row.high, row.spread) == (3.25, 2.5, 4.0, "range")
    assert (row.n, row.utterances) == (3, 2)
    assert pd.isna(row.reason)


def test_from_enough_utterances_on_there_is_an_interval() -> None:
    values = [3.0 + 0.1 * i for i in range(MIN_CLUSTERS)]
    row = tables.summarise(rated({"a": values})).set_index("figure").loc["pesq_wb"]
    assert row.spread == "interval"
    assert min(values) < row.low < row["mean"] < row.high < max(values)


def test_a_figure_is_shown_in_its_unit() -> None:
    run = run_of(
        [{"codec": "a", "utterance": "x"}],
        [{"cell_id": "0", "metric": "share_late_or_lost", "mode": "", "track": "", "value": 0.125}],
    )
    row = tables.summarise(run).set_index("figure").loc["missing"]
    assert row["mean"] == 12.5
    assert pd.isna(row.spread)


def test_what_is_missing_has_a_reason_and_no_number() -> None:
    run = run_of(
        [
            {"codec": "broken", "utterance": "x", "status": "failed"},
            {"codec": "broken", "utterance": "y", "status": "invalid"},
            {"codec": "random", "utterance": "x"},
            {"codec": "fresh", "utterance": "x"},
            {"codec": "half", "utterance": "x"},
            {"codec": "half", "utterance": "y"},
        ],
        [
            {"cell_id": "0", "value": 4.6},  # of a failed cell: never shown
            {"cell_id": "2", "value": None, "reason": "random weights"},
            {"cell_id": "4", "value": 4.0},
            {"cell_id": "5", "value": None, "reason": "too short"},
        ],
    )
    rows = tables.summarise(run)
    found = rows[rows["figure"] == "pesq_wb"].set_index("codec")
    assert found.loc["broken", "reason"] == "no ok cell: 1 failed, 1 invalid"
    assert found.loc["random", "reason"] == "random weights"
    assert found.loc["fresh", "reason"] == "not scored"
    assert found.loc[["broken", "random", "fresh"], "mean"].isna().all()
    assert (found.loc["half", "mean"], found.loc["half", "n"]) == (4.0, 1)


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
    assert found.ranked[0].quality_low < found.ranked[1].quality_high
    mixed = [value + (0.2 if i % 2 else -0.15) for i, value in enumerate(base)]
    found = verdict(rated({"base": base, "mixed": mixed}))
    assert found.testable
    assert len(found.tied) == 1


def test_each_further_comparison_makes_a_claim_harder() -> None:
    """Six utterances can show one difference (p = 0.031), but not one among several (Holm)."""
    base = [3.0, 3.4, 2.6, 3.9, 2.2, 3.1]
    lower = [value - 0.5 for value in base]
    assert not verdict(rated({"base": base, "one": lower})).tied
    several = {"base": base} | {f"other{i}": lower for i in range(3)}
    assert len(verdict(rated(several)).tied) == 3


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
    found = tables.verdicts(run, summary, ["clean"])
    assert found[0].ranked == ()
    clips = tables.choose_clips(run, ["clean"])
    assert clips is not None
    assert clips.utterance == "tune"


def test_networks_run_from_clean_to_cruel_and_codecs_by_bitrate(small_run: Path) -> None:
    run = load(small_run)
    order = tables.order(run, tables.summarise(run))
    assert order.networks[0] == "clean"
    assert set(order.networks) == {"clean", "lossy", "narrow"}
    assert order.codecs == ("pcm", "opus", "encodec")
    assert order.transports == ("udp", "tcp")


def test_clips_are_the_highest_lowest_and_median_of_one_utterance(small_run: Path) -> None:
    run = load(small_run)
    clips = tables.choose_clips(run, ["clean", "lossy"])
    assert clips is not None
    cells = run.cells.set_index("cell_id")
    chosen = cells.loc[[clip.cell_id for clip in clips.clips]]
    assert set(chosen["utterance"]) == {clips.utterance}
    assert set(chosen["status"]) == {"ok"}
    assert [clip.place for clip in clips.clips][:2] == ["highest", "highest"]
    assert len({clip.cell_id for clip in clips.clips}) == len(clips.clips)
    quality = tables.scored(run, BY_KEY["pesq_wb"]).set_index("cell_id")["value"]
    for network in ("clean", "lossy"):
        here = {clip.place: clip.cell_id for clip in clips.clips if clip.network == network}
        mine = cells[(cells["network"] == network) & (cells["utterance"] == clips.utterance)]
        assert quality[here["highest"]] == quality.reindex(mine.index).max()


def test_packets_become_runs_of_their_worst_fate() -> None:
    run = run_of([{"codec": "a", "utterance": "x"}], [])
    frame_ns = 20_000_000
    fates = ["played", "lost", "lost", "played", "reordered", "late"]
    rows = [
        {"cell_id": "0", "seq": i, "frame": i, "media_ns": i * frame_ns, "fate": fate}
        for i, fate in enumerate(fates)
    ]
    rows.append({"cell_id": "0", "seq": 9, "frame": 4, "media_ns": 4 * frame_ns, "fate": "lost"})
    found = tables.fate_runs(altered(run, packets=to_pandas(from_rows("packets", rows))), "0")
    assert found == [("lost", 0.02, 0.04), ("lost", 0.08, 0.02), ("late", 0.1, 0.02)]
    assert tables.fate_runs(run, "0") == []


def test_frames_of_a_broken_number_of_nanoseconds_are_joined() -> None:
    run = run_of([{"codec": "a", "utterance": "x"}], [])
    rows = [
        {"cell_id": "0", "seq": k, "media_ns": k * 1024 * 10**9 // 48_000, "fate": "lost"}
        for k in range(50)
    ]
    found = tables.fate_runs(altered(run, packets=to_pandas(from_rows("packets", rows))), "0")
    assert [fate for fate, _, _ in found] == ["lost"]


def test_shares_of_fates_add_up(small_run: Path) -> None:
    run = load(small_run)
    shares = tables.fates(run)
    np.testing.assert_allclose(shares[list(tables.FATES)].sum(axis=1), 1)
    fine = tables.ok_cells(run)["cell_id"]
    assert shares["packets"].sum() == run.packets["cell_id"].isin(fine).sum()


def test_the_parts_of_latency_are_the_medians_of_the_frames(small_run: Path) -> None:
    run = load(small_run)
    parts = tables.latency_parts(run).set_index(CONFIGURATION)
    clean = parts.loc[("clean", "udp", "adaptive", "pcm")]
    assert clean["fill_ms"] == pytest.approx(20)
    assert clean["buffer_ms"] == pytest.approx(60 - 0.15 - 0.05)


def test_the_rig_is_checked_by_pcm_on_the_clean_network_alone(small_run: Path) -> None:
    run = load(small_run)
    rig = tables.rig_check(run, tables.summarise(run))
    assert set(rig["network"]) == {"clean"}
    assert set(rig["codec"]) == {"pcm"}
    assert set(rig["transport"]) == {"udp", "tcp"}
    assert (rig["pesq_wb"] > 4.5).all()
    assert rig["network_ms"].tolist() == pytest.approx([0.05, 0.05])


def test_the_proof_shows_the_cell_that_was_furthest_off(small_run: Path) -> None:
    rows = tables.proof(load(small_run)).set_index(["network", "figure"])
    loss = rows.loc[("lossy", "loss")]
    assert loss["measured"] == 0.2
    assert loss["within"] == loss["judged"] - 1
    rate = rows.loc[("clean", "rate")]
    assert (rate["judged"], rate["within"]) == (0, 0)
    assert rate["idle"] > 0


def test_causes_that_differ_in_numbers_only_are_one() -> None:
    late = "the sender fell behind: {} of 500 frames left late (worst {} ms); use fewer --jobs"
    reasons = [
        late.format(12, 30.5),
        late.format(7, 21),
        f"link forward: jitter asked 1, measured 4.2 ms; {late.format(9, 99.9)}",
    ]
    cells = [
        {"codec": f"c{i}", "utterance": "x", "status": "invalid", "reason": reason}
        for i, reason in enumerate(reasons)
    ]
    rows = tables.causes(run_of(cells, []))
    assert rows[["cells", "networks"]].values.tolist() == [[3, "n"], [1, "n"]]
    assert rows["example"].tolist() == [reasons[0], "link forward: jitter asked 1, measured 4.2 ms"]


def test_trouble_is_gathered_with_its_reasons(small_run: Path) -> None:
    run = load(small_run)
    rows = tables.troubled(run)
    assert set(rows["status"]) == {"invalid", "failed", "unsupported"}
    assert rows["cells"].sum() == (run.cells["status"] != "ok").sum()
    late = tables.lateness(run)
    assert late[["cells", "sender_ms", "receiver_ms", "relay_ms"]].values.tolist() == [
        [1, 25.0, 12.5, 0.2]
    ]
    assert late["reading_ms"].isna().all()

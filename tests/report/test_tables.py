"""What the report claims, and what it refuses to claim."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.report import sections, tables
from harness.report.tables import BY_KEY
from harness.stats import MIN_CLUSTERS
from harness.stats.agreement import CONFIGURATION
from harness.store import Tables, load, schema
from harness.store.tables import from_rows, to_pandas
from tests.report.small_run import run_of


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


def test_networks_are_ordered_by_impairment_and_codecs_by_bitrate(
    small_run: Path,
) -> None:
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


@pytest.mark.parametrize(
    ("lag_ms", "alignment", "warned"),
    [
        (5.0, "gcc-phat", True),
        (-1.5, "gcc-phat", True),
        (0.8, "gcc-phat", False),
        (5.0, "envelope", False),
    ],
)
def test_a_codec_whose_tracks_lag_is_named_where_the_lag_is_sure(
    small_run: Path, lag_ms: float, alignment: str, warned: bool
) -> None:
    run = load(small_run)
    assert sections.misaligned(run) is None
    cell = run.cells.loc[run.cells["codec"] == "pcm", "cell_id"].iloc[0]
    of_cell = run.scores["cell_id"] == cell
    assert of_cell.any()
    run.scores.loc[of_cell, ["lag_ms", "alignment"]] = lag_ms, alignment
    said = sections.misaligned(run)
    if not warned:
        assert said is None
    else:
        assert said is not None
        assert f"pcm by {lag_ms:+.1f} ms in 1 cells" in said

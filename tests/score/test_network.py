"""A small cell, worked by hand, through the tables' own types."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.score.metrics import METRICS, Score, score
from harness.score.network import network_scores
from harness.sinks.task import METRIC_NAMES
from harness.store import schema
from harness.store.tables import from_columns, to_pandas

MS = 1_000_000
AUDIO = {"pesq", "stoi", "plcmos", "dnsmos", "visqol", "lsd", "si_sdr"}
OTHERS = {*AUDIO, *METRIC_NAMES, "e_model", "e_model_r", "fairness"}
CELL: dict[str, Any] = {
    "codec_facts": json.dumps({"sample_rate_hz": 16_000, "frame_samples": 320}),
    "media_s": 0.2,
    "bitrate_nominal_bps": 24_000.0,
    "bitrate_payload_bps": 24_100.0,
    "bitrate_wire_bps": float("nan"),
}


def cell_tables(fates: list[str], transit_ms: list[float | None]) -> tuple[pd.DataFrame, ...]:
    count = len(fates)
    zeros = np.zeros(count, np.int64)
    never = np.array([value is None for value in transit_ms], bool)
    transit = np.array([0 if value is None else value * MS for value in transit_ms], np.int64)
    packets = {name: zeros for name in schema.PACKETS if name not in ("cell_id", "fate")}
    packets |= {
        "seq": np.arange(count),
        "send_ns": np.arange(count) * 20 * MS,
        "transit_ns": np.ma.MaskedArray(transit, mask=never),
        "fate": np.array(fates, str),
        "purpose": np.full(count, "media"),
    }
    made_up = ~np.isin(fates, ("played", "reordered"))
    frames = {name: zeros for name in schema.FRAMES if name not in ("cell_id", "kind")}
    frames |= {
        "frame": np.ma.MaskedArray(np.arange(count), mask=zeros.astype(bool)),
        "kind": np.where(made_up, "concealed", "decoded").astype(str),
        "encode_cpu_ns": zeros + 2 * MS,
        "decode_ns": zeros + 7 * MS,  # woken late
        "decoder_ns": zeros + 1 * MS,
        "played_samples": zeros + 320,
        "buffer_ns": zeros + 30 * MS,
        "mouth_to_ear_ns": np.ma.MaskedArray(transit + 100 * MS, mask=made_up),
    }
    return tuple(
        to_pandas(from_columns(name, "a", columns))
        for name, columns in (("packets", packets), ("frames", frames))
    )


def by_key(scores: list[Score]) -> dict[tuple[str, str], Score]:
    found = {(row["metric"], row["mode"]): row for row in scores}
    assert len(found) == len(scores)
    return found


@pytest.fixture(scope="module")
def ten() -> dict[tuple[str, str], Score]:
    fates = ["played", "played", "lost", "lost", "late", "played", "reordered", *["played"] * 3]
    transit = [10, 26, None, None, 90, 10, 10, 12, 10, 10]
    return by_key(network_scores(*cell_tables(fates, transit), CELL))


def value(scores: dict[tuple[str, str], Score], metric: str, mode: str = "") -> float | None:
    return scores[metric, mode]["value"]


def test_every_network_metric_is_there_once(ten: dict[tuple[str, str], Score]) -> None:
    expected = {
        (key, mode) for key, metric in METRICS.items() for mode in metric.modes if key not in OTHERS
    }
    assert set(ten) == expected
    for row in ten.values():
        assert set(row) == set(schema.SCORES) - {"cell_id"}
        assert (row["value"] is None) != (row["reason"] is None)
        assert row["unit"] == METRICS[row["metric"]].unit


def test_fairness_is_of_streams_that_share_a_link() -> None:
    tracks = [{"goodput_bps": 30_000.0, "in_time": 1.0}, {"goodput_bps": 10_000.0, "in_time": 1.0}]
    cell = CELL | {"tracks": json.dumps(tracks)}
    found = by_key(network_scores(*cell_tables(["played"], [10]), cell))
    assert value(found, "fairness", "goodput") == pytest.approx(40_000**2 / (2 * 1_000_000_000))
    assert value(found, "fairness", "in_time") == 1
    nobody = [{"goodput_bps": 0.0, "in_time": 0.0}] * 2
    found = by_key(
        network_scores(*cell_tables(["lost"], [None]), CELL | {"tracks": json.dumps(nobody)})
    )
    assert found["fairness", "in_time"]["reason"] == "no stream had a frame played in time"


def test_losses(ten: dict[tuple[str, str], Score]) -> None:
    assert value(ten, "loss", "lost") == 0.2
    assert value(ten, "loss", "late") == 0.1
    assert value(ten, "loss", "queue") == 0
    assert value(ten, "loss_total") == 0.3
    assert value(ten, "share_late_or_lost") == 0.3
    assert value(ten, "mean_loss_run") == 3
    assert value(ten, "burst_ratio") == pytest.approx(2.1)
    assert value(ten, "burst_density") == 1
    assert value(ten, "burst_duration") == pytest.approx(60)
    assert value(ten, "gap_duration") == pytest.approx((40 + 100) / 2)


def test_delays(ten: dict[tuple[str, str], Score]) -> None:
    assert value(ten, "mouth_to_ear", "p50") == 110
    assert value(ten, "transit", "p50") == 10
    assert value(ten, "pdv", "p50") == 0
    assert value(ten, "latency_part", "buffer") == 30
    assert ten["mouth_to_ear", "p99"]["reason"] == "needs 368 samples, got 7"


def test_jitter_goes_by_arrival(ten: dict[tuple[str, str], Score]) -> None:
    # sent at 80 ms and 90 ms on the way, packet 4 arrives after packets 5 (110) and 6 (130) and 7
    # (152), together with packet 8 (170), which comes after it in the table
    course = [10, 26, 10, 10, 12, 90, 10, 10]
    jitter, steps = 0.0, []
    for before, after in itertools.pairwise(course):
        jitter += (abs(after - before) - jitter) / 16
        steps.append(jitter)
    assert value(ten, "jitter_rfc3550", "end") == pytest.approx(steps[-1])
    assert value(ten, "jitter_rfc3550", "mean") == pytest.approx(np.mean(steps))


def test_frames(ten: dict[tuple[str, str], Score]) -> None:
    assert value(ten, "concealment_ratio") == 0.3
    assert value(ten, "fec_ratio") == 0
    assert value(ten, "stretch_ratio") == 1
    assert value(ten, "real_time_factor", "encode") == pytest.approx(0.1)
    assert value(ten, "real_time_factor", "decode") == pytest.approx(0.05)


def test_bitrates_come_from_the_cell(ten: dict[tuple[str, str], Score]) -> None:
    assert value(ten, "bitrate", "payload") == 24_100
    assert ten["bitrate", "wire"]["reason"] == "not recorded"


@pytest.mark.parametrize("count", [0, 5])
def test_a_cell_where_nothing_arrived_has_reasons(count: int) -> None:
    scores = by_key(network_scores(*cell_tables(["lost"] * count, [None] * count), CELL))
    assert scores["mouth_to_ear", "p50"]["reason"] == "no frame was decoded"
    assert scores["transit", "p50"]["reason"] == "no packet arrived"
    assert scores["jitter_rfc3550", "end"]["value"] is None
    assert value(scores, "loss_total") == (1 if count else None)


def test_inserted_time_stretches_but_is_no_media_frame() -> None:
    packets, frames = cell_tables(["played"] * 4, [10] * 4)
    inserted = frames.iloc[[0]].assign(frame=pd.NA, kind="silence", mouth_to_ear_ns=pd.NA)
    with_time = pd.concat([frames, inserted.astype(frames.dtypes)])
    scores = by_key(network_scores(packets, with_time, CELL))
    assert value(scores, "concealment_ratio") == 0
    assert value(scores, "stretch_ratio") == 1.25


def test_a_score_is_a_value_or_a_reason() -> None:
    with pytest.raises(ValueError, match="a value, or null"):
        score("pesq", None)
    with pytest.raises(ValueError, match="a value, or null"):
        score("pesq", 1.0, reason="but")
    with pytest.raises(KeyError):
        score("charm", 1.0)

"""What older systems would have printed, from streams made by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import pytest

from harness.scenario.model import LegacySystem
from harness.score.legacy import SYSTEMS, legacy_rows
from harness.score.metrics import METRICS
from harness.score.network import network_scores
from harness.units import NS_PER_MS, NS_PER_S

FACTS = {"frame_samples": 16_000, "sample_rate_hz": 16_000, "nominal_bitrate_bps": 900}


def rows_of(
    *systems: str,
    count: int = 8,
    transit_ms: float = 300,
    seed: int = 5,
    decided_ns: Sequence[int] = (),
    **sender: Any,
) -> dict[tuple[str, str], dict[str, Any]]:
    """Of a stream of ``count`` chunks of 1 s and 1000 bytes, sent 10 ms after they were full, each
    encoded in 20 ms."""
    k = np.arange(count)
    sent = (k + 1) * NS_PER_S + 10 * NS_PER_MS
    transit = np.full(count, int(transit_ms * NS_PER_MS))
    ns = {
        name: np.full(count, value)
        for name, value in {
            "fill_ns": NS_PER_S,
            "lookahead_ns": 0,
            "encode_ns": 10 * NS_PER_MS,
            "send_ns": 0,
            "buffer_ns": 0,
            "decode_ns": 0,
            "playout_ns": 0,
            "encode_cpu_ns": 20 * NS_PER_MS,
            "decoder_ns": 0,
        }.items()
    }
    packets = {
        "frame": k,
        "send_ns": sent,
        "transit_ns": transit,
        "size_bytes": np.full(count, 1000),
        "fate": np.full(count, "played"),
        "purpose": np.full(count, "media"),
    }
    frames = ns | {
        "frame": k,
        "kind": np.full(count, "decoded"),
        "network_ns": transit,
        "mouth_to_ear_ns": NS_PER_S + 10 * NS_PER_MS + transit,
        "played_samples": np.full(count, 16_000),
    }
    cell = {
        "media_s": float(count),
        "seed": seed,
        "codec_facts": json.dumps(FACTS),
        "agent_facts": json.dumps({"sender": sender}),
        "bitrate_nominal_bps": 900.0,
        "bitrate_payload_bps": 8000.0,
        "bitrate_wire_bps": 17_900.0,
    }
    scores = network_scores(packets, frames, cell)
    found = legacy_rows(systems, packets, frames, cell, scores, decided_ns)
    return {(row["system"], row["estimator"]): dict(row) for row in found}


def test_every_system_that_a_scenario_may_name_has_estimators_beside_metrics_of_ours() -> None:
    assert set(get_args(LegacySystem)) == set(SYSTEMS)
    for system in SYSTEMS.values():
        assert system.estimators
        for estimator in system.estimators:
            metric, mode = estimator.truth
            assert mode in METRICS[metric].modes


def test_the_websocket_prints_the_round_trip_of_what_was_answered_within_a_second() -> None:
    ack_ms = [400, 500, 600, 1500, None, 700, 800, 900]
    rtt = [None if ms is None else ms * NS_PER_MS for ms in ack_ms]
    rows = rows_of("websocket-wavtokenizer", ack_rtt_ns=rtt)
    row = rows["websocket-wavtokenizer", "latency"]
    assert row["value"] == pytest.approx(650 + 20)
    assert row["note"] == "2 of 8 dropped: over 1 s, or no answer"
    assert (row["truth"], row["truth_metric"]) == (1310.0, "mouth_to_ear")
    loss = rows["websocket-wavtokenizer", "loss"]
    assert (loss["value"], loss["truth"]) == (None, 0.0)
    assert "never measures" in loss["reason"]


def test_what_was_not_counted_is_not_made_up() -> None:
    rows = rows_of("websocket-wavtokenizer", "tcp-esc")
    for key in (("websocket-wavtokenizer", "latency"), ("tcp-esc", "send_time")):
        assert rows[key]["value"] is None
        assert "does not count" in rows[key]["reason"]
    none_within = rows_of("websocket-wavtokenizer", ack_rtt_ns=[2 * NS_PER_S] * 8)
    assert "8 of 8 dropped" in none_within["websocket-wavtokenizer", "latency"]["reason"]


def test_a_send_call_says_nothing_of_the_network() -> None:
    rows = rows_of("tcp-esc", transit_ms=800, send_call_ns=[NS_PER_MS, 3 * NS_PER_MS])
    row = rows["tcp-esc", "send_time"]
    assert (row["value"], row["truth"], row["unit"]) == (2.0, 800.0, "ms")
    rate = rows["tcp-esc", "bitrate"]
    assert (rate["value"], rate["unit"]) == (0.9, "kbit/s")
    assert rate["truth"] == pytest.approx(17.9)


def test_a_sleep_and_a_drawn_number_are_what_they_are_whatever_happens() -> None:
    near, far = (rows_of("udp-aac-blocks", transit_ms=ms, count=400) for ms in (10, 900))
    for name in ("latency", "loss"):
        key = ("udp-aac-blocks", name)
        assert near[key]["value"] == far[key]["value"]
    assert near["udp-aac-blocks", "latency"]["value"] == 50.0
    assert near["udp-aac-blocks", "latency"]["truth"] != far["udp-aac-blocks", "latency"]["truth"]
    loss = near["udp-aac-blocks", "loss"]
    assert 0 < loss["value"] < 3
    assert loss["value"] * 4 == pytest.approx(round(loss["value"] * 4))
    assert loss["truth"] == 0.0
    drawn = {rows_of("udp-aac-blocks", count=400, seed=n)["udp-aac-blocks", "loss"]["value"]
             for n in range(8)}  # fmt: skip
    assert len(drawn) > 1


def test_bandwidth_is_what_was_sent_so_far() -> None:
    row = rows_of("udp-aac-blocks")["udp-aac-blocks", "bandwidth"]
    assert row["value"] == pytest.approx(8 * 8000 / 8.01 / 1000)
    assert row["truth"] == pytest.approx(17.9)


def test_a_system_without_a_metric_prints_its_setting() -> None:
    rows = rows_of("udp-encodec-fragments")
    assert rows["udp-encodec-fragments", "bitrate"]["value"] == 0.9
    for name in ("latency", "loss"):
        assert rows["udp-encodec-fragments", name]["reason"] == "this system has no metric"
        assert rows["udp-encodec-fragments", name]["truth"] is not None


def test_a_reply_without_an_id_is_taken_for_that_of_the_latest_chunk() -> None:
    # Chunks leave at 1.01, 2.01 ... 8.01 s.
    prompt = [sent * NS_PER_S + 610 * NS_PER_MS for sent in range(1, 9)]
    row = rows_of("websocket-classifier", decided_ns=prompt)["websocket-classifier", "latency"]
    assert row["value"] == pytest.approx(600)
    assert row["note"] == "1 of 8 replies came when all was sent"
    slow = [ns + 2 * NS_PER_S for ns in prompt[:6]]  # each two chunks late: nobody can tell
    row = rows_of("websocket-classifier", decided_ns=slow)["websocket-classifier", "latency"]
    assert row["value"] == pytest.approx(600)
    assert (row["truth"], row["truth_reason"]) == (None, "no classifier listened to this cell")
    row = rows_of("websocket-classifier")["websocket-classifier", "latency"]
    assert row["value"] is None
    assert "no reply came" in row["reason"]

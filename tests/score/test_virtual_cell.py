"""A cell in virtual time, from speech through sender, receiver, fates and tables to its scores."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.media.fates import join
from harness.media.settings import ReceiverSettings
from harness.score.metrics import Score
from harness.score.network import network_scores
from harness.score.pool import ScoreTask, score_files
from harness.store import RunStore, Tables, load
from tests.media.simulation import FACTS, MS, T0, arrivals, listen, send
from tests.score.signals import speech

SPEECH = speech(8.0)
Scores = dict[tuple[str, str, str], Score]


def run_cell(
    store: RunStore, delays: list[int | None], settings: ReceiverSettings
) -> tuple[Scores, Tables]:
    sent = send(SPEECH)
    heard = listen(arrivals(sent, delays), sent.frames, settings)
    packets, frames = join(
        sent.packet_rows, sent.frame_rows, heard.packets, heard.frames, None, FACTS, T0
    )
    row = {
        "cell_id": "c",
        "status": "ok",
        "utterance": "buzz",
        "kind": "speech",
        "weights": "none",
        "media_s": len(SPEECH) / FACTS.sample_rate_hz,
        "codec_facts": json.dumps(asdict(FACTS)),
        "bitrate_nominal_bps": 256_000.0,
    }
    rate_hz = FACTS.sample_rate_hz
    audio = {
        "reference": (SPEECH, rate_hz),
        "media": (heard.core.media(), rate_hz),
        "played": (heard.core.played(), rate_hz),
    }
    store.write_cell(row, packets, frames, audio)
    streamed = load(store.directory)
    cell = next(streamed.cells.itertuples())
    task = ScoreTask(
        cell_id=cell.cell_id,
        reference_path=store.directory / cell.audio_reference,
        media_path=store.directory / cell.audio_media,
        played_path=store.directory / cell.audio_played,
        kind=cell.kind,
        weights=cell.weights,
        facts=json.loads(cell.codec_facts),
    )
    figures = network_scores(streamed.packets, streamed.frames, cell._asdict())
    store.write_scores("c", [*score_files(task), *figures])
    store.compact()
    tables = load(store.directory)
    rows = tables.scores.astype(object).where(tables.scores.notna(), None).to_dict("records")
    return {(r["metric"], r["mode"], r["track"]): r for r in rows}, tables


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore.create(tmp_path, "virtual", datetime(2030, 1, 1, tzinfo=UTC))


def value(scores: Scores, metric: str, mode: str = "", track: str = "") -> float:
    found = scores[metric, mode, track]["value"]
    assert found is not None, scores[metric, mode, track]
    return found


def test_a_clean_link_leaves_speech_alone(store: RunStore) -> None:
    scores, tables = run_cell(store, [50 * MS], ReceiverSettings())
    for track in ("media", "played"):
        assert value(scores, "pesq", "wb", track) > 4.6
    assert value(scores, "stoi", "classic", "media") > 0.999
    assert scores["pesq", "wb", "media"]["lag_ms"] == 0
    # 20 ms fill, 50 ms network, 60 ms start depth, 10 ms device; virtual coding takes no time
    assert value(scores, "mouth_to_ear", "p99") == 140
    assert value(scores, "latency_part", "network") == 50
    assert value(scores, "latency_part", "buffer") == 60
    assert value(scores, "jitter_rfc3550", "end") == 0
    assert value(scores, "concealment_ratio") == 0
    assert value(scores, "stretch_ratio") == 1
    assert len(tables.packets) == len(tables.frames) == 400


def test_loss_is_counted_and_heard(store: RunStore) -> None:
    delays: list[int | None] = [50 * MS] * 18 + [None, None]
    scores, _ = run_cell(store, delays, ReceiverSettings(concealment="zero"))
    assert value(scores, "loss", "lost") == pytest.approx(0.1)
    assert value(scores, "loss_total") == pytest.approx(0.1)
    assert value(scores, "concealment_ratio") == pytest.approx(0.1)
    assert value(scores, "mean_loss_run") == 2
    assert value(scores, "burst_ratio") == pytest.approx(1.8)
    assert value(scores, "pesq", "wb", "media") < 3
    assert value(scores, "stoi", "classic", "media") < 0.99
    assert scores["pesq", "wb", "media"]["lag_ms"] == 0


def test_the_media_track_stays_aligned_where_the_played_one_is_stretched(store: RunStore) -> None:
    slow = [50 * MS] * 100 + [170 * MS] * 100
    scores, tables = run_cell(
        store, list(slow), ReceiverSettings(mode="adaptive", start_ns=40 * MS)
    )
    assert scores["pesq", "wb", "media"]["lag_ms"] == 0
    assert value(scores, "pesq", "wb", "played") > 1
    assert set(tables.frames.kind) > {"decoded"}
    played = tables.frames.played_samples.sum()
    assert value(scores, "stretch_ratio") == pytest.approx(played / (400 * 320))
    assert value(scores, "mouth_to_ear", "p99") > tables.frames.mouth_to_ear_ns[0] / MS

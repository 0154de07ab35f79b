"""PESQ and STOI on signals whose scores are known, and every way to have none."""

from __future__ import annotations

import re
from importlib import metadata
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.score import align
from harness.score.metrics import METRICS, Score
from harness.score.quality import MEASURES, AudioTask, Measure, score_audio
from harness.store import schema
from tests.score import signals
from tests.score.signals import RATE_HZ, measure, speech, task

SPEECH = speech()
STOI = tuple(m for m in MEASURES if m.metric == "stoi")
PESQ_WB = next(m for m in MEASURES if (m.mode, m.track) == ("wb", "media"))


def keyed(scores: list[Score]) -> dict[tuple[str, str, str], Score]:
    return {(row["metric"], row["mode"], row["track"]): row for row in scores}


def delayed(track: NDArray[np.int16], samples: int) -> NDArray[np.int16]:
    return np.concatenate((np.zeros(samples, np.int16), track))


def test_an_unharmed_track_has_the_best_scores() -> None:
    scores = keyed(score_audio(task(SPEECH)))
    for track in ("media", "played"):
        assert scores["pesq", "wb", track]["value"] == pytest.approx(4.644, abs=1e-3)
        assert scores["pesq", "nb", track]["value"] == pytest.approx(4.549, abs=1e-3)
    assert scores["stoi", "classic", "media"]["value"] == pytest.approx(1, abs=1e-6)
    assert scores["stoi", "extended", "media"]["value"] == pytest.approx(1, abs=1e-6)
    assert ("stoi", "classic", "played") not in scores
    for row in scores.values():
        assert set(row) == set(schema.SCORES) - {"cell_id"}
        low, high = METRICS[row["metric"]].bounds
        assert low is not None
        assert high is not None
        assert row["value"] is not None
        assert low <= row["value"] <= high
        assert row["reference_sha256"] == row["degraded_sha256"]
    wb = scores["pesq", "wb", "media"]
    assert wb["package"] == "pesq"
    assert wb["version"] == f"{metadata.version('pesq')} (P.862.2 without Corrigendum 2)"
    assert (wb["alignment"], wb["lag_ms"]) == ("gcc-phat", 0)
    assert scores["pesq", "wb", "played"]["alignment"] == "calibrated"
    assert scores["pesq", "wb", "played"]["lag_ms"] is None


def test_noise_costs_quality() -> None:
    noise = np.random.default_rng(0).normal(0, 600, len(SPEECH)).astype(np.int16)
    scores = [row["value"] for row in score_audio(task(SPEECH, SPEECH + noise))]
    assert all(noisy is not None for noisy in scores)
    assert scores[0] is not None
    assert scores[0] < 3


def test_the_calibrated_delay_is_removed_exactly() -> None:
    """317 samples at 48 kHz are 105.67 at 16 kHz: removed before resampling or not at all."""
    at_48k = align.resampled(align.to_float(SPEECH), RATE_HZ, 48_000)
    late = np.concatenate((np.zeros(317, np.float32), at_48k))
    exact = score_audio(task(SPEECH, late, rate_hz=48_000, delay_samples=317), (PESQ_WB, *STOI))
    assert exact[0]["value"] == pytest.approx(4.64, abs=0.01)
    assert exact[1]["value"] == pytest.approx(1, abs=1e-3)
    assert exact[0]["lag_ms"] == 0


def test_a_wrong_delay_is_seen_and_not_repaired() -> None:
    late = score_audio(task(SPEECH, delayed(SPEECH, 320)), STOI)
    early = score_audio(task(SPEECH, SPEECH, delay_samples=320), STOI)
    for row, lag_ms in ((late[0], 20), (early[0], -20)):
        assert row["lag_ms"] == pytest.approx(lag_ms)
        assert row["alignment"] == "gcc-phat"
        assert row["value"] is not None
        assert row["value"] < 0.9


def test_a_narrow_band_codec_is_judged_against_the_whole_reference() -> None:
    at_8k = align.resampled(align.to_float(SPEECH), RATE_HZ, 8000)
    scores = keyed(score_audio(task(SPEECH, at_8k, rate_hz=8000)))
    assert scores["pesq", "nb", "media"]["value"] == pytest.approx(4.549, abs=0.01)
    reference, degraded = (scores["pesq", "wb", "media"][k] for k in _HASHES)
    assert reference != degraded
    assert scores["pesq", "wb", "media"]["value"] is not None


_HASHES = ("reference_sha256", "degraded_sha256")


def test_measures_get_the_reference_first_and_equal_lengths() -> None:
    seen = []

    def look(reference: align.Audio, degraded: align.Audio, rate_hz: int) -> float:
        seen.append((reference, degraded, rate_hz))
        return 2.0

    for media in (SPEECH // 2, SPEECH[:-500], delayed(SPEECH, 500)):
        score_audio(task(SPEECH, media), (Measure("pesq", "wb", "media", "pesq", look),))
    for reference, degraded, rate_hz in seen:
        np.testing.assert_array_equal(reference, align.to_float(SPEECH))
        assert len(degraded) == len(reference)
        assert rate_hz == RATE_HZ
    np.testing.assert_allclose(seen[0][1], seen[0][0] / 2, atol=1e-4)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"kind": "music"}, "defined for speech"),
        ({"weights": "random"}, "random weights"),
        ({"media": np.zeros(0, np.int16), "played": np.zeros(0, np.int16)}, "is silent|is empty"),
        ({"media": SPEECH * 0, "played": SPEECH * 0}, "is silent"),
        ({"reference": SPEECH * 0}, "the reference track is silent"),
        (
            {"media": SPEECH * np.float32("nan"), "played": SPEECH * np.float32("nan")},
            "holds NaN or infinity",
        ),
        ({"reference": SPEECH[: RATE_HZ // 8]}, "needs 3.2 s of active|Not enough STFT frames"),
    ],
)
def test_audio_that_cannot_be_scored_has_a_reason(changed: dict[str, Any], reason: str) -> None:
    scores = score_audio(task(**({"reference": SPEECH, "media": SPEECH} | changed)))
    assert len(scores) == len(MEASURES)
    for row in scores:
        assert row["value"] is None
        assert re.search(reason, str(row["reason"])), row
        assert row["unit"] == METRICS[row["metric"]].unit


def test_too_long_for_pesq_is_not_too_long_for_stoi() -> None:
    long = np.tile(SPEECH, 5)
    scores = keyed(score_audio(task(long), (PESQ_WB, STOI[0])))
    assert scores["pesq", "wb", "media"]["reason"] == (
        "PESQ takes at most 35 s (50 utterances), got 40.0 s"
    )
    assert scores["stoi", "classic", "media"]["value"] == pytest.approx(1)


def test_what_pesq_refuses_is_its_own_reason() -> None:
    blip = delayed(SPEECH, 0)[:2000]
    row = score_audio(task(SPEECH, played=blip), tuple(m for m in MEASURES if m.track == "played"))
    assert str(row[0]["reason"]).startswith("PESQ: Buffer needs to be at least 1/4 of a second")


def test_what_a_package_does_costs_its_metric_alone() -> None:
    bad = (measure(signals.raises), measure(signals.not_a_number), STOI[0])
    first, second, third = score_audio(task(SPEECH), bad)
    assert first["reason"] == "ZeroDivisionError: of all things"
    assert "out of bounds" in str(second["reason"])
    assert third["value"] == pytest.approx(1)


def parametric(seed: int) -> NDArray[np.float32]:
    """Noise under the envelope of the speech: no phase is left."""
    audio = align.to_float(SPEECH)
    envelope = np.sqrt(np.convolve(audio**2, np.ones(320) / 320, "same"))
    return (envelope * np.random.default_rng(seed).standard_normal(len(audio))).astype(np.float32)


def test_without_phase_the_envelope_verifies_the_delay() -> None:
    found = align.check(align.to_float(SPEECH), parametric(1), RATE_HZ)
    assert found.method == "envelope"
    assert found.confidence is not None
    assert found.confidence < align.MIN_CONFIDENCE
    assert found.lag_ms == pytest.approx(0, abs=2)
    late = np.concatenate((np.zeros(1600, np.float32), parametric(1)))[: len(SPEECH)]
    later = align.check(align.to_float(SPEECH), late, RATE_HZ)
    assert later.lag_ms == pytest.approx(100, abs=2)


def test_where_nothing_can_verify_the_delay_no_lag_is_claimed() -> None:
    noise = np.random.default_rng(0).standard_normal(len(SPEECH)).astype(np.float32)
    found = align.check(align.to_float(SPEECH), noise, RATE_HZ)
    assert (found.method, found.lag_ms) == ("calibrated", None)
    assert align.gcc_phat(align.to_float(SPEECH), noise * 0, RATE_HZ) == (0, 0)
    assert align.envelope_lag(align.to_float(SPEECH), noise * 0, RATE_HZ) == (0, 0)


def test_losses_do_not_shake_the_alignment() -> None:
    media = SPEECH.copy()
    for start in range(0, len(media) - 320, 960):  # every third frame of 20 ms
        media[start : start + 320] = 0
    found = align.check(align.to_float(SPEECH), align.to_float(media), RATE_HZ)
    assert (found.method, found.lag_ms) == ("gcc-phat", 0)


def test_scores_are_the_same_every_time() -> None:
    one: AudioTask = task(SPEECH, SPEECH // 3)
    assert score_audio(one) == score_audio(one)

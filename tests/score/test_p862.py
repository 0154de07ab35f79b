"""PESQ-WB: one opinion where it is steady, the median of five where it is an accident."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from harness.score.align import Audio, to_float
from harness.score.p862 import UNSTEADY, Opinions, opinions, pesq_wb, plain_pesq
from harness.score.quality import MEASURES, Measure, score_audio
from tests.score.signals import RATE_HZ, speech, task


def silence(milliseconds: float) -> Audio:
    return np.zeros(round(milliseconds * RATE_HZ / 1000), np.float32)


def accident() -> tuple[Audio, Audio]:
    """Speech without anything below 150 Hz, and the same with one soft thump of 45 Hz, so short
    that the grid of frames decides how loud it is."""
    spectrum = np.fft.rfft(to_float(speech(6.0)))
    spectrum[np.fft.rfftfreq(6 * RATE_HZ, 1 / RATE_HZ) < 150] = 0
    reference = np.fft.irfft(spectrum, 6 * RATE_HZ)
    samples = round(0.032 * RATE_HZ)
    thump = 0.2 * np.hanning(samples) * np.sin(2 * np.pi * 45 * np.arange(samples) / RATE_HZ)
    degraded = reference.copy()
    degraded[35_000 : 35_000 + samples] += thump
    both = (
        np.concatenate((silence(3), track)).astype(np.float32) for track in (reference, degraded)
    )
    reference, degraded = both
    return reference, degraded


def test_a_steady_score_is_the_plain_one() -> None:
    pair = to_float(speech()), to_float(speech() // 2 + speech(seed=2) // 8)
    found = pesq_wb(*pair, RATE_HZ)
    assert len(found.scores) == 2
    assert found.spread <= UNSTEADY
    assert found.value == found.plain == plain_pesq(*pair, RATE_HZ, "wb")


def test_an_accident_of_frames_is_the_median_of_five() -> None:
    pair = accident()
    found = pesq_wb(*pair, RATE_HZ)
    assert len(found.scores) == 5
    assert found.spread > UNSTEADY
    assert found.plain == plain_pesq(*pair, RATE_HZ, "wb")
    assert found.value == statistics.median(found.scores)
    behind = [np.concatenate((silence(10), track)) for track in pair]
    assert abs(found.plain - plain_pesq(*behind, RATE_HZ, "wb")) > UNSTEADY
    assert abs(found.value - pesq_wb(*behind, RATE_HZ).value) < UNSTEADY


@pytest.mark.parametrize(("first", "asked"), [(0.0, 5), (1.95, 2)])
def test_silence_comes_before_both_tracks_and_no_more_than_needed(first: float, asked: int) -> None:
    calls: list[int] = []

    def score(reference: Audio, degraded: Audio) -> float:
        lead = len(reference) - 4
        assert len(degraded) - 5 == lead
        assert not reference[:lead].any()
        assert not degraded[:lead].any()
        calls.append(lead)
        return 2.0 if lead else first

    found = opinions(score, np.ones(4, np.float32), np.ones(5, np.float32), RATE_HZ)
    assert calls == [0, 160, 48, 96, 208][:asked]
    assert found.plain == first
    assert found.value == (2.0 if asked == 5 else first)


def several(*_: object) -> Opinions:
    return Opinions((1.5, 2.5, 2.5, 2.4, 1.6))


def test_the_row_keeps_the_plain_score_and_the_spread() -> None:
    measure = Measure("pesq", "wb", "media", "pesq", several)
    (row,) = score_audio(task(speech()), (measure,))
    assert (row["value"], row["plain"], row["spread"]) == (2.4, 1.5, 1.0)
    stoi = next(measure for measure in MEASURES if measure.metric == "stoi")
    (row,) = score_audio(task(speech()), (stoi,))
    assert (row["plain"], row["spread"]) == (None, None)

"""Time stretching and made-up audio on signals whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from harness.media.concealment import Concealment
from harness.media.stretch import (
    accelerate,
    cross_fade,
    expand,
    leave_out,
    period_range,
    pitch_period,
)

from .simulation import voiced

RATES = [8_000, 16_000, 24_000, 48_000]


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("pitch_hz", [80.0, 125.0, 250.0])
def test_the_period_of_a_periodic_signal_is_found(rate_hz: int, pitch_hz: float) -> None:
    lowest, highest = period_range(rate_hz, rate_hz)
    period, likeness = pitch_period(voiced(rate_hz // 10, rate_hz, pitch_hz), lowest, highest)
    assert likeness > 0.999
    true_period = rate_hz / pitch_hz
    assert abs(period / true_period - round(period / true_period)) * true_period <= 1
    assert lowest <= period <= highest


def test_silence_has_no_period() -> None:
    assert pitch_period(np.zeros(640, np.int16), 40, 240) == (240, 0.0)


@pytest.mark.parametrize("rate_hz", RATES)
def test_stretching_a_voice_changes_its_length_by_a_period_and_nothing_else(rate_hz: int) -> None:
    size = rate_hz // 50
    signal = voiced(6 * size, rate_hz)
    history, frame = signal[: 4 * size], signal[4 * size : 5 * size]
    period = rate_hz // 125

    longer = expand(history, frame, rate_hz, 0.8)
    np.testing.assert_allclose(longer, signal[4 * size - period : 5 * size], atol=3)
    shorter = accelerate(history, frame, rate_hz, 0.8, len(frame))
    np.testing.assert_allclose(shorter, frame[: len(frame) - period], atol=3)


STRETCHES = [expand, lambda *given: accelerate(*given, longest=320)]


@pytest.mark.parametrize("stretch", STRETCHES, ids=["expand", "accelerate"])
def test_what_does_not_repeat_itself_is_left_alone_unless_any_seam_will_do(stretch) -> None:
    noise = np.random.default_rng(1).normal(0, 3000, 1000).astype(np.int16)
    history, frame = noise[:640], noise[640:960]
    assert stretch(history, frame, 16_000, 0.8) is frame
    assert len(stretch(history, frame, 16_000, 0.0)) != len(frame)


def test_no_more_is_left_out_than_is_allowed() -> None:
    signal = voiced(960)
    shorter = accelerate(signal[:640], signal[640:], 16_000, 0.0, longest=100)
    assert 220 <= len(shorter) < 320
    assert len(accelerate(signal[:640], signal[640:], 16_000, 0.0, longest=39)) == 320


def test_what_is_left_out_is_as_long_as_asked() -> None:
    frame = voiced(320)
    assert len(leave_out(frame, 100, 16_000)) == 220
    np.testing.assert_array_equal(leave_out(frame, 100, 16_000)[40:], frame[140:])
    assert len(leave_out(frame, 320, 16_000)) == 0


@pytest.mark.parametrize("stretch", STRETCHES, ids=["expand", "accelerate"])
def test_frames_too_short_for_a_period_are_left_alone(stretch) -> None:
    signal = voiced(679)
    frame = signal[640:]  # under 2.5 ms, the shortest period
    assert stretch(signal[:640], frame, 16_000, 0.0) is frame


def test_cross_fade_goes_from_old_to_new() -> None:
    faded = cross_fade(np.full(3, 100, np.int16), np.full(3, 200, np.int16))
    assert faded.tolist() == [125, 150, 175]


def gains(samples: int) -> np.ndarray:
    """G.711 Appendix I: full for 10 ms, then 20 % less every 10 ms."""
    seconds = (np.arange(samples) + 1) / 16_000
    return np.clip(1 - (seconds - 0.010) / 0.050, 0, 1)


def test_zero_is_silence() -> None:
    made = Concealment("zero", 16_000, 320)
    assert made.heard(voiced(320)).any()
    audio, silent = made.conceal()
    assert silent
    assert not audio.any()
    np.testing.assert_array_equal(made.heard(voiced(320)), voiced(320))  # no fade


def test_repeat_plays_the_last_frame_again_and_fades() -> None:
    made = Concealment("repeat", 16_000, 320)
    frame = voiced(320, pitch_hz=130)
    made.heard(frame)
    audio = np.concatenate([made.conceal()[0] for _ in range(4)])
    np.testing.assert_allclose(audio, np.tile(frame, 4) * gains(1280), atol=1)
    assert not audio[960:].any(), "silent after 60 ms"


def test_pitch_goes_on_with_the_voice_and_falls_silent() -> None:
    made = Concealment("pitch", 16_000, 320)
    signal = voiced(320 * 8)
    for start in range(0, 1280, 320):
        made.heard(signal[start : start + 320])
    made_up = [made.conceal() for _ in range(4)]
    audio = np.concatenate([frame for frame, _ in made_up])
    np.testing.assert_allclose(audio, signal[1280:2560] * gains(1280), atol=3)
    assert [silent for _, silent in made_up] == [False, False, False, True]


def test_the_first_good_frame_fades_in() -> None:
    made = Concealment("pitch", 16_000, 320)
    signal = voiced(640)
    made.heard(signal[:320])
    made.heard(signal[320:])
    made.conceal()
    loud = np.full(320, 9000, np.int16)
    heard = made.heard(loud)
    assert abs(int(heard[0]) - 9000) > 3000, "starts with what was made up"
    assert (heard[80:] == 9000).all(), "is itself after 5 ms"
    np.testing.assert_array_equal(made.heard(loud), loud)


def test_before_anything_was_heard_there_is_silence() -> None:
    for method in ("repeat", "pitch"):
        audio, silent = Concealment(method, 16_000, 320).conceal()
        assert silent
        assert not audio.any()

"""P.56 on signals whose active level and activity are known beforehand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.assets.level import active, envelope, rms_dbov, speech_level

RATE_HZ = 16_000


def sine(seconds: float, level_dbov: float) -> np.ndarray:
    time = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return math.sqrt(2) * 10 ** (level_dbov / 20) * np.sin(2 * np.pi * 440 * time)


def test_full_scale_square_is_0_dbov() -> None:
    assert rms_dbov(np.tile([1.0, -1.0], 1000)) == 0
    assert rms_dbov(sine(1, -26)) == pytest.approx(-26, abs=1e-9)
    assert rms_dbov(np.zeros(10)) == -math.inf


@pytest.mark.parametrize("level_dbov", [-16, -26, -36, -46])
def test_a_steady_tone_is_active_throughout(level_dbov: float) -> None:
    level = speech_level(sine(10, level_dbov), RATE_HZ)
    assert level is not None
    assert level.level_dbov == pytest.approx(level_dbov, abs=0.1)
    assert level.active_ratio == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("pause_s", [1.0, 3.0])
def test_pauses_do_not_count(pause_s: float) -> None:
    """Bursts of 2 s: each is active for its own length and the hangover of 0.2 s after it."""
    period = np.concatenate([sine(2, -26), np.zeros(int(pause_s * RATE_HZ))])
    samples = np.tile(period, 5)
    level = speech_level(samples, RATE_HZ)
    assert level is not None
    hangover = 2.2 / (2 + pause_s)
    assert level.active_ratio == pytest.approx(hangover, abs=0.03)
    assert level.level_dbov == pytest.approx(-26 - 10 * math.log10(1.1), abs=0.2)
    assert rms_dbov(samples) < level.level_dbov - 1


def test_noise_in_the_pauses_does_not_count_either() -> None:
    noise = 10 ** (-60 / 20) * np.random.default_rng(1).standard_normal(20 * RATE_HZ)
    noise[: 10 * RATE_HZ] += sine(10, -26)
    level = speech_level(noise, RATE_HZ)
    assert level is not None
    assert level.active_ratio == pytest.approx(0.51, abs=0.02)


def test_silence_has_no_level() -> None:
    assert speech_level(np.zeros(RATE_HZ), RATE_HZ) is None
    assert speech_level(np.full(RATE_HZ, 1e-7), RATE_HZ) is None


def test_activity_ends_with_the_hangover() -> None:
    samples = np.concatenate([sine(1, -20), np.zeros(RATE_HZ)])
    found = active(envelope(samples, RATE_HZ), 0.03, RATE_HZ)
    last = np.flatnonzero(found)[-1] / RATE_HZ
    assert 1.2 < last < 1.35
    assert not found[0]

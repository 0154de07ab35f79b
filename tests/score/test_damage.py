"""Damage of a known size is measured as that, at whatever rate, and silence is none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from harness.score.damage import (
    FLOOR_DB,
    damage,
    mean_curves,
    positions,
    speech_power,
    summarise,
)
from tests.score.signals import RATE_HZ, speech

RATES = pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100])


def hum(rate_hz: int, seconds: float = 1.0) -> NDArray[np.int16]:
    """Of a steady level, so that what is done to it has a level, too."""
    noise = np.random.default_rng(5).normal(0, 3000, int(seconds * rate_hz))
    return noise.astype(np.int16)


@RATES
def test_a_hole_is_as_deep_as_the_sound_and_as_long_as_it_is(rate_hz: int) -> None:
    clean = hum(rate_hz)
    hurt = clean.copy()
    hurt[: rate_hz // 50] = 0
    found = damage(clean, hurt, rate_hz, speech_power(clean, rate_hz))
    assert found.depth_db == pytest.approx(0, abs=1)
    assert found.recover_ms == pytest.approx(20)
    assert found.near_ms == pytest.approx(20, abs=1)
    assert found.exact_ms == pytest.approx(20, abs=0.2)
    assert (found.curve_db[4:] == FLOOR_DB).all()


@RATES
def test_an_error_that_fades_is_over_when_it_is_30_db_down(rate_hz: int) -> None:
    clean = hum(rate_hz)
    t = np.arange(len(clean)) / rate_hz
    other = np.random.default_rng(6).normal(0, 3000, len(clean))
    hurt = np.rint(clean + other * np.exp(-t / 0.05)).astype(np.int16)
    found = damage(clean, hurt, rate_hz, speech_power(clean, rate_hz))
    assert found.recover_ms == pytest.approx(1000 * 0.05 * 30 / 8.686, abs=15)
    assert found.exact_ms is not None
    assert found.near_ms is not None
    assert found.recover_ms < found.near_ms <= found.exact_ms
    slope_db_per_s = np.polyfit(np.arange(20) * 0.005, found.curve_db[:20], 1)[0]
    assert slope_db_per_s == pytest.approx(-8.686 / 0.05, rel=0.1)


def test_what_never_comes_back_has_no_time() -> None:
    clean = hum(RATE_HZ)
    power = speech_power(clean, RATE_HZ)
    lasting = damage(clean, (clean // 2).astype(np.int16), RATE_HZ, power)
    assert (lasting.recover_ms, lasting.near_ms, lasting.exact_ms) == (None, None, None)
    flicker = clean.copy()
    flicker[400::3200] += 1
    off_by_one = damage(clean, flicker, RATE_HZ, power)
    assert off_by_one.exact_ms is None
    assert off_by_one.near_ms == off_by_one.recover_ms == 0


def test_the_last_bit_of_a_pause_is_no_damage() -> None:
    power = speech_power(hum(RATE_HZ), RATE_HZ)
    pause = np.zeros(RATE_HZ, np.int16)
    found = damage(pause, pause + np.int16(1), RATE_HZ, power)
    assert found.recover_ms == 0
    assert found.depth_db < -40


def test_damage_wants_tracks_that_can_be_compared() -> None:
    clean = hum(RATE_HZ)
    with pytest.raises(ValueError, match="equal length, got 16000 and 15999"):
        damage(clean, clean[:-1], RATE_HZ, 1.0)
    with pytest.raises(ValueError, match="expected 500 ms, got 100"):
        damage(clean[:1600], clean[:1600], RATE_HZ, 1.0)


def test_places_are_in_speech_spread_and_the_same_every_time() -> None:
    pause = np.zeros(RATE_HZ, np.int16)
    audio = np.concatenate([pause, hum(RATE_HZ, 2), pause, hum(RATE_HZ, 2), pause])
    places = positions(audio, RATE_HZ, 8, "1/a", last_s=5.5)
    assert places == positions(audio, RATE_HZ, 8, "1/a", last_s=5.5)
    assert places != positions(audio, RATE_HZ, 8, "2/a", last_s=5.5)
    seconds = np.array(places) / 1e9
    assert len(places) == 8
    assert (np.diff(seconds) > 0).all()
    assert (((seconds >= 1) & (seconds < 3)) | ((seconds >= 4) & (seconds <= 5.5))).all()
    assert seconds[1] < 3 < seconds[-2]
    assert positions(pause, RATE_HZ, 8, "1/a", last_s=0.5) == []
    assert len(positions(speech(), RATE_HZ, 5, "1/b", last_s=6.0)) == 5


def losses(codec: str, weights: str = "none", utterances: int = 6) -> pd.DataFrame:
    generator = np.random.default_rng(3)
    return pd.DataFrame(
        [
            {
                "codec": codec,
                "codec_kind": codec,
                "weights": weights,
                "utterance": f"u{n // 2}",
                "depth_db": generator.normal(-3, 1),
                "recover_ms": 40.0,
                "near_ms": 50.0,
                "exact_ms": 60.0 if n % 2 else np.nan,
            }
            for n in range(2 * utterances)
        ]
    )


def test_a_summary_says_nothing_that_it_does_not_know() -> None:
    hanging = losses("hangs").assign(recover_ms=[np.nan] + [40.0] * 11)
    table = pd.concat([losses("fine"), losses("wild", "random"), hanging, losses("few", "none", 5)])
    rows = summarise(table).set_index("codec")
    assert list(rows.index) == ["fine", "wild", "hangs", "few"]
    fine = rows.loc["fine"]
    assert fine.depth_db_low < fine.depth_db_mean < fine.depth_db_high
    assert fine.depth_db_mean == pytest.approx(losses("fine")["depth_db"].mean())
    assert (fine.recover_ms_mean, fine.near_ms, fine.unrecovered) == (40, 50, 0)
    assert (fine.positions, fine.utterances) == (12, 6)
    assert np.isnan(fine.exact_ms), "half of the losses left a trace to the end"
    assert np.isnan(rows.loc["wild", "depth_db_mean"])
    assert rows.loc["wild", "near_ms"] == 50
    assert np.isnan(rows.loc["hangs", "recover_ms_mean"])
    assert rows.loc["hangs", "unrecovered"] == 1
    assert np.isnan(rows.loc["few", "depth_db_low"])
    assert not np.isnan(rows.loc["few", "depth_db_mean"])


def test_a_mean_curve_has_a_band_that_repeated_places_do_not_narrow() -> None:
    generator = np.random.default_rng(8)
    rows = [
        {"codec": codec, "utterance": f"u{u}", "t_ms": 5.0 * t, "damage_db": level - t}
        for codec, utterances in (("many", 12), ("few", 3))
        for u, level in enumerate(generator.normal(-10, 2, utterances))
        for t in range(10)
    ]
    table = pd.DataFrame(rows)
    once = mean_curves(table)
    often = mean_curves(pd.concat([table] * 5))
    pd.testing.assert_frame_equal(once, often)
    many = once[once["codec"] == "many"]
    assert (many["low"] < many["mean"]).all()
    assert (many["mean"] < many["high"]).all()
    assert many["mean"].to_numpy() == pytest.approx(many["mean"].iloc[0] - np.arange(10))
    assert once.loc[once["codec"] == "few", "low"].isna().all()

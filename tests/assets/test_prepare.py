"""References: level, length, silences, determinism, and what is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from harness.assets import AssetStore, ItemRef, Prepared, prepare, prepare_all, resampled
from harness.assets.level import rms_dbov, speech_level
from harness.errors import AssetError


@pytest.fixture
def store(tmp_path: Path) -> AssetStore:
    return AssetStore(tmp_path / "cache")


def speechlike(seconds: float, rate_hz: int, gain: float = 0.2) -> np.ndarray:
    """Half-second bursts of a buzz with pauses of 0.3 s."""
    time = np.arange(int(seconds * rate_hz)) / rate_hz
    buzz = np.sin(2 * np.pi * 150 * time) + 0.5 * np.sin(2 * np.pi * 900 * time)
    return gain * buzz * (time % 0.8 < 0.5)


def item(path: Path, samples: np.ndarray, rate_hz: int = 16_000, **fields: str) -> ItemRef:
    soundfile.write(path, samples, rate_hz)
    return replace(ItemRef(path.stem, "mine", "speech", str(path)), **fields)


def step(prepared: Prepared, name: str) -> dict[str, object]:
    return next(step for step in prepared.steps if step["step"] == name)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100, 48_000])
def test_a_reference_is_levelled_between_silences(
    rate_hz: int, store: AssetStore, tmp_path: Path
) -> None:
    given = speechlike(9, rate_hz) + 0.02
    done = prepare(item(tmp_path / "a.wav", given, rate_hz), store)
    silence = rate_hz // 2
    assert done.pcm.dtype == np.int16
    assert done.rate_hz == rate_hz
    assert done.seconds == pytest.approx(10)
    assert not done.pcm[:silence].any()
    assert not done.pcm[-silence:].any()
    body = done.pcm[silence:-silence] / 32768
    assert abs(body.mean()) < 1e-4
    level = speech_level(body, rate_hz)
    assert level is not None
    assert level.level_dbov == pytest.approx(-26, abs=0.05)
    assert done.level_dbov == -26
    assert done.active_ratio is not None
    assert 0.6 < done.active_ratio < 1
    assert done.warnings == ()


def test_a_reference_may_be_bare(store: AssetStore, tmp_path: Path) -> None:
    given = item(tmp_path / "a.wav", speechlike(9, 16_000))
    framed, bare = prepare(given, store), prepare(replace(given, silence_ns=0), store)
    np.testing.assert_array_equal(bare.pcm, framed.pcm[8_000:-8_000])
    assert bare.sha256 != framed.sha256
    long = item(tmp_path / "long.wav", np.tile(speechlike(8, 16_000), 3))
    assert prepare(replace(long, silence_ns=0), store).seconds == pytest.approx(20, abs=4)
    assert prepare(replace(long, silence_ns=2 * 10**9), store).seconds <= 20


def test_the_same_file_gives_the_same_samples(store: AssetStore, tmp_path: Path) -> None:
    ref = item(tmp_path / "a.wav", speechlike(9, 16_000))
    first, second = prepare(ref, store), prepare(ref, store)
    assert first.sha256 == second.sha256
    assert np.array_equal(first.pcm, second.pcm)
    assert np.array_equal(resampled(first, 24_000), resampled(second, 24_000))


def test_channels_are_averaged(store: AssetStore, tmp_path: Path) -> None:
    mono = speechlike(9, 16_000)
    stereo = np.stack([mono * 1.5, mono * 0.5], axis=1)
    one = prepare(item(tmp_path / "mono.flac", mono), store)
    two = prepare(item(tmp_path / "stereo.flac", stereo), store)
    assert step(two, "decode")["downmix"] == "mean of channels"
    assert np.abs(one.pcm.astype(int) - two.pcm).max() <= 1


def test_long_audio_is_cut_in_a_pause(store: AssetStore, tmp_path: Path) -> None:
    samples = speechlike(30, 16_000)
    pause = slice(int(17.2 * 16_000), int(18.2 * 16_000))
    samples[pause] = 0
    done = prepare(item(tmp_path / "long.wav", samples), store)
    cut = step(done, "cut")
    assert cut["in_pause"]
    assert 17.4 < float(str(cut["kept_s"])) < 18.2
    assert done.seconds <= 20


def test_long_audio_without_a_pause_is_cut_at_twenty_seconds(
    store: AssetStore, tmp_path: Path
) -> None:
    time = np.arange(30 * 16_000) / 16_000
    done = prepare(item(tmp_path / "a.wav", 0.1 * np.sin(2 * np.pi * 300 * time)), store)
    assert not step(done, "cut")["in_pause"]
    assert done.seconds == 20


def test_peaks_limit_the_gain(store: AssetStore, tmp_path: Path) -> None:
    samples = speechlike(9, 16_000, 0.001)
    samples[16_000] = 0.5
    done = prepare(item(tmp_path / "click.wav", samples), store)
    assert step(done, "level")["limited_by_peak"]
    assert done.level_dbov < -26
    assert abs(int(np.abs(done.pcm).max()) - 32768 * 10 ** (-1 / 20)) < 2


def test_short_or_sparse_speech_carries_a_warning(store: AssetStore, tmp_path: Path) -> None:
    done = prepare(item(tmp_path / "short.wav", speechlike(2, 16_000)), store)
    assert len(done.warnings) == 2
    assert "PESQ" in done.warnings[0]


def test_music_is_levelled_by_its_rms(store: AssetStore, tmp_path: Path) -> None:
    noise = 0.1 * np.random.default_rng(1).standard_normal(9 * 44_100)
    ref = replace(item(tmp_path / "m.wav", noise, 44_100), kind="music")
    done = prepare(ref, store)
    assert rms_dbov(done.pcm[22_050:-22_050] / 32768) == pytest.approx(-26, abs=0.02)
    assert done.active_ratio is None
    assert done.warnings == ()


def test_resampling_keeps_length_and_level(store: AssetStore, tmp_path: Path) -> None:
    done = prepare(item(tmp_path / "a.wav", speechlike(9, 48_000), 48_000), store)
    lower = resampled(done, 16_000)
    assert len(lower) == len(done.pcm) // 3
    assert rms_dbov(lower / 32768) == pytest.approx(rms_dbov(done.pcm / 32768), abs=0.05)
    assert resampled(done, 48_000) is done.pcm


def test_provenance_travels_as_json(store: AssetStore, tmp_path: Path) -> None:
    done = prepare(item(tmp_path / "a.wav", speechlike(9, 16_000)), store)
    told = json.loads(json.dumps(done.provenance()))
    assert told["samples_sha256"] == done.sha256
    names = [step["step"] for step in told["steps"]]
    assert names == ["decode", "remove DC", "level", "fade", "silence at both ends"]


def test_every_unusable_file_is_named(store: AssetStore, tmp_path: Path) -> None:
    good = item(tmp_path / "good.wav", speechlike(9, 16_000))
    silent = item(tmp_path / "silent.wav", np.zeros(16_000))
    empty = item(tmp_path / "empty.wav", np.zeros(0))
    nan = tmp_path / "nan.wav"
    soundfile.write(nan, np.full(16_000, np.nan), 16_000, subtype="FLOAT")
    cut = tmp_path / "cut.flac"
    soundfile.write(cut, speechlike(9, 16_000), 16_000)
    cut.write_bytes(cut.read_bytes()[:2000])
    text = tmp_path / "text.wav"
    text.write_text("no audio")
    gone = tmp_path / "gone.wav"
    more = [ItemRef(path.stem, "mine", "speech", str(path)) for path in (nan, cut, text, gone)]
    with pytest.raises(AssetError) as caught:
        prepare_all([good, silent, empty, *more], store)
    lines = str(caught.value).splitlines()
    assert len(lines) == 6
    for name in ("silent.wav", "empty.wav", "nan.wav", "cut.flac", "text.wav", "gone.wav"):
        assert sum(f"/{name}: " in line for line in lines) == 1
    assert "good" in prepare_all([good], store)

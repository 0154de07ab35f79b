"""Metrics that a scenario may ask for: published figures, hand-made signals, and every reason why
there is none."""

from __future__ import annotations

import hashlib
import math
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from harness.assets.manifest import weights
from harness.errors import Unsupported
from harness.score import dnsmos, onnx, plcmos, spectral, visqol
from harness.score.metrics import METRICS, NoScore, Score
from harness.score.quality import MEASURES, OPTIONAL, Measure, measures, score_audio
from tests.score.signals import RATE_HZ, speech, task

MIRROR = os.environ.get("HARNESS_MIRROR")
FOLDER = Path(MIRROR or "nowhere") / "metrics"
needs_models = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="HARNESS_MIRROR has no metrics/plcmos, metrics/dnsmos"
)
MODELS = {
    "plcmos-v2": FOLDER / "plcmos" / "plcmos_v2.onnx",
    "dnsmos-p835": FOLDER / "dnsmos" / "sig_bak_ovr.onnx",
    "dnsmos-p808": FOLDER / "dnsmos" / "model_v8.onnx",
}
SPEECH = speech(4.0)
NOISY = (SPEECH + np.random.default_rng(0).normal(0, 1500, len(SPEECH))).astype(np.int16)


def example(name: str) -> NDArray[np.float64]:
    audio, rate_hz = soundfile.read(FOLDER / "plcmos" / f"{name}.flac")
    assert rate_hz == RATE_HZ
    return np.asarray(audio)


def of(name: str) -> tuple[Measure, ...]:
    return measures([name])


# --- learned estimators ---------------------------------------------------------------------------


@needs_models
@pytest.mark.parametrize(
    ("name", "published"), [("clean", 4.497762), ("plc_good", 4.123963), ("plc_poor", 2.740758)]
)
def test_plcmos_reproduces_the_published_scores(name: str, published: float) -> None:
    found = plcmos.plcmos(example(name), MODELS["plcmos-v2"])
    assert found == pytest.approx(published, abs=1e-5)


@needs_models
@pytest.mark.parametrize(
    ("name", "sig", "bak", "ovrl", "p808"),
    [
        ("clean", 3.612702, 4.225885, 3.399374, 4.075760),
        ("plc_poor", 3.314140, 4.127911, 3.056542, 3.984389),
    ],
)
def test_dnsmos_equals_the_reference_code(
    name: str, sig: float, bak: float, ovrl: float, p808: float
) -> None:
    """What speechmos 0.0.1.1 gave, with librosa 0.11."""
    audio = example(name)
    found = [dnsmos.p835(audio, MODELS["dnsmos-p835"], mode) for mode in ("sig", "bak", "ovrl")]
    assert found == pytest.approx([sig, bak, ovrl], abs=1e-5)
    assert dnsmos.p808(audio, MODELS["dnsmos-p808"]) == pytest.approx(p808, abs=1e-5)


@needs_models
def test_the_models_are_those_of_the_manifest() -> None:
    for name, path in MODELS.items():
        asset = weights()[name].asset
        assert hashlib.sha256(path.read_bytes()).hexdigest() == asset.sha256
        assert path.stat().st_size == asset.size_bytes


@needs_models
def test_short_speech_is_said_again() -> None:
    short = example("clean")[: 5 * RATE_HZ - 100]
    repeated = np.tile(short, 2)
    first, again = (dnsmos.p835(track, MODELS["dnsmos-p835"], "sig") for track in (short, repeated))
    assert first == again


@needs_models
def test_a_cell_gets_its_scores_from_the_paths_it_is_given() -> None:
    scored = task(example("clean"), example("plc_poor")[:160_000], assets=MODELS)
    first = score_audio(scored, (*of("plcmos"), *of("dnsmos")))
    assert first == score_audio(scored, (*of("plcmos"), *of("dnsmos")))
    assert [row["reason"] for row in first] == [None] * 5
    assert first[0]["value"] == pytest.approx(2.73, abs=0.05)  # without its last 0.1 s
    assert first[0]["version"].endswith("(plcmos_v2, seed 23)")


def test_log_mel_follows_librosa() -> None:
    """librosa 0.11: ``power_to_db(melspectrogram(y, sr=16000, n_fft=321, hop_length=160,
    n_mels=120), ref=max)``, of a chirp with a silent half."""
    time = np.arange(4800) / RATE_HZ
    chirp = 0.3 * np.sin(2 * np.pi * (100 + 10_000 * time) * time) * (time < 0.2)
    found = dnsmos.log_mel(chirp)
    assert found.shape == (30, 120)
    assert float(found.max()) == 1.0
    assert float(found.min()) == -1.0  # 80 dB below the peak
    expected = {
        (0, 0): 0.010224,
        (0, 3): 0.876876,
        (5, 40): 0.712950,
        (10, 60): -0.267564,
        (15, 90): -0.732892,
        (20, 100): 0.196616,
    }
    for (frame, band), value in expected.items():
        assert found[frame, band] == pytest.approx(value, abs=1e-5)


def test_log_spectra_of_plcmos_floor_what_is_silent() -> None:
    audio = np.zeros(1024)
    audio[100] = 1.0
    found = plcmos.features(audio)
    assert found.shape == (1, 1, 5, 257)
    assert found.dtype == np.float32
    # Frame 0 reaches from -256 to 255, so that the impulse is at its sample 356.
    flat = math.log(np.hamming(513)[356] ** 2) / 20
    np.testing.assert_allclose(found[0, 0, 0], flat, atol=1e-6)
    np.testing.assert_allclose(found[0, 0, 3], found.min(), atol=1e-6)
    least = math.log(np.hamming(513)[100] ** 2) / 20
    assert float(found.min()) == pytest.approx(least - 12 * math.log(10) / 20, abs=1e-5)


@pytest.mark.parametrize("name", ["plcmos", "dnsmos"])
def test_missing_weights_cost_their_scores_alone(name: str) -> None:
    command = "harness assets fetch it --accept-licence"
    assets = {asset: Unsupported(command) for measure in of(name) for asset in measure.assets}
    wanted = (*of(name), *of("lsd"))
    told, unheard = (score_audio(task(SPEECH, **more), wanted) for more in ({"assets": assets}, {}))
    assert {row["reason"] for row in told if row["metric"] == name} == {command}
    assert all("nobody looked" in str(r["reason"]) for r in unheard if r["metric"] == name)
    assert values(told)["lsd", "wb"] == 0


def test_a_missing_library_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "visqol", None)
    with pytest.raises(NoScore, match="pip install onnxruntime"):
        onnx.run(Path("nowhere.onnx"), {})
    visqol._api.cache_clear()
    with pytest.raises(NoScore, match=r"pip install 'visqol-python\[lattice\]'"):
        visqol.visqol(SPEECH, SPEECH, RATE_HZ, "speech")


def test_a_file_that_is_no_model_is_a_reason(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a model")
    [row] = score_audio(task(SPEECH, assets={"plcmos-v2": path}), of("plcmos"))
    assert row["value"] is None
    assert "InvalidProtobuf" in str(row["reason"])


# --- distances ------------------------------------------------------------------------------------


def values(scores: list[Score]) -> dict[tuple[str, str], float | None]:
    return {(row["metric"], row["mode"]): row["value"] for row in scores}


def test_lsd_of_a_level_change_is_that_change() -> None:
    steady = np.random.default_rng(0).normal(0, 0.1, 16_000)
    assert spectral.lsd(steady, steady, RATE_HZ) == 0
    # No bin of noise comes near the floor, 50 dB below the peak, but a few.
    assert spectral.lsd(steady, steady / 2, RATE_HZ) == pytest.approx(6.02, abs=0.02)
    assert spectral.lsd(steady, steady * 2, RATE_HZ) == pytest.approx(6.02, abs=0.02)


def test_lsd_hears_nothing_below_the_floor() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(16_000) / RATE_HZ)
    hiss = 1e-5 * np.random.default_rng(0).normal(size=16_000)
    assert spectral.lsd(tone, tone + hiss, RATE_HZ) < 1e-3
    assert spectral.lsd(tone, tone + hiss, RATE_HZ, range_db=120) > 1
    assert spectral.lsd(tone, np.zeros(16_000), RATE_HZ) > 1
    assert spectral.lsd(tone[:100], tone[:100], RATE_HZ) == 0


def test_si_sdr_is_the_ratio_whatever_the_scale() -> None:
    generator = np.random.default_rng(0)
    wanted, noise = generator.normal(size=(2, 100_000))
    noise -= np.dot(noise, wanted) / np.dot(wanted, wanted) * wanted
    expected = 10 * math.log10(np.dot(wanted, wanted) / np.dot(noise, noise)) + 20
    for scale in (1, 0.01, -3):
        found = spectral.si_sdr(wanted, scale * (wanted + 0.1 * noise))
        assert found == pytest.approx(expected, abs=1e-9)


def test_si_sdr_stays_finite() -> None:
    assert spectral.si_sdr(SPEECH, SPEECH) == 100
    assert spectral.si_sdr(SPEECH, SPEECH * 0) == -100
    assert spectral.si_sdr(np.array([1.0, 0]), np.array([0.0, 1])) == -100


@pytest.mark.parametrize(
    ("changed", "fine"),
    [
        ({}, True),
        ({"codec_kind": "opus"}, True),
        ({"codec_kind": "codec2"}, False),
        ({"weights": "real", "codec_kind": "lyra"}, False),
    ],
)
def test_si_sdr_is_for_waveform_codecs(changed: dict[str, str], fine: bool) -> None:
    scores = score_audio(task(SPEECH, NOISY, **changed), (*of("si-sdr"), *of("lsd")))
    found = values(scores)
    assert found["lsd", "wb"] is not None
    assert (found["si_sdr", "wb"] is not None) == fine
    if not fine:
        assert "follow the waveform" in str(scores[0]["reason"])


# --- what is valid for what -----------------------------------------------------------------------


def test_music_is_scored_by_what_is_for_music() -> None:
    wanted = (*MEASURES, *of("plcmos"), *of("dnsmos"), *of("lsd"), *of("si-sdr"))
    scores = score_audio(task(SPEECH, NOISY, kind="music"), wanted)
    assert {key for key, value in values(scores).items() if value is not None} == {
        ("lsd", "fb"),
        ("si_sdr", "fb"),
    }
    reasons = {(row["metric"], row["mode"]): row["reason"] for row in scores}
    assert reasons["lsd", "wb"] == "log-spectral distance wb is defined for speech"
    assert reasons["plcmos", ""] == "PLCMOS v2 is defined for speech"


def test_visqol_of_both_kinds() -> None:
    pytest.importorskip("visqol", reason="pip install 'visqol-python[lattice]'")
    short = SPEECH[:RATE_HZ]
    for kind, mode in (("speech", "speech"), ("music", "audio")):
        same, noisy = (
            values(score_audio(task(short, track, kind=kind), of("visqol")))
            for track in (short, NOISY[:RATE_HZ])
        )
        other = "audio" if mode == "speech" else "speech"
        assert same["visqol", other] is None
        assert (same["visqol", mode] or 0) > 4.5
        assert 1 <= (noisy["visqol", mode] or 0) < (same["visqol", mode] or 0) - 0.2


def test_every_measure_travels_and_is_in_the_table() -> None:
    for measure in (*MEASURES, *OPTIONAL):
        assert pickle.dumps(measure)  # on its way to a worker
        metric = METRICS[measure.metric]
        assert measure.mode in metric.modes
        assert measure.rate_hz
        assert measures([measure.name])
        assert set(measure.assets) <= set(weights())
    assert of("nothing") == ()

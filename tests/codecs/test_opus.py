"""What libopus can do about lost packets, and how it is found."""

from __future__ import annotations

from ctypes import CDLL
from pathlib import Path

import numpy as np
import pytest
from codec_settings import make
from codec_signals import frames, payloads, speech_like

from harness.codecs import opus
from harness.codecs.base import Codec, Pcm
from harness.errors import Unsupported

FEC = {"bitrate": "24kbit", "fec": True, "expected_loss": "20%"}


def _spectral_distance_db(one: Pcm, other: Pcm) -> float:
    """Distance of log spectra: concealment keeps no phase, so waveforms cannot be compared."""
    spectra = [
        20 * np.log10(np.abs(np.fft.rfft(pcm * np.hanning(len(pcm)))) + 100) for pcm in (one, other)
    ]
    return float(np.sqrt(np.mean((spectra[0] - spectra[1]) ** 2)))


def _lose_every_seventh(codec: Codec, how: str) -> tuple[list[Pcm], list[Pcm], int]:
    """The frames lost as they would have been, what stood in for them, and how many recovered."""
    pcm = speech_like(codec.facts.sample_rate_hz, 6)
    coded = [p for p in payloads(codec, pcm) if p is not None]
    perfect, lossy = codec.decoder(), codec.decoder()
    wanted, given, recovered = [], [], 0
    for index, payload in enumerate(coded[:-1]):
        original = perfect.decode(payload)
        if index % 7 != 3:
            lossy.decode(payload)
            continue
        made_up = lossy.recover(coded[index + 1]) if how == "fec" else None
        recovered += made_up is not None
        made_up = lossy.conceal() if made_up is None else made_up
        assert made_up is not None
        wanted.append(original)
        given.append(made_up)
    return wanted, given, recovered


@pytest.mark.parametrize("rate", ["8kHz", "16kHz", "48kHz"])
def test_fec_comes_closer_to_the_lost_frame_than_concealment(rate: str) -> None:
    codec = make("opus", rate=rate, **FEC)
    distances = {}
    for how in ("fec", "plc"):
        wanted, given, recovered = _lose_every_seventh(codec, how)
        assert recovered > 0.7 * len(wanted) if how == "fec" else recovered == 0
        distances[how] = np.median(
            [_spectral_distance_db(a, b) for a, b in zip(wanted, given, strict=True)]
        )
    assert distances["fec"] < 0.8 * distances["plc"]


def test_without_fec_there_is_nothing_to_recover() -> None:
    """Packets made without FEC carry no copy, and a decoder set up without it does not look."""
    with_fec, without = make("opus", **FEC), make("opus", bitrate="24kbit")
    pcm = speech_like(16_000, 1)
    plain = [p for p in payloads(without, pcm) if p is not None]
    redundant = [p for p in payloads(with_fec, pcm) if p is not None]
    decoder = with_fec.decoder()
    assert all(decoder.recover(payload) is None for payload in plain)
    assert any(decoder.recover(payload) is not None for payload in redundant)
    assert all(without.decoder().recover(payload) is None for payload in redundant)


@pytest.mark.parametrize("frame", ["10ms", "40ms", "60ms"])
def test_fec_at_every_frame_length(frame: str) -> None:
    codec = make("opus", frame=frame, **FEC)
    wanted, given, recovered = _lose_every_seventh(codec, "fec")
    assert recovered > 0.5 * len(wanted)
    assert all(len(pcm) == codec.facts.frame_samples for pcm in given)


def test_concealment_goes_on_from_the_signal_and_fades() -> None:
    codec = make("opus")
    decoder = codec.decoder()
    pcm = speech_like(16_000, 1)
    level = 0.0
    for payload in payloads(codec, pcm)[:30]:
        level = float(np.std(decoder.decode(payload or b"")))
    concealed = [decoder.conceal() for _ in range(50)]
    levels = [float(np.std(frame)) for frame in concealed if frame is not None]
    assert levels[0] > 0.3 * level
    assert levels[-1] < 0.5 * levels[0]


def test_deep_plc_is_another_concealment_or_unsupported() -> None:
    lib = opus.library()
    if not opus.has_deep_plc(lib):
        with pytest.raises(Unsupported, match=r"built without deep PLC.*HARNESS_LIBOPUS"):
            make("opus", deep_plc=True)
        pytest.skip(f"{lib.name} has no deep PLC")
    plain, deep = make("opus"), make("opus", deep_plc=True)
    _, by_pitch, _ = _lose_every_seventh(plain, "plc")
    _, by_network, _ = _lose_every_seventh(deep, "plc")
    apart = [not np.array_equal(a, b) for a, b in zip(by_pitch, by_network, strict=True)]
    assert np.mean(apart) > 0.8


def test_the_library_named_in_the_environment_is_the_only_one_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HARNESS_LIBOPUS", str(tmp_path / "libopus.so"))
    opus.library.cache_clear()
    try:
        with pytest.raises(Unsupported, match=r"no libopus \(.*tmp.*libopus\.so.*HARNESS_LIBOPUS"):
            opus.library()
        monkeypatch.delenv("HARNESS_LIBOPUS")
        assert "av.libs" in opus.library().path
    finally:
        opus.library.cache_clear()


def test_an_older_system_library_works_too(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        CDLL("libopus.so.0")
    except OSError as error:
        pytest.skip(f"no system libopus: {error}")
    monkeypatch.setenv("HARNESS_LIBOPUS", "libopus.so.0")
    opus.library.cache_clear()
    try:
        codec = make("opus", **FEC)
        pcm = speech_like(16_000, 0.5)
        decoder = codec.decoder()
        for payload in payloads(codec, pcm):
            assert len(decoder.decode(payload or b"")) == codec.facts.frame_samples
        wanted, _, recovered = _lose_every_seventh(codec, "fec")
        assert recovered > 0.5 * len(wanted)
    finally:
        opus.library.cache_clear()


def test_bitrate_is_what_was_asked_in_cbr() -> None:
    codec = make("opus", rate="48kHz", application="audio", bitrate="64kbit", vbr=False)
    sizes = {len(p or b"") for p in payloads(codec, speech_like(48_000, 1))}
    assert sizes == {64_000 // 50 // 8}


def test_frames_are_not_changed_by_coding() -> None:
    codec = make("opus")
    pcm = speech_like(16_000, 0.2)
    before = pcm.copy()
    encoder = codec.encoder()
    for frame in frames(pcm, codec):
        encoder.encode(frame)
    np.testing.assert_array_equal(pcm, before)

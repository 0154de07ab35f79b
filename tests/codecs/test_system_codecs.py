"""LC3, Speex, GSM, AMR-WB and Codec 2: what is theirs beside the contract of every codec."""

from __future__ import annotations

import gc
import importlib.metadata
from pathlib import Path

import numpy as np
import pytest
from codec_settings import make
from codec_signals import frames, lag, payloads, round_trip, snr_db, speech_like

from harness import codecs
from harness.codec_table import loudness, swelling_tone, tolerance_samples
from harness.codecs.base import AdjustableEncoder, Codec
from harness.errors import Unsupported

LIBRARY = {
    "lc3": "LC3",
    "speex": "SPEEX",
    "gsm": "GSM",
    "amr-wb": "VO_AMRWBENC",
    "codec2": "CODEC2",
}


@pytest.mark.parametrize(("name", "variable"), LIBRARY.items())
def test_a_missing_library_is_named_with_its_remedy(
    name: str, variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(f"HARNESS_LIB{variable}", str(tmp_path / "none.so"))
    with pytest.raises(Unsupported) as caught:
        codecs.create(name, codecs.params_class(name)(), {})
    assert "none.so" in str(caught.value)
    assert f"run `{codecs.module(name).ABOUT.remedy}`" in str(caught.value)
    assert f"HARNESS_LIB{variable}" in str(caught.value)


def test_a_library_that_lacks_a_function_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_LIBGSM", "libc.so.6")
    with pytest.raises(Unsupported, match=r"libc\.so\.6: .*gsm_create"):
        codecs.create("gsm", codecs.params_class("gsm")(), {})


def test_the_environment_names_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make("gsm")
    loaded = next(m for m in Path("/proc/self/maps").read_text().split() if "/libgsm.so" in m)
    mine = tmp_path / "libmine.so"
    mine.write_bytes(Path(loaded).read_bytes())
    monkeypatch.setenv("HARNESS_LIBGSM", str(mine))
    assert make("gsm").facts.library.startswith("libmine.so sha256:")


def test_a_wheels_library_is_preferred_and_named_by_its_version() -> None:
    make("lc3")
    try:
        version = importlib.metadata.version("lc3py")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the wheel is not installed: pip install lc3py")
    assert make("lc3").facts.library == f"liblc3 of lc3py {version}"


@pytest.mark.parametrize(
    ("name", "written", "says"),
    [
        ("lc3", {"frame": "20ms"}, "expected one of 2.5ms, 5ms, 7.5ms, 10ms, got 20ms"),
        ("lc3", {"rate": "44.1kHz"}, "expected one of 8kHz, 16kHz, 24kHz, 32kHz, 48kHz"),
        ("lc3", {"bitrate": "12kbit"}, "expected 16kbit to 320kbit, got 12kbit"),
        ("lc3", {"bitrate": "321kbit"}, "expected 16kbit to 320kbit"),
        ("lc3", {"frame": "7.5ms", "bitrate": "20kbit"}, "at least 21.334kbit with frames of 7.5"),
        ("lc3", {"frame": "2.5ms", "bitrate": "63kbit"}, "at least 64kbit with frames of 2.5ms"),
        ("speex", {"rate": "48kHz"}, "expected one of 8kHz, 16kHz, 32kHz, got 48kHz"),
        ("speex", {"bitrate": "24kbit"}, "23.8kbit, 27.8kbit, 34.2kbit, 42.2kbit at 16kHz, got 24"),
        ("speex", {"rate": "8kHz"}, "15kbit, 18.2kbit, 24.6kbit at 8kHz, got 27.8kbit"),
        ("speex", {"complexity": 0}, "greater than or equal to 1"),
        ("codec2", {"bitrate": "450bit"}, "3.2kbit, 2.4kbit"),
        ("amr-wb", {"bitrate": "12kbit"}, "expected one of 6.6kbit, 8.85kbit, 12.65kbit"),
        ("gsm", {"frame": "20ms"}, "Extra inputs are not permitted"),
    ],
)
def test_illegal_settings_say_what_is_allowed(
    name: str, written: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match="validation error") as caught:
        codecs.params_class(name)(**written)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("name", "written", "size"),
    [
        ("lc3", {"bitrate": "16kbit"}, 20),
        ("lc3", {"bitrate": "320kbit", "rate": "48kHz"}, 400),
        ("lc3", {"frame": "7.5ms", "bitrate": "21.334kbit"}, 20),
        ("lc3", {"frame": "7.5ms", "bitrate": "320kbit", "rate": "48kHz"}, 300),
        ("gsm", {}, 33),
        *(("speex", {"bitrate": bps}, size) for bps, size in (("3.95kbit", 10), ("42.2kbit", 106))),
        *(
            ("amr-wb", {"bitrate": f"{kbps}kbit"}, size)  # RFC 4867, table 1a of TS 26.201
            for kbps, size in (
                *((6.6, 18), (8.85, 24), (12.65, 33), (14.25, 37), (15.85, 41)),
                *((18.25, 47), (19.85, 51), (23.05, 59), (23.85, 61)),
            )
        ),
        *(
            ("codec2", {"bitrate": f"{bps}bit"}, size)
            for bps, size in (
                *((3200, 8), (2400, 6), (1600, 8), (1400, 7)),
                *((1300, 7), (1200, 6), (700, 4)),
            )
        ),
    ],
)
def test_payload_sizes(name: str, written: dict[str, str], size: int) -> None:
    codec = make(name, **written)
    coded = payloads(codec, speech_like(codec.facts.sample_rate_hz, 0.4))
    assert {len(payload or b"") for payload in coded} == {size}
    decoder = codec.decoder()
    assert all(len(decoder.decode(p or b"")) == codec.facts.frame_samples for p in coded)


@pytest.mark.parametrize(
    ("name", "written", "asked", "used", "size"),
    [
        ("lc3", {}, 64_000, 64_000, 80),
        ("lc3", {}, 47_700, 48_000, 60),  # a byte more is 800 bit/s
        ("lc3", {}, 1, 16_000, 20),
        ("lc3", {"rate": "48kHz"}, 10**9, 320_000, 400),
        ("lc3", {"frame": "7.5ms"}, 1, 21_334, 20),
        ("speex", {}, 10_000, 9_800, 25),
        ("speex", {}, 1, 3_950, 10),
        ("speex", {"rate": "8kHz", "bitrate": "15kbit"}, 10**9, 24_600, 62),
        ("amr-wb", {}, 20_000, 19_850, 51),
        ("amr-wb", {}, 1, 6_600, 18),
        ("amr-wb", {}, 10**9, 23_850, 61),
    ],
)
def test_the_rate_changes_from_the_next_frame_on(
    name: str, written: dict[str, str], asked: int, used: int, size: int
) -> None:
    codec = make(name, **written)
    low, high = codec.facts.bitrate_range_bps or (0, 0)
    assert low <= used <= high
    encoder: AdjustableEncoder = codec.encoder()  # type: ignore[assignment]
    decoder = codec.decoder()
    pcm = speech_like(codec.facts.sample_rate_hz, 2)
    cut = frames(pcm, codec)
    before = [encoder.encode(frame) or b"" for frame in cut[:40]]
    assert encoder.set_bitrate(asked) == used
    after = [encoder.encode(frame) or b"" for frame in cut[40:]]
    assert {len(payload) for payload in after} == {size}
    assert len(before[-1]) != size
    heard = np.concatenate([decoder.decode(payload) for payload in before + after])
    if size > 20:
        assert abs(lag(heard, pcm) - codec.facts.delay_samples) <= 20


@pytest.mark.parametrize(
    ("name", "range_bps"),
    [("lc3", (16_000, 320_000)), ("speex", (3_950, 42_200)), ("amr-wb", (6_600, 23_850))],
)
def test_a_rate_that_is_asked_for_again_stays(name: str, range_bps: tuple[int, int]) -> None:
    codec = make(name)
    assert codec.facts.bitrate_range_bps == range_bps
    encoder: AdjustableEncoder = codec.encoder()  # type: ignore[assignment]
    for asked in np.linspace(*range_bps, 23).astype(int):
        used = encoder.set_bitrate(int(asked))
        assert encoder.set_bitrate(used) == used


@pytest.mark.parametrize(
    ("rate", "kbps"),
    [
        ("8kHz", (2.15, 3.95, 5.95, 8, 11, 15, 18.2, 24.6)),
        ("16kHz", (3.95, 5.75, 7.75, 9.8, 12.8, 16.8, 20.6, 23.8, 27.8, 34.2, 42.2)),
        ("32kHz", (4.15, 7.55, 9.55, 11.6, 14.6, 18.6, 22.4, 25.6, 29.6, 36, 44)),
    ],
)
def test_every_speex_rate_is_a_payload_of_its_size(rate: str, kbps: tuple[float, ...]) -> None:
    """The manual's rates, against what the library writes: the size of 20 ms in whole bytes."""
    codec = make("speex", rate=rate, bitrate=f"{kbps[0]}kbit")
    encoder: AdjustableEncoder = codec.encoder()  # type: ignore[assignment]
    decoder = codec.decoder()
    silence = np.zeros(codec.facts.frame_samples, np.int16)
    for bps in (round(1000 * rate) for rate in kbps):
        assert encoder.set_bitrate(bps) == bps
        payload = encoder.encode(silence) or b""
        assert len(payload) == -(-bps * 20 // 8000)
        assert len(decoder.decode(payload)) == codec.facts.frame_samples


@pytest.mark.parametrize(
    ("name", "written", "least_db"),
    [
        ("lc3", {}, 14),
        ("lc3", {"rate": "48kHz", "bitrate": "128kbit"}, 25),
        ("lc3", {"rate": "48kHz", "bitrate": "128kbit", "frame": "5ms"}, 25),
        ("gsm", {}, 12),
        ("amr-wb", {}, 4),
        ("speex", {}, 2),
    ],
)
def test_signal_to_noise_ratio(name: str, written: dict[str, str], least_db: float) -> None:
    codec = make(name, **written)
    pcm = speech_like(codec.facts.sample_rate_hz, 2)
    assert snr_db(round_trip(codec, pcm), pcm, codec.facts.delay_samples) > least_db


@pytest.mark.parametrize(
    ("name", "least"),
    [("lc3", 0.3), ("speex", 0.3), ("gsm", 0.3), ("amr-wb", 0.1)],  # libopencore mutes at once
)
def test_concealment_goes_on_from_the_signal_and_fades(name: str, least: float) -> None:
    codec = make(name)
    decoder = codec.decoder()
    level = 0.0
    for payload in payloads(codec, speech_like(codec.facts.sample_rate_hz, 1))[:28]:
        level = float(np.std(decoder.decode(payload or b"")))
    levels = [float(np.std(decoder.conceal())) for _ in range(60)]  # type: ignore[arg-type]
    assert levels[0] > least * level
    assert levels[-1] < 0.1 * levels[0]


def test_gsm_repeats_the_last_frame_then_mutes_within_320_ms() -> None:
    codec = make("gsm")
    coded = [p or b"" for p in payloads(codec, speech_like(8_000, 1))]
    lossy, repeating = codec.decoder(), codec.decoder()
    for payload in coded:
        lossy.decode(payload)
        repeating.decode(payload)
    np.testing.assert_array_equal(lossy.conceal(), repeating.decode(coded[-1]))
    muted = [lossy.conceal() for _ in range(20)]
    assert np.abs(muted[16]).max() < 100  # type: ignore[arg-type]
    silence = codec.decoder()
    assert np.abs(silence.conceal()).max() < 100  # type: ignore[arg-type]


def test_lc3_hands_out_a_damaged_frames_concealment_once() -> None:
    """liblc3 conceals as it finds the damage; ``conceal`` must not move its state a second time."""
    codec = make("lc3")
    coded = [p or b"" for p in payloads(codec, speech_like(16_000, 0.5))]
    damaged, lost = codec.decoder(), codec.decoder()
    for payload in coded[:20]:
        damaged.decode(payload)
        lost.decode(payload)
    with pytest.raises(ValueError, match="LC3 frame of 40 bytes is damaged"):
        damaged.decode(b"\xff" * 40)
    for _ in range(2):
        np.testing.assert_array_equal(damaged.conceal(), lost.conceal())
    np.testing.assert_array_equal(damaged.decode(coded[22]), lost.decode(coded[22]))


def test_amr_wb_just_below_full_scale() -> None:
    """Clipped input overloads libvo-amrwbenc itself; a sine that fits survives."""
    codec = make("amr-wb", bitrate="23.85kbit")
    loud = np.rint(32_000 * np.sin(2 * np.pi * 300 * np.arange(16_000) / 16_000)).astype(np.int16)
    assert snr_db(round_trip(codec, loud), loud, codec.facts.delay_samples) > 8


def test_amr_wb_frames_are_checked_against_their_type() -> None:
    codec = make("amr-wb")
    good = payloads(codec, speech_like(16_000, 0.2))[-1] or b""
    for toc in range(256):
        frame = bytes([toc]) + good[1:]
        if toc >> 3 == good[0] >> 3:
            codec.decoder().decode(frame)
        else:
            with pytest.raises(ValueError, match="AMR-WB frame of 33 bytes"):
                codec.decoder().decode(frame)


@pytest.mark.parametrize(
    "bitrate", ["3.2kbit", "2.4kbit", "1.6kbit", "1.4kbit", "1.3kbit", "1.2kbit", "700bit"]
)
def test_codec2_envelope_lags_by_the_declared_delay(bitrate: str) -> None:
    """A vocoder gives no waveform to correlate, so its delay is that of the loudness."""
    codec = make("codec2", bitrate=bitrate)
    tones = [swelling_tone(8_000, 12, seed) for seed in range(2)]
    lags = [lag(loudness(round_trip(codec, tone)), loudness(tone)) for tone in tones]
    assert abs(np.mean(lags) - codec.facts.delay_samples) <= tolerance_samples(codec.facts)


def test_codec2_does_not_hear_what_was_decoded_before() -> None:
    """Its library's random generator is one for all decoders; each gets a library of its own."""
    codec = make("codec2")
    noise = np.random.default_rng(1).normal(0, 3_000, 8_000).astype(np.int16)
    first, second = round_trip(codec, noise), round_trip(codec, noise)
    np.testing.assert_array_equal(first, second)
    assert np.std(first) > 300


def test_codec2_decoders_leave_nothing_behind() -> None:
    def copies() -> int:
        return Path("/proc/self/maps").read_text().count("memfd:libcodec2")

    codec: Codec = make("codec2")
    gc.collect()
    before, open_files = copies(), len(list(Path("/proc/self/fd").iterdir()))
    decoder = codec.decoder()
    assert copies() > before
    del decoder
    assert copies() == before
    assert len(list(Path("/proc/self/fd").iterdir())) == open_files

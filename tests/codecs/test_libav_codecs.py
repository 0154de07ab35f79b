"""MP3, FLAC, AMR-NB, SBC and AAC: what is theirs beside the contract of every codec."""

from __future__ import annotations

import io
from typing import Any, cast

import numpy as np
import pytest
from codec_settings import make
from codec_signals import frames, lag, noise_bursts, payloads, round_trip, snr_db, speech_like

from harness import codecs
from harness.codecs import aac_blocks, libav
from harness.codecs.base import AdjustableEncoder, Codec, Pcm
from harness.errors import Unsupported


def _coded(codec: Codec, pcm: Pcm) -> list[bytes]:
    return [payload for payload in payloads(codec, pcm) if payload is not None]


def _played(codec: Codec, coded: list[bytes], lost: set[int]) -> list[Pcm]:
    """As a receiver plays: the codec's concealment, or a frame of zeros, for what is lost."""
    decoder, played = codec.decoder(), []
    for index, payload in enumerate(coded):
        frame = decoder.conceal() if index in lost else decoder.decode(payload)
        played.append(np.zeros(codec.facts.frame_samples, np.int16) if frame is None else frame)
    return played


def _differing(one: list[Pcm], other: list[Pcm], by_more_than: int = 0) -> list[int]:
    return [
        index
        for index, (a, b) in enumerate(zip(one, other, strict=True))
        if np.abs(a.astype(int) - b).max() > by_more_than
    ]


def _kbps(coded: list[bytes], codec: Codec) -> float:
    facts = codec.facts
    return 8e-3 * np.mean([len(p) for p in coded]) * facts.sample_rate_hz / facts.frame_samples


def _changing_rate(codec: Codec, pcm: Pcm, at: int, bps: int) -> tuple[list[bytes], int]:
    """All payloads, the rate asked for before input frame ``at``; and the rate it took."""
    encoder = cast(AdjustableEncoder, codec.encoder())
    coded, used = [], 0
    for index, frame in enumerate(frames(pcm, codec)):
        if index == at:
            used = encoder.set_bitrate(bps)
        payload = encoder.encode(frame)
        assert (payload is None) == (index < codec.facts.lookahead_frames)
        coded += [payload] if payload else []
    return coded, used


def test_a_codec_that_libavcodec_lacks_is_named_with_the_remedy() -> None:
    with pytest.raises(Unsupported, match=r"no encoder libfdk_aac;.*pip install"):
        libav.require(("libfdk_aac", "w"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "written", "says"),
    [
        ("mp3", {"rate": "96kHz"}, "44.1kHz, 48kHz, got 96kHz"),
        ("mp3", {"bitrate": "16kbit"}, "expected one of 32kbit, 40kbit"),
        ("mp3", {"rate": "12kHz", "bitrate": "80kbit"}, "64kbit at 12kHz, got 80kbit"),
        ("flac", {"frame": "2.6ms", "rate": "8kHz"}, "not a whole number of samples at 8kHz"),
        ("flac", {"compression": 13}, "less than or equal to 12"),
        ("amr-nb", {"bitrate": "12kbit"}, "10.2kbit, 12.2kbit, got 12kbit"),
        ("sbc", {"rate": "24kHz"}, "expected one of 16kHz, 32kHz, 44.1kHz, 48kHz"),
        ("sbc", {"rate": "48kHz", "bitrate": "32kbit"}, "at least 36kbit at 48kHz, got 32kbit"),
        ("aac-blocks", {"bitrate": "128kbit"}, "at most 72kbit at 12kHz"),
        ("aac-blocks", {"block_samples": 1024}, "greater than or equal to 2048"),
        ("aac-blocks", {"block_samples": 16_000}, "multiple of 1024"),
        ("aac-blocks", {"priming": "drop"}, "'keep' or 'trim'"),
    ],
)
def test_illegal_settings_say_what_is_allowed(
    name: str, written: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match="validation error") as caught:
        codecs.params_class(name)(**written)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("rate", "bitrate"),
    [("48kHz", "32kbit"), ("48kHz", "64kbit"), ("44.1kHz", "160kbit"), ("24kHz", "16kbit")],
)
def test_mp3_waits_for_the_fullest_reservoir_and_no_longer(rate: str, bitrate: str) -> None:
    facts = make("mp3", rate=rate, bitrate=bitrate).facts
    lame = libav.Encoder("libmp3lame", facts.sample_rate_hz, "s16p", {}, facts.nominal_bitrate_bps)
    # Silence saves up all the bits that the format lets an encoder save.
    silence = np.zeros(facts.frame_samples, np.int16)
    calls = 60
    came_out = sum(lame.encode(silence) is not None for _ in range(calls))
    assert calls - came_out == facts.lookahead_frames


def test_mp3_loses_later_frames_with_a_reservoir_only() -> None:
    for reservoir, least, most in ((True, 2, 5), (False, 1, 1)):
        codec = make("mp3", reservoir=reservoir)
        coded = _coded(codec, speech_like(48_000, 2))
        for lost in range(20, 60, 4):
            whole, holed = _played(codec, coded, set()), _played(codec, coded, {lost})
            wrong = _differing(whole, holed)
            assert wrong == list(range(lost, lost + len(wrong)))
            assert least <= len(wrong) - 1 <= most
            # What lacks its data is silent: as noise it would be up to seven times as loud.
            after = slice(lost + 1, lost + 10)
            assert np.abs(holed[after]).max() <= 1.1 * np.abs(whole[after]).max()


def test_mp3_refuses_frames_of_another_stream() -> None:
    codec, pcm = make("mp3"), speech_like(48_000, 0.5)
    decoder, coded = codec.decoder(), _coded(codec, pcm)
    for other in (make("mp3", bitrate="80kbit"), make("mp3", rate="32kHz")):
        with pytest.raises(ValueError, match=r"MP3 frame of \d+ bytes: expected 192 or one more"):
            decoder.decode(_coded(other, speech_like(other.facts.sample_rate_hz, 0.5))[0])
    assert len(decoder.decode(coded[0])) == 1152


@pytest.mark.parametrize(
    "written", [{}, {"frame": "2.5ms"}, {"rate": "48kHz", "frame": "60ms", "compression": 12}]
)
def test_flac_is_lossless_and_frames_stand_alone(written: dict[str, Any]) -> None:
    codec = make("flac", **written)
    pcm = speech_like(codec.facts.sample_rate_hz, 1)
    pcm[:4] = [-32768, 32767, -32768, 0]
    coded = _coded(codec, pcm)
    np.testing.assert_array_equal(
        round_trip(codec, pcm), pcm[: codec.facts.frame_samples * len(coded)]
    )
    assert _differing(_played(codec, coded, set()), _played(codec, coded, {7})) == [7]


def test_flac_refuses_any_flipped_bit() -> None:
    codec = make("flac")
    coded = _coded(codec, speech_like(16_000, 0.2))
    decoder = codec.decoder()
    for bit in range(0, 8 * len(coded[3]), 37):
        damaged = bytearray(coded[3])
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match=r"flac packet of \d+ bytes"):
            decoder.decode(bytes(damaged))


@pytest.mark.parametrize(
    ("bitrate", "size"),
    [
        ("4.75kbit", 13),
        ("5.15kbit", 14),
        ("5.9kbit", 16),
        ("6.7kbit", 18),
        ("7.4kbit", 20),
        ("7.95kbit", 21),
        ("10.2kbit", 27),
        ("12.2kbit", 32),
    ],
)
def test_every_mode_of_amr_nb_has_its_size_and_is_speech(bitrate: str, size: int) -> None:
    """Sizes: RFC 4867, table 1 of section 3.6, rounded up to bytes, and the type's byte."""
    codec, pcm = make("amr-nb", bitrate=bitrate), noise_bursts(8_000, 2)
    coded = _coded(codec, pcm)
    assert {len(payload) for payload in coded} == {size}
    assert abs(lag(round_trip(codec, pcm), pcm) - codec.facts.delay_samples) <= 1


def test_amr_nb_conceals_by_repeating_and_fading_and_recovers() -> None:
    codec = make("amr-nb")
    coded = _coded(codec, speech_like(8_000, 2))
    whole, holed = _played(codec, coded, set()), _played(codec, coded, set(range(20, 32)))
    loudest = [int(np.abs(frame.astype(int)).max()) for frame in holed[20:32]]
    assert loudest[0] > 0.5 * np.abs(whole[20]).max()
    assert max(loudest[6:]) < 0.1 * loudest[0]
    one_lost = _played(codec, coded, {20})
    felt = _differing(whole, one_lost, by_more_than=100)
    assert felt
    assert felt[-1] <= 32


@pytest.mark.parametrize(
    ("asked_bps", "used_bps", "size"),
    [(4_000, 4_750, 13), (7_500, 7_400, 20), (9_500, 10_200, 27), (64_000, 12_200, 32)],
)
def test_amr_nb_changes_its_mode_with_the_next_frame(
    asked_bps: int, used_bps: int, size: int
) -> None:
    codec, pcm = make("amr-nb", bitrate="6.7kbit"), noise_bursts(8_000, 2)
    coded, used = _changing_rate(codec, pcm, 40, asked_bps)
    assert used == used_bps
    assert [len(payload) for payload in coded] == [18] * 40 + [size] * 60
    heard = np.concatenate(_played(codec, coded, set()))
    assert abs(lag(heard, pcm) - codec.facts.delay_samples) <= 1


@pytest.mark.parametrize(
    ("written", "size", "bps"),
    [
        ({}, 64, 64_000),
        ({"bitrate": "12kbit"}, 12, 12_000),
        ({"bitrate": "256kbit"}, 256, 256_000),
        ({"bitrate": "64.9kbit"}, 64, 64_000),
        ({"rate": "32kHz"}, 32, 64_000),
        ({"rate": "44.1kHz", "bitrate": "200kbit"}, 72, 198_450),
        ({"rate": "48kHz", "bitrate": "125kbit"}, 42, 126_000),
    ],
)
def test_sbc_takes_the_nearest_bit_pool(written: dict[str, str], size: int, bps: int) -> None:
    codec = make("sbc", **written)
    assert codec.facts.nominal_bitrate_bps == bps
    coded = _coded(codec, speech_like(codec.facts.sample_rate_hz, 0.2))
    assert {len(payload) for payload in coded} == {size}
    assert all(len(frame) == 128 for frame in _played(codec, coded, set()))


def test_sbc_feels_a_loss_for_one_frame_more() -> None:
    codec = make("sbc")
    coded = _coded(codec, speech_like(16_000, 0.5))
    assert _differing(_played(codec, coded, set()), _played(codec, coded, {20})) == [20, 21]


@pytest.mark.parametrize(
    ("rate", "before", "after"),
    [("48kHz", 64, 24), ("48kHz", 128, 32), ("48kHz", 24, 96), ("12kHz", 64, 16)],
)
def test_aac_changes_its_rate_without_a_gap(rate: str, before: int, after: int) -> None:
    codec = make("aac", rate=rate, bitrate=f"{before}kbit")
    rate_hz, at = codec.facts.sample_rate_hz, 60
    pcm = speech_like(rate_hz, 140 * 1024 / rate_hz)
    coded, used = _changing_rate(codec, pcm, at, 1000 * after)
    assert used == 1000 * after
    assert _kbps(coded[20:at], codec) == pytest.approx(before, rel=0.15)
    assert _kbps(coded[at + 20 :], codec) == pytest.approx(after, rel=0.1)
    # The two frames where both encoders overlap: the same audio in the same place.
    heard = np.concatenate(_played(codec, coded, set()))
    around = slice((at - 1) * 1024, (at + 1) * 1024)
    late = heard[1024:][around]
    assert snr_db(late, pcm[around], 0) > 5


def test_aac_keeps_its_rate_within_its_limits_and_does_nothing_for_the_same_one() -> None:
    codec, pcm = make("aac", rate="12kHz", bitrate="32kbit"), speech_like(12_000, 3)
    assert _changing_rate(codec, pcm, 10, 32_000) == (_coded(codec, pcm), 32_000)
    assert _changing_rate(codec, pcm, 10, 1_000_000)[1] == 72_000
    assert _changing_rate(codec, pcm, 0, 1_000)[1] == 8_000


def _file_samples(payload: bytes) -> int:
    """What a player decodes that opens the payload as a file."""
    import av

    with av.open(io.BytesIO(payload), format="aac") as file:
        return sum(frame.samples for frame in file.decode(audio=0))


@pytest.mark.parametrize(
    ("block_samples", "decoded"), [(16_384, 17_408), (8_192, 9_216), (2_048, 3_072)]
)
def test_a_block_decodes_to_1024_samples_more(block_samples: int, decoded: int) -> None:
    codec = make("aac-blocks", block_samples=block_samples)
    (payload,) = _coded(codec, speech_like(12_000, 1.5)[:block_samples])
    assert aac_blocks.decoded_samples(payload) == decoded
    assert _file_samples(payload) == decoded
    assert len(codec.decoder().decode(payload)) == block_samples


def test_priming_is_a_gap_at_the_head_of_every_block_or_is_trimmed() -> None:
    pcm = speech_like(12_000, 4.2)[: 3 * 16_384]
    kept, trimmed = (
        round_trip(make("aac-blocks", priming=priming), pcm).reshape(3, -1)
        for priming in ("keep", "trim")
    )
    np.testing.assert_array_equal(kept[:, 1024:], trimmed[:, :-1024])
    # The window rises over the priming: its first half is as good as silent.
    blocks = pcm.reshape(3, -1)
    rms = [np.sqrt(np.mean(part.astype(float) ** 2)) for part in (kept[:, :512], blocks)]
    assert rms[0] < 0.1 * rms[1]
    assert all(snr_db(heard, asked, 0) > 20 for heard, asked in zip(trimmed, blocks, strict=True))
    assert lag(kept.reshape(-1), pcm) == make("aac-blocks").facts.delay_samples == 1024


def test_blocks_share_nothing_and_pay_for_it() -> None:
    blocks, pcm = make("aac-blocks", priming="trim"), speech_like(12_000, 7)
    coded = _coded(blocks, pcm)
    assert coded == [blocks.encoder().encode(block) for block in frames(pcm, blocks)]
    assert _differing(_played(blocks, coded, set()), _played(blocks, coded, {2})) == [2]
    assert all(8_000 < len(payload) < 13_000 for payload in coded)
    persistent = make("aac", rate="12kHz", bitrate="72kbit")
    assert _kbps(coded, blocks) > 1.05 * _kbps(_coded(persistent, pcm), persistent)


def test_what_is_no_block_is_refused() -> None:
    codec = make("aac-blocks", block_samples=4096)
    (payload,) = _coded(codec, speech_like(12_000, 1)[:4096])
    (other,) = _coded(make("aac-blocks", block_samples=2048), speech_like(12_000, 1)[:2048])
    for damaged, says in (
        (payload[:-1], "no frame at byte"),
        (payload + b"\xff", "no frame at byte"),
        (other, "3072 samples, expected 5120"),
        (b"", "of 0 bytes: 0 samples"),
    ):
        with pytest.raises(ValueError, match=says):
            codec.decoder().decode(damaged)
    with pytest.raises(ValueError, match="no frame at byte 0"):
        aac_blocks.decoded_samples(b"RIFF")

"""Chunked coding with a model that loses nothing: what is held back and blended is exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from codec_signals import frames, lag, noise_bursts, payloads, round_trip
from pydantic import ValidationError

from harness.codecs import chunked
from harness.codecs.base import Pcm
from harness.codecs.chunked import Boundary, ChunkedCodec, Layout, Samples

BOUNDARIES: list[Boundary] = ["hard", "average", "linear", "cosine"]
BLENDS: list[Boundary] = ["average", "linear", "cosine"]


@dataclass(frozen=True)
class Verbatim:
    """Sends the samples as 32-bit floats; ``step`` divides the rate that it claims to have."""

    chunk_samples: int
    step: float = 1

    @property
    def payload_bits(self) -> int:
        return round(32 * self.chunk_samples / self.step)

    def encode(self, samples: Samples) -> bytes:
        assert samples.shape == (self.chunk_samples,)
        assert samples.dtype == np.float32
        return samples.tobytes() + bytes([int(self.step)])

    def decode(self, payload: bytes) -> Samples:
        if len(payload) != 4 * self.chunk_samples + 1:
            raise ValueError(f"chunk of {len(payload)} bytes, expected {4 * self.chunk_samples}")
        return np.frombuffer(payload[:-1], np.float32)


def _codec(boundary: Boundary, chunk: int = 400, overlap: int = 100) -> ChunkedCodec:
    layout = Layout(8_000, chunk, overlap, boundary)
    return chunked.codec(layout, Verbatim(chunk), library="none", weights="none")


def _levels(codec: ChunkedCodec, levels: list[float], lost: tuple[int, ...] = ()) -> Pcm:
    """What is heard of chunks of one level each (of full scale), some lost."""
    decoder = codec.decoder()
    heard = []
    for index, level in enumerate(levels):
        if index in lost:
            concealed = decoder.conceal()
            assert concealed is not None
            heard.append(concealed)
        else:
            chunk = np.full(codec.layout.chunk_samples, level, np.float32)
            heard.append(decoder.decode(codec.model.encode(chunk)))
    return np.concatenate(heard)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("overlap", [0, 1, 7, 100, 200])
def test_what_the_model_keeps_is_kept_at_the_declared_delay(
    boundary: Boundary, overlap: int
) -> None:
    codec = _codec(boundary, overlap=overlap)
    pcm = noise_bursts(8_000, 1)
    heard = round_trip(codec, pcm)
    delay = codec.facts.delay_samples
    assert lag(heard, pcm) == delay
    np.testing.assert_array_equal(heard[delay:], pcm[: len(heard) - delay])
    assert not heard[:delay].any()


@pytest.mark.parametrize(
    ("boundary", "delay", "waits_ms"),
    [("hard", 50, 43.75), ("average", 100, 50), ("linear", 100, 50), ("cosine", 100, 50)],
)
def test_a_blend_waits_for_the_whole_chunk(boundary: Boundary, delay: int, waits_ms: float) -> None:
    """Chunks of 50 ms: a cut in mid-overlap saves half of it."""
    facts = _codec(boundary).facts
    assert (facts.frame_samples, facts.lookahead_frames, facts.delay_samples) == (300, 0, delay)
    assert facts.algorithmic_delay_ns == waits_ms * 1e6


@pytest.mark.parametrize("changed", [0, 299, 300, 450])
def test_no_sample_is_used_before_it_was_fed(changed: int) -> None:
    """Output up to payload k depends on input frames up to k alone."""
    codec = _codec("linear")
    pcm = noise_bursts(8_000, 0.5)
    other = pcm.copy()
    other[changed:] = 20_000
    first = changed // codec.facts.frame_samples
    for before, after in zip(
        payloads(codec, pcm)[:first], payloads(codec, other)[:first], strict=True
    ):
        assert before == after
    assert payloads(codec, pcm)[first] != payloads(codec, other)[first]


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_gain_over_the_overlap(boundary: Boundary) -> None:
    heard = _levels(_codec(boundary), [0, 0.5]).astype(float) / 16384
    before, blend, after = heard[:300], heard[300:400], heard[400:]
    place = np.arange(1, 101) / 101
    expected = {
        "hard": np.ones(100),  # the older chunk ended with the frame before
        "average": np.full(100, 0.5),
        "linear": place,
        "cosine": 0.5 - 0.5 * np.cos(np.pi * place),
    }[boundary]
    assert not before.any()
    np.testing.assert_allclose(blend, expected, atol=1e-4)
    np.testing.assert_array_equal(after, 1)


def test_a_hard_boundary_cuts_half_way_through_the_overlap() -> None:
    """Input sample n is taken from the chunk in which it lies farther from the edge."""
    codec = _codec("hard")
    heard = _levels(codec, [0.25, 0.5])
    # Chunk 1 has input samples 200...599 and shares 200...299: the cut is at 250, D = 50 later.
    assert np.flatnonzero(heard == 16384)[0] == 250 + codec.facts.delay_samples


@pytest.mark.parametrize("boundary", BLENDS)
def test_nothing_is_blended_with_a_lost_chunk(boundary: Boundary) -> None:
    heard = _levels(_codec(boundary), [0.5, 0.25, 0.125, 0.125], lost=(1,))
    np.testing.assert_array_equal(heard[300:400], 16384)  # received with chunk 0
    assert not heard[400:600].any()
    np.testing.assert_array_equal(heard[600:], 4096)


def test_with_half_overlap_one_lost_chunk_is_no_gap() -> None:
    codec = _codec("linear", overlap=200)
    pcm = noise_bursts(8_000, 0.5)
    decoder = codec.decoder()
    heard = []
    for index, payload in enumerate(payloads(codec, pcm)):
        audio = decoder.conceal() if index == 5 else decoder.decode(payload or b"")
        assert audio is not None
        heard.append(audio)
    delayed = np.concatenate(heard)[codec.facts.delay_samples :]
    np.testing.assert_array_equal(delayed, pcm[: len(delayed)])


def test_a_second_loss_in_a_row_is_silent_and_the_first_chunk_may_be_lost() -> None:
    heard = _levels(_codec("linear"), [0.5, 0, 0, 0.5], lost=(1, 2))
    assert heard[300:400].all()
    assert not heard[400:900].any()
    assert not _levels(_codec("linear"), [0.5, 0.5], lost=(0,))[:300].any()


def test_without_overlap_concealment_is_left_to_the_receiver() -> None:
    codec = _codec("linear", overlap=0)
    assert not codec.facts.conceals
    assert codec.decoder().conceal() is None


def test_an_undecodable_chunk_then_concealed_is_a_lost_one() -> None:
    codec = _codec("linear")
    decoder = codec.decoder()
    decoder.decode(codec.model.encode(np.full(400, 0.5, np.float32)))
    with pytest.raises(ValueError, match="of 3 bytes"):
        decoder.decode(b"abc")
    concealed = decoder.conceal()
    assert concealed is not None
    np.testing.assert_array_equal(concealed[:100], 16384)


def test_output_beyond_full_scale_is_clipped() -> None:
    assert set(_levels(_codec("average"), [1.5, 1.5])) == {32767}
    assert set(_levels(_codec("average"), [-1.5, -1.5])) == {-32768}


def test_an_encoder_changes_among_the_rates_it_was_given() -> None:
    layout = Layout(8_000, 400, 100, "linear")
    models = [Verbatim(400, step) for step in (1, 2, 4)]
    codec = chunked.codec(layout, models[1], library="none", weights="none", rates=models)
    # 32 bits a sample, a third of them twice: 341,333 bit/s at step 1.
    assert codec.facts.nominal_bitrate_bps == 170_666
    assert codec.facts.bitrate_range_bps == (85_333, 341_333)
    encoder = codec.encoder()
    assert isinstance(encoder, chunked.AdjustableChunkEncoder)
    pcm = frames(noise_bursts(8_000, 0.5), codec)
    decoder = codec.decoder()
    steps = []
    for frame, asked in zip(pcm, (170_666, 10, 90_000, 10**9), strict=False):
        used = encoder.set_bitrate(asked)
        coded = encoder.encode(frame)
        steps.append((used, coded[-1]))
        decoder.decode(coded)
    assert steps == [(170_666, 2), (85_333, 4), (85_333, 4), (341_333, 1)]


class Settings(chunked.Params):
    """A model at 24 kHz that gives multiples of 600 samples back."""

    chunk: chunked.Length = "250ms"

    def sample_rate_hz(self) -> int:
        return 24_000

    def round_trips(self, chunk_samples: int) -> bool:
        return chunk_samples > 0 and chunk_samples % 600 == 0


@pytest.mark.parametrize(
    ("written", "chunk", "overlap"),
    [
        ({}, 6000, 0),
        ({"chunk": 2400, "overlap": 1200}, 2400, 1200),
        ({"chunk": "0.1s", "overlap": "10%"}, 2400, 240),
        ({"overlap": "25ms"}, 6000, 600),
        ({"overlap": "1%"}, 6000, 60),
    ],
)
def test_chunk_and_overlap_in_samples(written: dict[str, Any], chunk: int, overlap: int) -> None:
    params = Settings(**written)
    layout = params.layout()
    assert (layout.chunk_samples, layout.overlap_samples) == (chunk, overlap)
    assert Settings.model_validate_json(params.model_dump_json()) == params


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ({"chunk": 6001}, "6001 samples do not round-trip.*expected 6000 or 6600 samples at 24kHz"),
        ({"chunk": 0}, "expected 600 samples"),
        ({"chunk": "11s"}, "expected 240000 samples"),
        ({"chunk": -600}, "it is negative"),
        ({"chunk": "13.3333ms"}, "not a whole number of samples at 24kHz.*319 or 320"),
        ({"chunk": "long"}, "a duration such as"),
        ({"chunk": True}, "a duration such as"),
        ({"chunk": "50%"}, "a duration such as"),
        ({"overlap": "51%"}, "at most half of the chunk, 3000 samples, got 3060"),
        ({"overlap": "much"}, 'a share of the chunk such as "10%"'),
        ({"boundary": "soft"}, "'hard', 'average', 'linear' or 'cosine'"),
    ],
)
def test_illegal_settings_name_the_nearest_legal_ones(written: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Settings(**written)


def test_editors_are_told_what_may_be_written() -> None:
    properties = Settings.model_json_schema()["properties"]
    assert properties["chunk"]["anyOf"][0] == {"type": "integer", "minimum": 0}
    assert properties["overlap"]["examples"] == [600, "25ms", "10%"]

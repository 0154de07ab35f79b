"""G.711 tables against libavcodec's, and the fade of its concealment."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import av
import numpy as np
import pytest
from codec_settings import make

from harness.codecs import g711

ALL_VALUES = np.arange(-32768, 32768).astype(np.int16)


@pytest.mark.parametrize(("law", "other"), [("mu", "pcm_mulaw"), ("a", "pcm_alaw")])
def test_expansion_equals_libavcodecs(law: Literal["mu", "a"], other: str) -> None:
    decoder = av.CodecContext.create(other, "r")
    decoder.sample_rate, decoder.layout = 8000, "mono"
    (frame,) = decoder.decode(av.Packet(bytes(range(256))))
    np.testing.assert_array_equal(g711.expansion(law), frame.to_ndarray()[0])


@pytest.mark.parametrize("law", ["mu", "a"])
def test_compression_picks_a_nearest_level(law: Literal["mu", "a"]) -> None:
    levels = np.unique(g711.expansion(law)).astype(int)
    coded = g711.expansion(law)[g711.compression(law)[ALL_VALUES.view(np.uint16)]].astype(int)
    values = ALL_VALUES.astype(int)
    above = np.clip(np.searchsorted(levels, values), 0, len(levels) - 1)
    nearest = np.minimum(
        np.abs(levels[above] - values), np.abs(levels[np.maximum(above - 1, 0)] - values)
    )
    np.testing.assert_array_equal(np.abs(coded - values), nearest)


@pytest.mark.parametrize(("law", "other"), [("mu", "pcm_mulaw"), ("a", "pcm_alaw")])
def test_compression_is_libavcodecs_but_for_borders(law: Literal["mu", "a"], other: str) -> None:
    encoder = av.CodecContext.create(other, "w")
    encoder.sample_rate, encoder.layout, encoder.format = 8000, "mono", "s16"
    encoder.time_base = Fraction(1, 8000)
    encoder.open()
    frame = av.AudioFrame.from_ndarray(ALL_VALUES[None], format="s16", layout="mono")
    frame.sample_rate = 8000
    theirs = np.frombuffer(bytes(encoder.encode(frame)[0]), np.uint8)
    ours = g711.compression(law)[ALL_VALUES.view(np.uint16)]
    apart = g711.expansion(law)[theirs] != g711.expansion(law)[ours]
    borders = np.abs(
        np.abs(g711.expansion(law)[theirs].astype(int) - ALL_VALUES)
        - np.abs(g711.expansion(law)[ours].astype(int) - ALL_VALUES)
    )
    # Tables that drop the low bits first decide up to half a step of 14 (13) bits elsewhere.
    assert borders[apart].max(initial=0) <= 16
    assert apart.mean() < 0.03


def test_idle_codes() -> None:
    """ITU-T G.711, tables 1a and 2a: positive zero is 0xD5 in A-law and 0xFF in mu-law."""
    silence = np.zeros(160, np.int16)
    assert make("g711", law="mu").encoder().encode(silence) == b"\xff" * 160
    assert make("g711", law="a").encoder().encode(silence) == b"\xd5" * 160


def test_concealment_repeats_the_last_packet_and_fades() -> None:
    codec = make("g711", frame="10ms")
    decoder = codec.decoder()
    encoder = codec.encoder()
    last = decoder.decode(encoder.encode(np.full(80, 10_000, np.int16)) or b"").astype(float)
    starts = []
    for _ in range(8):
        concealed = decoder.conceal()
        assert concealed is not None
        starts.append(concealed[0] / last[0])
    np.testing.assert_allclose(starts, [1, 1, 0.8, 0.6, 0.4, 0.2, 0, 0], atol=0.001)
    decoder.decode(encoder.encode(np.full(80, 5_000, np.int16)) or b"")
    concealed = decoder.conceal()
    assert concealed is not None
    assert concealed[0] == pytest.approx(5_000, rel=0.03)

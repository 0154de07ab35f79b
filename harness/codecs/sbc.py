"""SBC (Bluetooth A2DP, appendix B): low-delay sub-band codec; coded by libavcodec.

Mono, 16 blocks of 8 sub-bands: frames of 128 samples, 8 ms at 16 kHz. The polyphase filter banks
of both ends delay by 73 samples. Frames stand alone but for those filters' memory, so that a loss
is felt in one frame after it.

The bit pool sets the size of a frame: 8 + 2 x pool bytes. ``bitrate`` is brought to the nearest
(2 kbit/s apart at 16 kHz, 6 at 48 kHz). It could change with every frame, but libavcodec's encoder
keeps the one that it was opened with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import model_validator

from harness.codecs import base, libav
from harness.codecs.allowed import Between, OneOf
from harness.codecs.base import CodecFacts, Pcm
from harness.fields import BitrateBps, FrequencyHz
from harness.units import format_bitrate, format_frequency

_RATES_HZ = (16_000, 32_000, 44_100, 48_000)
"""By the header's index."""
_FRAME_SAMPLES = 128
_DELAY_SAMPLES = 73
_FIXED_BYTES = 8
"""Header, CRC and scale factors."""
_POOL_BYTES = 2
"""What one bit per block makes, of 16 blocks."""
_LEAST_POOL, _MOST_POOL = 2, 128
"""The most: 16 bits per sub-band."""
_SYNC_WORD = 0x9C
_16_BLOCKS_MONO_LOUDNESS_8_SUBBANDS = 0x31
_HIGHEST_BPS = 256_000
"""Beyond about 270 kbit/s libavcodec takes four sub-bands."""


ABOUT = base.About(
    title="SBC (Bluetooth A2DP)",
    tier="core",
    bitrates="12-256 kbit",
    code_licence="LGPL-2.1-or-later",
)


class Params(base.Params):
    rate: Annotated[FrequencyHz, OneOf(_RATES_HZ, format_frequency)] = 16_000
    bitrate: Annotated[BitrateBps, Between(12_000, _HIGHEST_BPS, format_bitrate)] = 64_000

    @model_validator(mode="after")
    def _pool_exists(self) -> Self:
        least = _bitrate_bps(_LEAST_POOL, self.rate)
        if self.bitrate < least:
            raise ValueError(
                f"bitrate: expected at least {format_bitrate(least)} at"
                f" {format_frequency(self.rate)}, got {format_bitrate(self.bitrate)}"
            )
        return self


def required_assets(params: Params) -> tuple[str, ...]:  # noqa: ARG001
    return ()


def create(params: Params, assets: Mapping[str, Path]) -> SbcCodec:  # noqa: ARG001
    bits = params.bitrate * _FRAME_SAMPLES / params.rate
    pool = round((bits / 8 - _FIXED_BYTES) / _POOL_BYTES)
    pool = min(max(pool, _LEAST_POOL), _MOST_POOL)
    facts = CodecFacts(
        sample_rate_hz=params.rate,
        frame_samples=_FRAME_SAMPLES,
        lookahead_frames=0,
        delay_samples=_DELAY_SAMPLES,
        nominal_bitrate_bps=_bitrate_bps(pool, params.rate),
        library=libav.require(("sbc", "w"), ("sbc", "r")),
    )
    return SbcCodec(facts, pool)


@dataclass(frozen=True)
class SbcCodec:
    facts: CodecFacts
    pool: int

    def encoder(self) -> libav.Encoder:
        return libav.Encoder(
            "sbc", self.facts.sample_rate_hz, "s16", None, self.facts.nominal_bitrate_bps
        )

    def decoder(self) -> SbcDecoder:
        return SbcDecoder(self.facts.sample_rate_hz, self.pool)


class SbcDecoder(libav.Decoder):
    def __init__(self, rate_hz: int, pool: int) -> None:
        super().__init__("sbc", rate_hz, _FRAME_SAMPLES)
        settings = _RATES_HZ.index(rate_hz) << 6 | _16_BLOCKS_MONO_LOUDNESS_8_SUBBANDS
        self._header = bytes([_SYNC_WORD, settings, pool])
        self._size = _FIXED_BYTES + _POOL_BYTES * pool

    def decode(self, payload: bytes) -> Pcm:
        if len(payload) != self._size or payload[:3] != self._header:
            raise ValueError(
                f"SBC frame of {len(payload)} bytes: expected {self._size}, beginning with"
                f" {self._header.hex()}, got {payload[:3].hex() or 'nothing'}"
            )
        return super().decode(payload)


def _bitrate_bps(pool: int, rate_hz: int) -> int:
    """Rounded up: the encoder that is asked for it finds the same pool."""
    return -(-8 * (_FIXED_BYTES + _POOL_BYTES * pool) * rate_hz // _FRAME_SAMPLES)

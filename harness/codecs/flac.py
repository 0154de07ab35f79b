"""FLAC (RFC 9639): lossless, one FLAC frame per payload; coded by libavcodec.

Frames stand alone and carry a CRC: what is decoded is the input bit for bit, a damaged frame is
refused, and a loss is felt in its own frame only. STREAMINFO goes out of band. The bitrate is what
the signal needs: the nominal one is 0.6 of PCM's, about what speech takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from harness.codecs import base, libav
from harness.codecs.allowed import FRAME, OneOf, whole_samples
from harness.codecs.base import CodecFacts
from harness.fields import DurationNs, FrequencyHz
from harness.units import format_frequency

ABOUT = base.About(
    title="FLAC (RFC 9639)",
    tier="core",
    bitrates="as the signal needs, about 0.6 of PCM",
    code_licence="LGPL-2.1-or-later",
)


class Params(base.Params):
    rate: Annotated[
        FrequencyHz, OneOf((8_000, 16_000, 24_000, 32_000, 44_100, 48_000), format_frequency)
    ] = 16_000
    frame: Annotated[DurationNs, FRAME] = 20_000_000
    compression: Annotated[int, Field(ge=0, le=12)] = 5
    """Effort: libavcodec's ``compression_level``."""

    @model_validator(mode="after")
    def _frame_is_whole(self) -> Self:
        whole_samples(self.frame, self.rate)
        return self


def required_assets(params: Params) -> tuple[str, ...]:  # noqa: ARG001
    return ()


def create(params: Params, assets: Mapping[str, Path]) -> FlacCodec:  # noqa: ARG001
    facts = CodecFacts(
        sample_rate_hz=params.rate,
        frame_samples=whole_samples(params.frame, params.rate),
        lookahead_frames=0,
        delay_samples=0,
        nominal_bitrate_bps=params.rate * 16 * 6 // 10,
        library=libav.require(("flac", "w"), ("flac", "r")),
    )
    return FlacCodec(facts, params)


@dataclass(frozen=True)
class FlacCodec:
    facts: CodecFacts
    params: Params

    def encoder(self) -> libav.Encoder:
        return libav.Encoder(
            "flac",
            self.facts.sample_rate_hz,
            "s16",
            {
                "frame_size": str(self.facts.frame_samples),
                "compression_level": str(self.params.compression),
            },
        )

    def decoder(self) -> libav.Decoder:
        return libav.Decoder(
            "flac",
            self.facts.sample_rate_hz,
            self.facts.frame_samples,
            extradata=self.encoder().extradata,
            options={"err_detect": "crccheck+explode"},
        )

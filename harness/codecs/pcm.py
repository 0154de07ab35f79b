"""Linear PCM: 16 bit, little-endian, mono; the reference that every other codec is held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from pydantic import model_validator

from harness.codecs import base
from harness.codecs.allowed import FRAME, OneOf, whole_samples
from harness.codecs.base import CodecFacts, Pcm
from harness.fields import DurationNs, FrequencyHz
from harness.units import format_frequency

_WIRE = np.dtype("<i2")


ABOUT = base.About(
    title="Linear PCM, 16 bit (RFC 3551 L16)",
    tier="core",
    bitrates="16 bit x rate",
    code_licence="MIT",
)


class Params(base.Params):
    rate: Annotated[FrequencyHz, OneOf((8_000, 16_000, 24_000, 48_000), format_frequency)] = 16_000
    frame: Annotated[DurationNs, FRAME] = 20_000_000

    @model_validator(mode="after")
    def _frame_is_whole(self) -> Self:
        whole_samples(self.frame, self.rate)
        return self


def required_assets(params: Params) -> tuple[str, ...]:  # noqa: ARG001
    return ()


def create(params: Params, assets: Mapping[str, Path]) -> PcmCodec:  # noqa: ARG001
    return PcmCodec(
        CodecFacts(
            sample_rate_hz=params.rate,
            frame_samples=whole_samples(params.frame, params.rate),
            lookahead_frames=0,
            delay_samples=0,
            nominal_bitrate_bps=params.rate * 16,
            payload_format="L16",
            library=f"numpy {np.__version__}",
        )
    )


@dataclass(frozen=True)
class PcmCodec:
    facts: CodecFacts

    def encoder(self) -> PcmEncoder:
        return PcmEncoder()

    def decoder(self) -> PcmDecoder:
        return PcmDecoder(self.facts.frame_samples)


class PcmEncoder:
    def encode(self, pcm: Pcm) -> bytes:
        return pcm.astype(_WIRE, copy=False).tobytes()


class PcmDecoder:
    def __init__(self, frame_samples: int) -> None:
        self._frame_bytes = frame_samples * _WIRE.itemsize

    def decode(self, payload: bytes) -> Pcm:
        if len(payload) != self._frame_bytes:
            raise ValueError(f"PCM frame of {len(payload)} bytes, expected {self._frame_bytes}")
        return np.frombuffer(payload, _WIRE).astype(np.int16)

    def conceal(self) -> Pcm | None:
        return None

    def recover(self, later_payload: bytes, frames_back: int = 1) -> Pcm | None:  # noqa: ARG002
        return None

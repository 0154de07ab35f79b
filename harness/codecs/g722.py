"""G.722 (ITU-T, 2012): 16 kHz, two ADPCM sub-bands, 64 kbit/s; coded by libavcodec.

The quadrature mirror filters of both ends delay by 22 samples. A lost frame leaves the decoder's
predictors where they were, so the frames after it start from another state, which decays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import model_validator

from harness.codecs import base, libav
from harness.codecs.allowed import FRAME, whole_samples
from harness.codecs.base import CodecFacts, Pcm
from harness.fields import DurationNs

_RATE_HZ = 16_000
_DELAY_SAMPLES = 22


ABOUT = base.About(
    title="G.722 (ITU-T)",
    tier="core",
    bitrates="64 kbit",
    code_licence="LGPL-2.1-or-later",
)


class Params(base.Params):
    frame: Annotated[DurationNs, FRAME] = 20_000_000

    @model_validator(mode="after")
    def _frame_is_whole(self) -> Self:
        if whole_samples(self.frame, _RATE_HZ) % 2:
            raise ValueError("a G.722 byte codes two samples: expected a multiple of 0.5ms")
        return self


def required_assets(params: Params) -> tuple[str, ...]:  # noqa: ARG001
    return ()


def create(params: Params, assets: Mapping[str, Path]) -> G722Codec:  # noqa: ARG001
    return G722Codec(
        CodecFacts(
            sample_rate_hz=_RATE_HZ,
            frame_samples=whole_samples(params.frame, _RATE_HZ),
            lookahead_frames=0,
            delay_samples=_DELAY_SAMPLES,
            nominal_bitrate_bps=64_000,
            payload_format="G722",
            library=libav.require(("g722", "w"), ("g722", "r")),
        )
    )


@dataclass(frozen=True)
class G722Codec:
    facts: CodecFacts

    def encoder(self) -> G722Encoder:
        return G722Encoder(self.facts.frame_samples)

    def decoder(self) -> G722Decoder:
        return G722Decoder(self.facts.frame_samples)


class G722Encoder(libav.Encoder):
    def __init__(self, frame_samples: int) -> None:
        super().__init__("g722", _RATE_HZ, "s16", {"frame_size": str(frame_samples)})


class G722Decoder(libav.Decoder):
    def __init__(self, frame_samples: int) -> None:
        super().__init__("g722", _RATE_HZ, frame_samples)

    def decode(self, payload: bytes) -> Pcm:
        # Any byte is a legal code, so the length is all that tells a damaged payload, and it is
        # looked at before the predictors move.
        if 2 * len(payload) != self._frame_samples:
            raise ValueError(
                f"G.722 frame of {len(payload)} bytes, expected {self._frame_samples // 2}"
            )
        return super().decode(payload)

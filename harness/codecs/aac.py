"""AAC-LC (ISO/IEC 14496-3): frames of 1024 samples; coded by libavcodec's own ``aac``.

The encoder looks one frame ahead (psychoacoustics and block switching) and the MDCT's overlap
delays by one frame more. Perceptual noise substitution is off (``aac_pns=0``): its decoder-side
random generator counts frames, so that after one loss all later output would differ.

libavcodec has no concealment for AAC: a lost frame is made up by the receiver, and because
payloads are decoded one by one, each into 1024 samples, the frames after it stay in place; the
first of them overlaps with the frame before the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from pydantic import model_validator

from harness.codecs import base, libav
from harness.codecs.allowed import Between, OneOf
from harness.codecs.base import CodecFacts, Pcm
from harness.fields import BitrateBps, FrequencyHz
from harness.units import format_bitrate, format_frequency

_FRAME_SAMPLES = 1024
_BITS_PER_SAMPLE = 6
"""A channel's bit reservoir holds 6144 bits per frame of 1024 samples (ISO/IEC 14496-3, 4.5.3)."""


ABOUT = base.About(
    title="AAC-LC (ISO/IEC 14496-3)",
    tier="core",
    bitrates="8-288 kbit",
    code_licence="LGPL-2.1-or-later",
)


class Params(base.Params):
    rate: Annotated[
        FrequencyHz, OneOf((16_000, 24_000, 32_000, 44_100, 48_000), format_frequency)
    ] = 48_000
    bitrate: Annotated[BitrateBps, Between(8_000, 288_000, format_bitrate)] = 64_000

    @model_validator(mode="after")
    def _bitrate_fits(self) -> Self:
        most = _BITS_PER_SAMPLE * self.rate
        if self.bitrate > most:
            raise ValueError(
                f"bitrate: expected at most {format_bitrate(most)} at"
                f" {format_frequency(self.rate)}, got {format_bitrate(self.bitrate)}"
            )
        return self


def required_assets(params: Params) -> tuple[str, ...]:  # noqa: ARG001
    return ()


def create(params: Params, assets: Mapping[str, Path]) -> AacCodec:  # noqa: ARG001
    return AacCodec(
        CodecFacts(
            sample_rate_hz=params.rate,
            frame_samples=_FRAME_SAMPLES,
            lookahead_frames=1,
            delay_samples=_FRAME_SAMPLES,
            nominal_bitrate_bps=params.bitrate,
            library=libav.version(),
        )
    )


@dataclass(frozen=True)
class AacCodec:
    facts: CodecFacts

    def encoder(self) -> AacEncoder:
        return AacEncoder(self.facts)

    def decoder(self) -> AacDecoder:
        return AacDecoder(self.facts)


class AacEncoder:
    def __init__(self, facts: CodecFacts) -> None:
        self._context = libav.encoder(
            "aac", facts.sample_rate_hz, "fltp", {"aac_pns": "0"}, facts.nominal_bitrate_bps
        )
        self._fed = 0

    @property
    def audio_specific_config(self) -> bytes:
        return bytes(self._context.extradata or b"")

    def encode(self, pcm: Pcm) -> bytes | None:
        payload = libav.encode(self._context, pcm.astype(np.float32) / np.float32(32768), self._fed)
        self._fed += len(pcm)
        return payload


class AacDecoder:
    """Set up out of band, as by SDP in RFC 3640: with the encoder's AudioSpecificConfig."""

    def __init__(self, facts: CodecFacts) -> None:
        self._rate_hz = facts.sample_rate_hz
        self._config = AacEncoder(facts).audio_specific_config
        self._context = libav.decoder("aac", self._rate_hz, self._config)

    def decode(self, payload: bytes) -> Pcm:
        try:
            decoded = libav.decode(self._context, payload, _FRAME_SAMPLES)
        except ValueError:
            # A damaged payload may have changed the decoder half-way: what follows would depend
            # on it for longer than on a loss.
            self._context = libav.decoder("aac", self._rate_hz, self._config)
            raise
        pcm: Pcm = np.clip(np.rint(decoded * 32768.0), -32768, 32767).astype(np.int16)
        return pcm

    def conceal(self) -> Pcm | None:
        return None

    def recover(self, later_payload: bytes, frames_back: int = 1) -> Pcm | None:  # noqa: ARG002
        return None

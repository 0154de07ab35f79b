"""AAC-LC (ISO/IEC 14496-3): frames of 1024 samples; coded by libavcodec's own ``aac``.

The encoder looks one frame ahead (psychoacoustics and block switching) and the MDCT's overlap
delays by one frame more. Perceptual noise substitution is off (``aac_pns=0``): its decoder-side
random generator counts frames, so that after one loss all later output would differ.

libavcodec has no concealment for AAC: a lost frame is made up by the receiver, and because
payloads are decoded one by one, each into 1024 samples, the frames after it stay in place; the
first of them overlaps with the frame before the loss.

The rate can change while the stream runs (``set_bitrate``). A higher one is assigned to the open
encoder, which follows at once. A lower one it follows within seconds only, and stays up to 23 %
above (128 to 32 kbit/s), for its psychoacoustic model is tuned when it is opened; so a new encoder
takes over, run in with the frames before: within 12 % at once, within 1 % after 0.4 s.
"""

from __future__ import annotations

from collections import deque
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

_FRAME_SAMPLES = 1024
_BITS_PER_SAMPLE = 6
"""A channel's bit reservoir holds 6144 bits per frame of 1024 samples (ISO/IEC 14496-3, 4.5.3)."""
_LOWEST_BPS, _HIGHEST_BPS = 8_000, 288_000
_WARM_UP_FRAMES = 4
"""After three, the first frame of a new encoder has an SNR 5 to 19 dB lower; more help no more."""


ABOUT = base.About(
    title="AAC-LC (ISO/IEC 14496-3)",
    tier="core",
    bitrates="8-288 kbit",
    code_licence="LGPL-2.1-or-later",
)


Rate = Annotated[
    FrequencyHz, OneOf((12_000, 16_000, 24_000, 32_000, 44_100, 48_000), format_frequency)
]
Bitrate = Annotated[BitrateBps, Between(_LOWEST_BPS, _HIGHEST_BPS, format_bitrate)]


class Params(base.Params):
    rate: Rate = 48_000
    bitrate: Bitrate = 64_000

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
            library=libav.require(("aac", "w"), ("aac", "r")),
            bitrate_range_bps=(_LOWEST_BPS, min(_HIGHEST_BPS, _BITS_PER_SAMPLE * params.rate)),
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
        self._facts = facts
        self._bitrate_bps = facts.nominal_bitrate_bps
        self._encoder = self._make()
        self._latest: deque[Pcm] = deque(maxlen=_WARM_UP_FRAMES)

    @property
    def audio_specific_config(self) -> bytes:
        return self._encoder.extradata

    def encode(self, pcm: Pcm) -> bytes | None:
        self._latest.append(pcm.copy())
        return self._encoder.encode(pcm)

    def set_bitrate(self, bps: int) -> int:
        assert self._facts.bitrate_range_bps is not None
        least, most = self._facts.bitrate_range_bps
        before, self._bitrate_bps = self._bitrate_bps, min(max(bps, least), most)
        if self._bitrate_bps > before:
            self._encoder.assign_bitrate(self._bitrate_bps)
        elif self._bitrate_bps < before:
            self._encoder = self._make()
            for pcm in self._latest:
                self._encoder.encode(pcm)
        return self._bitrate_bps

    def _make(self) -> libav.Encoder:
        return libav.Encoder(
            "aac", self._facts.sample_rate_hz, "fltp", {"aac_pns": "0"}, self._bitrate_bps
        )


class AacDecoder(libav.Decoder):
    """Set up out of band, as by SDP in RFC 3640: with the encoder's AudioSpecificConfig."""

    def __init__(self, facts: CodecFacts) -> None:
        config = AacEncoder(facts).audio_specific_config
        super().__init__("aac", facts.sample_rate_hz, facts.frame_samples, config)

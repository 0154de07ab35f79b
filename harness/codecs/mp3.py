"""MP3 (ISO/IEC 11172-3 and 13818-3, layer III; MPEG-2.5 below 16 kHz): coded by LAME, constant
bitrate, decoded by libavcodec.

A frame is 1152 samples from 32 kHz on, 576 below. Filter banks and LAME's start delay by 1105
samples (576 of the encoder, 528 + 1 of the decoder), and LAME looks one frame ahead.

The bit reservoir lets a frame's data begin in the frames before it: up to 511 bytes earlier, 255
below 32 kHz (``main_data_begin``, 2.4.2.7). A frame is complete only when the data of later ones
has filled it up, and leaves the encoder that many frames later. How many varies with the signal; a
stream that plays without a break has to wait for the most, and ``facts`` say so: 4 frames, 143 ms
in all, at 64 kbit/s and 48 kHz (95 ms as long as no more than one frame's worth is saved up).
``reservoir: false`` keeps every frame to itself: 71 ms.

After a loss the decoder starts afresh: frames whose data lay in the lost one come out silent rather
than as noise up to seven times as loud (what the dummy frames of RFC 5219 are for), and the first
frame after it fades in. Felt in 2 to 5 frames with the reservoir, in 1 without it (2 of 576
samples). The rate is LAME's from its start on: it cannot change.
"""

from __future__ import annotations

import math
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

_DELAY_SAMPLES = 1105
_HEADER_BYTES = 4
_PADDING_BIT = 0x02
_MONO = 0xC0
_LAYER_3_WITHOUT_CRC = 0x03


@dataclass(frozen=True)
class _Version:
    """One version of the format (ISO/IEC 11172-3, 2.4.2.3; 13818-3, 2.4.2.3)."""

    identifier: int
    rates_hz: tuple[int, int, int]
    kbps: tuple[int, ...]
    """By the header's index, from 1."""
    frame_samples: int
    side_information_bytes: int
    """Of a mono frame."""
    reservoir_bytes: int
    """The most that ``main_data_begin`` can say."""


_LOW_KBPS = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_VERSIONS = (
    _Version(
        identifier=3,
        rates_hz=(44_100, 48_000, 32_000),
        kbps=(32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
        frame_samples=1152,
        side_information_bytes=17,
        reservoir_bytes=511,
    ),
    _Version(2, (22_050, 24_000, 16_000), _LOW_KBPS, 576, 9, 255),
    # MPEG-2.5 is nobody's standard; LAME ends at 64 kbit/s, as most decoders expect.
    _Version(0, (11_025, 12_000, 8_000), _LOW_KBPS[:8], 576, 9, 255),
)
_RATES_HZ = tuple(sorted(rate for version in _VERSIONS for rate in version.rates_hz))


ABOUT = base.About(
    title="MP3 (MPEG-1/2 Audio Layer III)",
    tier="core",
    bitrates="8-320 kbit",
    code_licence="LGPL-2.0-or-later",
)


class Params(base.Params):
    rate: Annotated[FrequencyHz, OneOf(_RATES_HZ, format_frequency)] = 48_000
    bitrate: Annotated[BitrateBps, Between(8_000, 320_000, format_bitrate)] = 64_000
    reservoir: bool = True

    @model_validator(mode="after")
    def _bitrate_exists(self) -> Self:
        legal = [1000 * kbps for kbps in _version(self.rate).kbps]
        if self.bitrate not in legal:
            raise ValueError(
                f"bitrate: expected one of {', '.join(map(format_bitrate, legal))} at"
                f" {format_frequency(self.rate)}, got {format_bitrate(self.bitrate)}"
            )
        return self


def required_assets(params: Params) -> tuple[str, ...]:  # noqa: ARG001
    return ()


def create(params: Params, assets: Mapping[str, Path]) -> Mp3Codec:  # noqa: ARG001
    library = libav.require(("libmp3lame", "w"), ("mp3float", "r"))
    version = _version(params.rate)
    lookahead_frames = 1
    if params.reservoir:
        main_data_bytes = (
            _least_frame_bytes(params) - _HEADER_BYTES - version.side_information_bytes
        )
        lookahead_frames += math.ceil(version.reservoir_bytes / main_data_bytes)
    facts = CodecFacts(
        sample_rate_hz=params.rate,
        frame_samples=version.frame_samples,
        lookahead_frames=lookahead_frames,
        delay_samples=_DELAY_SAMPLES,
        nominal_bitrate_bps=params.bitrate,
        library=f"LAME in {library}",
    )
    return Mp3Codec(facts, params)


@dataclass(frozen=True)
class Mp3Codec:
    facts: CodecFacts
    params: Params

    def encoder(self) -> Mp3Encoder:
        return Mp3Encoder(self.facts, self.params)

    def decoder(self) -> Mp3Decoder:
        return Mp3Decoder(self.facts, self.params)


class Mp3Encoder:
    """Hands out one frame per call, by however many LAME is behind."""

    def __init__(self, facts: CodecFacts, params: Params) -> None:
        self._encoder = libav.Encoder(
            "libmp3lame",
            params.rate,
            "s16p",
            {"reservoir": str(int(params.reservoir))},
            params.bitrate,
        )
        self._calls_to_wait = facts.lookahead_frames
        self._ready: deque[bytes] = deque()

    def encode(self, pcm: Pcm) -> bytes | None:
        payload = self._encoder.encode(pcm)
        if payload is not None:
            self._ready.append(payload)
        if self._calls_to_wait:
            self._calls_to_wait -= 1
            return None
        return self._ready.popleft()


class Mp3Decoder(libav.Decoder):
    def __init__(self, facts: CodecFacts, params: Params) -> None:
        super().__init__("mp3float", params.rate, facts.frame_samples)
        version = _version(params.rate)
        index = 1 + version.kbps.index(params.bitrate // 1000)
        self._header = (
            0xFF,
            0xE0 | version.identifier << 3 | _LAYER_3_WITHOUT_CRC,
            index << 4 | version.rates_hz.index(params.rate) << 2,
            _MONO,
        )
        self._least_bytes = _least_frame_bytes(params)

    def decode(self, payload: bytes) -> Pcm:
        # A stranger's header would make the decoder another one.
        if not self._is_ours(payload):
            self.reset()
            raise ValueError(
                f"MP3 frame of {len(payload)} bytes: expected {self._least_bytes} or one more,"
                f" beginning with {bytes(self._header).hex()} (but for flags)"
            )
        return super().decode(payload)

    def conceal(self) -> Pcm | None:
        self.reset()
        return None

    def _is_ours(self, payload: bytes) -> bool:
        header = payload[:_HEADER_BYTES]
        if len(header) < _HEADER_BYTES:
            return False
        padded = bool(header[2] & _PADDING_BIT)
        masked = (header[0], header[1], header[2] & 0xFC, header[3] & 0xC0)
        return masked == self._header and len(payload) == self._least_bytes + padded


def _version(rate_hz: int) -> _Version:
    return next(version for version in _VERSIONS if rate_hz in version.rates_hz)


def _least_frame_bytes(params: Params) -> int:
    """Without the byte of padding that makes up for a rate that is no divisor."""
    return _version(params.rate).frame_samples * params.bitrate // (8 * params.rate)

"""Linear PCM: 16 bit, little-endian, mono; the reference that every other codec is held against.

Frames may be as long as older systems' chunks. ``framing`` is what a payload looks like: the
samples, or what older systems sent over a WebSocket: a message of JSON, or a WAV file.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import model_validator

from harness.codecs import base
from harness.codecs.allowed import FRAME, Between, OneOf, whole_samples
from harness.codecs.base import Codec, CodecFacts, Pcm
from harness.codecs.models.framing import FramedCodec, data_of_json, json_message
from harness.fields import DurationNs, FrequencyHz
from harness.units import NS_PER_S, format_duration, format_frequency

_WIRE = np.dtype("<i2")
_WAV_HEADER = struct.Struct("<4sI4s 4sIHHIIHH 4sI")
_FRAME = Between(FRAME.low, NS_PER_S, format_duration)


ABOUT = base.About(
    title="Linear PCM, 16 bit (RFC 3551 L16)",
    tier="core",
    bitrates="16 bit x rate",
    code_licence="MIT",
)


class Params(base.Params):
    rate: Annotated[FrequencyHz, OneOf((8_000, 16_000, 24_000, 48_000), format_frequency)] = 16_000
    frame: Annotated[DurationNs, _FRAME] = 20_000_000
    framing: Literal["none", "json", "wav"] = "none"

    @model_validator(mode="after")
    def _frame_is_whole(self) -> Self:
        whole_samples(self.frame, self.rate)
        return self


def required_assets(params: Params) -> tuple[str, ...]:  # noqa: ARG001
    return ()


def create(params: Params, assets: Mapping[str, Path]) -> Codec:  # noqa: ARG001
    codec = PcmCodec(
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
    if params.framing == "json":
        return FramedCodec(codec, Json(params.frame))
    if params.framing == "wav":
        return FramedCodec(codec, Wav(params.rate))
    return codec


@dataclass(frozen=True)
class Json:
    """Messages of frames of ``frame_ns`` each."""

    frame_ns: int

    def wrap(self, payload: bytes, index: int) -> bytes:
        return json_message(payload, index * self.frame_ns / NS_PER_S)

    def unwrap(self, message: bytes) -> bytes:
        return data_of_json(message, "PCM")


@dataclass(frozen=True)
class Wav:
    """Messages that are WAV files of their own: a header of 44 bytes (RIFF, WAVE_FORMAT_PCM), then
    the samples."""

    rate_hz: int

    def wrap(self, payload: bytes, index: int) -> bytes:  # noqa: ARG002
        return self._header(len(payload)) + payload

    def unwrap(self, message: bytes) -> bytes:
        size = len(message) - _WAV_HEADER.size
        if size < 0 or not message.startswith(self._header(size)):
            raise ValueError(f"message of {len(message)} bytes is no WAV file of this stream")
        return message[_WAV_HEADER.size :]

    def _header(self, size: int) -> bytes:
        width = _WIRE.itemsize
        riff = (b"RIFF", _WAV_HEADER.size - 8 + size, b"WAVE")
        layout = (b"fmt ", 16, 1, 1, self.rate_hz, self.rate_hz * width, width, 8 * width)
        return _WAV_HEADER.pack(*riff, *layout, b"data", size)


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

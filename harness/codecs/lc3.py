"""LC3 (Bluetooth SIG, Low Complexity Communication Codec, 1.0): liblc3, bound by ctypes.

Frames of 7.5 and 10 ms are LC3; 2.5 and 5 ms are LC3plus (ETSI TS 103 634), which liblc3 has since
1.1. A frame's rate is its number of bytes, which the encoder may change with every frame and the
decoder learns from the payload.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from pydantic import model_validator

from harness.codecs import base, clib
from harness.codecs.allowed import Between, OneOf, whole_samples
from harness.codecs.base import CodecFacts, Pcm
from harness.errors import Unsupported
from harness.fields import BitrateBps, DurationNs, FrequencyHz
from harness.units import NS_PER_S, format_bitrate, format_duration, format_frequency

_MIN_BYTES, _MAX_BYTES = 20, 400
"""Of a frame, whatever its duration (``lc3.h``)."""
_MAX_BPS = 320_000
_PCM_S16 = 0
_CONCEALED = 1

_LIBRARY = clib.Wanted(
    name="lc3",
    sonames=("liblc3.so.1", "liblc3.so.0"),
    remedy="pip install lc3py",
    wheel="lc3py",
    functions=(
        ("lc3_frame_samples", ctypes.c_int, (ctypes.c_int, ctypes.c_int)),
        ("lc3_delay_samples", ctypes.c_int, (ctypes.c_int, ctypes.c_int)),
        ("lc3_encoder_size", ctypes.c_uint, (ctypes.c_int, ctypes.c_int)),
        ("lc3_decoder_size", ctypes.c_uint, (ctypes.c_int, ctypes.c_int)),
        (
            "lc3_setup_encoder",
            clib.STATE,
            (ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p),
        ),
        (
            "lc3_setup_decoder",
            clib.STATE,
            (ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p),
        ),
        (
            "lc3_encode",
            ctypes.c_int,
            (clib.STATE, ctypes.c_int, clib.PCM, ctypes.c_int, ctypes.c_int, ctypes.c_char_p),
        ),
        (
            "lc3_decode",
            ctypes.c_int,
            (clib.STATE, ctypes.c_char_p, ctypes.c_int, ctypes.c_int, clib.PCM, ctypes.c_int),
        ),
    ),
)

ABOUT = base.About(
    title="LC3 (Bluetooth), LC3plus frames (ETSI TS 103 634)",
    tier="core",
    bitrates="16-320 kbit",
    code_licence="Apache-2.0",
    remedy=_LIBRARY.remedy,
)


class Params(base.Params):
    rate: Annotated[
        FrequencyHz, OneOf((8_000, 16_000, 24_000, 32_000, 48_000), format_frequency)
    ] = 16_000
    bitrate: Annotated[BitrateBps, Between(16_000, _MAX_BPS, format_bitrate)] = 32_000
    frame: Annotated[
        DurationNs, OneOf((2_500_000, 5_000_000, 7_500_000, 10_000_000), format_duration)
    ] = 10_000_000

    @model_validator(mode="after")
    def _frame_has_bytes_enough(self) -> Self:
        size = self.bitrate * self.frame // (8 * NS_PER_S)
        if size < _MIN_BYTES:
            lowest = _bps(_MIN_BYTES, self.frame)
            raise ValueError(
                f"expected a bitrate of at least {format_bitrate(lowest)} with frames of"
                f" {format_duration(self.frame)} (a frame is {_MIN_BYTES} bytes or more), got"
                f" {format_bitrate(self.bitrate)}"
            )
        return self


def _bps(size: int, frame_ns: int) -> int:
    """The bitrate of frames of ``size`` bytes, rounded up so that it asks for that size again."""
    return -(-size * 8 * NS_PER_S // frame_ns)


def required_assets(params: Params) -> tuple[str, ...]:  # noqa: ARG001
    return ()


def create(params: Params, assets: Mapping[str, Path]) -> Lc3Codec:  # noqa: ARG001
    lib = clib.load(_LIBRARY)
    dt_us = params.frame // 1000
    if lib.c.lc3_frame_samples(dt_us, params.rate) < 0:
        raise Unsupported(
            f"frames of {format_duration(params.frame)}: {lib.name} has none, liblc3 1.1 or later"
            f" has; run `{_LIBRARY.remedy}`, or name the library in {_LIBRARY.environment}"
        )
    size = params.bitrate * params.frame // (8 * NS_PER_S)
    facts = CodecFacts(
        sample_rate_hz=params.rate,
        frame_samples=whole_samples(params.frame, params.rate),
        lookahead_frames=0,
        delay_samples=lib.c.lc3_delay_samples(dt_us, params.rate),
        nominal_bitrate_bps=_bps(size, params.frame),
        library=lib.name,
        conceals=True,
        bitrate_range_bps=(_bps(_MIN_BYTES, params.frame), _MAX_BPS),
    )
    return Lc3Codec(facts, params, lib.c)


@dataclass(frozen=True)
class Lc3Codec:
    facts: CodecFacts
    params: Params
    c: ctypes.CDLL

    def encoder(self) -> Lc3Encoder:
        return Lc3Encoder(self.c, self.params)

    def decoder(self) -> Lc3Decoder:
        return Lc3Decoder(self.c, self.params)


def _memory(size: int) -> ctypes.Array[ctypes.c_void_p]:
    """``size`` bytes, aligned to pointers as liblc3 asks."""
    return (ctypes.c_void_p * -(-size // ctypes.sizeof(ctypes.c_void_p)))()


class Lc3Encoder:
    def __init__(self, c: ctypes.CDLL, params: Params) -> None:
        self._c, self._frame_ns = c, params.frame
        setting = params.frame // 1000, params.rate
        self._memory = _memory(c.lc3_encoder_size(*setting))
        self._state = c.lc3_setup_encoder(*setting, 0, self._memory)
        self._size = params.bitrate * params.frame // (8 * NS_PER_S)
        self._payload = ctypes.create_string_buffer(_MAX_BYTES)

    def set_bitrate(self, bps: int) -> int:
        """From the next frame on; the rate of the nearest number of bytes."""
        nearest = round(min(bps, _MAX_BPS) * self._frame_ns / (8 * NS_PER_S))
        self._size = max(_MIN_BYTES, nearest)
        return _bps(self._size, self._frame_ns)

    def encode(self, pcm: Pcm) -> bytes:
        samples = np.ascontiguousarray(pcm)
        self._c.lc3_encode(self._state, _PCM_S16, samples.ctypes.data, 1, self._size, self._payload)
        return self._payload.raw[: self._size]


class Lc3Decoder:
    def __init__(self, c: ctypes.CDLL, params: Params) -> None:
        self._c = c
        setting = params.frame // 1000, params.rate
        self._memory = _memory(c.lc3_decoder_size(*setting))
        self._state = c.lc3_setup_decoder(*setting, 0, self._memory)
        self._frame_samples = whole_samples(params.frame, params.rate)
        self._already_concealed: Pcm | None = None

    def decode(self, payload: bytes) -> Pcm:
        if not _MIN_BYTES <= len(payload) <= _MAX_BYTES:
            raise ValueError(
                f"LC3 frame of {len(payload)} bytes, expected {_MIN_BYTES} to {_MAX_BYTES}"
            )
        self._already_concealed = None
        result, pcm = self._run(payload)
        if result == _CONCEALED:
            # liblc3 has gone on by a concealed frame, which is what the caller asks for next.
            self._already_concealed = pcm
            raise ValueError(f"LC3 frame of {len(payload)} bytes is damaged")
        return pcm

    def conceal(self) -> Pcm:
        concealed, self._already_concealed = self._already_concealed, None
        return self._run(None)[1] if concealed is None else concealed

    def recover(self, later_payload: bytes, frames_back: int = 1) -> Pcm | None:  # noqa: ARG002
        return None

    def _run(self, payload: bytes | None) -> tuple[int, Pcm]:
        pcm = np.zeros(self._frame_samples, np.int16)
        size = len(payload) if payload else 0
        result = self._c.lc3_decode(self._state, payload, size, _PCM_S16, pcm.ctypes.data, 1)
        return result, pcm

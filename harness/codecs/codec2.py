"""Codec 2: a harmonic sinusoidal vocoder at 8 kHz and 700 to 3200 bit/s; libcodec2, by ctypes.

The output keeps the spectral envelope, the pitch and the loudness, not the waveform. Its delay is
where a frame's model stands for the input: the encoder analyses a window of 40 ms whose centre lies
20 ms before the newest sample, and the decoder interpolates between such centres (700C: whose
models come every 40 ms, one hop of 10 ms later). The library does not conceal.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from harness.codecs import base, clib
from harness.codecs.allowed import OneOf
from harness.codecs.base import CodecFacts, Pcm
from harness.fields import BitrateBps
from harness.units import format_bitrate

_RATE_HZ = 8_000
_MODES = {3_200: 0, 2_400: 1, 1_600: 2, 1_400: 3, 1_300: 4, 1_200: 5, 700: 8}
"""Bitrate -> ``CODEC2_MODE_...``; 700 is 700C."""
_HALF_WINDOW_SAMPLES = 160
_HOP_SAMPLES = 80

_LIBRARY = clib.Wanted(
    name="codec2",
    sonames=("libcodec2.so.1.2", "libcodec2.so.1.1", "libcodec2.so.1.0"),
    remedy="apt-get install libcodec2-1.0",
    functions=(
        ("codec2_create", clib.STATE, (ctypes.c_int,)),
        ("codec2_destroy", None, (clib.STATE,)),
        ("codec2_encode", None, (clib.STATE, ctypes.c_char_p, clib.PCM)),
        ("codec2_decode", None, (clib.STATE, clib.PCM, ctypes.c_char_p)),
        ("codec2_samples_per_frame", ctypes.c_int, (clib.STATE,)),
        ("codec2_bytes_per_frame", ctypes.c_int, (clib.STATE,)),
    ),
)

ABOUT = base.About(
    title="Codec 2",
    tier="legacy",
    bitrates="0.7, 1.2, 1.3, 1.4, 1.6, 2.4, 3.2 kbit",
    code_licence="LGPL-2.1-only",
    remedy=_LIBRARY.remedy,
)


class Params(base.Params):
    bitrate: Annotated[BitrateBps, OneOf(tuple(_MODES), format_bitrate)] = 3_200


def required_assets(params: Params) -> tuple[str, ...]:  # noqa: ARG001
    return ()


def create(params: Params, assets: Mapping[str, Path]) -> Codec2Codec:  # noqa: ARG001
    lib = clib.load(_LIBRARY)
    mode = _MODES[params.bitrate]
    facts = CodecFacts(
        sample_rate_hz=_RATE_HZ,
        frame_samples=Codec2Encoder(lib.c, mode).frame_samples,
        lookahead_frames=0,
        delay_samples=_HALF_WINDOW_SAMPLES + (_HOP_SAMPLES if params.bitrate == 700 else 0),
        nominal_bitrate_bps=params.bitrate,
        library=lib.name,
    )
    return Codec2Codec(facts, lib.c, mode)


@dataclass(frozen=True)
class Codec2Codec:
    facts: CodecFacts
    c: ctypes.CDLL
    mode: int

    def encoder(self) -> Codec2Encoder:
        return Codec2Encoder(self.c, self.mode)

    def decoder(self) -> Codec2Decoder:
        return Codec2Decoder(self.mode)


class Codec2Encoder:
    def __init__(self, c: ctypes.CDLL, mode: int) -> None:
        self._c = c
        self._state = clib.own(self, c.codec2_create, c.codec2_destroy, mode)
        self.frame_samples: int = c.codec2_samples_per_frame(self._state)
        self._payload = ctypes.create_string_buffer(c.codec2_bytes_per_frame(self._state))

    def encode(self, pcm: Pcm) -> bytes:
        samples = np.ascontiguousarray(pcm)
        self._c.codec2_encode(self._state, self._payload, samples.ctypes.data)
        return self._payload.raw


class Codec2Decoder:
    def __init__(self, mode: int) -> None:
        # The phases of unvoiced sounds come from a random generator that is global to the library:
        # with a shared one, what is heard would hang on every decoder that ran before.
        self._c = c = clib.load_privately(self, _LIBRARY)
        self._state = clib.own(self, c.codec2_create, c.codec2_destroy, mode)
        self._frame_samples: int = c.codec2_samples_per_frame(self._state)
        self._frame_bytes: int = c.codec2_bytes_per_frame(self._state)

    def decode(self, payload: bytes) -> Pcm:
        if len(payload) != self._frame_bytes:
            raise ValueError(f"Codec 2 frame of {len(payload)} bytes, expected {self._frame_bytes}")
        pcm = np.zeros(self._frame_samples, np.int16)
        self._c.codec2_decode(self._state, pcm.ctypes.data, payload)
        return pcm

    def conceal(self) -> Pcm | None:
        return None

    def recover(self, later_payload: bytes, frames_back: int = 1) -> Pcm | None:  # noqa: ARG002
        return None

"""Speex (RFC 5574): CELP at 8, 16 and 32 kHz, frames of 20 ms; libspeex, bound by ctypes.

The rate is one of the eleven that Speex's qualities 0 to 10 mean at each sampling rate, and may
change with every frame: a frame names its submode. VBR, VAD and DTX stay off.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from harness.codecs import base, clib
from harness.codecs.allowed import OneOf
from harness.codecs.base import CodecFacts, Pcm
from harness.fields import BitrateBps, FrequencyHz
from harness.units import format_bitrate, format_frequency

_FRAMES_PER_S = 50
_MODES = {8_000: 0, 16_000: 1, 32_000: 2}
"""Narrow, wide and ultra-wide band, as ``speex_lib_get_mode`` numbers them."""
_BPS = {
    8_000: (2_150, 3_950, 5_950, 8_000, 8_000, 11_000, 11_000, 15_000, 15_000, 18_200, 24_600),
    16_000: (
        *(3_950, 5_750, 7_750, 9_800, 12_800, 16_800),
        *(20_600, 23_800, 27_800, 34_200, 42_200),
    ),
    32_000: (
        *(4_150, 7_550, 9_550, 11_600, 14_600, 18_600),
        *(22_400, 25_600, 29_600, 36_000, 44_000),
    ),
}
"""By sampling rate, then by quality (the Speex manual, tables 9.2 and 10.1)."""
_SET_QUALITY, _SET_COMPLEXITY, _GET_LOOKAHEAD = 4, 16, 39
_GET_VERSION_STRING = 9
_BITS_STRUCT_POINTERS = 16
"""Room for a ``SpeexBits``, of which this file needs the address only (48 bytes in 1.2)."""
_MAX_BYTES = 2000

_LIBRARY = clib.Wanted(
    name="speex",
    sonames=("libspeex.so.1",),
    remedy="apt-get install libspeex1",
    functions=(
        ("speex_lib_ctl", ctypes.c_int, (ctypes.c_int, ctypes.c_void_p)),
        ("speex_lib_get_mode", ctypes.c_void_p, (ctypes.c_int,)),
        ("speex_encoder_init", clib.STATE, (ctypes.c_void_p,)),
        ("speex_encoder_destroy", None, (clib.STATE,)),
        ("speex_encoder_ctl", ctypes.c_int, (clib.STATE, ctypes.c_int, ctypes.c_void_p)),
        ("speex_encode_int", ctypes.c_int, (clib.STATE, clib.PCM, ctypes.c_void_p)),
        ("speex_decoder_init", clib.STATE, (ctypes.c_void_p,)),
        ("speex_decoder_destroy", None, (clib.STATE,)),
        ("speex_decoder_ctl", ctypes.c_int, (clib.STATE, ctypes.c_int, ctypes.c_void_p)),
        ("speex_decode_int", ctypes.c_int, (clib.STATE, ctypes.c_void_p, clib.PCM)),
        ("speex_bits_init", None, (ctypes.c_void_p,)),
        ("speex_bits_destroy", None, (ctypes.c_void_p,)),
        ("speex_bits_reset", None, (ctypes.c_void_p,)),
        ("speex_bits_read_from", None, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int)),
        ("speex_bits_write", ctypes.c_int, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int)),
    ),
)

ABOUT = base.About(
    title="Speex (RFC 5574)",
    tier="legacy",
    bitrates="2.15-24.6 (8 kHz), 3.95-42.2 (16 kHz), 4.15-44 kbit (32 kHz)",
    code_licence="BSD-3-Clause",
    remedy=_LIBRARY.remedy,
)


class Params(base.Params):
    rate: Annotated[FrequencyHz, OneOf(tuple(_MODES), format_frequency)] = 16_000
    bitrate: BitrateBps = 27_800
    complexity: Annotated[int, Field(ge=1, le=10)] = 3

    @model_validator(mode="after")
    def _rate_has_the_bitrate(self) -> Self:
        legal = sorted(set(_BPS[self.rate]))
        if self.bitrate not in legal:
            raise ValueError(
                f"expected a bitrate of {', '.join(map(format_bitrate, legal))} at"
                f" {format_frequency(self.rate)}, got {format_bitrate(self.bitrate)}"
            )
        return self


def required_assets(params: Params) -> tuple[str, ...]:  # noqa: ARG001
    return ()


def create(params: Params, assets: Mapping[str, Path]) -> SpeexCodec:  # noqa: ARG001
    c = clib.load(_LIBRARY).c
    version = ctypes.c_char_p()
    c.speex_lib_ctl(_GET_VERSION_STRING, ctypes.byref(version))
    lookahead = SpeexEncoder(c, params).lookahead_samples()
    lookahead += SpeexDecoder(c, params).lookahead_samples()
    rates = _BPS[params.rate]
    facts = CodecFacts(
        sample_rate_hz=params.rate,
        frame_samples=params.rate // _FRAMES_PER_S,
        lookahead_frames=0,
        delay_samples=lookahead,
        nominal_bitrate_bps=params.bitrate,
        library=f"libspeex {(version.value or b'').decode()}",
        conceals=True,
        bitrate_range_bps=(min(rates), max(rates)),
    )
    return SpeexCodec(facts, params, c)


@dataclass(frozen=True)
class SpeexCodec:
    facts: CodecFacts
    params: Params
    c: ctypes.CDLL

    def encoder(self) -> SpeexEncoder:
        return SpeexEncoder(self.c, self.params)

    def decoder(self) -> SpeexDecoder:
        return SpeexDecoder(self.c, self.params)


class _Bits:
    """A ``SpeexBits``: the reader and writer of one packet."""

    def __init__(self, c: ctypes.CDLL) -> None:
        self.memory = (ctypes.c_void_p * _BITS_STRUCT_POINTERS)()
        c.speex_bits_init(self.memory)
        weakref.finalize(self, c.speex_bits_destroy, self.memory)


class SpeexEncoder:
    def __init__(self, c: ctypes.CDLL, params: Params) -> None:
        self._c = c
        mode = c.speex_lib_get_mode(_MODES[params.rate])
        self._state = clib.own(self, c.speex_encoder_init, c.speex_encoder_destroy, mode)
        self._rates = _BPS[params.rate]
        self._bits = _Bits(c)
        self._payload = ctypes.create_string_buffer(_MAX_BYTES)
        self._control(_SET_COMPLEXITY, params.complexity)
        self.set_bitrate(params.bitrate)

    def set_bitrate(self, bps: int) -> int:
        """From the next frame on; the nearest of the qualities' rates."""
        quality = min(range(len(self._rates)), key=lambda q: abs(self._rates[q] - bps))
        self._control(_SET_QUALITY, quality)
        return self._rates[quality]

    def lookahead_samples(self) -> int:
        return self._control(_GET_LOOKAHEAD, 0)

    def _control(self, request: int, value: int) -> int:
        number = ctypes.c_int32(value)
        self._c.speex_encoder_ctl(self._state, request, ctypes.byref(number))
        return number.value

    def encode(self, pcm: Pcm) -> bytes:
        samples = pcm.copy()  # libspeex filters its input in place
        self._c.speex_bits_reset(self._bits.memory)
        self._c.speex_encode_int(self._state, samples.ctypes.data, self._bits.memory)
        size = self._c.speex_bits_write(self._bits.memory, self._payload, _MAX_BYTES)
        return ctypes.string_at(self._payload, size)


class SpeexDecoder:
    def __init__(self, c: ctypes.CDLL, params: Params) -> None:
        self._c = c
        mode = c.speex_lib_get_mode(_MODES[params.rate])
        self._state = clib.own(self, c.speex_decoder_init, c.speex_decoder_destroy, mode)
        self._frame_samples = params.rate // _FRAMES_PER_S
        self._sizes = sorted({-(-bps // (8 * _FRAMES_PER_S)) for bps in _BPS[params.rate]})
        self._bits = _Bits(c)

    def lookahead_samples(self) -> int:
        number = ctypes.c_int32()
        self._c.speex_decoder_ctl(self._state, _GET_LOOKAHEAD, ctypes.byref(number))
        return number.value

    def decode(self, payload: bytes) -> Pcm:
        if len(payload) not in self._sizes:
            raise ValueError(
                f"Speex frame of {len(payload)} bytes, expected one of"
                f" {', '.join(map(str, self._sizes))}"
            )
        self._c.speex_bits_read_from(self._bits.memory, payload, len(payload))
        result, pcm = self._run(self._bits.memory)
        if result:
            raise ValueError(f"Speex frame of {len(payload)} bytes is damaged")
        return pcm

    def conceal(self) -> Pcm:
        return self._run(None)[1]

    def recover(self, later_payload: bytes, frames_back: int = 1) -> Pcm | None:  # noqa: ARG002
        return None

    def _run(self, bits: ctypes.Array[ctypes.c_void_p] | None) -> tuple[int, Pcm]:
        pcm = np.zeros(self._frame_samples, np.int16)
        return self._c.speex_decode_int(self._state, bits, pcm.ctypes.data), pcm

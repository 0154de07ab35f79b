"""GSM full rate (GSM 06.10, RPE-LTP): 8 kHz, 20 ms, 33 bytes; libgsm, bound by ctypes.

A payload is RFC 3551's (section 4.5.8): a signature of four bits, then 260 bits of parameters.
libgsm does not conceal; this file does, as the example solution of GSM 06.11 (section 6): the last
frame's parameters once more, then with block amplitudes falling by 4 of 63 steps (3 dB) a frame
and random grid positions.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.codecs import base, clib
from harness.codecs.base import CodecFacts, Pcm

_RATE_HZ = 8_000
_FRAME_SAMPLES = 160
_BYTES = 33
_SIGNATURE = 0xD
_AMPLITUDE_STEP = 4
_SUBFRAME_SHIFTS = tuple(56 * subframe for subframe in range(4))
"""Bits after the end of each of the four subframes, the last one first."""
_AMPLITUDE_SHIFT, _AMPLITUDE_MASK = 39, 0x3F
_GRID_SHIFT, _GRID_MASK = 45, 0x3
"""In a subframe's 56 bits: lag 7, gain 2, grid 2, amplitude 6, pulses 13 x 3."""
_SILENCE = bytes.fromhex("daa7aaa51a502038e46db91b502038e46db91b502038e46db91b502038e46db91b")
"""GSM 06.11's silence frame (table 1)."""

_LIBRARY = clib.Wanted(
    name="gsm",
    sonames=("libgsm.so.1",),
    remedy="apt-get install libgsm1",
    functions=(
        ("gsm_create", clib.STATE, ()),
        ("gsm_destroy", None, (clib.STATE,)),
        ("gsm_encode", None, (clib.STATE, clib.PCM, ctypes.c_char_p)),
        ("gsm_decode", ctypes.c_int, (clib.STATE, ctypes.c_char_p, clib.PCM)),
    ),
)

ABOUT = base.About(
    title="GSM full rate (GSM 06.10)",
    tier="legacy",
    bitrates="13 kbit",
    code_licence="TU-Berlin-2.0",
    remedy=_LIBRARY.remedy,
)


class Params(base.Params):
    """Nothing can be set: one rate, one frame."""


def required_assets(params: Params) -> tuple[str, ...]:  # noqa: ARG001
    return ()


def create(params: Params, assets: Mapping[str, Path]) -> GsmCodec:  # noqa: ARG001
    lib = clib.load(_LIBRARY)
    facts = CodecFacts(
        sample_rate_hz=_RATE_HZ,
        frame_samples=_FRAME_SAMPLES,
        lookahead_frames=0,
        delay_samples=0,
        nominal_bitrate_bps=13_000,
        payload_format="GSM",
        library=lib.name,
        conceals=True,
    )
    return GsmCodec(facts, lib.c)


@dataclass(frozen=True)
class GsmCodec:
    facts: CodecFacts
    c: ctypes.CDLL

    def encoder(self) -> GsmEncoder:
        return GsmEncoder(self.c)

    def decoder(self) -> GsmDecoder:
        return GsmDecoder(self.c)


class GsmEncoder:
    def __init__(self, c: ctypes.CDLL) -> None:
        self._c = c
        self._state = clib.own(self, c.gsm_create, c.gsm_destroy)
        self._payload = ctypes.create_string_buffer(_BYTES)

    def encode(self, pcm: Pcm) -> bytes:
        samples = np.ascontiguousarray(pcm)
        self._c.gsm_encode(self._state, samples.ctypes.data, self._payload)
        return self._payload.raw


class GsmDecoder:
    def __init__(self, c: ctypes.CDLL) -> None:
        self._c = c
        self._state = clib.own(self, c.gsm_create, c.gsm_destroy)
        self._last = _SILENCE
        self._lost_in_a_row = 0
        self._random = np.random.default_rng(0)

    def decode(self, payload: bytes) -> Pcm:
        if len(payload) != _BYTES or payload[0] >> 4 != _SIGNATURE:
            raise ValueError(
                f"GSM frame of {len(payload)} bytes, expected {_BYTES} that begin with the bits"
                f" {_SIGNATURE:04b}"
            )
        self._last, self._lost_in_a_row = payload, 0
        return self._run(payload)

    def conceal(self) -> Pcm:
        if self._lost_in_a_row:
            self._last = _faded(self._last, self._random.integers(4, size=4).tolist())
        self._lost_in_a_row += 1
        return self._run(self._last)

    def recover(self, later_payload: bytes, frames_back: int = 1) -> Pcm | None:  # noqa: ARG002
        return None

    def _run(self, payload: bytes) -> Pcm:
        pcm = np.zeros(_FRAME_SAMPLES, np.int16)
        self._c.gsm_decode(self._state, payload, pcm.ctypes.data)
        return pcm


def _faded(payload: bytes, grids: list[int]) -> bytes:
    """The parameters of the next lost frame; the silence frame after amplitudes of zero.

    ``grids`` are the grid positions (0 to 3) of its four subframes.
    """
    bits = int.from_bytes(payload, "big")
    if not any(bits >> shift + _AMPLITUDE_SHIFT & _AMPLITUDE_MASK for shift in _SUBFRAME_SHIFTS):
        return _SILENCE
    for shift, grid in zip(_SUBFRAME_SHIFTS, grids, strict=True):
        amplitude = bits >> shift + _AMPLITUDE_SHIFT & _AMPLITUDE_MASK
        bits -= min(amplitude, _AMPLITUDE_STEP) << shift + _AMPLITUDE_SHIFT
        bits &= ~(_GRID_MASK << shift + _GRID_SHIFT)
        bits |= grid << shift + _GRID_SHIFT
    return bits.to_bytes(_BYTES, "big")

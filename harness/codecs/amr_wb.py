"""AMR-WB (3GPP TS 26.171, ITU-T G.722.2): 16 kHz, 20 ms, nine modes of 6.6 to 23.85 kbit/s.

Encoded by VisualOn's libvo-amrwbenc, which distorts what was clipped at full scale, decoded by
libopencore-amrwb (PyAV's wheel has it, and no encoder), both bound by ctypes. A payload is one
frame of RFC 4867's storage format (section 5.3): an octet with the frame type, then the speech
bits; so each frame may have another mode. DTX stays off. The decoder gives 14 bits: the lowest two
of each sample are zero.

Its concealment is what libopencore-amrwb makes of a lost speech frame (TS 26.191), and weak: it is
silent within two frames, and at 5 % single losses and 12.65 kbit/s the mean PESQ of twelve
LibriSpeech utterances is 1.96, against 2.08 with zeros in their place and 2.55 with the payload
before them decoded once more.
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

_RATE_HZ = 16_000
_FRAME_SAMPLES = 320
_DELAY_SAMPLES = 95
_MODES = (6_600, 8_850, 12_650, 14_250, 15_850, 18_250, 19_850, 23_050, 23_850)
_SIZES = tuple(1 + -(-bps // (8 * 50)) for bps in _MODES)
"""Bytes of a frame of each mode, its frame type included."""
_SPEECH_LOST = bytes([14 << 3 | 4])
"""Frame type 14 (TS 26.201, table 1a) in RFC 4867's octet: no data, to be concealed."""

_ENCODER_LIBRARY = clib.Wanted(
    name="vo-amrwbenc",
    sonames=("libvo-amrwbenc.so.0",),
    remedy="apt-get install libvo-amrwbenc0",
    functions=(
        ("E_IF_init", clib.STATE, ()),
        (
            "E_IF_encode",
            ctypes.c_int,
            (clib.STATE, ctypes.c_int, clib.PCM, ctypes.c_char_p, ctypes.c_int),
        ),
        ("E_IF_exit", None, (clib.STATE,)),
    ),
)
_DECODER_LIBRARY = clib.Wanted(
    name="opencore-amrwb",
    sonames=("libopencore-amrwb.so.0",),
    remedy="apt-get install libopencore-amrwb0",
    wheel="av",
    functions=(
        ("D_IF_init", clib.STATE, ()),
        ("D_IF_decode", None, (clib.STATE, ctypes.c_char_p, clib.PCM, ctypes.c_int)),
        ("D_IF_exit", None, (clib.STATE,)),
    ),
)

ABOUT = base.About(
    title="AMR-WB (3GPP TS 26.171, G.722.2)",
    tier="legacy",
    bitrates="6.6, 8.85, 12.65, 14.25, 15.85, 18.25, 19.85, 23.05, 23.85 kbit",
    code_licence="Apache-2.0",
    remedy=_ENCODER_LIBRARY.remedy,
)


class Params(base.Params):
    bitrate: Annotated[BitrateBps, OneOf(_MODES, format_bitrate)] = 12_650


def required_assets(params: Params) -> tuple[str, ...]:  # noqa: ARG001
    return ()


def create(params: Params, assets: Mapping[str, Path]) -> AmrWbCodec:  # noqa: ARG001
    encoder, decoder = clib.load(_ENCODER_LIBRARY), clib.load(_DECODER_LIBRARY)
    facts = CodecFacts(
        sample_rate_hz=_RATE_HZ,
        frame_samples=_FRAME_SAMPLES,
        lookahead_frames=0,
        delay_samples=_DELAY_SAMPLES,
        nominal_bitrate_bps=params.bitrate,
        payload_format="AMR-WB",
        library=f"{encoder.name}, {decoder.name}",
        conceals=True,
        bitrate_range_bps=(_MODES[0], _MODES[-1]),
    )
    return AmrWbCodec(facts, params, encoder.c, decoder.c)


@dataclass(frozen=True)
class AmrWbCodec:
    facts: CodecFacts
    params: Params
    encoder_c: ctypes.CDLL
    decoder_c: ctypes.CDLL

    def encoder(self) -> AmrWbEncoder:
        return AmrWbEncoder(self.encoder_c, self.params)

    def decoder(self) -> AmrWbDecoder:
        return AmrWbDecoder(self.decoder_c)


class AmrWbEncoder:
    def __init__(self, c: ctypes.CDLL, params: Params) -> None:
        self._c = c
        self._state = clib.own(self, c.E_IF_init, c.E_IF_exit)
        self._mode = _MODES.index(params.bitrate)
        self._payload = ctypes.create_string_buffer(max(_SIZES))

    def set_bitrate(self, bps: int) -> int:
        """From the next frame on; the nearest mode's rate."""
        self._mode = min(range(len(_MODES)), key=lambda mode: abs(_MODES[mode] - bps))
        return _MODES[self._mode]

    def encode(self, pcm: Pcm) -> bytes:
        samples = np.ascontiguousarray(pcm)
        dtx = 0
        size = self._c.E_IF_encode(self._state, self._mode, samples.ctypes.data, self._payload, dtx)
        return self._payload.raw[:size]


class AmrWbDecoder:
    def __init__(self, c: ctypes.CDLL) -> None:
        self._c = c
        self._state = clib.own(self, c.D_IF_init, c.D_IF_exit)

    def decode(self, payload: bytes) -> Pcm:
        mode = payload[0] >> 3 if payload else -1
        if mode not in range(len(_MODES)) or len(payload) != _SIZES[mode]:
            raise ValueError(
                f"AMR-WB frame of {len(payload)} bytes, expected one of"
                f" {', '.join(map(str, _SIZES))} that begins with its mode"
            )
        return self._run(payload)

    def conceal(self) -> Pcm:
        return self._run(_SPEECH_LOST)

    def recover(self, later_payload: bytes, frames_back: int = 1) -> Pcm | None:  # noqa: ARG002
        return None

    def _run(self, payload: bytes) -> Pcm:
        pcm = np.zeros(_FRAME_SAMPLES, np.int16)
        bad_frame_indicator = 0
        self._c.D_IF_decode(self._state, payload, pcm.ctypes.data, bad_frame_indicator)
        return pcm

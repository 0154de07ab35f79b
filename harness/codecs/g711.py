"""G.711 (ITU-T, 1988): 8 kHz, 8 bit, mu-law or A-law, by tables.

Concealment repeats the last packet, faded with the schedule of G.711 Appendix I (1999): full level
for the first 10 ms, 20 % less for each 10 ms after that, silence after 60 ms. Appendix I repeats
pitch periods and delays the output by 3.75 ms to cross-fade; packet repetition does neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from harness.codecs import base
from harness.codecs.allowed import FRAME, whole_samples
from harness.codecs.base import CodecFacts, Pcm
from harness.fields import DurationNs

_RATE_HZ = 8_000
_FADE_START = _RATE_HZ * 10 // 1000
_FADE_SAMPLES = _RATE_HZ * 50 // 1000

Law = Literal["mu", "a"]


ABOUT = base.About(
    title="G.711 mu-law and A-law (ITU-T)",
    tier="core",
    bitrates="64 kbit",
    code_licence="MIT",
)


class Params(base.Params):
    law: Law = "mu"
    frame: Annotated[DurationNs, FRAME] = 20_000_000

    @model_validator(mode="after")
    def _frame_is_whole(self) -> Self:
        whole_samples(self.frame, _RATE_HZ)
        return self


def required_assets(params: Params) -> tuple[str, ...]:  # noqa: ARG001
    return ()


def create(params: Params, assets: Mapping[str, Path]) -> G711Codec:  # noqa: ARG001
    return G711Codec(
        CodecFacts(
            sample_rate_hz=_RATE_HZ,
            frame_samples=whole_samples(params.frame, _RATE_HZ),
            lookahead_frames=0,
            delay_samples=0,
            nominal_bitrate_bps=64_000,
            payload_format="PCMU" if params.law == "mu" else "PCMA",
            library=f"numpy {np.__version__}",
            conceals=True,
        ),
        params.law,
    )


@lru_cache
def expansion(law: Law) -> NDArray[np.int16]:
    """Linear value of each code, shape (256,), scaled to 16 bits (ITU-T G.191's alignment)."""
    code = np.arange(256)
    if law == "mu":
        code = ~code & 0xFF
        sign, exponent, mantissa = code & 0x80, (code >> 4) & 7, code & 0xF
        magnitude = (((mantissa << 3) + 0x84) << exponent) - 0x84
        return np.where(sign, -magnitude, magnitude).astype(np.int16)
    code = code ^ 0x55
    sign, exponent, mantissa = code & 0x80, (code >> 4) & 7, code & 0xF
    # Segment 0 is linear; the others have an implicit leading one.
    magnitude = np.where(
        exponent == 0, (mantissa << 4) + 8, ((mantissa << 4) + 0x108) << np.maximum(exponent - 1, 0)
    )
    return np.where(sign, magnitude, -magnitude).astype(np.int16)


@lru_cache
def compression(law: Law) -> NDArray[np.uint8]:
    """Code of each int16 value, indexed by the value's uint16 bit pattern, shape (65536,).

    Each value goes to the code whose interval holds it: G.711's decision values lie half-way
    between neighbouring linear values, and a value on the border goes outwards.
    """
    levels = expansion(law).astype(np.int32)
    # The two mu-law zeros are one level: keep the positive one (0xFF), as the tables do.
    order = np.argsort(levels, kind="stable")
    sorted_levels, first = np.unique(levels[order], return_index=True)
    codes = order[first].astype(np.uint8)
    if law == "mu":
        codes[sorted_levels == 0] = 0xFF
    doubled_borders = sorted_levels[:-1] + sorted_levels[1:]
    value = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32)
    outwards = np.where(
        value >= 0,
        np.searchsorted(doubled_borders, 2 * value, side="right"),
        np.searchsorted(doubled_borders, 2 * value, side="left"),
    )
    return codes[outwards]


@dataclass(frozen=True)
class G711Codec:
    facts: CodecFacts
    law: Law

    def encoder(self) -> G711Encoder:
        return G711Encoder(self.law)

    def decoder(self) -> G711Decoder:
        return G711Decoder(self.law, self.facts.frame_samples)


class G711Encoder:
    def __init__(self, law: Law) -> None:
        self._table = compression(law)

    def encode(self, pcm: Pcm) -> bytes:
        return self._table[pcm.view(np.uint16)].tobytes()


class G711Decoder:
    def __init__(self, law: Law, frame_samples: int) -> None:
        self._table = expansion(law)
        self._frame_samples = frame_samples
        self._last: Pcm = np.zeros(frame_samples, np.int16)
        self._concealed_samples = 0

    def decode(self, payload: bytes) -> Pcm:
        if len(payload) != self._frame_samples:
            raise ValueError(f"G.711 frame of {len(payload)} bytes, expected {self._frame_samples}")
        self._last = self._table[np.frombuffer(payload, np.uint8)]
        self._concealed_samples = 0
        return self._last.copy()

    def conceal(self) -> Pcm:
        age = self._concealed_samples + np.arange(self._frame_samples)
        self._concealed_samples += self._frame_samples
        gain = np.clip(1.0 - (age - _FADE_START) / _FADE_SAMPLES, 0.0, 1.0)
        return np.rint(self._last * gain).astype(np.int16)

    def recover(self, later_payload: bytes, frames_back: int = 1) -> Pcm | None:  # noqa: ARG002
        return None

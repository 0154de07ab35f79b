"""AMR-NB (3GPP TS 26.071): 8 kHz, frames of 20 ms, eight modes; coded by opencore-amr.

The encoder looks 5 ms ahead, 40 samples, which is also where the output's phase lies; its plain
correlation with the input peaks one sample earlier, for the post-filter tilts the spectrum. A
payload is one frame as RFC 4867, section 5 stores it: a byte that names the mode, then the speech
bits. DTX stays off: every frame has a payload.

A lost frame is concealed by the decoder's own substitution and muting (TS 26.091), which a frame of
type NO_DATA asks for: the last voice parameters are repeated and fade to silence within about
120 ms. The decoder's filters then start from another state, which takes about ten frames to decay.
The mode may change with every frame (``set_bitrate``), as networks have it do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from harness.codecs import base, libav
from harness.codecs.allowed import OneOf
from harness.codecs.base import CodecFacts, Pcm
from harness.fields import BitrateBps
from harness.units import format_bitrate

_RATE_HZ = 8_000
_FRAME_SAMPLES = 160
_DELAY_SAMPLES = 40
_MODES_BPS = (4_750, 5_150, 5_900, 6_700, 7_400, 7_950, 10_200, 12_200)
_FRAME_BYTES = tuple(1 + -(-bps // 50 // 8) for bps in _MODES_BPS)
"""Of each mode: the type and 20 ms of speech bits, filled up to whole bytes."""
_GOOD_QUALITY = 0x04
_NO_DATA = bytes([15 << 3 | _GOOD_QUALITY])


ABOUT = base.About(
    title="AMR-NB (3GPP TS 26.071)",
    tier="core",
    bitrates=", ".join(f"{bps / 1000:g}" for bps in _MODES_BPS) + " kbit",
    code_licence="Apache-2.0",
)


class Params(base.Params):
    bitrate: Annotated[BitrateBps, OneOf(_MODES_BPS, format_bitrate)] = 12_200


def required_assets(params: Params) -> tuple[str, ...]:  # noqa: ARG001
    return ()


def create(params: Params, assets: Mapping[str, Path]) -> AmrNbCodec:  # noqa: ARG001
    library = libav.require(("libopencore_amrnb", "w"), ("libopencore_amrnb", "r"))
    return AmrNbCodec(
        CodecFacts(
            sample_rate_hz=_RATE_HZ,
            frame_samples=_FRAME_SAMPLES,
            lookahead_frames=0,
            delay_samples=_DELAY_SAMPLES,
            nominal_bitrate_bps=params.bitrate,
            payload_format="AMR",
            library=f"opencore-amr in {library}",
            conceals=True,
            bitrate_range_bps=(_MODES_BPS[0], _MODES_BPS[-1]),
        )
    )


@dataclass(frozen=True)
class AmrNbCodec:
    facts: CodecFacts

    def encoder(self) -> AmrNbEncoder:
        return AmrNbEncoder(self.facts.nominal_bitrate_bps)

    def decoder(self) -> AmrNbDecoder:
        return AmrNbDecoder()


class AmrNbEncoder(libav.Encoder):
    def __init__(self, bitrate_bps: int) -> None:
        super().__init__("libopencore_amrnb", _RATE_HZ, "s16", bitrate_bps=bitrate_bps)

    def set_bitrate(self, bps: int) -> int:
        nearest = min(_MODES_BPS, key=lambda mode: abs(mode - bps))
        self.assign_bitrate(nearest)
        return nearest


class AmrNbDecoder(libav.Decoder):
    def __init__(self) -> None:
        super().__init__("libopencore_amrnb", _RATE_HZ, _FRAME_SAMPLES)

    def decode(self, payload: bytes) -> Pcm:
        # Any speech bits are legal, so the type and the length are all that tell a damaged payload.
        if not any(
            len(payload) == size and payload[0] == mode << 3 | _GOOD_QUALITY
            for mode, size in enumerate(_FRAME_BYTES)
        ):
            raise ValueError(
                f"AMR-NB frame of {len(payload)} bytes of type {payload[:1].hex() or 'none'},"
                f" expected one of {', '.join(map(str, _FRAME_BYTES))} bytes with its mode"
            )
        return super().decode(payload)

    def conceal(self) -> Pcm:
        return super().decode(_NO_DATA)

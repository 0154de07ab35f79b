"""AAC in files: every block of audio coded by a fresh encoder, as a program does that calls
``ffmpeg`` on each buffer of its sound card and sends the file.

A payload is one ADTS stream (ISO/IEC 13818-7, 6.2) of ``block_samples``, 16,384 at 12 kHz by
default. An encoder's first frame only fills the overlap of the MDCT, so a block of 16 frames
becomes 17, and a player that decodes it with a fresh decoder gets 17,408 samples for 16,384: 1,024
of priming (silence and a fade-in), then the block. Played end to end, every block lasts 85 ms
longer than it took to record. What is done with them is ``priming``:

* ``keep``: the player gives every block the time that it took to record and plays what fits: the
  1,024 samples of priming, then the block without its last 1,024. So every block begins with a gap
  of 1,024 samples, and all else is late by as many (D = 1,024);
* ``trim``: the priming is dropped, and the block is whole and in its place (D = 0).

The encoder is left at its defaults, noise substitution included: a decoder that is fresh for every
block draws the same noise, whatever was lost before. ``aac`` is the persistent encoder at the same
rates and bitrates; it does not pay for the priming, 6 % of the rate here.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from harness.codecs import aac, base, libav
from harness.codecs.base import CodecFacts, Pcm

_FRAME_SAMPLES = 1024
_PRIMING_SAMPLES = 1024
_HEADER_BYTES = 7
_SYNC_WORD = b"\xff\xf1"
"""With what follows it of the fixed header: MPEG-4, no CRC."""


ABOUT = base.About(
    title="AAC-LC in ADTS files, a fresh encoder per block",
    tier="legacy",
    bitrates="8-288 kbit",
    code_licence="LGPL-2.1-or-later",
)


class Params(aac.Params):
    rate: aac.Rate = 12_000
    bitrate: aac.Bitrate = 72_000
    """The most that AAC has for 12 kHz, and what ``ffmpeg -b:a 128k`` makes of it."""
    block_samples: Annotated[int, Field(ge=2_048, le=65_536, multiple_of=_FRAME_SAMPLES)] = 16_384
    priming: Literal["keep", "trim"] = "keep"


def required_assets(params: Params) -> tuple[str, ...]:  # noqa: ARG001
    return ()


def create(params: Params, assets: Mapping[str, Path]) -> AacBlocksCodec:  # noqa: ARG001
    coded_samples = params.block_samples + _PRIMING_SAMPLES
    facts = CodecFacts(
        sample_rate_hz=params.rate,
        frame_samples=params.block_samples,
        lookahead_frames=0,
        delay_samples=_PRIMING_SAMPLES if params.priming == "keep" else 0,
        nominal_bitrate_bps=params.bitrate * coded_samples // params.block_samples,
        library=libav.require(("aac", "w"), ("aac", "r")),
    )
    return AacBlocksCodec(facts, params)


def decoded_samples(payload: bytes) -> int:
    """How many samples a player gets from a payload: 17,408 for a block of 16,384.

    Raises ValueError where the payload is no ADTS stream.
    """
    return _FRAME_SAMPLES * len(_adts_frames(payload))


@dataclass(frozen=True)
class AacBlocksCodec:
    facts: CodecFacts
    params: Params

    def encoder(self) -> AacBlocksEncoder:
        return AacBlocksEncoder(self.params)

    def decoder(self) -> AacBlocksDecoder:
        return AacBlocksDecoder(self.params)


class AacBlocksEncoder:
    def __init__(self, params: Params) -> None:
        self._params = params

    def encode(self, pcm: Pcm) -> bytes:
        import av

        block = av.AudioFrame.from_ndarray(pcm.reshape(1, -1), format="s16", layout="mono")
        block.sample_rate = self._params.rate
        block.pts = 0
        written = io.BytesIO()
        with av.open(written, "w", format="adts") as file:
            stream = file.add_stream("aac", rate=self._params.rate, layout="mono")
            stream.bit_rate = self._params.bitrate
            file.mux(stream.encode(block))
            file.mux(stream.encode(None))
        return written.getvalue()


class AacBlocksDecoder:
    def __init__(self, params: Params) -> None:
        self._rate_hz = params.rate
        self._block_samples = params.block_samples
        self._skipped = 0 if params.priming == "keep" else _PRIMING_SAMPLES

    def decode(self, payload: bytes) -> Pcm:
        frames = _adts_frames(payload)
        samples = _FRAME_SAMPLES * len(frames)
        expected = self._block_samples + _PRIMING_SAMPLES
        if samples != expected:
            raise ValueError(
                f"ADTS file of {len(payload)} bytes: {samples} samples, expected {expected}"
            )
        decoder = libav.Decoder("aac", self._rate_hz, _FRAME_SAMPLES)
        played = np.concatenate([decoder.decode(frame) for frame in frames])
        return played[self._skipped : self._skipped + self._block_samples]

    def conceal(self) -> Pcm | None:
        return None

    def recover(self, later_payload: bytes, frames_back: int = 1) -> Pcm | None:  # noqa: ARG002
        return None


def _adts_frames(file: bytes) -> list[bytes]:
    """With their headers (ISO/IEC 14496-3, 1.A.2), one raw data block each."""
    frames, start = [], 0
    while start < len(file):
        header = file[start : start + _HEADER_BYTES]
        size = int.from_bytes(header[3:6], "big") >> 5 & 0x1FFF
        more_blocks = header[-1] & 3
        if (
            not header.startswith(_SYNC_WORD)
            or size <= _HEADER_BYTES
            or start + size > len(file)
            or more_blocks
        ):
            raise ValueError(f"ADTS file of {len(file)} bytes: no frame at byte {start}")
        frames.append(file[start : start + size])
        start += size
    return frames

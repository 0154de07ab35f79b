"""EnCodec 48 kHz, the stereo model (Defossez et al. 2022), in chunks of up to 1 s.

Not causal: a chunk, 1 s in the published form, is heard whole before it is coded. Its level is
taken out and sent along, and neighbours share 1 % that is blended linearly: with ``chunk: 1s``,
``overlap: 1%`` and ``boundary: linear`` the output is that of the ``encodec`` package's own offline
coding, whose first chunk has 480 samples of silence before the stream.

The harness is mono: both channels are fed the same samples, and what they decode to is averaged.
The bitrates are the model's, for its two channels. Payloads are those of ``encodec_chunks.py``,
with the level as a 32-bit float before the codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from harness.codecs import base, encodec_chunks
from harness.codecs.allowed import OneOf
from harness.codecs.chunked import ChunkedCodec, Length, LengthOrShare
from harness.codecs.encodec_chunks import Variant, VariantParams
from harness.fields import BitrateBps
from harness.units import format_bitrate

ABOUT = base.About(
    title="EnCodec 48 kHz stereo, fed mono (Defossez et al. 2022)",
    tier="neural",
    bitrates="3, 6, 12, 24 kbit",
    code_licence="MIT",
    weights_licence="not stated by their publisher",
    causal=False,
)
VARIANT = Variant("48khz", 48_000, 2, (3_000, 6_000, 12_000, 24_000), normalised=True)


class Params(VariantParams):
    bitrate: Annotated[BitrateBps, OneOf(VARIANT.bitrates_bps, format_bitrate)] = 6_000
    chunk: Length = "1s"
    overlap: LengthOrShare = "1%"

    def sample_rate_hz(self) -> int:
        return VARIANT.rate_hz

    def round_trips(self, chunk_samples: int) -> bool:
        """The model was trained on segments of 1 s and takes no longer ones."""
        return chunk_samples <= VARIANT.rate_hz and VARIANT.round_trips(chunk_samples, self.framing)


def required_assets(params: Params) -> tuple[str, ...]:
    return encodec_chunks.assets_of(params, VARIANT)


def create(params: Params, assets: Mapping[str, Path]) -> ChunkedCodec:
    """Also sets torch to one thread for the whole process."""
    return encodec_chunks.make(params, params.bitrate, VARIANT, assets)

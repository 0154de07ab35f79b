"""EnCodec 24 kHz (Defossez et al., 2022), coded frame by frame."""

from __future__ import annotations

from typing import Annotated, Literal

from harness.codecs import base
from harness.codecs.allowed import OneOf
from harness.fields import BitrateBps
from harness.units import format_bitrate

_WEIGHTS = "encodec-24khz"


class Params(base.Params):
    bitrate: Annotated[BitrateBps, OneOf((1_500, 3_000, 6_000, 12_000, 24_000), format_bitrate)] = (
        6_000
    )
    weights: Literal["real", "random"] = "real"


def required_assets(params: Params) -> tuple[str, ...]:
    return (_WEIGHTS,) if params.weights == "real" else ()

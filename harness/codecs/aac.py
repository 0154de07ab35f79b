"""AAC-LC (ISO/IEC 14496-3): frames of 1024 samples; coded by libavcodec's own ``aac``."""

from __future__ import annotations

from typing import Annotated

from harness.codecs import base
from harness.codecs.allowed import Between, OneOf
from harness.fields import BitrateBps, FrequencyHz
from harness.units import format_bitrate, format_frequency


class Params(base.Params):
    rate: Annotated[
        FrequencyHz, OneOf((16_000, 24_000, 32_000, 44_100, 48_000), format_frequency)
    ] = 48_000
    bitrate: Annotated[BitrateBps, Between(8_000, 256_000, format_bitrate)] = 64_000


def required_assets(params: Params) -> tuple[str, ...]:  # noqa: ARG001
    return ()

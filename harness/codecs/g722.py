"""G.722 (ITU-T, 2012): 16 kHz, two ADPCM sub-bands, 64 kbit/s; coded by libavcodec."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import model_validator

from harness.codecs import base
from harness.codecs.allowed import FRAME, whole_samples
from harness.fields import DurationNs

_RATE_HZ = 16_000


class Params(base.Params):
    frame: Annotated[DurationNs, FRAME] = 20_000_000

    @model_validator(mode="after")
    def _frame_is_whole(self) -> Self:
        whole_samples(self.frame, _RATE_HZ)
        return self


def required_assets(params: Params) -> tuple[str, ...]:  # noqa: ARG001
    return ()

"""Opus (RFC 6716): libopus, bound by ctypes."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from harness.codecs import base
from harness.codecs.allowed import Between, OneOf
from harness.fields import BitrateBps, DurationNs, FrequencyHz, Probability
from harness.units import format_bitrate, format_duration, format_frequency


class Params(base.Params):
    rate: Annotated[
        FrequencyHz, OneOf((8_000, 12_000, 16_000, 24_000, 48_000), format_frequency)
    ] = 16_000
    bitrate: Annotated[BitrateBps, Between(6_000, 510_000, format_bitrate)] = 24_000
    frame: Annotated[
        DurationNs,
        OneOf(
            (2_500_000, 5_000_000, 10_000_000, 20_000_000, 40_000_000, 60_000_000), format_duration
        ),
    ] = 20_000_000
    application: Literal["voip", "audio", "lowdelay"] = "voip"
    complexity: Annotated[int, Field(ge=0, le=10)] = 10
    vbr: bool = True
    fec: bool = False
    expected_loss: Probability = 0.0
    deep_plc: bool = False

    @model_validator(mode="after")
    def _fec_is_possible(self) -> Self:
        if not self.fec:
            return self
        if self.application == "lowdelay":
            raise ValueError(
                "fec: true needs application voip or audio (lowdelay never uses SILK, the layer"
                " that carries the redundancy)"
            )
        if self.frame < 10_000_000:
            raise ValueError(
                f"fec: true needs a frame of 10ms or more, got {format_duration(self.frame)}"
                " (shorter frames are CELT, which carries no redundancy)"
            )
        if self.expected_loss < 0.01:
            raise ValueError(
                "fec: true needs expected_loss of at least 1%, 10% say (the encoder spends bits on"
                " redundancy only for losses that it expects)"
            )
        return self


def required_assets(params: Params) -> tuple[str, ...]:  # noqa: ARG001
    return ()

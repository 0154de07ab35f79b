"""What a codec's parameter may be: pydantic annotations whose errors list the legal values.

``Annotated[DurationNs, OneOf((10_000_000, 20_000_000), format_duration)]`` accepts "20ms" and says
``expected one of 10ms, 20ms, got 7ms`` to anything else; editors learn it from the JSON Schema.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from harness.units import NS_PER_MS, NS_PER_S, format_duration, format_frequency


class _Allowed:
    def _says(self) -> str:
        raise NotImplementedError

    def _accepts(self, value: int) -> bool:
        raise NotImplementedError

    def _written(self, value: int) -> str:
        raise NotImplementedError

    def _check(self, value: int) -> int:
        if not self._accepts(value):
            raise ValueError(f"expected {self._says()}, got {self._written(value)}")
        return value

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        described = handler(schema)
        before = f"{described['description']}: " if "description" in described else ""
        return {**described, "description": before + self._says()}


@dataclass(frozen=True)
class OneOf(_Allowed):
    """The value, in base units, is one of ``values``; ``write`` turns it into the user's form."""

    values: tuple[int, ...]
    write: Callable[[int], str]

    def _says(self) -> str:
        return "one of " + ", ".join(map(self.write, self.values))

    def _accepts(self, value: int) -> bool:
        return value in self.values

    def _written(self, value: int) -> str:
        return self.write(value)


@dataclass(frozen=True)
class Between(_Allowed):
    """The value, in base units, lies in ``low``...``high``, both included."""

    low: int
    high: int
    write: Callable[[int], str]

    def _says(self) -> str:
        return f"{self.write(self.low)} to {self.write(self.high)}"

    def _accepts(self, value: int) -> bool:
        return self.low <= value <= self.high

    def _written(self, value: int) -> str:
        return self.write(value)


FRAME = Between(5 * NS_PER_MS // 2, 60 * NS_PER_MS, format_duration)
"""Frames of codecs that take any length: 2.5...60 ms, as long as samples are whole."""


def whole_samples(duration_ns: int, rate_hz: int) -> int:
    """Samples in a frame of that duration. Raises ValueError if they are not a whole number."""
    samples, rest = divmod(duration_ns * rate_hz, NS_PER_S)
    if rest:
        raise ValueError(
            f"a frame of {format_duration(duration_ns)} is not a whole number of samples at"
            f" {format_frequency(rate_hz)}; expected a multiple of 0.5ms"
        )
    return samples

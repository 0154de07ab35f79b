"""Pydantic field types that take written units, shared by scenarios and codec parameters."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, WithJsonSchema

from harness import units


class Frozen(BaseModel):
    """Base of everything a user can write: immutable, and unknown keys are mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def _written(pattern: str, description: str, example: str) -> WithJsonSchema:
    return WithJsonSchema(
        {"type": "string", "pattern": pattern, "description": description, "examples": [example]}
    )


# An int is already in base units (a Python caller's, or our own serialised form).
def _or_int(parse):  # type: ignore[no-untyped-def]
    return lambda value: value if type(value) is int else parse(value)


DurationNs = Annotated[
    int,
    BeforeValidator(_or_int(units.parse_duration_ns)),
    PlainSerializer(units.format_duration, when_used="json"),
    _written(r"^\d+(\.\d+)?\s*(ns|us|µs|ms|s|min)$", "a duration", "20ms"),
]
BitrateBps = Annotated[
    int,
    BeforeValidator(_or_int(units.parse_bitrate_bps)),
    PlainSerializer(units.format_bitrate, when_used="json"),
    _written(r"^\d+(\.\d+)?\s*([kKmMgG]?bit)(/s)?$", "a bitrate (decimal prefixes)", "24kbit"),
]
SizeBytes = Annotated[
    int,
    BeforeValidator(_or_int(units.parse_size_bytes)),
    PlainSerializer(units.format_size, when_used="json"),
    _written(r"^\d+(\.\d+)?\s*([kKmMgG]?[bB])$", "a size in bytes", "1500B"),
]
FrequencyHz = Annotated[
    int,
    BeforeValidator(_or_int(units.parse_frequency_hz)),
    PlainSerializer(units.format_frequency, when_used="json"),
    _written(r"^\d+(\.\d+)?\s*[kK]?[hH]z$", "a sampling rate", "16kHz"),
]
Probability = Annotated[
    float,
    BeforeValidator(units.parse_probability),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": 1},
                {"type": "string", "pattern": r"^\d+(\.\d+)?\s*%$"},
            ],
            "description": "a probability",
            "examples": ["2.5%"],
        }
    ),
]

"""Field types of the scenario that are narrower than those of ``harness.fields``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ValidationInfo, WithJsonSchema
from pydantic.config import JsonDict
from pydantic.json_schema import JsonSchemaValue

from harness.fields import BitrateBps, DurationNs, SizeBytes
from harness.scenario.document import show
from harness.units import NS_PER_MS, NS_PER_S, format_bitrate, format_duration, format_size


def _between(low: int, high: int, what: str, format_: Callable[[int], str]) -> Callable[[int], int]:
    def check(value: int) -> int:
        if not low <= value <= high:
            limits = f"{format_(low)}...{format_(high)}"
            raise ValueError(f"expected {what} of {limits}, got {format_(value)}")
        return value

    return check


def _some(values: Any) -> Any:
    if values == ():
        raise ValueError("expected at least one entry, got none")
    return values


# Not ``min_length``: pydantic counts the entries that are valid, and would say "too few" beside
# each entry's own mistake.
NotEmpty = AfterValidator(_some)
AT_LEAST_ONE: JsonDict = {"minItems": 1}
"""For the JSON Schema of fields with ``NotEmpty``."""


def or_word(schema: JsonSchemaValue, word: JsonSchemaValue) -> JsonSchemaValue:
    """The schema of an entry that may also be a single word."""
    return {"anyOf": [{"type": "string", **word}, schema]}


def or_number(schema: JsonSchemaValue, most: int) -> JsonSchemaValue:
    """The schema of a mapping that may also be a single number, from 1 on."""
    return {"anyOf": [{"type": "integer", "minimum": 1, "maximum": most}, schema]}


Patterns = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    NotEmpty,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
            ],
            "description": "a name, a pattern such as opus*, or a list of them",
        }
    ),
]

_NAME = r"[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}"


POINT_MARK = "@"
"""Between an entry's name and its place on a sweep; in no name that is written."""


def _name(value: str, info: ValidationInfo) -> str:
    if value in (info.context or {}).get("points", ()):
        return value
    if not re.fullmatch(_NAME, value):
        raise ValueError(
            "expected a name of at most 64 letters, digits, and . _ % + - "
            f"(a letter or digit first), got {show(value)}"
        )
    return value


Name = Annotated[
    str,
    AfterValidator(_name),
    WithJsonSchema({"type": "string", "pattern": f"^{_NAME}$", "description": "a name"}),
]
"""Of a scenario or an entry: it stands in labels, patterns and file names."""

Delay = Annotated[
    DurationNs, AfterValidator(_between(0, 60 * NS_PER_S, "a duration", format_duration))
]
Silence = Annotated[
    DurationNs, AfterValidator(_between(0, 2 * NS_PER_S, "a duration", format_duration))
]
Slow = Annotated[
    DurationNs,
    AfterValidator(_between(NS_PER_MS, 60 * NS_PER_S, "a duration", format_duration)),
]
"""Of a process in media time: what is quicker happens within one packet."""
Moment = Annotated[
    DurationNs, AfterValidator(_between(0, 600 * NS_PER_S, "a time", format_duration))
]
"""In the course of the audio."""
Spell = Annotated[
    DurationNs,
    AfterValidator(_between(NS_PER_MS, 600 * NS_PER_S, "a duration", format_duration)),
]
Timeout = Annotated[
    DurationNs, AfterValidator(_between(NS_PER_S, 3600 * NS_PER_S, "a duration", format_duration))
]
# tbf counts bytes per second in 32 bits; below 1 kbit/s no packet of speech passes in time.
LinkRate = Annotated[
    BitrateBps, AfterValidator(_between(1_000, 10_000_000_000, "a bitrate", format_bitrate))
]
QueueSize = Annotated[SizeBytes, AfterValidator(_between(1, 1_000_000_000, "a size", format_size))]
FULL_FRAME_BYTES = 1500 + 14
"""Largest frame of the lab's links, Ethernet header included: tbf drops what exceeds its burst."""
# 68 is the smallest MTU of IPv4 (RFC 791), 65,535 its largest packet.
Mtu = Annotated[SizeBytes, AfterValidator(_between(68, 65_535, "an MTU", format_size))]

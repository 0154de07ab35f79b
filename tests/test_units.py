"""Written quantities to base units and back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from harness import fields, units

quick = settings(max_examples=100, deadline=None, derandomize=True, database=None)


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (units.parse_duration_ns, "20ms", 20_000_000),
        (units.parse_duration_ns, " 2.5 ms ", 2_500_000),
        (units.parse_duration_ns, "1us", 1_000),
        (units.parse_duration_ns, "1µs", 1_000),
        (units.parse_duration_ns, "2min", 120_000_000_000),
        (units.parse_duration_ns, "0s", 0),
        (units.parse_bitrate_bps, "24kbit", 24_000),
        (units.parse_bitrate_bps, "24 kbit/s", 24_000),
        (units.parse_bitrate_bps, "1.6Mbit", 1_600_000),
        (units.parse_size_bytes, "1500B", 1500),
        (units.parse_size_bytes, "10kB", 10_000),
        (units.parse_frequency_hz, "44.1kHz", 44_100),
        (units.parse_probability, "2.5%", 0.025),
        (units.parse_probability, 0.025, 0.025),
        (units.parse_probability, 1, 1.0),
        (units.parse_probability, "0.5", 0.5),
    ],
)
def test_parse(parse: Callable[[object], float], text: object, value: float) -> None:
    assert parse(text) == value


@pytest.mark.parametrize("parse", [
    units.parse_duration_ns, units.parse_bitrate_bps, units.parse_size_bytes,
    units.parse_frequency_hz,
])  # fmt: skip
@pytest.mark.parametrize(
    "wrong",
    ["", "20", "ms", "-1ms", "20 potato", "1e3ms", "nan s", None, True, 20, 2.5, []],
)
def test_not_a_quantity(parse: Callable[[object], int], wrong: object) -> None:
    with pytest.raises(ValueError, match=r'expected a .* such as ".*", got '):
        parse(wrong)


@pytest.mark.parametrize("wrong", ["", "2", "101%", "-1%", "x%", True, None, 1.01, float("nan")])
def test_not_a_probability(wrong: object) -> None:
    with pytest.raises(ValueError, match="expected a probability"):
        units.parse_probability(wrong)


@pytest.mark.parametrize(
    ("format_", "value", "text"),
    [
        (units.format_duration, 20_000_000, "20ms"),
        (units.format_duration, 1_500, "1.5us"),
        (units.format_duration, 0, "0ns"),
        (units.format_duration, 100_000_000_000, "100s"),
        (units.format_bitrate, 24_123_457, "24.123457mbit"),
        (units.format_bitrate, 24_000, "24kbit"),
        (units.format_size, 1500, "1.5kB"),
        (units.format_frequency, 44_100, "44.1kHz"),
    ],
)
def test_format(format_: Callable[[int], str], value: int, text: str) -> None:
    assert format_(value) == text


@quick
@given(st.integers(0, 10**13))
def test_round_trip_is_exact(value: int) -> None:
    for format_, parse in [
        (units.format_duration, units.parse_duration_ns),
        (units.format_bitrate, units.parse_bitrate_bps),
        (units.format_size, units.parse_size_bytes),
        (units.format_frequency, units.parse_frequency_hz),
    ]:
        assert parse(format_(value)) == value


@quick
@given(st.text(max_size=12))
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    for parse in (units.parse_duration_ns, units.parse_probability):
        with contextlib.suppress(ValueError):
            assert parse(text) >= 0


@pytest.mark.parametrize(
    ("field", "base", "written"),
    [
        (fields.DurationNs, 20_000_000, "20ms"),
        (fields.BitrateBps, 24_000, "24kbit"),
        (fields.SizeBytes, 500, "500B"),
        (fields.FrequencyHz, 16_000, "16kHz"),
    ],
)
def test_fields_take_written_values_and_base_units(field: Any, base: int, written: str) -> None:
    adapter: TypeAdapter[int] = TypeAdapter(field)
    assert adapter.validate_python(base) == adapter.validate_python(written) == base
    assert adapter.dump_python(base, mode="json") == written
    for wrong in (True, 2.5, "20", None):
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong)


def test_samples_to_time() -> None:
    assert units.samples_to_ns(48_000 * 3600 * 24, 48_000) == 24 * 3600 * units.NS_PER_S
    assert units.samples_to_ns(1, 44_100) == 22_675

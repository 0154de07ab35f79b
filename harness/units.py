"""Written quantities (``20ms``, ``24kbit``, ``2.5%``) to integers in base units, and back.

Times are integers of nanoseconds, rates of bits per second, sizes of bytes, sampling rates of
hertz, probabilities floats in 0...1. Decimal prefixes are decimal (``1kbit`` = 1,000 bit/s, as in
tc(8) and RFC texts); there are no binary ones.
"""

from __future__ import annotations

import re
import time
from decimal import Decimal

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
NS_PER_US = 1_000

_DURATION = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": NS_PER_MS,
    "s": NS_PER_S,
    "min": 60 * NS_PER_S,
}
_BITRATE = {"bit": 1, "kbit": 1_000, "mbit": 1_000_000, "gbit": 1_000_000_000}
_SIZE = {"b": 1, "kb": 1_000, "mb": 1_000_000, "gb": 1_000_000_000}
_FREQUENCY = {"hz": 1, "khz": 1_000}
_NUMBER = re.compile(r"([+-]?\d+(?:\.\d+)?)\s*([^\d\s].*)?")


def _parse(text: object, units: dict[str, int], expected: str) -> int:
    match = _NUMBER.fullmatch(str(text).strip()) if isinstance(text, str) else None
    if match is None or match[2] is None:
        raise ValueError(f"expected {expected}, got {text!r}")
    unit = match[2].strip()
    factor = (
        units.get(unit) or units.get(unit.lower()) or units.get(unit.lower().removesuffix("/s"))
    )
    if factor is None:
        raise ValueError(f"expected {expected}, got {text!r} (units: {', '.join(units)})")
    value = Decimal(match[1]) * factor
    if value < 0:
        raise ValueError(f"expected {expected}, got {text!r} (it is negative)")
    return int(value.to_integral_value())


def parse_duration_ns(text: object) -> int:
    """``"20ms"`` -> 20_000_000. Raises ValueError with what was expected."""
    return _parse(text, _DURATION, 'a duration such as "20ms"')


def parse_bitrate_bps(text: object) -> int:
    """``"24kbit"`` -> 24_000 bit/s. Raises ValueError with what was expected."""
    return _parse(text, _BITRATE, 'a bitrate such as "24kbit"')


def parse_size_bytes(text: object) -> int:
    """``"1500B"`` -> 1500 bytes. Raises ValueError with what was expected."""
    return _parse(text, _SIZE, 'a size such as "1500B"')


def parse_frequency_hz(text: object) -> int:
    """``"16kHz"`` -> 16_000 Hz. Raises ValueError with what was expected."""
    return _parse(text, _FREQUENCY, 'a sampling rate such as "16kHz"')


def parse_probability(text: object) -> float:
    """``"2.5%"`` or ``0.025`` -> 0.025. Raises ValueError with what was expected."""
    expected = 'a probability such as "2.5%" or 0.025'
    if isinstance(text, bool) or not isinstance(text, (int, float, str)):
        raise ValueError(f"expected {expected}, got {text!r}")
    try:
        value = (
            float(text.strip().removesuffix("%")) / 100
            if isinstance(text, str) and text.strip().endswith("%")
            else float(text)
        )
    except ValueError:
        raise ValueError(f"expected {expected}, got {text!r}") from None
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"expected {expected}, got {text!r} (outside 0...1)")
    return value


def _format(value: int, units: list[tuple[str, int]]) -> str:
    for unit, factor in units:
        if abs(value) >= factor:
            return f"{Decimal(value) / factor:f}{unit}"  # exact: all factors are powers of ten
    return f"{value}{units[-1][0]}"


def format_duration(ns: int) -> str:
    """20_000_000 -> ``"20ms"``."""
    return _format(ns, [("s", NS_PER_S), ("ms", NS_PER_MS), ("us", 1_000), ("ns", 1)])


def format_bitrate(bps: int) -> str:
    """24_000 -> ``"24kbit"``."""
    return _format(bps, [("gbit", 10**9), ("mbit", 10**6), ("kbit", 1_000), ("bit", 1)])


def format_size(size_bytes: int) -> str:
    """1500 -> ``"1.5kB"``."""
    return _format(size_bytes, [("GB", 10**9), ("MB", 10**6), ("kB", 1_000), ("B", 1)])


def readable_size(size_bytes: int) -> str:
    """25_276_502_016 -> ``"25.3 GB"``: for people, not to be read back."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 1_000)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} B"


def format_frequency(hz: int) -> str:
    """16_000 -> ``"16kHz"``."""
    return _format(hz, [("kHz", 1_000), ("Hz", 1)])


def samples_to_ns(samples: int, rate_hz: int) -> int:
    """Media time of a sample index; exact to the nanosecond below, for any length of stream."""
    return samples * NS_PER_S // rate_hz


def monotonic_ns() -> int:
    """CLOCK_MONOTONIC, the one clock of all measured times: all containers of a kernel share it."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)

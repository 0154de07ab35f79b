"""Sweeps: an entry of an axis becomes one entry per value of one of its keys.

They are expanded in the document, before anything is validated, so that every point is an entry
like those written by hand, and a value that is wrong is told of where the sweep writes it. The
points of ``bursty`` are ``bursty@loss=0%``, ``bursty@loss=2.5%``, ...: no name that is written has
an ``@``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    Discriminator,
    Field,
    Tag,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from harness import units
from harness.scenario.document import Loc, WrittenInt, show
from harness.scenario.mistakes import Written, mistake, not_among, refuse
from harness.scenario.quantities import AT_LEAST_ONE, POINT_MARK, Name, NotEmpty, Patterns

AXES = {
    "codec": "codecs",
    "transport": "transports",
    "network": "networks",
    "receiver": "receivers",
}
"""Where the entries of an axis stand in a scenario."""
_WORD_KEYS = {"codec": "codec", "transport": "transport", "network": "preset"}
"""The key that an entry stands for that is written as a single word."""
MAX_VALUES = 200
MAX_POINTS = 1000
"""Entries on one axis after all sweeps."""
DIGITS = 4
"""Significant ones of values between two ends: the label says exactly what is run."""


class SweepPoint(NamedTuple):
    """Where a cell stands on a sweep: ``x`` in ``unit`` (``%``, ms, kbit/s, ...)."""

    name: str
    x: float
    unit: str


class SweepEntry(NamedTuple):
    """One point of one swept entry."""

    name: str
    base: str
    """The entry that was written."""
    x: float


class SweepSpec(NamedTuple):
    """A sweep as it was expanded, for the report."""

    name: str
    axis: str
    key: str
    """What it sets, such as ``forward.loss.loss``."""
    unit: str
    entries: tuple[SweepEntry, ...]
    """In the order of the scenario; with another sweep on the same entry, one per combination."""


class _Quantity(NamedTuple):
    """A kind of value: its base units per ``unit``, how it is read and written."""

    unit: str
    factor: int
    parse: Callable[[object], int]
    write: Callable[[int], str]
    zero: str
    """Its unit in the label of 0."""


_QUANTITIES = (
    _Quantity("ms", units.NS_PER_MS, units.parse_duration_ns, units.format_duration, "ms"),
    _Quantity("kbit/s", 1_000, units.parse_bitrate_bps, units.format_bitrate, "kbit"),
    _Quantity("B", 1, units.parse_size_bytes, units.format_size, "B"),
    _Quantity("kHz", 1_000, units.parse_frequency_hz, units.format_frequency, "kHz"),
)


class Value(NamedTuple):
    """One value of a sweep: as its name says it, as it is set, and as a number."""

    label: str
    written: object
    x: Decimal
    unit: str


def _value(written: object) -> Value:
    """Raises ValueError for what has no place on an axis."""
    if isinstance(written, (int, float)) and not isinstance(written, bool):
        number = Decimal(str(written))
        if number.is_finite():
            return Value(_plain(number), written, number, "")
    if isinstance(written, str):
        text = written.strip()
        if text.endswith("%"):
            percent = Decimal(str(units.parse_probability(text))) * 100
            return Value(f"{_plain(percent)}%", text, percent, "%")
        for kind in _QUANTITIES:
            try:
                base = kind.parse(text)
            except ValueError:
                continue
            label = kind.write(base) if base else f"0{kind.zero}"
            return Value(label, text, Decimal(base) / kind.factor, kind.unit)
    example = 'a number or a quantity such as "2.5%", "40ms", "24kbit"'
    raise ValueError(f"expected {example}, got {show(written)}")


def _between(first: Value, last: Value, share: Decimal) -> Value:
    x = Decimal(f"{first.x + (last.x - first.x) * share:.{DIGITS}g}")
    if first.unit == "%":
        return _value(f"{_plain(x)}%")
    for kind in _QUANTITIES:
        if kind.unit == first.unit:
            return _value(kind.write(round(x * kind.factor)))
    is_whole = isinstance(first.written, int) and isinstance(last.written, int)
    return _value(WrittenInt(x) if is_whole and x == int(x) else float(x))


def _plain(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


_Written = Annotated[Any, WithJsonSchema({"type": ["string", "number"]})]
"""A value as it stands in the file; judged by ``Sweep``."""


class Range(Written):
    """Equal steps from one value to another, both of them included."""

    from_: _Written = Field(alias="from")
    to: _Written
    steps: int = Field(ge=2, le=MAX_VALUES, description="how many values, both ends included")


class Sweep(Written):
    """One key of one entry (or of several alike), set to one value after the other."""

    name: Name
    axis: Literal["network", "codec", "transport", "receiver"]
    entry: Patterns = Field(description="of that axis: a name, a pattern, or a list of them")
    key: str = Field(
        alias="set",
        min_length=1,
        max_length=200,
        description="the key, such as bitrate or forward.loss.loss",
    )
    values: Annotated[
        Annotated[
            tuple[_Written, ...],
            Field(max_length=MAX_VALUES, json_schema_extra=AT_LEAST_ONE),
            NotEmpty,
            Tag("list"),
        ]
        | Annotated[Range, Tag("range")],
        Discriminator(lambda value: "range" if isinstance(value, (dict, Range)) else "list"),
    ]

    @model_validator(mode="after")
    def _comparable(self) -> Sweep:
        wrong = []
        found: list[Value] = []
        for loc, written in self._written():
            try:
                value = _value(written)
            except ValueError as error:
                wrong.append(mistake(str(error), "values", *loc))
                continue
            if found and value.unit != found[0].unit:
                kind = f"the kind of {show(found[0].written)}"
                wrong.append(mistake(f"expected {kind}, got {show(written)}", "values", *loc))
            found.append(value)
        if not wrong and len({value.label for value in self.points}) < len(self.points):
            wrong.append(mistake("expected different values, got one twice", "values"))
        if self.path[0] in ("name", "codec", "preset") or not all(self.path):
            said = f"expected a key that has a value to vary, got {show(self.key)}"
            wrong.append(mistake(said, "set"))
        if wrong:
            raise refuse(wrong)
        return self

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(self.key.split("."))

    @cached_property
    def points(self) -> tuple[Value, ...]:
        """All values in order."""
        if not isinstance(self.values, Range):
            return tuple(_value(written) for written in self.values)
        first, last, steps = _value(self.values.from_), _value(self.values.to), self.values.steps
        inner = (_between(first, last, Decimal(n) / (steps - 1)) for n in range(1, steps - 1))
        return (first, *inner, last)

    def takes(self, name: str) -> bool:
        """Whether an entry is swept."""
        return any(fnmatchcase(name, pattern) for pattern in self.entry)

    def place(self, index: int) -> Loc:
        """Of one of the points, below the sweep."""
        return ("values",) if isinstance(self.values, Range) else ("values", index)

    def _written(self) -> Iterator[tuple[Loc, object]]:
        if isinstance(self.values, Range):
            yield ("from",), self.values.from_
            yield ("to",), self.values.to
        else:
            yield from (((index,), value) for index, value in enumerate(self.values))


def base_name(name: str) -> str:
    """The entry that was written, of one of its points (or of itself)."""
    return name.partition(POINT_MARK)[0]


def specs(sweeps: Sequence[Sweep], names: Mapping[str, Sequence[str]]) -> tuple[SweepSpec, ...]:
    """Sweeps with their points; ``names`` of all entries by axis."""
    found = []
    for sweep in sweeps:
        x_of = {f"{sweep.name}={value.label}": float(value.x) for value in sweep.points}
        entries = (
            SweepEntry(name, base_name(name), x_of[mark])
            for name in names[sweep.axis]
            for mark in name.split(POINT_MARK)[1:]
            if mark in x_of
        )
        found.append(
            SweepSpec(sweep.name, sweep.axis, sweep.key, sweep.points[0].unit, tuple(entries))
        )
    return tuple(found)


# --- expansion ------------------------------------------------------------------------------------


class _Set(NamedTuple):
    """A key that a sweep has set: where, how much of its path was there, and the places of the
    value and of the path in the file."""

    path: tuple[str, ...]
    known: int
    value_place: Loc
    path_place: Loc


@dataclass(frozen=True)
class _Slot:
    """An entry on its way: as data, where it stands in the file, its name (None: not known)."""

    data: object
    index: int
    name: str | None
    sets: tuple[_Set, ...] = ()


@dataclass(frozen=True)
class Expanded:
    """A document whose sweeps are entries."""

    data: object
    mistakes: list[tuple[Loc, str]] = field(default_factory=list)
    slots: dict[str, list[_Slot]] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """Of all points: they may have an ``@``."""
        found = (slot.name for slots in self.slots.values() for slot in slots if slot.sets)
        return frozenset(name for name in found if name is not None)

    def written_index(self, axis: str, index: int) -> int:
        """Where an entry of an expanded list stands in the file."""
        return self.slots[axis][index].index if axis in self.slots else index

    def place(self, loc: Loc, is_unknown_key: bool = False) -> Loc:
        """The location in the file of one in ``data``; a key that a sweep sets and that is not
        known stands in the sweep's path."""
        if len(loc) < 2 or loc[0] not in self.slots or not isinstance(loc[1], int):
            return loc
        slot = self.slots[str(loc[0])][loc[1]]
        for one in slot.sets:
            matched = 0
            for part in loc[2:]:
                if matched < len(one.path) and str(part) == one.path[matched]:
                    matched += 1
            if matched == len(one.path) and not is_unknown_key:
                return one.value_place
            if matched > one.known:
                return one.path_place
        return (loc[0], slot.index, *loc[2:])


def expand(data: object, name_of: Callable[[str, object], str | None]) -> Expanded:
    """The document with one entry per point of each sweep in place of the entry swept.

    ``name_of`` (list, entry as data) gives an entry's name, None where its mistakes hide it. What
    is wrong within a sweep is left to its own validation.
    """
    if not isinstance(data, dict) or not isinstance(data.get("sweeps"), tuple):
        return Expanded(data)
    result = Expanded(dict(data))
    seen: set[str] = set()
    for number, written in enumerate(data["sweeps"]):
        try:
            sweep = Sweep.model_validate(written, strict=True)
        except ValidationError:
            continue
        axis = AXES[sweep.axis]
        if axis not in result.slots:
            entries = data.get(axis, ({},) if axis == "receivers" else None)
            if not isinstance(entries, tuple):
                continue
            result.slots[axis] = [
                _Slot(entry, index, name_of(axis, entry)) for index, entry in enumerate(entries)
            ]
        if sweep.name not in seen:
            seen.add(sweep.name)
            wrong = list(_apply(sweep, number, result.slots[axis]))
            result.mistakes.extend((("sweeps", number, *loc), message) for loc, message in wrong)
    for axis, slots in result.slots.items():
        result.data[axis] = tuple(slot.data for slot in slots)  # type: ignore[index]
    return result


def _apply(sweep: Sweep, number: int, slots: list[_Slot]) -> Iterator[tuple[Loc, str]]:
    """Replace, in ``slots``, the entries of a sweep by its points; yields what is wrong."""
    bases = [base_name(slot.name) for slot in slots if slot.name is not None]
    if len(bases) == len(slots):  # else one that is not found may be one that has mistakes
        for index, pattern in enumerate(sweep.entry):
            if not any(fnmatchcase(base, pattern) for base in bases):
                what, names = f"a {sweep.axis} of this scenario", dict.fromkeys(bases)
                yield ("entry", index), not_among(what, pattern, names)
    chosen = [slot for slot in slots if slot.name and sweep.takes(base_name(slot.name))]
    total = len(slots) + len(chosen) * (len(sweep.points) - 1)
    if total > MAX_POINTS:
        yield (), f"expected at most {MAX_POINTS} entries on an axis, got {total}"
        return
    expanded: list[_Slot] = []
    for slot in slots:
        if slot not in chosen:
            expanded.append(slot)
            continue
        try:
            expanded += _points(sweep, number, slot)
        except ValueError as error:
            yield ("set",), str(error)
            return
    slots[:] = expanded


def _points(sweep: Sweep, number: int, slot: _Slot) -> Iterator[_Slot]:
    data = slot.data
    if isinstance(data, str):
        data = {_WORD_KEYS[sweep.axis]: data}
    known = _known(data, sweep.path)
    for index, value in enumerate(sweep.points):
        name = f"{slot.name}{POINT_MARK}{sweep.name}={value.label}"
        changed = _changed(data, sweep.path, value.written)
        assert isinstance(changed, dict)
        place = ("sweeps", number)
        mark = _Set(sweep.path, known, (*place, *sweep.place(index)), (*place, "set"))
        yield replace(slot, data={**changed, "name": name}, name=name, sets=(*slot.sets, mark))


def _known(data: object, path: Sequence[str]) -> int:
    """How many parts of a path are there."""
    for count, part in enumerate(path):
        if isinstance(data, tuple) and part.isdecimal() and int(part) < len(data):
            data = data[int(part)]
        elif isinstance(data, dict) and part in data:
            data = data[part]
        else:
            return count
    return len(path)


def _changed(data: object, path: Sequence[str], value: object) -> object:
    """A copy with one value set; mappings that are missing are made. Raises ValueError where the
    path leads through something else."""
    if not path:
        return value
    part, rest = path[0], path[1:]
    if isinstance(data, tuple) and part.isdecimal() and int(part) < len(data):
        index = int(part)
        return (*data[:index], _changed(data[index], rest, value), *data[index + 1 :])
    if data is not None and not isinstance(data, dict):
        raise ValueError(f'expected a mapping to set "{part}" in, got {show(data)}')
    return {**(data or {}), part: _changed((data or {}).get(part), rest, value)}

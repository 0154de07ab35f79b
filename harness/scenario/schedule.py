"""A link that changes over time: entries of a schedule, laid onto the link that they change.

Times are in ns from t0, the capture of sample 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from harness.network.link import Bernoulli, Change, Link, Rate
from harness.units import NS_PER_MS, NS_PER_S

HORIZON_NS = 600 * NS_PER_S
"""Nothing is repeated after this."""
MAX_CHANGES = 10_000
RAMPS = ("delay", "jitter", "loss", "rate")
"""Keys of a link that can change along a line."""
_LONGEST_STEP_NS, _SHORTEST_STEP_NS = 100 * NS_PER_MS, 5 * NS_PER_MS
_STEPS = 20


class ScheduleError(ValueError):
    """An entry has nothing to start its line from."""

    def __init__(self, index: int, key: str, message: str) -> None:
        super().__init__(message)
        self.index = index
        self.key = key


@dataclass(frozen=True)
class Entry:
    """From ``at_ns`` on the link has what is ``given`` (fields of ``Link``): for ever, for a time
    (``for_ns``), again ``every_ns``, or reached along a line ``over_ns`` long."""

    at_ns: int
    for_ns: int | None
    over_ns: int | None
    every_ns: int | None
    given: Mapping[str, Any]

    @property
    def instants(self) -> range:
        """When it begins, or takes another step of its ramp."""
        if self.every_ns is not None:
            return range(self.at_ns, max(HORIZON_NS, self.at_ns + 1), self.every_ns)
        if self.over_ns is not None:
            step_ns = max(_SHORTEST_STEP_NS, min(_LONGEST_STEP_NS, self.over_ns // _STEPS))
            steps = -(-self.over_ns // step_ns)
            return range(self.at_ns, self.at_ns + steps * step_ns, step_ns)
        return range(self.at_ns, self.at_ns + 1)

    @property
    def changes(self) -> int:
        """How many changes of the link it makes, at most."""
        return len(self.instants) * (2 if self.for_ns is not None else 1) + 1

    def edges(self) -> Iterator[int]:
        """All instants at which it changes something."""
        yield from self.instants
        if self.for_ns is not None:
            yield from (at_ns + self.for_ns for at_ns in self.instants)
        if self.over_ns is not None:
            yield self.at_ns + self.over_ns

    def holds(self, at_ns: int) -> bool:
        since_ns = at_ns - self.at_ns
        if since_ns < 0 or self.for_ns is None:
            return since_ns >= 0
        if self.every_ns is not None:
            since_ns -= self.every_ns * min(since_ns // self.every_ns, len(self.instants) - 1)
        return since_ns < self.for_ns

    def progress(self, at_ns: int) -> float:
        """How far along its line it is: the middle of the step that begins at ``at_ns``; 1.0 at
        and after its end."""
        if self.over_ns is None or at_ns >= self.at_ns + self.over_ns:
            return 1.0
        steps = self.instants
        begins_ns = steps[(at_ns - self.at_ns) // steps.step]
        ends_ns = min(begins_ns + steps.step, self.at_ns + self.over_ns)
        return (begins_ns + ends_ns - 2 * self.at_ns) / 2 / self.over_ns


class Step(NamedTuple):
    """From ``at_ns`` on the link is ``link``, by what the entries ``active`` give (indices)."""

    at_ns: int
    link: Link
    active: tuple[int, ...]


def steps(link: Link, entries: Sequence[Entry]) -> list[Step]:
    """One step per instant at which an entry changes something, the first at 0.

    Each entry is laid onto what the ones before it in the list leave. Raises ScheduleError where
    a line has no number to start from.
    """
    starts: list[dict[str, Any]] = []
    for index, entry in enumerate(entries):
        starts.append({})
        if entry.over_ns is not None:
            before, _ = _given(entries[:index], starts[:index], entry.at_ns)
            starts[index] = {key: before.get(key, getattr(link, key)) for key in entry.given}
            _check_start(index, starts[index])
    found = []
    for at_ns in sorted({0, *(edge for entry in entries for edge in entry.edges())}):
        given, active = _given(entries, starts, at_ns)
        found.append(Step(at_ns, replace(link, **given) if given else link, active))
    return found


def compiled(found: Iterable[Step]) -> Link:
    """The link with its changes; steps that change nothing are left out."""
    first: Link | None = None
    changes: list[Change] = []
    for at_ns, link, _ in found:
        if first is None:
            first = link
        elif link != (changes[-1].link if changes else first):
            changes.append(Change(at_ns, link))
    assert first is not None
    return replace(first, changes=tuple(changes)) if changes else first


def _given(
    entries: Sequence[Entry], starts: Sequence[Mapping[str, Any]], at_ns: int
) -> tuple[dict[str, Any], tuple[int, ...]]:
    given: dict[str, Any] = {}
    active = []
    for index, (entry, start) in enumerate(zip(entries, starts, strict=True)):
        if entry.holds(at_ns):
            active.append(index)
            share = entry.progress(at_ns)
            for key, end in entry.given.items():
                given[key] = end if share == 1 else _between(start[key], end, share)
    return given, tuple(active)


def _check_start(index: int, start: Mapping[str, Any]) -> None:
    if not isinstance(start.get("loss"), Bernoulli | None):
        raise ScheduleError(index, "loss", 'expected a probability to start from beside "over"')
    if "rate" in start and start["rate"] is None:
        raise ScheduleError(index, "rate", 'expected a rate to start from beside "over"')


def _between(start: Any, end: Any, share: float) -> Any:
    """The value at ``share`` of the way; the queue of a rate is that of its end throughout."""
    if isinstance(end, Rate):
        return replace(
            end,
            rate_bps=_between(start.rate_bps, end.rate_bps, share),
            burst_bytes=_between(start.burst_bytes, end.burst_bytes, share),
        )
    if isinstance(end, int):
        return round(start + (end - start) * share)
    before, after = (loss.p if loss else 0.0 for loss in (start, end))
    return Bernoulli(before + (after - before) * share) if before or after else None

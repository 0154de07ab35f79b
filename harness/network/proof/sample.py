"""One direction of a link's log, and the form of a judgement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.records import Columns, Outcome
from harness.units import NS_PER_MS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Figure = dict[str, Any]
"""The fields of a ``ProofFigure`` but its direction."""


@dataclass(frozen=True)
class Floors:
    """What an engine adds to the times that it was asked for, beside what chance does.

    ``delay_ms`` and ``delay_share`` (of what was asked) bound the middle of a distribution,
    ``tail_ms`` its 95th percentile, which a machine that is busy now and then moves first.
    """

    delay_ms: float
    delay_share: float
    tail_ms: float


ENGINES = {
    "netem": Floors(1.0, 0.02, 3.0),
    "relay": Floors(0.5, 0.0, 2.0),
    "model": Floors(0.001, 0.0, 0.001),
}
"""By engine. The kernel counts a delay in ticks of its own and shares its timers with the machine.
The relay is within 0.2 ms in the median, in the tail within the time that a thread takes to wake.
The model has no machine below it: it is off by what rounding to whole ns does."""


class Sample:
    """One direction's log, by order of entering."""

    def __init__(self, log: Columns, direction: int, floors: Floors = ENGINES["netem"]) -> None:
        self.floors = floors
        chosen = np.flatnonzero(log["direction"] == direction)
        chosen = chosen[np.argsort(log["in_ns"][chosen], kind="stable")]
        self.in_ns: Ints = log["in_ns"][chosen].astype(np.int64)
        self.out_ns: Ints = log["out_ns"][chosen].astype(np.int64)
        self.sizes: Ints = log["size_bytes"][chosen].astype(np.int64)
        self.outcomes = log["outcome"][chosen]
        self._count()
        self.entered_ns: Ints = self.in_ns
        """When it would reach the rate queue without jitter."""
        self.waits_ns: Ints = np.zeros_like(self.in_ns)
        """In the rate queue, if the rate were exact and there were no jitter."""

    def _count(self) -> None:
        self.copies: Bools = self.outcomes == Outcome.DUPLICATE
        self.out: Bools = self.out_ns >= 0
        self.packets = int((~self.copies).sum())
        self.queue_drops = self.count(Outcome.QUEUE)

    def where(self, chosen: Bools) -> Sample:
        """Some of its rows."""
        part = object.__new__(Sample)
        part.floors = self.floors
        for name in ("in_ns", "out_ns", "sizes", "outcomes", "entered_ns", "waits_ns"):
            setattr(part, name, getattr(self, name)[chosen])
        part._count()
        return part

    def count(self, outcome: Outcome) -> int:
        return int((self.outcomes == outcome).sum())

    def unqueued(self) -> Bools:
        """Packets and copies that, by the rate asked, found their queue empty.

        Copies belong to the sample: which of two equal frames is the copy, nobody can see.
        """
        return np.asarray(self.out & (self.waits_ns == 0))

    def unqueued_delays_ms(self) -> Floats:
        chosen = self.unqueued()
        return np.asarray((self.out_ns[chosen] - self.in_ns[chosen]) / NS_PER_MS)


def judged(
    figure: str, asked: float, measured: float, tolerance: float, unit: str, note: str = ""
) -> Figure:
    return {
        "figure": figure,
        "asked": asked,
        "measured": measured,
        "tolerance": tolerance,
        "unit": unit,
        "ok": abs(measured - asked) <= tolerance,
        "note": note,
    }


def idle(figure: str, asked: float | None, unit: str, why: str) -> Figure:
    """A figure that the traffic did not exercise."""
    return {
        "figure": figure,
        "asked": asked,
        "measured": None,
        "tolerance": None,
        "unit": unit,
        "ok": None,
        "note": f"not exercised: {why}",
    }

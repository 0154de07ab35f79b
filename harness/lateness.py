"""How well a real-time thread keeps its schedule, and how late it may be.

Sender, receiver and relay each do many small things at instants known beforehand. A thread that a
busy machine holds up does them late, and the cell then shows the machine instead of the codec, the
transport or the network. The limits are absolute, for what they protect is: a listener's buffer
(60 ms by default) and device (10 ms) do not grow with the frames of a codec.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from harness.units import NS_PER_MS

P99_LIMIT_NS = 10 * NS_PER_MS
"""A device's default latency, a sixth of what the default buffer absorbs."""
WORST_LIMIT_NS = 20 * NS_PER_MS
"""One frame of most codecs: what a single hiccup may cost without moving an adaptive buffer."""
_EXEMPT_SHARE = 0.01
_TYPICAL = 0.9


@dataclass(frozen=True)
class Lateness:
    """Of ``count`` actions. ``p99_ns`` is what all but 1 % of them, or all but one, stay within."""

    count: int
    p99_ns: int
    worst_ns: int

    @classmethod
    def of(cls, late_ns: Sequence[int]) -> Lateness:
        """By how much each action was late; early counts as on time."""
        if not len(late_ns):
            return cls(0, 0, 0)
        falling = np.sort(np.maximum(np.asarray(late_ns, np.int64), 0))[::-1]
        exempt = min(-(-len(falling) // round(1 / _EXEMPT_SHARE)), len(falling) - 1)
        return cls(len(falling), int(falling[exempt]), int(falling[0]))

    def figures(self) -> dict[str, int]:
        """As it travels over a control channel."""
        return asdict(self)

    def problems(self, who: str) -> list[str]:
        """Why the cell cannot be believed: who was late, by how much, and the limit."""
        judged = (("p99", self.p99_ns, P99_LIMIT_NS), ("worst", self.worst_ns, WORST_LIMIT_NS))
        beyond = [
            f"{name} {late_ns / NS_PER_MS:.1f} ms (limit {limit_ns / NS_PER_MS:g} ms)"
            for name, late_ns, limit_ns in judged
            if late_ns > limit_ns
        ]
        if not beyond:
            return []
        said = " and ".join(beyond)
        return [f"{who} fell behind: late by {said} in {self.count} actions; use fewer --jobs"]


class Schedule:
    """What one thread had to do and when, and when it did it.

    The streams of a cell share their endpoint's thread: while it works for one of them the others
    wait, and up to a frame of that (``frame_ns``) is no fault of the machine. A call of a codec is
    late by what it takes longer than twice its usual time (the 90th percentile): it was preempted.
    What a codec takes always, or in every tenth frame, is its own cost.
    """

    def __init__(self, frame_ns: int) -> None:
        self._frame_ns = frame_ns
        self._starts_ns: list[int] = []
        self._costs_ns: list[int] = []
        self._latest: object = None
        self._free_ns = 0

    def note(self, stream: object, due_ns: int, start_ns: int, end_ns: int) -> None:
        """Work for ``stream`` that was due at ``due_ns``."""
        if stream is not self._latest:
            due_ns = max(due_ns, min(self._free_ns, due_ns + self._frame_ns))
        self._starts_ns.append(start_ns - due_ns)
        self._costs_ns.append(end_ns - start_ns)
        self._latest, self._free_ns = stream, end_ns

    def lateness(self) -> Lateness:
        """Of all that was noted: late starts, and what preempted calls took beyond their time."""
        if not self._starts_ns:
            return Lateness.of([])
        starts_ns, costs_ns = np.maximum(self._starts_ns, 0), np.array(self._costs_ns)
        usual_ns = np.quantile(costs_ns, _TYPICAL, method="inverted_cdf")
        return Lateness.of(starts_ns + np.maximum(costs_ns - 2 * usual_ns, 0))

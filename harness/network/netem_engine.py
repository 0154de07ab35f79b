"""Engine ``netem`` as the link agent runs it: qdiscs on both bridge ports, taps beside them."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, NamedTuple

import numpy as np

from harness.errors import CellFailed
from harness.linux import clock_offset
from harness.network import netem
from harness.network.changer import Changer, Made
from harness.network.link import Bernoulli, Link, LinkPair
from harness.network.link_json import link_summary
from harness.network.proof import GUARD_NS
from harness.network.tap import Row, Tap, attribute_queue, log_columns, match
from harness.records import Columns, Outcome
from harness.units import monotonic_ns


class _Direction(NamedTuple):
    name: str
    port: str
    link: Link
    seed: int


class NetemEngine:
    """A running netem link. qdiscs work on egress, so forward sits on the receiver's port."""

    def __init__(self, ports: tuple[str, str], pair: LinkPair, seed: int) -> None:
        sender_port, receiver_port = ports
        self._pair = pair
        self._directions = (
            _Direction("forward", receiver_port, pair.forward, netem.direction_seed(seed, 0)),
            _Direction("reverse", sender_port, pair.reverse, netem.direction_seed(seed, 1)),
        )
        self._begin = [  # both are possible before either is set
            (way.port, netem.plan(way.link, way.seed), netem.facts_asked(way.link, way.seed))
            for way in self._directions
        ]
        self._steps = [
            (way.port, netem.steps(way.port, way.link, way.seed)) for way in self._directions
        ]
        self._changer: Changer | None = None
        self._made: list[list[Made]] = [[], []]
        self._t0_ns = self._stopped_ns = 0
        self._tap = Tap(sender_port, receiver_port)
        try:
            self._set()
        except BaseException:
            self.close()
            raise

    def readback(self) -> dict[str, Any]:
        """The kernel's report per direction, ``seed`` null in it where the kernel has none; of
        changes what is to be done (the report is of the beginning)."""
        asked = link_summary(self._pair)
        planned = {way.name: asked[way.name]["changes"] for way in self._directions}
        changes = {"changes": planned} if any(planned.values()) else {}
        return {"engine": "netem", **self._facts, **changes}

    def restart(self, t0_ns: int) -> None:
        """Fresh qdiscs: the generator begins at its seed, the counters at zero. Changes are made at
        their instants from ``t0_ns`` (CLOCK_MONOTONIC) on."""
        self._stop_changes()
        self._set()
        self._tap.restart()
        self._t0_ns = t0_ns
        if any(steps for _, steps in self._steps):
            self._changer = Changer(self._steps, t0_ns)

    def in_flight(self) -> int:
        counted = [netem.counters(way.port) for way in self._directions]
        return sum(kinds["netem"]["qlen"] for kinds in counted if "netem" in kinds)

    def collect(self) -> tuple[dict[str, Any], Columns]:
        """Counters, and the LINK_LOG since the last restart. No further changes are made.

        ``log_drops`` counts frames that the taps missed, ``unexplained`` those that left without
        being seen to enter; qdisc counters stand per direction. ``changes`` tells, per direction
        that has any: how many were ``planned`` by now, ``applied`` and ``skipped``; how late; the
        late ones one by one as [instant from t0, lateness]; and for how long of ``span_ns`` (since
        the first) the link was ``behind_ns`` what was asked. ``t0_ns`` is on the log's clock,
        CLOCK_REALTIME.

        Raises CellFailed if a change failed, or the kernel is not as the last one should have left
        it.
        """
        self._stop_changes()
        entered, left, missed = self._tap.collect()
        t0_ns = self._t0_ns + clock_offset().ns
        counters: dict[str, Any] = {"log_drops": missed, "unexplained": 0, "t0_ns": t0_ns}
        changes, logs = {}, []
        for number, way in enumerate(self._directions):
            kinds = netem.counters(way.port)
            counters[way.name] = kinds
            rows, unexplained = match(entered[number], left[number])
            counters["unexplained"] += unexplained
            dropped = kinds["tbf"]["drops"] if "tbf" in kinds else 0
            logs.append(_named_drops(rows, way.link, t0_ns, dropped))
            if way.link.changes:
                self._check(way, self._steps[number][1], len(self._made[number]))
                changes[way.name] = _summary(self._made[number], self._stopped_ns - self._t0_ns)
        if changes:
            counters["changes"] = changes
        return counters, log_columns(*logs)

    def close(self) -> None:
        try:
            self._stop_changes()
        finally:
            self._tap.close()
            for way in self._directions:
                netem.clear(way.port)

    def _stop_changes(self) -> None:
        if self._changer is not None:
            changer, self._changer = self._changer, None
            self._stopped_ns = monotonic_ns()
            self._made = changer.close()

    def _set(self) -> None:
        self._made = [[], []]
        reports = netem.apply_all(self._begin)
        self._facts = {
            way.name: report for way, report in zip(self._directions, reports, strict=True)
        }

    def _check(self, way: _Direction, steps: list[netem.Step], done: int) -> None:
        """After so many changes the qdiscs are what the last of them asks."""
        part = netem.timeline(way.link)[done][1]
        renewed = max((n for n, step in enumerate(steps[:done], 1) if step.netem), default=0)
        seed = netem.step_seed(way.seed, renewed)
        if differences := netem.differences(way.port, part, seed):
            raise CellFailed(f"{way.port} after {done} changes: " + "; ".join(differences))


def _named_drops(rows: list[Row], link: Link, t0_ns: int, dropped: int) -> list[Row]:
    """Rows with those that a queue dropped named as such; ``dropped`` is what tbf counted."""
    parts = link.segments()
    if all(part.loss is None for _, part in parts):
        dropped = sum(row.outcome is Outcome.LOST for row in rows)
    starts_ns = [t0_ns + at_ns for at_ns, _ in parts[1:]]
    met = [parts[bisect_right(starts_ns, row.in_ns)][1] for row in rows]
    certain = {
        n for n, part in enumerate(met) if isinstance(part.loss, Bernoulli) and part.loss.p >= 1
    }
    return attribute_queue(rows, dropped, [part.delay_ns for part in met], certain)


def _summary(made: list[Made], stopped_ns: int) -> dict[str, Any]:
    """The changes of one direction, as they were made; see :meth:`NetemEngine.collect`."""
    lateness = np.array([change.lateness_ns for change in made], np.int64)
    skipped = sum(change.skipped for change in made)
    behind_ns = until_ns = 0
    for change in made:
        done_ns = change.at_ns + change.lateness_ns
        behind_ns += max(0, done_ns - max(change.at_ns, until_ns))
        until_ns = max(until_ns, done_ns)
    return {
        "planned": len(made),
        "applied": len(made) - skipped,
        "skipped": skipped,
        "spacing_ns": int(np.median(np.diff([c.at_ns for c in made]))) if made[1:] else 0,
        "worst_lateness_ns": int(lateness.max(initial=0)),
        "median_lateness_ns": int(np.median(lateness)) if made else 0,
        "late": [[c.at_ns, c.lateness_ns] for c in made if c.lateness_ns > GUARD_NS],
        "behind_ns": behind_ns,
        "span_ns": max(stopped_ns, until_ns) - made[0].at_ns if made else 0,
    }

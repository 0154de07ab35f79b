"""A link that changes over time: each packet is held against what was asked when it entered.

* Loss windows, in which everything is lost: to the packet. All other losses: their number, by the
  loss models that the packets met.
* Delay: what is left after subtracting the delay asked at the packet's entering has the asked
  deviations' median and quartiles; packets that met another delay than the most frequent are judged
  once more by themselves, so that a short change cannot hide among them.
* Rate: the queue is replayed with the asked timeline, and the instants at which packets leave, and
  the throughput while they wait, are compared.

Packets within ``GUARD_NS`` of a change may meet either side of it. An engine that changes the link
in real time reports how late it was; packets that entered between a late change's instant and its
doing are left out, and the share of the time for which it was late is itself a figure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from operator import attrgetter
from typing import Any, cast

import numpy as np

from harness.network.link import Bernoulli, Deliveries, Link, Loss, LossTrace, Rate
from harness.network.model import DeliveryQueue, Queue, TokenBucket
from harness.network.proof import chance, static
from harness.network.proof.sample import Bools, Figure, Floats, Floors, Ints, Sample, idle, judged
from harness.network.proof.static import (
    MIN_PACKETS,
    RATE_TOLERANCE,
    TAIL,
)
from harness.records import Outcome
from harness.units import NS_PER_MS, NS_PER_S

GUARD_NS = 2 * NS_PER_MS
MIN_CHANGED = 10
STRETCH = 50
"""Packets in a row, more than a stalling host delays."""
BUSY_NS = 150 * NS_PER_MS
MIN_BUSY = 3
LARGEST_BEHIND = 0.1
"""Share of the time that an engine may be late with its changes."""
_BOUNDLESS = 1 << 62
_FINEST_MIXTURE = 32
_REACH = 4
"""No table of deviations reaches further than so many jitters."""
_effects_of = attrgetter(
    *("loss", "jitter_ns", "distribution", "duplicate", "corrupt", "reorder", "limit_packets")
)


def figures(link: Link, sample: Sample, t0_ns: int, made: Mapping[str, Any] | None) -> list[Figure]:
    """All that can be said; ``sample`` is not empty. ``made``: see :func:`harness.network.proof.
    prove`, of this direction."""
    times = _Timeline(link, sample, t0_ns, (made or {}).get("late", ()))
    sample.entered_ns = sample.in_ns + times.delay_ns
    queue = _queue(link, t0_ns)
    if queue is not None:
        sample.waits_ns = _predicted_waits(queue, sample)
    return [
        *_delay(sample, times),
        *_loss(sample, times),
        *_constant(sample, times, queue is not None),
        *(_rate(link, sample, times, made) if queue is not None else ()),
        *(_on_time(made) if made else ()),
    ]


class _Timeline:
    """What held when each packet (row of the sample) entered.

    ``kinds`` are the links that were met but for their delay and rate; ``kind`` says which, per
    row, and ``kind_near`` which a little earlier and later. ``least_ns`` and ``most_ns`` bound the
    delay asked around its entering; ``shape_ns`` is a delay around which the deviations are the
    same as around the one asked. Rows that are not ``sure`` met a change made late.
    """

    def __init__(self, link: Link, sample: Sample, t0_ns: int, late: Any) -> None:
        starts = np.array([change.at_ns for change in link.changes], np.int64)
        media_ns = sample.in_ns - t0_ns
        near = np.array(
            [
                np.searchsorted(starts, media_ns + shift_ns, side="right")
                for shift_ns in (-GUARD_NS, 0, GUARD_NS)
            ]
        )
        delays, kinds = np.zeros((2, len(starts) + 1), np.int64)
        numbers: dict[tuple[object, ...], int] = {}
        self.kinds: list[Link] = []
        latest: tuple[object, ...] | None = None
        number = 0
        for n in np.unique(near).tolist():
            part = link.changes[n - 1].link if n else link
            effects = _effects_of(part)
            if effects != latest:  # mostly they are the same objects: no hash is taken
                latest, number = effects, numbers.setdefault(effects, len(numbers))
                if number == len(self.kinds):
                    self.kinds.append(replace(part, delay_ns=0, rate=None, changes=()))
            delays[n], kinds[n] = part.delay_ns, number
        rated = (link, *(change.link for change in link.changes))
        self.has_rate = any(part.rate is not None for part in rated)
        self.spreads = any(kind.jitter_ns or kind.reorder for kind in self.kinds)
        self.kind, self.delay_ns = kinds[near[1]], delays[near[1]]
        self.kind_near = kinds[near[[0, 2]]]
        near_ns = delays[near]
        # Deviations hang on the delay only where it is too short for them.
        reaches_ns = [
            _REACH * kind.jitter_ns if kind.reorder is None else _BOUNDLESS for kind in self.kinds
        ]
        self.shape_ns = np.minimum(self.delay_ns, np.array(reaches_ns)[self.kind])
        self.least_ns, self.most_ns = near_ns.min(axis=0), near_ns.max(axis=0)
        self.sure = np.ones(len(media_ns), bool)
        for at_ns, lateness_ns in late:
            self.sure &= (media_ns < at_ns - GUARD_NS) | (media_ns > at_ns + lateness_ns + GUARD_NS)

    def of_kinds(self, per_kind: list[Any]) -> tuple[Any, Any]:
        """A property of kinds, per row: (at its entering, shape (rows,); near it, (2, rows))."""
        values = np.array(per_kind)
        return values[self.kind], values[self.kind_near]


# --- loss -----------------------------------------------------------------------------------------


def _loss(sample: Sample, times: _Timeline) -> Iterator[Figure]:
    originals = ~sample.copies & times.sure
    total = [_is_total(kind.loss) for kind in times.kinds]
    lost = sample.outcomes == Outcome.LOST
    within, within_near = times.of_kinds(total)
    if any(total):
        yield _windows(
            lost, originals & within & within_near.all(axis=0), times.kinds[total.index(True)]
        )
    met: dict[tuple[Loss | None, float], int] = {}
    numbers = [met.setdefault((kind.loss, kind.duplicate), len(met)) for kind in times.kinds]
    group, group_near = times.of_kinds(numbers)
    clear = originals & ~within
    if len(met) > 1 and not any(isinstance(loss, LossTrace) for loss, _ in met):
        clear &= (group_near == group).all(axis=0)
    if not clear.any():
        return
    counts = np.bincount(group[clear], minlength=len(met)).tolist()
    groups = [(*which, n) for which, n in zip(met, counts, strict=True) if n]
    if any(isinstance(loss, LossTrace) and duplicate for loss, duplicate, _ in groups):
        yield idle("loss", None, "share", "copies take entries of the trace, too")
    else:
        n = int(clear.sum())
        figure = static.counted_losses(int(lost[clear].sum()), n, chance.losses(groups))
        yield figure | {"note": figure["note"] + " (outside the windows)" * any(total)}
    if len(met) == 1:
        burst = static.burst(times.kinds[0], sample)
        if burst is not None:
            yield burst
    elif any(loss is not None for loss, _, _ in groups):
        yield idle("burst", None, "packets", "loss changes over time")


def _is_total(loss: Loss | None) -> bool:
    return isinstance(loss, Bernoulli) and loss.p >= 1


def _windows(lost: Bools, within: Bools, kind: Link) -> Figure:
    """Every packet that entered while all is lost, unless duplication makes up for it."""
    n = int(within.sum())
    if not n:
        return idle("loss windows", 0, "packets", "no packet entered in one")
    low, high, mean = chance.binomial(n, 1 - kind.duplicate)
    measured = int(lost[within].sum())
    return {
        **judged("loss windows", mean, measured, max(high - mean, mean - low), "packets"),
        "ok": low <= measured <= high,
        "note": f"{measured} of the {n} that entered in a window were lost",
    }


# --- delay ----------------------------------------------------------------------------------------


class _Mixture:
    """The asked distribution, in ms, of delays less the delays asked."""

    def __init__(self, times: _Timeline, rows: Bools) -> None:
        if not times.spreads:
            self._set(np.zeros(1), np.ones(1))
            return
        pairs = np.stack([times.kind[rows], times.shape_ns[rows]])
        groups, counts = np.unique(pairs, axis=1, return_counts=True)
        if groups.shape[1] > _FINEST_MIXTURE:
            kinds, counts = np.unique(pairs[0], return_counts=True)
            medians = [np.median(pairs[1][pairs[0] == kind]) for kind in kinds]
            groups = np.array([kinds, medians], np.int64)
        values, weights = [], []
        for number, delay_ns, count in zip(*groups.tolist(), counts.tolist(), strict=True):
            kind = times.kinds[number]
            if not kind.jitter_ns and kind.reorder is None:
                values.append(np.zeros(1))
                weights.append(np.array([float(count)]))
                continue
            asked = chance.delays(delay_ns, kind.jitter_ns, kind.distribution, kind.reorder)
            values.append(asked.points - delay_ns / NS_PER_MS)
            weights.append(np.full(len(asked.points), count / len(asked.points)))
        self._set(np.concatenate(values), np.concatenate(weights))

    def _set(self, values: Floats, weights: Floats) -> None:
        order = np.argsort(values, kind="stable")
        self._values, self._weights = values[order], weights[order]
        self._below = np.cumsum(self._weights) / self._weights.sum()

    def sizes(self) -> _Mixture:
        """Without their signs."""
        other = object.__new__(_Mixture)
        other._set(np.abs(self._values), self._weights)
        return other

    def quantile(self, q: float) -> float:
        at = int(np.searchsorted(self._below, q - 1e-9))
        return float(self._values[min(at, len(self._values) - 1)])

    def interval(self, q: float, n: int) -> tuple[float, float]:
        half = chance.SIGMAS * np.sqrt(q * (1 - q) / n)
        return self.quantile(max(0.0, q - half)), self.quantile(min(1.0, q + half))

    def tolerance(self, q: float, n: int) -> float:
        low, high = self.interval(q, n)
        middle = self.quantile(q)
        return max(middle - low, high - middle)


def _delay(sample: Sample, times: _Timeline) -> Iterator[Figure]:
    rows = sample.unqueued() & times.sure
    n = int(rows.sum())
    asked_ms = float(np.median(times.delay_ns[rows])) / NS_PER_MS if n else None
    if n < MIN_PACKETS or asked_ms is None:
        yield idle("delay", asked_ms, "ms", f"{n} packets found the queue empty")
        return
    taken_ns = (sample.out_ns - sample.in_ns)[rows]
    nearest_ns = np.clip(taken_ns, times.least_ns[rows], times.most_ns[rows])
    off_ms = (taken_ns - nearest_ns) / NS_PER_MS
    if times.spreads:
        off_ms = (taken_ns - times.delay_ns[rows]) / NS_PER_MS
    asked = _Mixture(times, rows)
    middle = asked.quantile(0.5)
    floors = sample.floors
    floor = floors.delay_ms + floors.delay_share * asked_ms
    yield judged(
        "delay",
        asked_ms + middle,
        asked_ms + float(np.median(off_ms)),
        asked.tolerance(0.5, n) + floor,
        "ms",
        note="median deviation from the delay asked at entering, beside its median",
    )
    yield from _changed_delay(times, rows, off_ms, floors)
    half = (asked.quantile(0.75) - asked.quantile(0.25)) / 2
    quartiles = np.quantile(off_ms, [0.25, 0.75])
    by_chance = (asked.tolerance(0.25, n) + asked.tolerance(0.75, n)) / 2
    yield judged(
        "jitter",
        half,
        float(quartiles[1] - quartiles[0]) / 2,
        by_chance + floors.delay_ms + floors.delay_share * half,
        "ms",
        note="half the interquartile range around the delay asked at entering",
    )
    high = asked.quantile(TAIL)
    if times.has_rate and any(kind.jitter_ns for kind in times.kinds):
        why = "packets that jitter brings together wait for the rate"
        yield idle("delay p95", high, "ms", why)
        return
    yield judged(
        "delay p95",
        high,
        float(np.quantile(off_ms, TAIL)),
        asked.tolerance(TAIL, n) + floors.tail_ms + floors.delay_share * asked_ms,
        "ms",
        note="beyond the delay asked at entering",
    )


def _changed_delay(
    times: _Timeline, rows: Bools, off_ms: Floats, floors: Floors
) -> Iterator[Figure]:
    delays_ns = times.delay_ns[rows]
    levels, counts = np.unique(delays_ns, return_counts=True)
    if len(levels) == 1:
        return
    changed = np.flatnonzero(delays_ns != levels[counts.argmax()])
    if len(changed) < MIN_CHANGED:
        why = f"{len(changed)} packets met another delay than the others"
        yield idle("delay changes", 0.0, "ms", why)
        return
    numbers = np.flatnonzero(rows)
    worst: Figure | None = None
    for stretch in np.array_split(changed, max(1, len(changed) // STRETCH)):
        chosen = np.zeros_like(rows)
        chosen[numbers[stretch]] = True
        asked = _Mixture(times, chosen).sizes()
        middle_ms = float(np.median(delays_ns[stretch])) / NS_PER_MS
        figure = judged(
            "delay changes",
            asked.quantile(0.5),
            float(np.median(np.abs(off_ms[stretch]))),
            asked.tolerance(0.5, len(stretch)) + floors.delay_ms + floors.delay_share * middle_ms,
            "ms",
            note=f"median error, worst {len(stretch)} of {len(changed)} packets in a row that met"
            " another delay than the most frequent",
        )
        if worst is None or _excess(figure) > _excess(worst):
            worst = figure
    assert worst is not None
    yield worst


def _excess(figure: Figure) -> float:
    return float(abs(figure["measured"] - figure["asked"]) / figure["tolerance"])


# --- what may stay the same -----------------------------------------------------------------------


def _constant(sample: Sample, times: _Timeline, has_rate: bool) -> Iterator[Figure]:
    """Duplicates, corruption, reordering and queue drops, where they do not change."""
    total, _ = times.of_kinds([_is_total(kind.loss) for kind in times.kinds])
    outside = sample.where(times.sure & ~total)
    kinds = [times.kinds[n] for n in np.unique(times.kind[times.sure & ~total]).tolist()]
    if not outside.packets:
        return
    first = kinds[0]

    def same(*names: str) -> bool:
        return all(getattr(kind, n) == getattr(first, n) for kind in kinds for n in names)

    found: list[Figure | None] = []
    if same("loss", "duplicate"):
        found.append(static.duplicates(first, outside))
    elif outside.copies.any() or any(kind.duplicate for kind in kinds):
        found.append(idle("duplicates", None, "share", "loss or duplication changes over time"))
    if same("corrupt", "duplicate") or not any(kind.corrupt for kind in kinds):
        found.append(static.corruption(first, outside))
    else:
        found.append(idle("corruption", None, "share", "it changes over time"))
    delay_ns = int(times.delay_ns[0])
    if same("reorder", "jitter_ns") and (times.delay_ns == delay_ns).all():
        found.append(static.reordering(replace(first, delay_ns=delay_ns), outside))
    else:
        found.append(idle("reordering", None, "share", "delay or reordering changes over time"))
    if not has_rate:
        found.append(static.queue(first, outside))
    yield from (figure for figure in found if figure is not None)


# --- rate -----------------------------------------------------------------------------------------


def _queue(link: Link, t0_ns: int) -> Queue | None:
    """The bottleneck with a queue that drops nothing: what was dropped is known from the log."""
    if isinstance(link.rate, Deliveries):
        return DeliveryQueue(replace(link.rate, limit_bytes=_BOUNDLESS), t0_ns)
    rates = [change.link.rate for change in link.changes]
    changes: list[tuple[int, Rate | None]] = []
    latest: Rate | Deliveries | None = link.rate
    for n, rate in enumerate(rates):
        if rate is not latest and rate != latest:
            changes.append((t0_ns + link.changes[n].at_ns, _boundless(rate)))
        latest = rate
    if link.rate is None and not changes:
        return None
    return TokenBucket(_boundless(link.rate), changes)


def _boundless(rate: Rate | Deliveries | None) -> Rate | None:
    if rate is None:
        return None
    return replace(cast(Rate, rate), limit_bytes=_BOUNDLESS, latency_ns=None)


def _predicted_waits(queue: Queue, sample: Sample) -> Ints:
    """-1 where the queue would never let it go."""
    waits = np.zeros(len(sample.in_ns), np.int64)
    rows = np.flatnonzero(sample.out)
    rows = rows[np.argsort(sample.entered_ns[rows], kind="stable")]
    arrivals = zip(sample.sizes[rows].tolist(), sample.entered_ns[rows].tolist(), strict=True)
    waits[rows] = [
        -1 if (leaves_ns := queue.enter(size, entered_ns)) is None else leaves_ns - entered_ns
        for size, entered_ns in arrivals
    ]
    return waits


def _rate(
    link: Link, sample: Sample, times: _Timeline, made: Mapping[str, Any] | None
) -> Iterator[Figure]:
    jitter_ns = max(kind.jitter_ns for kind in times.kinds)
    waited_ns = sample.out_ns - sample.entered_ns
    floors = sample.floors
    floor_ns = floors.delay_ms * NS_PER_MS + 4 * jitter_ns
    queued = sample.out & (sample.waits_ns >= 0) & ((sample.waits_ns > 0) | (waited_ns > floor_ns))
    n = int(queued.sum())
    if n < MIN_PACKETS:
        yield idle("departures", 0.0, "ms", "the traffic never filled the link")
        return
    refill_ns = _refill_ns(link) if made else 0.0
    wait_ms = float(np.median(sample.waits_ns[queued])) / NS_PER_MS
    error_ms = np.abs(waited_ns - sample.waits_ns)[queued] / NS_PER_MS
    yield judged(
        "departures",
        0.0,
        float(np.median(error_ms)),
        floors.delay_ms + floors.delay_share * wait_ms + (2 * jitter_ns + refill_ns) / NS_PER_MS,
        "ms",
        note=f"median error of when {n} queued packets left; their median wait {wait_ms:.1f} ms",
    )
    yield from _throughput(sample)


def _throughput(sample: Sample) -> Iterator[Figure]:
    """bit/s while packets waited, in stretches of so much time by the rate asked: how much longer
    than that they took, in the median."""
    rows = np.flatnonzero(sample.out & (sample.waits_ns >= 0))
    leaves_ns = (sample.entered_ns + sample.waits_ns)[rows]
    rows = rows[np.argsort(leaves_ns, kind="stable")]
    waiting = sample.waits_ns[rows[1:]] > 0
    asked_ns = np.diff(np.sort(leaves_ns))[waiting]
    took_ns = np.diff(sample.out_ns[rows])[waiting]
    stretches = np.cumsum(asked_ns) // BUSY_NS
    asked_each, took_each = (np.bincount(stretches, ns) for ns in (asked_ns, took_ns))
    whole = (asked_each >= BUSY_NS / 2) & (took_each > 0)
    if whole.sum() < MIN_BUSY:
        busy_ms = asked_ns.sum() / NS_PER_MS
        yield idle("rate", None, "bit/s", f"packets waited for {busy_ms:.0f} ms only")
        return
    bits = 8 * int(sample.sizes[rows[1:]][waiting].sum())
    asked = bits * NS_PER_S / float(asked_ns.sum())
    factor = float(np.median(asked_each[whole] / took_each[whole]))
    yield judged(
        "rate",
        asked,
        asked * factor,
        asked * RATE_TOLERANCE,
        "bit/s",
        note=f"throughput, median of {int(whole.sum())} stretches with a queue",
    )


def _refill_ns(link: Link) -> float:
    """tbf begins each rate with a full bucket: so much sooner may a queue be through."""
    rates = [part.rate for _, part in link.segments()]
    times = [
        rate.burst_bytes * 8 * NS_PER_S / rate.rate_bps
        for rate in rates
        if isinstance(rate, Rate) and rate.rate_bps
    ]
    return float(np.median(times)) if times else 0.0


# --- punctuality ----------------------------------------------------------------------------------


def _on_time(made: Mapping[str, Any]) -> Iterator[Figure]:
    """How much of the time the link was what was asked, and not still what it had been before."""
    planned, span_ns = made["planned"], made["span_ns"]
    if not planned:
        return
    spacing_ms = made["spacing_ns"] / NS_PER_MS
    yield judged(
        "changes in time",
        1.0,
        1 - made["behind_ns"] / span_ns,
        LARGEST_BEHIND,
        "share",
        note=f"asked {planned} changes, one every {spacing_ms:.2f} ms; made up to"
        f" {made['worst_lateness_ns'] / NS_PER_MS:.2f} ms late, in the median"
        f" {made['median_lateness_ns'] / NS_PER_MS:.2f} ms; {made['skipped']} skipped",
    )

"""A link that stays what it is: asked against measured, figure by figure.

A figure is None where it has no meaning for the link. Rate: bytes over time in windows during which
the queue was never empty; the median over windows.
"""

from __future__ import annotations

import math

import numpy as np

from harness.network.link import Bernoulli, GilbertElliott, Link, LossTrace, Rate
from harness.network.model import TokenBucket
from harness.network.proof import chance
from harness.network.proof.sample import Figure, Ints, Sample, idle, judged
from harness.records import Outcome
from harness.units import NS_PER_MS, NS_PER_S

TAIL = 0.95
RATE_TOLERANCE = 0.05
REORDER_SLACK = 0.01
REORDER_FLOOR_NS = NS_PER_MS // 10
"""Packets of a burst that entered closer together than this may have been stamped by two cores,
each with a queue of its own in the kernel: in which order they entered is not known."""
MIN_PACKETS = 20
_SKIP_MS = 1.0
"""From half of a delay on, whoever skipped it can be told from those who were a little late."""
MIN_BURSTS = 3
MIN_WINDOWS = 3
WINDOW_NS = 50 * NS_PER_MS
_PACKETS_PER_WINDOW = 4


def figures(link: Link, sample: Sample) -> list[Figure]:
    """All that can be said of a link without changes; ``sample`` is not empty."""
    if isinstance(link.rate, Rate):
        sample.entered_ns = sample.in_ns + link.delay_ns
        sample.waits_ns = _predicted_waits(link.rate, sample)
    judges = (delay, jitter, tail, loss, burst, duplicates, corruption, reordering, queue, rate)
    return [figure for judge in judges if (figure := judge(link, sample)) is not None]


def _predicted_waits(rate: Rate, sample: Sample) -> Ints:
    bucket = TokenBucket(rate)
    full_ns = rate.queue_limit_bytes() * 8 * NS_PER_S // rate.rate_bps
    waits = np.zeros(len(sample.in_ns), np.int64)
    out = np.flatnonzero(sample.out)
    arrivals = zip(sample.sizes[out].tolist(), sample.entered_ns[out].tolist(), strict=True)
    waits[out] = [
        full_ns if (leaves_ns := bucket.enter(size, entered_ns)) is None else leaves_ns - entered_ns
        for size, entered_ns in arrivals
    ]
    return waits


# --- delay and jitter ---------------------------------------------------------------------------


def _asked(link: Link) -> chance.Delays:
    return chance.delays(link.delay_ns, link.jitter_ns, link.distribution, link.reorder)


def delay(link: Link, sample: Sample) -> Figure | None:
    delays = sample.unqueued_delays_ms()
    asked = _asked(link)
    middle = asked.quantile(0.5)
    if len(delays) < MIN_PACKETS:
        return idle("delay", middle, "ms", f"{len(delays)} packets found the queue empty")
    low, high = asked.interval(0.5, len(delays))
    floor = sample.floors.delay_ms + sample.floors.delay_share * middle
    return judged(
        "delay",
        middle,
        float(np.median(delays)),
        max(middle - low, high - middle) + floor,
        "ms",
        note="median, packets that met no queue",
    )


def jitter(link: Link, sample: Sample) -> Figure | None:
    delays = sample.unqueued_delays_ms()
    asked = _asked(link)
    spread = (asked.quantile(0.75) - asked.quantile(0.25)) / 2
    if len(delays) < MIN_PACKETS:
        return idle("jitter", spread, "ms", f"{len(delays)} packets found the queue empty")
    by_chance = 0.0
    for q in (0.25, 0.75):
        low, high = asked.interval(q, len(delays))
        by_chance += max(asked.quantile(q) - low, high - asked.quantile(q)) / 2
    measured = float(np.subtract(*np.quantile(delays, [0.75, 0.25]))) / 2
    floor = sample.floors.delay_ms + sample.floors.delay_share * spread
    return judged(
        "jitter",
        spread,
        measured,
        by_chance + floor,
        "ms",
        note="half the interquartile range",
    )


def tail(link: Link, sample: Sample) -> Figure | None:
    delays = sample.unqueued_delays_ms()
    asked = _asked(link)
    high = asked.quantile(TAIL)
    if len(delays) < MIN_PACKETS:
        return idle("delay p95", high, "ms", f"{len(delays)} packets found the queue empty")
    if link.rate is not None and link.jitter_ns:
        return idle(
            "delay p95", high, "ms", "packets that jitter brings together wait for the rate"
        )
    below, above = asked.interval(TAIL, len(delays))
    floors = sample.floors
    return judged(
        "delay p95",
        high,
        float(np.quantile(delays, TAIL)),
        max(high - below, above - high) + floors.tail_ms + floors.delay_share * high,
        "ms",
        note="packets that met no queue",
    )


# --- loss ---------------------------------------------------------------------------------------


def loss(link: Link, sample: Sample) -> Figure | None:
    n, lost = sample.packets, sample.count(Outcome.LOST)
    if isinstance(link.loss, LossTrace):
        trace = np.array(link.loss.lost)
        asked = float(np.resize(trace, n).mean())
        if link.duplicate:
            return idle("loss", asked, "share", "copies take entries of the trace, too")
        return judged("loss", asked, lost / n, 1e-9, "share", note="trace, to the packet")
    return counted_losses(lost, n, chance.losses([(link.loss, link.duplicate, n)]))


def counted_losses(lost: int, n: int, allowed: chance.Interval) -> Figure:
    low, high, mean = allowed
    asked = mean / n
    return {
        **judged("loss", asked, lost / n, max(high / n - asked, asked - low / n), "share"),
        "ok": low <= lost <= high,
        "note": f"{lost} of {n}; chance allows {low} to {high}",
    }


def burst(link: Link, sample: Sample) -> Figure | None:
    if not isinstance(link.loss, (Bernoulli, GilbertElliott)):
        return None
    chain = chance.chain(link.loss, link.duplicate)
    if chain.never_recovers:
        return idle("burst", None, "packets", "asked never to recover")
    if chain.never_loses:
        return None
    asked = chain.mean_run
    lost = sample.outcomes[~sample.copies] == Outcome.LOST
    runs = int((np.diff(np.concatenate([[0], lost.astype(np.int8)])) == 1).sum())
    if runs < MIN_BURSTS:
        return idle("burst", asked, "packets", f"{runs} bursts are too few")
    if sample.queue_drops:
        return idle("burst", asked, "packets", "queue drops lie between the losses")
    low, high, _ = chance.bursts(link.loss, link.duplicate, runs, sample.packets)
    total = int(lost.sum())
    return {
        **judged(
            "burst", asked, total / runs, max(high / runs - asked, asked - low / runs), "packets"
        ),
        "ok": low <= total <= high,
        "note": f"mean of {runs} bursts",
    }


# --- duplication, corruption, reordering, queue, rate ---------------------------------------------


def duplicates(link: Link, sample: Sample) -> Figure | None:
    copies = int(sample.copies.sum())
    if not link.duplicate and not copies:
        return None
    n = sample.packets
    through = 1 - sample.queue_drops / n  # a full queue drops copies as well, unseen
    return _binomial(
        "duplicates", copies, n, chance.chain(link.loss, link.duplicate).copied * through
    )


def corruption(link: Link, sample: Sample) -> Figure | None:
    damaged, out = sample.count(Outcome.CORRUPTED), int((sample.out & ~sample.copies).sum())
    if (not link.corrupt and not damaged) or not out:
        return None
    figure = _binomial("corruption", damaged, out, link.corrupt)
    # A damaged packet whose copy is intact counts as delivered, and its damaged twin as the copy.
    unseen = link.corrupt * link.duplicate
    tolerance = figure["tolerance"] + unseen
    return figure | {
        "tolerance": tolerance,
        "ok": figure["ok"] or 0 <= figure["asked"] - figure["measured"] <= tolerance,
    }


def _binomial(figure: str, count: int, n: int, p: float) -> Figure:
    low, high, _ = chance.binomial(n, p)
    return {
        **judged(figure, p, count / n, max(high / n - p, p - low / n), "share"),
        "ok": low <= count <= high,
        "note": f"{count} of {n}; chance allows {low} to {high}",
    }


def reordering(link: Link, sample: Sample) -> Figure | None:
    if link.reorder is not None:
        return _skips(link, sample)
    if link.jitter_ns:
        return None  # jitter reorders, by the spacing of the packets
    out = sample.out & ~sample.copies
    entered_ns = sample.in_ns[out][np.argsort(sample.out_ns[out], kind="stable")]
    late = np.maximum.accumulate(entered_ns) - entered_ns > REORDER_FLOOR_NS
    share = float(late.mean()) if len(late) else 0.0
    return judged(
        "reordering", 0.0, share, REORDER_SLACK, "share", note="RFC 4737 reordered packets"
    )


def _skips(link: Link, sample: Sample) -> Figure:
    """Share of packets that skipped the delay."""
    assert link.reorder is not None
    asked = chance.skip_share(link.reorder)
    delays = sample.unqueued_delays_ms()
    n = len(delays)
    threshold = link.delay_ns / NS_PER_MS / 2
    if n < MIN_PACKETS or threshold < _SKIP_MS or 4 * link.jitter_ns > link.delay_ns:
        note = "too few packets, or a delay too short to tell who skipped it"
        return idle("reordering", asked, "share", note)
    p = link.reorder.p
    cycle_variance = (1 - p) / p**2 if p else 0.0
    sd = math.sqrt(cycle_variance * asked**3 / n)
    measured = float((delays < threshold).mean())
    return judged(
        "reordering",
        asked,
        measured,
        chance.SIGMAS * sd + 1 / n + REORDER_SLACK,
        "share",
        note="packets that skipped the delay",
    )


def queue(link: Link, sample: Sample) -> Figure | None:
    """Without a rate nothing may be dropped by a queue: its limit was too small."""
    if link.rate is not None:
        return None
    drops = sample.queue_drops
    return judged(
        "queue drops",
        0,
        drops / sample.packets,
        0,
        "share",
        note=f"{drops} packets; limit_packets {link.limit_packets}",
    )


def rate(link: Link, sample: Sample) -> Figure | None:
    if not isinstance(link.rate, Rate):
        return None
    rate_bps, tolerance = link.rate.rate_bps, RATE_TOLERANCE * link.rate.rate_bps
    rows = np.flatnonzero(sample.out)
    rows = rows[np.argsort(sample.out_ns[rows], kind="stable")]
    latest_ns = sample.entered_ns[rows] + 4 * link.jitter_ns  # it had surely entered by then
    left_ns, sizes = sample.out_ns[rows], sample.sizes[rows]
    observed = _served(left_ns, latest_ns, left_ns, sizes, link.rate.burst_bytes)
    if len(observed) >= MIN_WINDOWS:
        return judged(
            "rate",
            rate_bps,
            float(np.median(observed)),
            tolerance,
            "bit/s",
            note=f"median of {len(observed)} windows with a queue",
        )
    # No queue was seen. There should have been one wherever the rate asked predicts it.
    predicted_ns = sample.entered_ns[rows] + sample.waits_ns[rows]
    predicted = _served(
        left_ns, sample.entered_ns[rows], predicted_ns, sizes, link.rate.burst_bytes
    )
    if len(predicted) >= MIN_WINDOWS:
        measured = float(np.median(predicted))
        return {
            **judged("rate", rate_bps, measured, tolerance, "bit/s"),
            "ok": measured <= rate_bps + tolerance,
            "note": "throughput where the rate asked predicts a queue, and none was seen",
        }
    return idle("rate", rate_bps, "bit/s", "the traffic never filled the link")


def _served(
    left_ns: Ints, entered_ns: Ints, frees_ns: Ints, sizes: Ints, burst_bytes: int
) -> list[float]:
    """bit/s in windows of at least 50 ms during which the queue was never empty.

    Packet k continues a busy run if it had entered before packet k - 1 freed the link
    (``frees_ns``). The first ``burst_bytes`` of a run may pass on saved tokens and do not count.
    """
    windows: list[float] = []
    start_ns, bits, packets, saved = -1, 0, 0, 0
    waited = (entered_ns[1:] <= frees_ns[:-1]).tolist()
    for queued, leaves_ns, size in zip(
        waited, left_ns[1:].tolist(), sizes[1:].tolist(), strict=True
    ):
        if not queued:
            start_ns, bits, packets, saved = -1, 0, 0, 0
            continue
        saved += size
        if saved <= burst_bytes:
            continue
        if start_ns < 0:
            start_ns = leaves_ns
            continue
        bits += 8 * size
        packets += 1
        took_ns = leaves_ns - start_ns
        if took_ns >= WINDOW_NS and packets >= _PACKETS_PER_WINDOW:
            windows.append(bits * NS_PER_S / took_ns)
            start_ns, bits, packets = leaves_ns, 0, 0
    return windows

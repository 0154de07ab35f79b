"""Did the link do what was asked? Asked against measured, from the link's own log.

Every figure is compared with what the description implies for *this* sample, not with its nominal
value: delays below zero count as zero, a pareto's median is not its mean, a packet that is both
lost and duplicated is delivered, Gilbert-Elliott starts in the good state. A tolerance is the
largest deviation that chance explains, plus for times what an engine on a busy machine adds.

Chance: a correct link is refused with probability ``ALPHA`` per figure (4 sigma of a normal).

* Medians and quantiles: the distribution-free interval of order statistics, that is the asked
  distribution's own quantiles at q -/+ 4 sqrt(q(1-q)/n) (Conover, Practical Nonparametric
  Statistics, 3rd ed., 3.2).
* Loss counts: the exact distribution of the number of losses of the two-state chain over n
  packets, from its generating function u (A + zB)^n 1 evaluated on the unit circle (Neuts,
  Matrix-Geometric Solutions in Stochastic Models). Bursts make it far wider than a binomial.
* Burst lengths: loss runs are phase-type distributed; the interval is that of the sum of as many
  independent runs as were seen, again by its generating function.
* Duplicates, corruption: binomial. Reordering: renewal theory (Cox, Renewal Theory, 4.1).
* Rate: bytes over time in windows during which the queue was never empty; the median over windows.

Medians and quartiles, because a busy or stalling host delays some packets and not the link.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from harness.network.distributions import SCALE, SIZE, table
from harness.network.link import Bernoulli, GilbertElliott, Link, LinkPair, LossTrace
from harness.network.model import TokenBucket
from harness.records import Columns, Outcome
from harness.units import NS_PER_MS, NS_PER_S

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SIGMAS = 4.0
ALPHA = math.erfc(SIGMAS / math.sqrt(2))
DELAY_FLOOR_MS = 1.0
DELAY_FLOOR_SHARE = 0.02
RATE_TOLERANCE = 0.05
REORDER_SLACK = 0.01
MIN_PACKETS = 20
MIN_BURSTS = 3
MIN_WINDOWS = 3
WINDOW_NS = 50 * NS_PER_MS
_PACKETS_PER_WINDOW = 4


@dataclass(frozen=True)
class ProofFigure:
    """One comparison. ``ok`` is None where the traffic did not exercise the figure (see note)."""

    direction: Literal["forward", "reverse"]
    figure: str
    asked: float | None
    measured: float | None
    tolerance: float | None
    unit: str
    ok: bool | None
    note: str = ""


def prove(pair: LinkPair, log: Columns, t0_ns: int | None = None) -> list[ProofFigure]:
    """All figures of both directions; a direction that carried nothing has none, but a forward
    direction without packets is itself a failure. ``log`` is a LINK_LOG."""
    figures: list[ProofFigure] = []
    for number, link in enumerate((pair.forward, pair.reverse)):
        direction: Literal["forward", "reverse"] = "reverse" if number else "forward"
        sample = _Sample(link, log, number)
        if sample.packets:
            figures += [
                ProofFigure(direction, **figure)
                for judge in _JUDGES
                if (figure := judge(link, sample)) is not None
            ]
        elif direction == "forward":
            figures.append(
                ProofFigure(
                    direction, "packets", None, 0, None, "packets", False, "none entered the link"
                )
            )
    return figures


class _Sample:
    """One direction's log, by order of entering."""

    def __init__(self, link: Link, log: Columns, direction: int) -> None:
        chosen = np.flatnonzero(log["direction"] == direction)
        chosen = chosen[np.argsort(log["in_ns"][chosen], kind="stable")]
        self.in_ns = log["in_ns"][chosen].astype(np.int64)
        self.out_ns = log["out_ns"][chosen].astype(np.int64)
        self.sizes = log["size_bytes"][chosen].astype(np.int64)
        self.outcomes = log["outcome"][chosen]
        self.copies = self.outcomes == Outcome.DUPLICATE
        self.out = self.out_ns >= 0
        self.packets = int((~self.copies).sum())
        self.queue_drops = self.count(Outcome.QUEUE)
        self.entered_ns = self.in_ns + link.delay_ns
        """When it would reach the rate queue without jitter."""
        self.waits_ns = _predicted_waits(link, self)

    def count(self, outcome: Outcome) -> int:
        return int((self.outcomes == outcome).sum())

    def unqueued_delays_ms(self) -> Floats:
        """Of packets and copies that, by the rate asked, found their queue empty.

        Copies belong to the sample: which of two equal frames is the copy, nobody can see.
        """
        chosen = self.out & (self.waits_ns == 0)
        delays: Floats = (self.out_ns[chosen] - self.in_ns[chosen]) / NS_PER_MS
        return delays


def _predicted_waits(link: Link, sample: _Sample) -> Ints:
    """ns in the rate queue if the rate were exact and there were no jitter; 0 without a rate."""
    waits = np.zeros(len(sample.in_ns), np.int64)
    if link.rate is None:
        return waits
    bucket = TokenBucket(link.rate)
    full_ns = link.rate.queue_limit_bytes() * 8 * NS_PER_S // link.rate.rate_bps
    for i in np.flatnonzero(sample.out):
        entered_ns = int(sample.entered_ns[i])
        leaves_ns = bucket.enter(int(sample.sizes[i]), entered_ns)
        waits[i] = full_ns if leaves_ns is None else leaves_ns - entered_ns
    return waits


# --- delay and jitter ---------------------------------------------------------------------------


class _Delays:
    """The asked distribution of delays in ms: ``quantile`` of the delay, clipped and reordered."""

    def __init__(self, link: Link) -> None:
        entries = table(link.distribution)
        uniform = 2 * (np.arange(SIZE) + 0.5) / SIZE - 1
        deviations = uniform if entries is None else entries / SCALE
        delays = np.clip(link.delay_ns + link.jitter_ns * deviations, 0, None) / NS_PER_MS
        self._delays: Floats = np.sort(delays)
        self._skipping = _skip_share(link)

    def quantile(self, q: float) -> float:
        if q <= self._skipping:
            return 0.0
        among_delayed = (q - self._skipping) / (1 - self._skipping)
        return float(np.quantile(self._delays, min(1.0, among_delayed)))

    def interval(self, q: float, n: int) -> tuple[float, float]:
        half = SIGMAS * math.sqrt(q * (1 - q) / n)
        return self.quantile(max(0.0, q - half)), self.quantile(min(1.0, q + half))


def _skip_share(link: Link) -> float:
    """Long-run share of packets that skip the delay: one per gap - 1 forced and 1/p tried."""
    if link.reorder is None or link.reorder.p == 0:
        return 0.0
    return 1 / (link.reorder.gap - 1 + 1 / link.reorder.p)


def _delay(link: Link, sample: _Sample) -> dict[str, Any] | None:
    delays = sample.unqueued_delays_ms()
    asked = _Delays(link)
    middle = asked.quantile(0.5)
    if len(delays) < MIN_PACKETS:
        return _idle("delay", middle, "ms", f"{len(delays)} packets found the queue empty")
    low, high = asked.interval(0.5, len(delays))
    floor = DELAY_FLOOR_MS + DELAY_FLOOR_SHARE * middle
    return _judged(
        "delay",
        middle,
        float(np.median(delays)),
        max(middle - low, high - middle) + floor,
        "ms",
        note="median, packets that met no queue",
    )


def _jitter(link: Link, sample: _Sample) -> dict[str, Any] | None:
    delays = sample.unqueued_delays_ms()
    asked = _Delays(link)
    spread = (asked.quantile(0.75) - asked.quantile(0.25)) / 2
    if len(delays) < MIN_PACKETS:
        return _idle("jitter", spread, "ms", f"{len(delays)} packets found the queue empty")
    chance = 0.0
    for q in (0.25, 0.75):
        low, high = asked.interval(q, len(delays))
        chance += max(asked.quantile(q) - low, high - asked.quantile(q)) / 2
    measured = float(np.subtract(*np.quantile(delays, [0.75, 0.25]))) / 2
    floor = DELAY_FLOOR_MS + DELAY_FLOOR_SHARE * spread
    return _judged(
        "jitter",
        spread,
        measured,
        chance + floor,
        "ms",
        note="half the interquartile range",
    )


# --- loss ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Chain:
    """Per packet offered: ``kept`` and ``lost`` are (states, states) matrices of the probability
    of a step with that outcome; ``start`` the first state, ``copied`` P(a copy comes out)."""

    kept: Floats
    lost: Floats
    start: Floats
    copied: float

    @property
    def stationary(self) -> Floats:
        whole = self.kept + self.lost
        values, vectors = np.linalg.eig(whole.T)
        vector = np.real(vectors[:, np.argmax(np.real(values))])
        return np.asarray(vector / vector.sum())

    def loss_distribution(self, n: int) -> Floats:
        """P(k of the first n packets are lost), k = 0...n; shape (n + 1,)."""
        points = np.exp(-2j * np.pi * np.arange(n + 1) / (n + 1))
        steps = self.kept + points[:, None, None] * self.lost
        transform = self.start @ np.linalg.matrix_power(steps, n) @ np.ones(len(self.start))
        return np.clip(np.real(np.fft.ifft(transform)), 0, None)

    def after_first_loss(self) -> Floats:
        """State after the first packet of a loss run."""
        state = self.stationary @ self.kept @ self.lost
        return np.asarray(state / state.sum())

    def run_sum_distribution(self, runs: int, longest: int) -> Floats:
        """P(k losses in ``runs`` independent loss runs), k = 0...longest."""
        size = longest + 1
        points = np.exp(-2j * np.pi * np.arange(size) / size)
        identity = np.eye(len(self.start))
        # A run has 1 + j losses, with probability first @ lost^j @ kept @ 1.
        inverse = np.linalg.inv(identity - points[:, None, None] * self.lost)
        first = self.after_first_loss()
        transform = points * (first @ inverse @ self.kept @ np.ones(len(self.start)))
        return np.clip(np.real(np.fft.ifft(transform**runs)), 0, None)

    def mean_run(self) -> float:
        inverse = np.linalg.inv(np.eye(len(self.start)) - self.lost)
        return float(self.after_first_loss() @ inverse @ np.ones(len(self.start)))


def _chain(link: Link) -> _Chain:
    """The loss model with duplication, as :mod:`.model` and netem step it."""
    match link.loss:
        case GilbertElliott(p, r, loss_bad, loss_good):
            steps = np.array([[1 - p, p], [r, 1 - r]])
            losing = np.array([loss_good, loss_bad])[:, None]  # by the state before the step
        case Bernoulli(p):
            steps, losing = np.array([[1.0]]), np.array([[p]])
        case _:
            steps, losing = np.array([[1.0]]), np.array([[0.0]])
    lost, kept = steps * losing, steps * (1 - losing)
    d = link.duplicate
    start = np.eye(len(steps))[0]
    chain = _Chain(
        # Kept; or lost but duplicated; or kept and duplicated, then one more step for the copy.
        kept=kept * (1 - d) + lost * d + d * kept @ steps,
        lost=lost * (1 - d),
        start=start,
        copied=0.0,
    )
    copied = d * float(chain.stationary @ kept @ kept @ np.ones(len(start)))
    return _Chain(chain.kept, chain.lost, start, copied)


def _loss(link: Link, sample: _Sample) -> dict[str, Any] | None:
    n, lost = sample.packets, sample.count(Outcome.LOST)
    if isinstance(link.loss, LossTrace):
        trace = np.array(link.loss.lost)
        asked = float(np.resize(trace, n).mean())
        if link.duplicate:
            return _idle("loss", asked, "share", "copies take entries of the trace, too")
        return _judged("loss", asked, lost / n, 1e-9, "share", note="trace, to the packet")
    distribution = _chain(link).loss_distribution(n)
    low, high = _central(distribution)
    asked = float(distribution @ np.arange(n + 1)) / n
    return {
        **_judged("loss", asked, lost / n, max(high / n - asked, asked - low / n), "share"),
        "ok": low <= lost <= high,
        "note": f"{lost} of {n}; chance allows {low} to {high}",
    }


def _burst(link: Link, sample: _Sample) -> dict[str, Any] | None:
    if not isinstance(link.loss, (Bernoulli, GilbertElliott)):
        return None
    chain = _chain(link)
    if np.max(np.abs(np.linalg.eigvals(chain.lost))) >= 1 - 1e-12:
        return _idle("burst", None, "packets", "asked never to recover")
    if not (chain.stationary @ chain.lost).sum():
        return None
    asked = chain.mean_run()
    lost = sample.outcomes[~sample.copies] == Outcome.LOST
    runs = int((np.diff(np.concatenate([[0], lost.astype(np.int8)])) == 1).sum())
    if runs < MIN_BURSTS:
        return _idle("burst", asked, "packets", f"{runs} bursts are too few")
    if sample.queue_drops:
        return _idle("burst", asked, "packets", "queue drops lie between the losses")
    longest = max(sample.packets, int(16 * runs * asked))
    low, high = _central(chain.run_sum_distribution(runs, longest))
    total = int(lost.sum())
    return {
        **_judged(
            "burst", asked, total / runs, max(high / runs - asked, asked - low / runs), "packets"
        ),
        "ok": low <= total <= high,
        "note": f"mean of {runs} bursts",
    }


def _central(distribution: Floats) -> tuple[int, int]:
    """The counts that hold all but ALPHA / 2 of the probability on either side."""
    below = np.cumsum(distribution)
    low = int(np.searchsorted(below, ALPHA / 2))
    high = int(np.searchsorted(below, below[-1] - ALPHA / 2))
    return low, min(high, len(distribution) - 1)


# --- duplication, corruption, reordering, queue, rate ---------------------------------------------


def _duplicates(link: Link, sample: _Sample) -> dict[str, Any] | None:
    copies = int(sample.copies.sum())
    if not link.duplicate and not copies:
        return None
    n = sample.packets
    through = 1 - sample.queue_drops / n  # a full queue drops copies as well, unseen
    return _binomial("duplicates", copies, n, _chain(link).copied * through)


def _corruption(link: Link, sample: _Sample) -> dict[str, Any] | None:
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


def _binomial(figure: str, count: int, n: int, p: float) -> dict[str, Any]:
    low, high = (int(binom.ppf(q, n, p)) for q in (ALPHA / 2, 1 - ALPHA / 2))
    low, high = max(0, low), max(0, high)
    return {
        **_judged(figure, p, count / n, max(high / n - p, p - low / n), "share"),
        "ok": low <= count <= high,
        "note": f"{count} of {n}; chance allows {low} to {high}",
    }


def _reordering(link: Link, sample: _Sample) -> dict[str, Any] | None:
    if link.reorder is not None:
        return _skips(link, sample)
    if link.jitter_ns:
        return None  # jitter reorders, by the spacing of the packets
    out = sample.out & ~sample.copies
    order = np.argsort(sample.out_ns[out], kind="stable")
    late = order < np.maximum.accumulate(order)
    share = float(late.mean()) if len(late) else 0.0
    return _judged(
        "reordering", 0.0, share, REORDER_SLACK, "share", note="RFC 4737 reordered packets"
    )


def _skips(link: Link, sample: _Sample) -> dict[str, Any]:
    """Share of packets that skipped the delay."""
    assert link.reorder is not None
    asked = _skip_share(link)
    delays = sample.unqueued_delays_ms()
    n = len(delays)
    threshold = link.delay_ns / NS_PER_MS / 2
    if n < MIN_PACKETS or threshold < DELAY_FLOOR_MS or 4 * link.jitter_ns > link.delay_ns:
        note = "too few packets, or a delay too short to tell who skipped it"
        return _idle("reordering", asked, "share", note)
    p = link.reorder.p
    cycle_variance = (1 - p) / p**2 if p else 0.0
    sd = math.sqrt(cycle_variance * asked**3 / n)
    measured = float((delays < threshold).mean())
    return _judged(
        "reordering",
        asked,
        measured,
        SIGMAS * sd + 1 / n + REORDER_SLACK,
        "share",
        note="packets that skipped the delay",
    )


def _queue(link: Link, sample: _Sample) -> dict[str, Any] | None:
    """Without a rate nothing may be dropped by a queue: its limit was too small."""
    if link.rate is not None:
        return None
    drops = sample.queue_drops
    return _judged(
        "queue drops",
        0,
        drops / sample.packets,
        0,
        "share",
        note=f"{drops} packets; limit_packets {link.limit_packets}",
    )


def _rate(link: Link, sample: _Sample) -> dict[str, Any] | None:
    if link.rate is None:
        return None
    rate_bps, tolerance = link.rate.rate_bps, RATE_TOLERANCE * link.rate.rate_bps
    rows = np.flatnonzero(sample.out)
    rows = rows[np.argsort(sample.out_ns[rows], kind="stable")]
    latest_ns = sample.entered_ns[rows] + 4 * link.jitter_ns  # it had surely entered by then
    left_ns, sizes = sample.out_ns[rows], sample.sizes[rows]
    observed = _served(left_ns, latest_ns, left_ns, sizes, link.rate.burst_bytes)
    if len(observed) >= MIN_WINDOWS:
        return _judged(
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
            **_judged("rate", rate_bps, measured, tolerance, "bit/s"),
            "ok": measured <= rate_bps + tolerance,
            "note": "throughput where the rate asked predicts a queue, and none was seen",
        }
    return _idle("rate", rate_bps, "bit/s", "the traffic never filled the link")


def _served(
    left_ns: Ints, entered_ns: Ints, frees_ns: Ints, sizes: Ints, burst_bytes: int
) -> list[float]:
    """bit/s in windows of at least 50 ms during which the queue was never empty.

    Packet k continues a busy run if it had entered before packet k - 1 freed the link
    (``frees_ns``). The first ``burst_bytes`` of a run may pass on saved tokens and do not count.
    """
    windows: list[float] = []
    start_ns, bits, packets, saved = -1, 0, 0, 0
    for k in range(1, len(left_ns)):
        if entered_ns[k] > frees_ns[k - 1]:
            start_ns, bits, packets, saved = -1, 0, 0, 0
            continue
        saved += int(sizes[k])
        if saved <= burst_bytes:
            continue
        if start_ns < 0:
            start_ns = int(left_ns[k])
            continue
        bits += 8 * int(sizes[k])
        packets += 1
        took_ns = int(left_ns[k]) - start_ns
        if took_ns >= WINDOW_NS and packets >= _PACKETS_PER_WINDOW:
            windows.append(bits * NS_PER_S / took_ns)
            start_ns, bits, packets = int(left_ns[k]), 0, 0
    return windows


def _judged(
    figure: str, asked: float, measured: float, tolerance: float, unit: str, note: str = ""
) -> dict[str, Any]:
    return {
        "figure": figure,
        "asked": asked,
        "measured": measured,
        "tolerance": tolerance,
        "unit": unit,
        "ok": abs(measured - asked) <= tolerance,
        "note": note,
    }


def _idle(figure: str, asked: float | None, unit: str, why: str) -> dict[str, Any]:
    return {
        "figure": figure,
        "asked": asked,
        "measured": None,
        "tolerance": None,
        "unit": unit,
        "ok": None,
        "note": f"not exercised: {why}",
    }


_JUDGES = (_delay, _jitter, _loss, _burst, _duplicates, _corruption, _reordering, _queue, _rate)

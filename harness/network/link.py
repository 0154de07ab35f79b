"""The one description of an impaired link, understood by every engine.

Order of effects, the same in all engines (netem as root qdisc, tbf as its child):
loss -> duplication -> corruption -> reordering / delay -> rate with its queue.
Details, such as a packet both lost and duplicated, stand in ``model.py``.

A description may hold what happens in *media time*, and so for every codec alike whatever its
packet interval: :class:`MediaTimeLoss`, a ``coherence_ns`` of the delay, a :class:`Replay` of a
recorded network. ``trace.py`` draws it once per block and turns it, for one codec's packets, into
``changes``: a link that is *fitted* has nothing else that varies, and is what engines run.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from harness.units import NS_PER_S

Distribution = Literal["uniform", "normal", "pareto", "paretonormal"]


@dataclass(frozen=True)
class Bernoulli:
    """Each packet is lost with probability ``p``, independently."""

    p: float


@dataclass(frozen=True)
class GilbertElliott:
    """Two-state Markov loss (Gilbert 1960, Elliott 1963), stepped once per packet.

    ``p`` = P(good -> bad), ``r`` = P(bad -> good), ``loss_bad`` = loss probability in the bad
    state (tc's ``1-h``), ``loss_good`` in the good state (tc's ``1-k``). Stationary loss
    = (p * loss_bad + r * loss_good) / (p + r); mean burst of the bad state = 1 / r packets.
    """

    p: float
    r: float
    loss_bad: float = 1.0
    loss_good: float = 0.0


@dataclass(frozen=True)
class LossTrace:
    """A 0/1 list, one entry per packet in order of arrival (1 = lost); cyclic, not empty.

    A copy made by ``Link.duplicate`` is a packet too and takes the next entry.
    """

    lost: tuple[int, ...]


Hits = Literal["media", "instant"]
"""Which packets a loss state in media time takes: every one with any media in it (``media``), or
those whose last sample is in it (``instant``, as a link does that knows nothing of media). By the
second, a spell as long as a codec's packets takes exactly one of them."""


@dataclass(frozen=True)
class MediaTimeLoss:
    """Continuous-time Gilbert-Elliott: the link is in its loss state for a ``share`` of the time,
    in exponentially distributed spells of mean ``burst_ns``, the same for every codec of a block.
    """

    share: float
    burst_ns: int
    hits: Hits = "media"


Loss = Bernoulli | GilbertElliott | LossTrace | MediaTimeLoss


@dataclass(frozen=True)
class Reorder:
    """With probability ``p``, every ``gap``-th packet skips the delay queue (tc-netem(8))."""

    p: float
    gap: int = 1


@dataclass(frozen=True)
class Rate:
    """Token bucket (tc-tbf(8)): ``rate_bps`` on the wire (Ethernet header included, no FCS).

    Without a bucket (``burst_bytes`` 0) it is a fluid queue: nothing is saved while it is idle, and
    a packet leaves with its last bit, size * 8 / rate after it began to be served.

    Exactly one of ``latency_ns`` and ``limit_bytes`` is set. The latency is the longest wait in the
    queue: it holds rate * latency / 8 bytes, the packet that waits among them. (tc's own parameter
    of that name adds the burst, so that a queue waits for as much longer as the bucket is worth
    once it is empty: ``tc_core``, limit = rate * latency + burst.)
    """

    rate_bps: int
    burst_bytes: int
    latency_ns: int | None = None
    limit_bytes: int | None = None

    def queue_limit_bytes(self) -> int:
        if self.limit_bytes is not None:
            return self.limit_bytes
        assert self.latency_ns is not None
        return self.rate_bps * self.latency_ns // (8 * NS_PER_S)

    @property
    def is_fluid(self) -> bool:
        return self.burst_bytes == 0


def default_burst_bytes(rate_bps: int) -> int:
    """One full frame with some room, or what passes in one tick of a 250 Hz kernel (tc-tbf(8))."""
    return max(1600, rate_bps // 8 // 250)


@dataclass(frozen=True)
class Deliveries:
    """In a rate's place: at each of ``at_ns`` (from t0, ascending) up to ``bytes_each`` bytes of
    IP packets leave the queue, and what is not used then is gone (Mahimahi's link; Netravali et
    al., USENIX ATC 2015). After the last of them nothing leaves any more."""

    at_ns: tuple[int, ...]
    limit_bytes: int
    """The queue drops a packet that it has no room for."""
    bytes_each: int = 1500

    def queue_limit_bytes(self) -> int:
        return self.limit_bytes


@dataclass(frozen=True)
class Recording:
    """What one direction of a real network did from 0 to ``duration_ns``.

    ``loss``, ``delay_ns`` and ``rate_bps`` are constant from one of ``at_ns`` to the next (as many
    entries as those; ascending, the first 0); None where the recording says nothing of it. A rate
    of 0 is an outage. ``deliveries_ns`` are instants at which 1500 bytes could leave.
    ``interval_ns`` is that of the packets it tells of, one each from 0 on; None where its steps are
    not packets.
    """

    format: str
    sha256: str
    """Of the file that it was read from."""
    duration_ns: int
    at_ns: tuple[int, ...] = field(default=(0,), hash=False)
    loss: tuple[float, ...] | None = field(default=None, hash=False)
    delay_ns: tuple[int, ...] | None = field(default=None, hash=False)
    rate_bps: tuple[int, ...] | None = field(default=None, hash=False)
    deliveries_ns: tuple[int, ...] | None = field(default=None, hash=False)
    interval_ns: int | None = None

    @property
    def of_packets(self) -> bool:
        """It tells the fate of packets, and so of media; one with a rate tells that of a link."""
        return self.rate_bps is None and self.deliveries_ns is None


@dataclass(frozen=True)
class Replay:
    """A recording as the weather of a link, from ``offset_ns`` of it on; with ``spread``, from a
    place that is drawn for each block (``trace.placed``).

    What the recording says takes the place of the link's own loss and rate; its delay is added to
    the link's. One that is ``of_packets`` runs in media time, any other from t0 on. ``end`` is what
    happens where the audio is longer: the recording begins again (``loop``), the audio ends with it
    (``stop``), or the cell is refused (``error``).
    ``queue_ns`` and ``queue_bytes`` bound the queue before a recorded rate; one of them is set.
    """

    recording: Recording
    offset_ns: int = 0
    end: Literal["loop", "stop", "error"] = "error"
    hits: Hits = "instant"
    queue_ns: int | None = None
    queue_bytes: int | None = None
    spread: bool = False


@dataclass(frozen=True)
class Link:
    """One direction. ``jitter_ns`` is the half-width of ``uniform`` and the standard deviation
    of the other distributions, around ``delay_ns``; negative sums count as zero.

    ``coherence_ns`` is the correlation time of the deviations (exp(-t / coherence), a process in
    media time); 0: each packet draws its own, as netem does. ``changes`` are in ascending order of
    time, at most one per instant.
    """

    delay_ns: int = 0
    jitter_ns: int = 0
    distribution: Distribution = "uniform"
    loss: Loss | None = None
    duplicate: float = 0.0
    corrupt: float = 0.0
    reorder: Reorder | None = None
    rate: Rate | Deliveries | None = None
    limit_packets: int = 10_000
    coherence_ns: int = 0
    replay: Replay | None = None
    changes: tuple[Change, ...] = ()

    @property
    def is_clean(self) -> bool:
        return self == Link(limit_packets=self.limit_packets)

    @property
    def is_fitted(self) -> bool:
        """Nothing in it waits to be drawn by ``trace.py``: an engine can run it."""
        return all(
            link.coherence_ns == 0
            and link.replay is None
            and not isinstance(link.loss, MediaTimeLoss)
            for _, link in self.segments()
        )

    def segments(self) -> list[tuple[int, Link]]:
        """The static links that it is one after the other, with the instant (from t0) at which
        each begins; the first holds from the beginning, and has the instant 0."""
        whole = replace(self, changes=())
        return [(0, whole), *((change.at_ns, change.link) for change in self.changes)]


@dataclass(frozen=True)
class Change:
    """From ``at_ns`` after t0 on, the link is ``link`` (which has no changes of its own)."""

    at_ns: int
    link: Link


@dataclass(frozen=True)
class LinkPair:
    """Both directions: ``forward`` carries the media, ``reverse`` what comes back (ACKs)."""

    forward: Link
    reverse: Link


def longest_delay_ns(link: Link) -> int:
    """Beyond this a delivered packet is an accident: delay, four jitters (no table reaches
    further), a full queue, and the longest time in which a link that changes lets nothing out."""
    segments = link.segments()
    starts_ns = [at_ns for at_ns, _ in segments]
    waits_ns, outages_ns, outage_ns = [0], [0], 0
    for (start_ns, part), end_ns in zip(segments, [*starts_ns[1:], starts_ns[-1]], strict=True):
        is_out = isinstance(part.rate, Rate) and part.rate.rate_bps == 0
        outage_ns = outage_ns + end_ns - start_ns if is_out else 0
        match part.rate:
            case Rate(rate_bps=0):
                outages_ns.append(outage_ns)
            case Rate(rate_bps=rate_bps) as rate:
                waits_ns.append(rate.queue_limit_bytes() * 8 * NS_PER_S // rate_bps)
            case Deliveries(at_ns, limit_bytes, bytes_each):
                instants, full = (0, *at_ns), limit_bytes // bytes_each + 1
                waits_ns += [
                    instants[min(n + full, len(at_ns))] - instant
                    for n, instant in enumerate(instants)
                ]
    delay_ns = max(part.delay_ns + 4 * part.jitter_ns for _, part in segments)
    return delay_ns + max(waits_ns) + max(outages_ns)

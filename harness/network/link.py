"""The one description of an impaired link, understood by every engine.

Order of effects, the same in all engines (netem as root qdisc, tbf as its child):
loss -> duplication -> corruption -> reordering / delay -> rate with its queue.
Details, such as a packet both lost and duplicated, stand in ``model.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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


Loss = Bernoulli | GilbertElliott | LossTrace


@dataclass(frozen=True)
class Reorder:
    """With probability ``p``, every ``gap``-th packet skips the delay queue (tc-netem(8))."""

    p: float
    gap: int = 1


@dataclass(frozen=True)
class Rate:
    """Token bucket (tc-tbf(8)): ``rate_bps`` on the wire (Ethernet header included, no FCS).

    Exactly one of ``latency_ns`` (longest wait in the queue) and ``limit_bytes`` is set:
    limit = rate * latency / 8 + burst.
    """

    rate_bps: int
    burst_bytes: int
    latency_ns: int | None = None
    limit_bytes: int | None = None

    def queue_limit_bytes(self) -> int:
        if self.limit_bytes is not None:
            return self.limit_bytes
        assert self.latency_ns is not None
        return self.rate_bps * self.latency_ns // 8_000_000_000 + self.burst_bytes


@dataclass(frozen=True)
class Link:
    """One direction. ``jitter_ns`` is the half-width of ``uniform`` and the standard deviation
    of the other distributions, around ``delay_ns``; negative sums count as zero."""

    delay_ns: int = 0
    jitter_ns: int = 0
    distribution: Distribution = "uniform"
    loss: Loss | None = None
    duplicate: float = 0.0
    corrupt: float = 0.0
    reorder: Reorder | None = None
    rate: Rate | None = None
    limit_packets: int = 10_000

    @property
    def is_clean(self) -> bool:
        return self == Link(limit_packets=self.limit_packets)


@dataclass(frozen=True)
class LinkPair:
    """Both directions: ``forward`` carries the media, ``reverse`` what comes back (ACKs)."""

    forward: Link
    reverse: Link

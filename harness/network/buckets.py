"""A recorded rate as the netem engine can have it: tbf has no fluid queue, only buckets.

tbf (net/sched/sch_tbf.c) lets a packet leave when its bucket holds as many tokens as the packet has
bytes, and saves tokens while it is idle. Its bucket cannot be smaller than the largest packet, nor
than what passes in one tick of a 250 Hz kernel, so a link that was idle gives back so much at once:
packets leave sooner than from the fluid queue, by up to the time that the bucket is worth. Where
that hides a part of the recording, netem cannot have it.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from harness.errors import Unsupported
from harness.network.link import Change, Link, LinkPair, Rate, default_burst_bytes
from harness.units import NS_PER_S, format_bitrate, format_duration

_LARGEST_HIDDEN = 0.5
"""Share of a part of the recording that a full bucket may be worth."""


def has_fluid_rate(pair: LinkPair) -> bool:
    links = (pair.forward, pair.reverse)
    return any(_is_fluid(part) for link in links for _, part in link.segments())


def with_buckets(pair: LinkPair) -> LinkPair:
    """The pair with tbf's smallest buckets in place of fluid queues; as it is where it has none.

    Raises Unsupported where a bucket is worth more than half of the time for which its rate holds.
    """
    return LinkPair(_bucketed(pair.forward), _bucketed(pair.reverse))


def longest_head_start_ns(pair: LinkPair) -> int:
    """By how much sooner than from the fluid queue a packet may leave, of a pair
    :func:`with_buckets`."""
    rates = [part.rate for link in (pair.forward, pair.reverse) for _, part in link.segments()]
    return max((_worth_ns(rate) for rate in rates if isinstance(rate, Rate)), default=0)


def _is_fluid(part: Link) -> bool:
    return isinstance(part.rate, Rate) and part.rate.is_fluid


def _worth_ns(rate: Rate) -> int:
    return rate.burst_bytes * 8 * NS_PER_S // rate.rate_bps if rate.rate_bps else 0


def _bucketed(link: Link) -> Link:
    parts = link.segments()
    for (at_ns, part), (next_ns, _) in pairwise(parts):
        if _is_fluid(part):
            rate, lasts_ns = _bucket(part).rate, next_ns - at_ns
            assert isinstance(rate, Rate)
            if _worth_ns(rate) > _LARGEST_HIDDEN * lasts_ns:
                raise Unsupported(
                    f"netem cannot have {format_bitrate(rate.rate_bps)}/s for"
                    f" {format_duration(lasts_ns)}: tbf's bucket of {rate.burst_bytes}B is worth"
                    f" {format_duration(_worth_ns(rate))} of it; use the relay (--link relay)"
                )
    changes = tuple(Change(change.at_ns, _bucket(change.link)) for change in link.changes)
    return replace(_bucket(link), changes=changes)


def _bucket(part: Link) -> Link:
    if not isinstance(part.rate, Rate) or not part.rate.is_fluid:
        return part
    burst_bytes = default_burst_bytes(part.rate.rate_bps)
    return replace(part, rate=replace(part.rate, burst_bytes=burst_bytes))

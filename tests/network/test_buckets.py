"""A recorded rate on an engine that has buckets and no fluid queue."""

from __future__ import annotations

import pytest

from harness.errors import Unsupported
from harness.network import netem
from harness.network.buckets import has_fluid_rate, longest_head_start_ns, with_buckets
from harness.network.link import Bernoulli, Change, Link, LinkPair, Rate

MS = 1_000_000
S = 1_000_000_000


def fluid(kbps: int) -> Rate:
    return Rate(kbps * 1000, 0, limit_bytes=20_000)


def recorded(*steps: tuple[int, int]) -> LinkPair:
    """Rates (ms, kbit/s) of the way there."""
    first, *later = ((at * MS, Link(5 * MS, rate=fluid(kbps))) for at, kbps in steps)
    return LinkPair(
        Link(5 * MS, rate=first[1].rate, changes=tuple(Change(*s) for s in later)), Link()
    )


def test_each_rate_gets_the_smallest_bucket_that_tbf_can_have() -> None:
    pair = with_buckets(recorded((0, 300), (2000, 0), (2500, 100_000)))
    rates = [part.rate for _, part in pair.forward.segments()]
    assert [(rate.rate_bps, rate.burst_bytes) for rate in rates] == [  # type: ignore[union-attr]
        (300_000, 1600),
        (0, 1600),
        (100_000_000, 50_000),
    ]
    assert {rate.queue_limit_bytes() for rate in rates if rate} == {20_000}
    assert not has_fluid_rate(pair)
    assert longest_head_start_ns(pair) == pytest.approx(42.7 * MS, rel=0.01)
    assert netem.facts_asked(pair.forward, 1)["tbf"]["burst_bytes"] == 1600


@pytest.mark.parametrize(("kbps", "lasts_ms"), [(12, 1000), (15, 1500), (300, 60)])
def test_a_dip_that_the_bucket_would_hide_is_refused(kbps: int, lasts_ms: int) -> None:
    pair = recorded((0, 2000), (5000, kbps), (5000 + lasts_ms, 2000))
    with pytest.raises(Unsupported, match=f"netem cannot have {kbps}kbit/s for .* use the relay"):
        with_buckets(pair)
    with_buckets(recorded((0, 2000), (5000, kbps), (5000 + 60_000, 2000)))


def test_a_link_without_a_recorded_rate_stays_what_it_is() -> None:
    link = Link(5 * MS, loss=Bernoulli(0.1), rate=Rate(64_000, 1600, latency_ns=S))
    pair = LinkPair(link, Link())
    assert not has_fluid_rate(pair)
    assert with_buckets(pair) == pair


def test_netem_refuses_a_fluid_queue_that_nobody_gave_a_bucket() -> None:
    with pytest.raises(Unsupported, match="tbf needs a bucket"):
        netem.plan(recorded((0, 300)).forward, 1)

"""The shipped networks are what the table says."""

from __future__ import annotations

import pytest

from harness.network.link import Bernoulli, GilbertElliott, Link, LinkPair, Rate
from harness.scenario import presets
from harness.scenario.links import contradictions

MS = 1_000_000


def test_names() -> None:
    own = [name for name in presets() if not name.startswith("rfc8868-")]
    assert own == [
        "clean",
        "2g",
        "edge",
        "3g-slow",
        "3g",
        "3g-fast",
        "4g",
        "lte",
        "dsl",
        "cable",
        "wifi-good",
        "wifi-lossy",
        "wifi-congested",
        "cellular",
        "geo-satellite",
        "starlink",
        "plc-short",
        "plc-medium",
        "plc-long",
        "g1050-a",
        "g1050-b",
        "g1050-c",
    ]
    assert len(presets()) == len(own) + 20


@pytest.mark.parametrize("name", presets())
def test_each_is_possible_and_says_where_it_is_from(name: str) -> None:
    preset = presets()[name]
    assert preset.source
    assert preset.meaning
    for whole in (preset.pair.forward, preset.pair.reverse):
        for _, link in whole.segments():
            assert list(contradictions(link)) == []


@pytest.mark.parametrize(
    ("name", "down_bps", "up_bps", "round_trip_ms"),
    [
        ("2g", 280_000, 256_000, 800),
        ("edge", 240_000, 200_000, 840),
        ("3g-slow", 400_000, 400_000, 400),
        ("3g", 1_600_000, 768_000, 300),
        ("3g-fast", 1_600_000, 768_000, 150),
        ("4g", 9_000_000, 9_000_000, 170),
        ("lte", 12_000_000, 12_000_000, 70),
        ("dsl", 1_500_000, 384_000, 50),
        ("cable", 5_000_000, 1_000_000, 28),
    ],
)
def test_access_networks(name: str, down_bps: int, up_bps: int, round_trip_ms: int) -> None:
    def link(rate_bps: int) -> Link:
        burst = max(1600, rate_bps // 8 // 250)
        return Link(round_trip_ms * MS // 2, rate=Rate(rate_bps, burst, latency_ns=300 * MS))

    assert presets()[name].pair == LinkPair(forward=link(down_bps), reverse=link(up_bps))


@pytest.mark.parametrize(
    ("name", "share", "burst"),
    [
        ("wifi-good", 0.0099, 2),
        ("wifi-lossy", 0.0476, 2),
        ("wifi-congested", 0.0909, 2),
        ("cellular", 0.0196, 2),
        ("geo-satellite", 0.0291, 3),
        ("plc-short", 0.10, 3),
        ("plc-medium", 0.10, 11),
        ("plc-long", 0.10, 33),
    ],
)
def test_bursty_networks(name: str, share: float, burst: float) -> None:
    pair = presets()[name].pair
    loss = pair.forward.loss
    assert isinstance(loss, GilbertElliott)
    assert loss.p / (loss.p + loss.r) == pytest.approx(share, rel=0.01)
    assert 1 / loss.r == pytest.approx(burst, rel=0.01)
    assert pair.forward == pair.reverse


def test_starlink_has_a_burst_at_the_end_of_every_slot() -> None:
    pair = presets()["starlink"].pair
    assert pair.forward == pair.reverse
    (_, before), *_ = pair.forward.segments()
    assert before == Link(13 * MS)
    bursts = [change for change in pair.forward.changes if change.link.loss]
    assert [change.at_ns // MS for change in bursts[:3]] == [5_000, 20_000, 35_000]
    assert {change.link for change in bursts} == {Link(13 * MS, loss=Bernoulli(0.5))}
    ends = [change.at_ns // MS for change in pair.forward.changes if not change.link.loss]
    assert ends[:2] == [5_200, 20_200]


def test_rfc8868_grid() -> None:
    assert presets()["rfc8868-0ms-0%"].pair == LinkPair(Link(), Link())
    pair = presets()["rfc8868-150ms-20%"].pair
    assert pair.forward == pair.reverse == Link(150 * MS, loss=Bernoulli(0.2))

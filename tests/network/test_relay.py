"""Real UDP through real namespaces and the userspace relay."""

from __future__ import annotations

import time

import numpy as np
import pytest

from harness.errors import BadInput, Unsupported
from harness.linux import sleep_until
from harness.network import topology
from harness.network.link import (
    Bernoulli,
    Change,
    GilbertElliott,
    Link,
    LinkPair,
    LossTrace,
    MediaTimeLoss,
    Rate,
    Reorder,
)
from harness.network.proof import prove
from harness.network.relay import flipped
from harness.records import Outcome
from harness.units import monotonic_ns
from tests.network.conftest import Wire

pytestmark = pytest.mark.root
MS = 1_000_000


def test_the_middle_is_silent_and_passes_frames(wire: Wire) -> None:
    wire.apply("relay", Link())
    wire.send(20, 0.001)
    counters, log = wire.collect()
    assert len(log["in_ns"]) == 20  # ours and nothing else: no ARP, no IPv6
    assert set(log["outcome"]) == {Outcome.DELIVERED}
    assert set(log["size_bytes"]) == {14 + 20 + 8 + 100}
    assert counters["log_drops"] == 0
    assert wire.received() == list(range(20))


def test_delay_is_close_to_what_was_asked(wire: Wire) -> None:
    wire.apply("relay", Link(delay_ns=25 * MS))
    wire.send(100, 0.005)
    _, log = wire.collect()
    error_ms = (log["out_ns"] - log["in_ns"]) / MS - 25
    assert 0 <= np.median(error_ms) < 0.5
    wire.received()


def test_a_trace_is_followed_to_the_packet(wire: Wire) -> None:
    wire.apply("relay", Link(delay_ns=5 * MS, loss=LossTrace((0, 0, 1, 0, 1))))
    wire.send(50, 0.0)
    _, log = wire.collect()
    assert wire.received() == [n for n in range(50) if n % 5 not in (2, 4)]
    assert (log["outcome"] == Outcome.LOST).sum() == 20


def test_every_start_begins_the_same_losses(wire: Wire) -> None:
    link = Link(delay_ns=MS, loss=GilbertElliott(0.1, 0.4))
    seen = []
    for seed in (7, 7, 8):
        wire.apply("relay", link, seed=seed)
        wire.send(300, 0.0)
        wire.collect()
        seen.append(wire.received())
    assert seen[0] == seen[1] != seen[2]


def test_duplicates_and_corruption_arrive(wire: Wire) -> None:
    wire.apply("relay", Link(duplicate=0.5))
    wire.send(100, 0.0)
    _, log = wire.collect()
    copies = (log["outcome"] == Outcome.DUPLICATE).sum()
    assert 30 < copies < 70
    assert len(wire.received()) == 100 + copies
    wire.apply("relay", Link(corrupt=1.0))
    wire.send(100, 0.0)
    _, log = wire.collect()
    assert set(log["outcome"]) == {Outcome.CORRUPTED}
    assert len(wire.received()) < 20  # the UDP checksum sees nearly all of them
    assert flipped(b"\x00\x00", 9) == b"\x00\x40"


def test_the_rate_is_kept_and_the_queue_is_bounded(wire: Wire) -> None:
    rate = Rate(1_000_000, burst_bytes=1500, latency_ns=50 * MS)
    wire.apply("relay", Link(rate=rate))
    wire.send(400, 0.0, size_bytes=200)
    _, log = wire.collect()
    delivered = log["outcome"] == Outcome.DELIVERED
    assert set(log["outcome"][~delivered]) == {Outcome.QUEUE}
    assert len(wire.received()) == delivered.sum() >= 25
    waits_ms = (log["out_ns"] - log["in_ns"])[delivered] / 10**6
    assert np.median(waits_ms) <= 50
    assert np.sort(waits_ms)[-3] <= 50 + 5  # what an engine on a busy machine adds
    out = np.sort(log["out_ns"][delivered])[6:]  # past the burst
    bps = (len(out) - 1) * 242 * 8 / ((out[-1] - out[0]) / 1e9)
    assert bps == pytest.approx(1_000_000, rel=0.15)


def test_directions_are_apart(wire: Wire) -> None:
    wire.apply("relay", Link(), Link(loss=Bernoulli(1.0)))
    wire.send(10, 0.0)
    for _ in range(10):
        wire.receiver.sendto(b"back", (topology.SENDER_ADDRESS, 5004))
    _, log = wire.collect()
    assert set(log["outcome"][log["direction"] == 0]) == {Outcome.DELIVERED}
    assert set(log["outcome"][log["direction"] == 1]) == {Outcome.LOST}
    assert (log["direction"] == 1).sum() == 10
    assert len(wire.received()) == 10


def test_start_empties_link_and_log(wire: Wire) -> None:
    wire.apply("relay", Link(delay_ns=20 * MS))
    wire.send(5, 0.0)
    wire.agent.call("start")
    _, log = wire.collect()
    assert len(log["in_ns"]) == 0
    assert len(wire.received()) == 5


def test_after_clear_the_bridge_carries_again(wire: Wire) -> None:
    wire.apply("relay", Link(loss=Bernoulli(1.0)))
    wire.agent.call("clear")
    wire.send(5, 0.0)
    deadline = time.monotonic() + 5
    numbers: list[int] = []
    while len(numbers) < 5 and time.monotonic() < deadline:
        numbers += wire.received()
    assert numbers == list(range(5))


@pytest.mark.parametrize(
    "link",
    [
        Link(20 * MS, 8 * MS, "normal", GilbertElliott(0.04, 0.3), 0.03, 0.03),
        Link(30 * MS, reorder=Reorder(0.5, 3)),
        Link(10 * MS, loss=Bernoulli(0.05), rate=Rate(400_000, 1600, limit_bytes=4000)),
    ],
    ids=str,
)
def test_real_packets_prove_the_link(wire: Wire, link: Link) -> None:
    wire.apply("relay", link, seed=3)
    wire.send(500, 0.002, size_bytes=200)
    counters, log = wire.collect()
    assert counters["log_drops"] == counters["refused"] == counters["in_flight"] == 0
    figures = prove(LinkPair(link, Link()), log)
    assert [f for f in figures if f.ok is False] == []
    assert {f.figure for f in figures if f.ok} >= {"loss", "rate" if link.rate else "delay"}
    wire.received()


def test_an_unknown_engine_is_refused(wire: Wire) -> None:
    with pytest.raises(Unsupported, match="no link engine 'magic'"):
        wire.apply("magic", Link())


def test_probe_tells_what_the_kernel_can(wire: Wire) -> None:
    found, _ = wire.agent.call("probe")
    assert found["relay"]
    assert found["tbf"] or found["reasons"]["tbf"]
    assert found["netem"] or "sch_netem" in found["reasons"]["netem"]


def test_changes_follow_t0(wire: Wire) -> None:
    """Windows of total loss and a delay that rises, by packets of a known schedule."""
    lost = Link(5 * MS, loss=Bernoulli(1.0))
    link = Link(
        5 * MS,
        changes=(
            Change(95 * MS, lost),
            Change(155 * MS, Link(5 * MS)),
            Change(245 * MS, Link(40 * MS)),
        ),
    )
    wire.apply("relay", link)
    t0_ns = monotonic_ns() + 20 * MS
    wire.agent.call("start", {"t0_ns": t0_ns})
    sleep_until(t0_ns)
    wire.send(40, 0.01)
    counters, log = wire.collect()
    assert counters["t0_ns"] == t0_ns
    entered_ms = (log["in_ns"] - t0_ns) / MS
    lost_ms = entered_ms[log["outcome"] == Outcome.LOST]
    assert len(lost_ms) == ((entered_ms >= 95) & (entered_ms < 155)).sum() > 0
    assert ((lost_ms >= 95) & (lost_ms < 155)).all()
    out = log["out_ns"] >= 0
    delay_ms = (log["out_ns"] - log["in_ns"])[out] / MS
    assert np.median(delay_ms[entered_ms[out] < 245]) == pytest.approx(5, abs=0.5)
    assert np.median(delay_ms[entered_ms[out] >= 245]) == pytest.approx(40, abs=0.5)
    assert [f for f in prove(LinkPair(link, Link()), log, t0_ns) if f.ok is False] == []
    wire.received()


def test_a_link_to_be_drawn_is_refused(wire: Wire) -> None:
    with pytest.raises(BadInput, match="expected a link that is fitted"):
        wire.apply("relay", Link(loss=MediaTimeLoss(0.1, 80 * MS)))


def test_a_long_schedule_is_read_back_by_its_digest(wire: Wire) -> None:
    changes = tuple(Change(n * MS, Link(n)) for n in range(1, 3000))
    readback = wire.apply("relay", Link(changes=changes))
    assert readback["forward"]["changes"]["count"] == 2999
    assert readback["reverse"]["changes"] == []

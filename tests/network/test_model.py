"""The pure link against what its description promises, at exact times and over long seeded runs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import BadInput
from harness.network import link_from_json, link_to_json
from harness.network.distributions import SCALE, table
from harness.network.link import (
    Bernoulli,
    GilbertElliott,
    Link,
    LinkPair,
    LossTrace,
    Rate,
    Reorder,
)
from harness.network.model import Ended, LinkModel, TokenBucket
from harness.records import Outcome

MS = 1_000_000


def run(
    link: Link, times_ns: list[int], size_bytes: int = 100, seed: str = "1"
) -> tuple[list[Ended], list[Ended]]:
    """What left, in order of leaving, and what was dropped."""
    model = LinkModel(link, seed)
    ended: list[Ended] = []
    for packet, now_ns in enumerate(times_ns):
        model.offer(packet, size_bytes, now_ns)
        ended += model.collect(now_ns)
    while (now := model.next_ns()) is not None:
        ended += model.collect(now)
    assert model.in_flight == 0
    out = [e for e in ended if e.out_ns >= 0]
    assert [e.out_ns for e in out] == sorted(e.out_ns for e in out)
    return out, [e for e in ended if e.out_ns < 0]


def every(step_ns: int, count: int) -> list[int]:
    return [i * step_ns for i in range(count)]


losses = st.one_of(
    st.none(),
    st.builds(Bernoulli, st.floats(0, 1)),
    st.builds(GilbertElliott, *[st.floats(0, 1)] * 4),
    st.builds(LossTrace, st.lists(st.integers(0, 1), min_size=1).map(tuple)),
)
links = st.builds(
    Link,
    delay_ns=st.integers(0, 2**40),
    jitter_ns=st.integers(0, 2**31),
    distribution=st.sampled_from(["uniform", "normal", "pareto", "paretonormal"]),
    loss=losses,
    duplicate=st.floats(0, 1),
    corrupt=st.floats(0, 1),
    reorder=st.none() | st.builds(Reorder, st.floats(0, 1), st.integers(1, 99)),
    rate=st.none()
    | st.builds(Rate, st.integers(1, 2**40), st.integers(1, 2**30), st.integers(0, 2**40))
    | st.builds(
        Rate, st.integers(1, 2**40), st.integers(1, 2**30), limit_bytes=st.integers(1, 2**30)
    ),
)


@given(st.builds(LinkPair, links, links))
def test_a_link_survives_the_journey_as_json(pair: LinkPair) -> None:
    assert link_from_json(json.loads(json.dumps(link_to_json(pair)))) == pair


@pytest.mark.parametrize(
    "damage",
    [{}, {"forward": {}, "reverse": {"speed": 1}}, {"forward": {"loss": {"model": "x"}}}, None],
)
def test_anything_else_is_refused(damage: dict) -> None:
    with pytest.raises(BadInput, match="not a link description"):
        link_from_json(damage)


@pytest.mark.parametrize("distribution", ["normal", "pareto", "paretonormal"])
def test_tables_are_standardised(distribution: str) -> None:
    entries = table(distribution).astype(float) / SCALE
    assert entries.mean() == pytest.approx(0, abs=1e-4)
    assert entries.std() == pytest.approx(1, abs=1e-4)
    assert (np.diff(entries) >= 0).all()


def test_table_shapes() -> None:
    normal, pareto = (table(d).astype(float) / SCALE for d in ("normal", "pareto"))
    assert np.percentile(normal, 84.13) == pytest.approx(1, abs=0.01)
    skew = (pareto**3).mean()
    assert skew > 1.5
    assert np.median(pareto) < -0.2


def test_a_clean_link_passes_at_once() -> None:
    out, dropped = run(Link(), every(MS, 5))
    assert [e.out_ns for e in out] == every(MS, 5)
    assert dropped == []


def test_delay_is_exact_and_counted_from_arrival() -> None:
    out, _ = run(Link(delay_ns=25 * MS), every(MS, 50))
    assert {e.out_ns - e.in_ns for e in out} == {25 * MS}
    model = LinkModel(Link(delay_ns=10 * MS), "1")
    model.collect(9 * MS)
    model.offer(0, 100, 5 * MS)
    assert model.next_ns() == 15 * MS


@pytest.mark.parametrize("distribution", ["uniform", "normal", "pareto", "paretonormal"])
def test_jitter_has_the_moments_asked_for(distribution: str) -> None:
    link = Link(delay_ns=100 * MS, jitter_ns=10 * MS, distribution=distribution)
    out, _ = run(link, every(200 * MS, 20_000))
    delays = np.array([e.out_ns - e.in_ns for e in out]) / MS
    sd = 10 / np.sqrt(3) if distribution == "uniform" else 10
    assert delays.mean() == pytest.approx(100, abs=4 * sd / np.sqrt(20_000))
    assert delays.std() == pytest.approx(sd, rel=0.04)
    if distribution == "uniform":
        assert 90 <= delays.min() < 90.1
        assert 109.9 < delays.max() <= 110


def test_jitter_never_delivers_before_arrival_and_reorders() -> None:
    out, _ = run(Link(delay_ns=2 * MS, jitter_ns=10 * MS), every(MS, 2000))
    assert min(e.out_ns - e.in_ns for e in out) == 0
    order = [e.packet for e in out]
    assert order != sorted(order)
    assert sorted(order) == list(range(2000))


def test_bernoulli_loss() -> None:
    n, p = 50_000, 0.05
    _, dropped = run(Link(loss=Bernoulli(p)), every(MS, n))
    assert {e.outcome for e in dropped} == {Outcome.LOST}
    assert len(dropped) == pytest.approx(n * p, abs=4 * (n * p * (1 - p)) ** 0.5)


@pytest.mark.parametrize(
    "loss",
    [GilbertElliott(0.01, 0.25), GilbertElliott(0.02, 0.1, 0.5, 0.01), GilbertElliott(1.0, 0.0)],
)
def test_gilbert_elliott_stationary_loss_and_bursts(loss: GilbertElliott) -> None:
    n = 100_000
    _, dropped = run(Link(loss=loss), every(MS, n))
    lost = np.zeros(n, bool)
    lost[[e.packet for e in dropped]] = True
    asked = (loss.p * loss.loss_bad + loss.r * loss.loss_good) / (loss.p + loss.r)
    assert lost.mean() == pytest.approx(asked, rel=0.1)
    if loss.loss_bad == 1 and loss.r:
        bursts = np.diff(np.flatnonzero(np.diff(np.r_[False, lost, False].astype(int))))[::2]
        assert bursts.mean() == pytest.approx(1 / loss.r, rel=0.1)


def test_a_trace_is_followed_exactly_and_cyclically() -> None:
    _, dropped = run(Link(loss=LossTrace((0, 1, 0, 0, 1))), every(MS, 13))
    assert [e.packet for e in dropped] == [1, 4, 6, 9, 11]


def test_loss_does_not_depend_on_size_or_spacing() -> None:
    link = Link(5 * MS, 2 * MS, loss=GilbertElliott(0.05, 0.3), duplicate=0.02, corrupt=0.02)
    fates = [
        {e.packet for e in run(link, every(step, 2000), size, "7")[1]}
        for step, size in ((MS, 60), (20 * MS, 1200))
    ]
    assert fates[0] == fates[1] != set()
    assert {e.packet for e in run(link, every(MS, 2000), 60, "8")[1]} != fates[0]


def test_duplicates_are_extra_copies() -> None:
    n = 20_000
    out, dropped = run(Link(delay_ns=MS, duplicate=0.1), every(MS, n))
    copies = [e for e in out if e.outcome is Outcome.DUPLICATE]
    assert len(copies) == pytest.approx(0.1 * n, abs=4 * (n * 0.09) ** 0.5)
    assert len(out) == n + len(copies)
    assert dropped == []


def test_a_packet_both_lost_and_duplicated_is_delivered_once() -> None:
    out, dropped = run(Link(duplicate=1.0, loss=LossTrace((1,))), every(MS, 10))
    assert [e.outcome for e in out] == [Outcome.DELIVERED] * 10
    assert dropped == []


def test_corruption_names_a_bit_of_the_frame() -> None:
    out, _ = run(Link(corrupt=0.5), every(MS, 4000), size_bytes=10)
    bits = [e.flip_bit for e in out if e.outcome is Outcome.CORRUPTED]
    assert len(bits) == pytest.approx(2000, abs=130)
    assert set(bits) == set(range(80))
    assert all(e.flip_bit is None for e in out if e.outcome is Outcome.DELIVERED)


def test_every_gapth_packet_skips_the_delay() -> None:
    out, _ = run(Link(delay_ns=10 * MS, reorder=Reorder(1.0, gap=5)), every(MS, 100))
    early = sorted(e.packet for e in out if e.out_ns == e.in_ns)
    assert early == list(range(4, 100, 5))


def test_reordering_probability() -> None:
    out, _ = run(Link(delay_ns=10 * MS, reorder=Reorder(0.25)), every(MS, 10_000))
    early = sum(e.out_ns == e.in_ns for e in out)
    assert early == pytest.approx(2500, abs=175)


def test_the_delay_queue_is_bounded() -> None:
    _, dropped = run(Link(delay_ns=100 * MS, limit_packets=30), every(MS, 100))
    assert {e.outcome for e in dropped} == {Outcome.QUEUE}
    assert [e.packet for e in dropped] == list(range(30, 100))


def test_a_token_bucket_at_exact_times() -> None:
    # 1 Mbit/s: 125 bytes take 1 ms. The bucket holds two packets, the queue three.
    bucket = TokenBucket(Rate(1_000_000, burst_bytes=250, limit_bytes=375))
    assert [bucket.enter(125, 0) for _ in range(6)] == [0, 0, MS, 2 * MS, 3 * MS, None]
    assert bucket.enter(125, MS) == 4 * MS
    assert bucket.enter(125, MS) is None
    assert bucket.enter(125, 10 * MS) == 10 * MS
    assert [bucket.enter(125, 5000 * MS) for _ in range(3)] == [5000 * MS, 5000 * MS, 5001 * MS]
    assert bucket.enter(251, 9000 * MS) is None


def test_the_queue_holds_no_longer_than_its_latency() -> None:
    rate = Rate(500_000, burst_bytes=1500, latency_ns=50 * MS)
    out, dropped = run(Link(rate=rate), every(MS, 3000), size_bytes=200)
    waits = [e.out_ns - e.in_ns for e in out]
    assert max(waits) <= 50 * MS + 200 * 8 * 2000 + 1500 * 8 * 2000
    assert {e.outcome for e in dropped} == {Outcome.QUEUE}
    sent_bits = sum(e.size_bytes for e in out) * 8
    assert sent_bits / (out[-1].out_ns / 1e9) == pytest.approx(500_000, rel=0.01)


def test_jittered_packets_enter_the_rate_queue_in_order_of_leaving_the_delay() -> None:
    link = Link(10 * MS, 5 * MS, rate=Rate(1_000_000, 125, limit_bytes=100_000))
    out, _ = run(link, every(MS, 200), size_bytes=125)
    assert min(np.diff([e.out_ns for e in out])) >= MS
    order = [e.packet for e in out]
    assert order != sorted(order)

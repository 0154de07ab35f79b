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
from harness.network.fitting import LOST
from harness.network.link import (
    Bernoulli,
    Change,
    Deliveries,
    GilbertElliott,
    Link,
    LinkPair,
    LossTrace,
    Rate,
    Reorder,
)
from harness.network.model import ETHERNET_BYTES, DeliveryQueue, Ended, LinkModel, TokenBucket
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


@pytest.mark.parametrize("size_bytes", [60, 214, 1514])
@pytest.mark.parametrize(("kbps", "latency_ms"), [(64, 190), (64, 500), (500, 50), (5000, 30)])
def test_no_packet_waits_longer_than_the_latency(
    kbps: int, latency_ms: int, size_bytes: int
) -> None:
    rate = Rate(kbps * 1000, burst_bytes=1600, latency_ns=latency_ms * MS)
    gap_ns = size_bytes * 8 * 10**6 // kbps // 3  # three times what passes
    out, dropped = run(Link(rate=rate), every(gap_ns, 3000), size_bytes=size_bytes)
    waits = [e.out_ns - e.in_ns for e in out]
    assert max(waits) <= latency_ms * MS
    assert max(waits) >= latency_ms * MS - 2 * size_bytes * 8 * 10**6 // kbps
    assert {e.outcome for e in dropped} == {Outcome.QUEUE}
    sent_bits = sum(e.size_bytes for e in out[100:]) * 8
    took_ns = out[-1].out_ns - out[99].out_ns
    assert sent_bits / (took_ns / 1e9) == pytest.approx(kbps * 1000, rel=0.01)


def test_jittered_packets_enter_the_rate_queue_in_order_of_leaving_the_delay() -> None:
    link = Link(10 * MS, 5 * MS, rate=Rate(1_000_000, 125, limit_bytes=100_000))
    out, _ = run(link, every(MS, 200), size_bytes=125)
    assert min(np.diff([e.out_ns for e in out])) >= MS
    order = [e.packet for e in out]
    assert order != sorted(order)


# --- links that change ----------------------------------------------------------------------------


def rate(kbps: int, limit_bytes: int = 10_000) -> Rate:
    return Rate(kbps * 1000, burst_bytes=100, limit_bytes=limit_bytes)


def changing(first: Rate | None, *later: tuple[int, Rate | None]) -> Link:
    return Link(rate=first, changes=tuple(Change(at * MS, Link(rate=r)) for at, r in later))


@pytest.mark.parametrize(
    ("link", "expected_ms"),
    [
        # 100 bytes at 80 kbit/s take 10 ms, at 800 kbit/s 1 ms. The first finds a full bucket.
        (changing(rate(80)), [0, 10, 20, 30, 40]),
        (changing(rate(80), (15, rate(800))), [0, 10, 15.5, 16.5, 17.5]),
        (changing(rate(800), (1, rate(80))), [0, 1, 11, 21, 31]),
        (changing(rate(80), (5, rate(0)), (105, rate(80))), [0, 110, 120, 130, 140]),
        (changing(rate(80), (0, rate(0)), (50, rate(80))), [50, 60, 70, 80, 90]),
        (changing(rate(80), (15, None)), [0, 10, 15, 15, 15]),
        (changing(None, (15, rate(80))), [0, 0, 0, 0, 0]),
    ],
)
def test_packets_in_the_queue_follow_a_rate_that_changes(
    link: Link, expected_ms: list[float]
) -> None:
    out, dropped = run(link, [0] * 5)
    assert [ended.out_ns / MS for ended in out] == expected_ms
    assert not dropped


def test_what_a_rate_of_0_keeps_for_ever_is_held_and_only_a_full_queue_drops() -> None:
    out, dropped = run(changing(rate(80, limit_bytes=300), (15, rate(0, 300))), [0] * 6)
    assert [ended.out_ns / MS for ended in out] == [0, 10]
    ends = [ended.outcome for ended in sorted(dropped, key=lambda ended: ended.packet)]
    assert ends == [Outcome.HELD] * 2 + [Outcome.QUEUE] * 2


def test_what_no_delivery_is_left_for_is_held() -> None:
    deliveries = Deliveries((0, 10 * MS), limit_bytes=4500)
    out, dropped = run(Link(rate=deliveries), [0] * 6, size_bytes=1514)
    assert [ended.out_ns / MS for ended in out] == [0, 10]
    ends = [ended.outcome for ended in sorted(dropped, key=lambda ended: ended.packet)]
    assert ends == [Outcome.HELD] * 2 + [Outcome.QUEUE] * 2


def test_a_bucket_that_idles_through_changes_holds_no_more_than_its_burst() -> None:
    out, _ = run(changing(rate(80), (50, rate(800)), (80, rate(80))), [0, 100 * MS, 100 * MS])
    assert [ended.out_ns / MS for ended in out] == [0, 100, 110]


def test_changes_count_from_the_start_and_meet_packets_as_they_arrive() -> None:
    link = Link(
        delay_ns=10 * MS,
        changes=(Change(20 * MS, Link(delay_ns=50 * MS)), Change(40 * MS, Link(loss=LOST))),
    )
    model = LinkModel(link, "1", start_ns=1000 * MS)
    for at in (900, 1019, 1020, 1039, 1040):
        model.offer(at, 100, at * MS)
    ended = {one.packet: one.out_ns // MS for one in model.collect(2000 * MS)}
    assert ended == {900: 910, 1019: 1029, 1020: 1070, 1039: 1089, 1040: -1}


def test_a_loss_process_goes_on_where_it_was_interrupted() -> None:
    """A burst of total loss in between does not start a trace anew."""
    trace = LossTrace((0, 1, 1, 0))
    link = Link(
        loss=trace, changes=(Change(2 * MS, Link(loss=LOST)), Change(3 * MS, Link(loss=trace)))
    )
    _, dropped = run(link, every(MS, 7))
    assert [one.packet for one in dropped] == [1, 2, 3, 6]


@pytest.mark.parametrize(
    ("instants_ms", "sizes", "expected_ms"),
    [
        ([10, 20, 30], [1500, 1500], [10, 20]),
        ([10, 20, 30], [700, 700, 700], [10, 10, 20]),
        ([10, 10, 30], [1400, 1400, 1400], [10, 10, 30]),  # two at one instant
        ([10, 20, 30], [4000], [30]),
        ([10, 20, 30], [1000, 1000, 1000], [10, 20, 20]),  # half a packet waits for the next
    ],
)
def test_deliveries_take_so_many_bytes_each(
    instants_ms: list[int], sizes: list[int], expected_ms: list[int]
) -> None:
    queue = DeliveryQueue(Deliveries(tuple(at * MS for at in instants_ms), 10_000))
    left = [queue.enter(size + ETHERNET_BYTES, 0) for size in sizes]
    assert [at // MS if at is not None else None for at in left] == expected_ms


def test_what_a_delivery_does_not_carry_is_gone() -> None:
    queue = DeliveryQueue(Deliveries((10 * MS, 20 * MS), 10_000), start_ns=100 * MS)
    assert queue.enter(114, 105 * MS) == 110 * MS
    assert queue.enter(114, 110 * MS) == 110 * MS  # just in time for the rest of it
    assert queue.enter(114, 111 * MS) == 120 * MS
    assert queue.enter(114, 121 * MS) is None


def test_a_delivery_queue_drops_what_it_has_no_room_for() -> None:
    queue = DeliveryQueue(Deliveries(tuple(range(10 * MS, 100 * MS, 10 * MS)), 3000))
    left = [queue.enter(1514, 0) for _ in range(3)]
    assert left == [10 * MS, 20 * MS, None]
    assert queue.enter(1514, 15 * MS) == 30 * MS


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 500)), max_size=6),
    st.lists(st.tuples(st.integers(0, 30), st.integers(20, 1500)), min_size=1, max_size=40),
)
def test_a_changing_rate_never_serves_more_than_it_has(
    steps: list[tuple[int, int]], packets: list[tuple[int, int]]
) -> None:
    """Departures in order, never before arrival, and within burst + rate * time of any start."""
    at, changes = 0, []
    for gap_ms, kbps in steps:
        at += gap_ms
        changes.append((at * MS, Rate(kbps * 1000, 1500, limit_bytes=100_000)))
    queue = TokenBucket(Rate(64_000, 1500, limit_bytes=100_000), changes)
    now, out = 0, []
    for gap_ms, size in packets:
        now += gap_ms * MS
        leave = queue.enter(size, now)
        if leave is not None:
            assert leave >= now
            out.append((leave, size))
    assert [leave for leave, _ in out] == sorted(leave for leave, _ in out)

    def worth(until_ns: int) -> float:
        ends = [at_ns for at_ns, _ in changes] + [until_ns]
        bits, since, bps = 0.0, 0, 64_000
        for end, following in zip(ends, [*(r.rate_bps for _, r in changes), 0], strict=True):
            bits += max(0, min(end, until_ns) - since) * bps / 1e9
            since, bps = min(end, until_ns), following
        return bits

    sent = 0
    for leave, size in out:
        sent += size * 8
        assert sent <= 1500 * 8 + worth(leave) + 1


# --- a fluid queue --------------------------------------------------------------------------------


def fluid(kbps: int, limit_bytes: int = 10_000) -> Rate:
    return Rate(kbps * 1000, burst_bytes=0, limit_bytes=limit_bytes)


def test_a_packet_leaves_a_fluid_queue_with_its_last_bit() -> None:
    out, _ = run(Link(rate=fluid(80)), [0, 0, 100 * MS, 105 * MS])
    assert [ended.out_ns / MS for ended in out] == [10, 20, 110, 120]


def test_what_is_paid_stays_paid_when_a_fluid_rate_changes() -> None:
    link = changing(fluid(80), (5, fluid(8)), (25, fluid(0)), (125, fluid(800)))
    out, _ = run(link, [0])
    assert [ended.out_ns / MS for ended in out] == [125.3]  # 50 B, 20 B, then 30 B


def test_a_dip_is_felt_however_long_the_link_was_idle() -> None:
    """Voice at 24 kbit/s over a second at 12 kbit/s: the queue grows through all of it."""
    link = changing(fluid(1000), (5000, fluid(12)), (6000, fluid(1000)))
    out, _ = run(link, every(20 * MS, 400), size_bytes=60)
    waits_ms = {ended.in_ns // MS: (ended.out_ns - ended.in_ns) / MS for ended in out}
    assert waits_ms[4900] < 1
    assert waits_ms[5480] == pytest.approx(500, abs=30)
    assert waits_ms[5980] < 40
    assert waits_ms[6500] < 1

"""The model of TCP at exact times. How far it agrees with a kernel: tests/bench/validate_tcp.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import Unsupported
from harness.network.link import (
    Bernoulli,
    Change,
    GilbertElliott,
    Link,
    LinkPair,
    LossTrace,
    Rate,
    Reorder,
)
from harness.network.model import LinkModel
from harness.records import Outcome
from harness.units import NS_PER_MS as MS
from harness.units import NS_PER_S
from harness.virtual.tcp import (
    DEFAULT_HZ,
    HEADER_BYTES,
    HOST_NS,
    MSS,
    TcpStream,
    framed_bytes,
    require_validated,
)
from harness.virtual.tcp.wire import Wheel

TICK_NS = NS_PER_S // DEFAULT_HZ
INTERVAL_NS = 20 * MS
SIZE_BYTES = 320
LONG = 1000


def lost(*numbers: int) -> LossTrace:
    """A loss of the packets with these numbers, counted from 0."""
    return LossTrace(tuple(int(n in numbers) for n in range(LONG)))


class Run:
    """``count`` messages at a steady pace; times in ms."""

    def __init__(
        self,
        forward: Link,
        count: int = 50,
        *,
        reverse: Link | None = None,
        at_ns: Sequence[int] | None = None,
        framing: str = "tcp",
        seed: str = "1",
        hz: int = DEFAULT_HZ,
    ) -> None:
        back = Link(forward.delay_ns) if reverse is None else reverse
        self.stream: TcpStream[int] = TcpStream(
            LinkModel(forward, f"{seed}/0"),
            LinkModel(back, f"{seed}/1"),
            framing=framing,  # type: ignore[arg-type]
            rtt_ns=forward.delay_ns + back.delay_ns,
            seed=seed,
            hz=hz,
        )
        self.sent_ns = list(at_ns or range(0, count * INTERVAL_NS, INTERVAL_NS))
        for number, now_ns in enumerate(self.sent_ns):
            self.stream.send(number, SIZE_BYTES, now_ns)
        while (next_ns := self.stream.next_ns()) is not None:
            self.stream.advance(next_ns)
        self.received = self.stream.received()
        self.delays = [(at - self.sent_ns[n]) / MS for n, at in self.received]
        self.counts = self.stream.counts()

    def frames(self, direction: int) -> list[tuple[int, int]]:
        """(instant at which it came to the link, size) of each frame."""
        return sorted((row[1], row[3]) for row in self.stream.link_rows if row[0] == direction)

    def all_came(self) -> bool:
        return [n for n, _ in self.received] == list(range(len(self.sent_ns)))


HOSTS = 2 * HOST_NS / MS


def test_a_clean_link_delays_messages_and_nothing_else() -> None:
    run = Run(Link(10 * MS))
    assert run.delays == [10 + HOSTS] * 50
    assert run.frames(0) == [(at, HEADER_BYTES + 4 + SIZE_BYTES) for at in run.sent_ns]
    # The first 16 are acknowledged as they come, the others as they are read.
    quick = [(at + 10 * MS + HOST_NS, HEADER_BYTES) for at in run.sent_ns[:16]]
    read = [(at + 10 * MS + 2 * HOST_NS, HEADER_BYTES) for at in run.sent_ns[16:]]
    assert run.frames(1) == quick + read
    assert run.counts == {"retransmissions": 0, "loss_probes": 0, "timeouts": 0}


def test_a_lost_segment_is_sent_again_when_the_next_is_reported() -> None:
    """The report comes after one interval and one round trip, later than a round trip and a
    quarter: the segment is known to be lost."""
    run = Run(Link(10 * MS, loss=lost(30)))
    again_ns = run.sent_ns[31] + 20 * MS + 2 * HOST_NS
    assert (again_ns, HEADER_BYTES + 4 + SIZE_BYTES) in run.frames(0)
    behind = 20 + 20 + 10 + 2 * HOSTS
    expected = [10 + HOSTS] * 50
    expected[30:32] = [behind, behind - 20]
    assert run.delays == pytest.approx(expected, abs=HOSTS)  # the window delays those behind
    assert run.counts == {"retransmissions": 1, "loss_probes": 0, "timeouts": 0}
    sizes = [size for _, size in run.frames(1)]
    assert sizes.count(HEADER_BYTES + 12) == 2  # of the next, and of the one after: one block


def test_reordering_within_a_quarter_of_the_round_trip_is_waited_for() -> None:
    """At 100 ms the first report comes 5 ms before that, so a timer has to find the loss."""
    run = Run(Link(50 * MS, loss=lost(30)))
    reported_ns = run.sent_ns[31] + 100 * MS + 2 * HOST_NS
    again_ns = min(at for at, _ in run.frames(0) if at not in run.sent_ns)
    assert 5 * MS + 2 * MS - HOST_NS <= again_ns - reported_ns <= 7 * MS + 2 * TICK_NS
    assert run.counts == {"retransmissions": 1, "loss_probes": 0, "timeouts": 0}


def test_a_lost_tail_is_probed_for_after_two_round_trips() -> None:
    run = Run(Link(10 * MS, loss=lost(1, 2)), at_ns=[0, 100 * MS, 100 * MS])
    times = [at for at, _ in run.frames(0)][3:]
    assert 42 * MS <= times[0] - 100 * MS <= 42 * MS + 2 * TICK_NS
    # The probe is the last segment; its report has the one before sent again.
    assert times[1] == times[0] + 20 * MS + 2 * HOST_NS
    assert run.all_came()
    assert run.counts == {"retransmissions": 2, "loss_probes": 1, "timeouts": 0}


def test_a_lone_segment_is_probed_for_by_the_time_out() -> None:
    run = Run(Link(10 * MS, loss=lost(0)), at_ns=[0])
    assert 220 + 10 < run.delays[0] <= 220 + 10 + HOSTS + 2 * TICK_NS / MS
    assert run.counts == {"retransmissions": 1, "loss_probes": 1, "timeouts": 0}


def test_a_lost_probe_leaves_it_to_the_time_out_which_doubles() -> None:
    run = Run(Link(10 * MS, loss=lost(0, 1, 2, 3)), at_ns=[0])
    waits = [b - a for (a, _), (b, _) in zip(run.frames(0), run.frames(0)[1:], strict=False)]
    for wait_ns, expected_ms in zip(waits, (220, 220, 440, 880), strict=True):
        coarse = 8 * TICK_NS if expected_ms > 63 * 4 else TICK_NS
        assert expected_ms * MS - TICK_NS <= wait_ns <= expected_ms * MS + coarse + TICK_NS
    assert run.counts == {"retransmissions": 4, "loss_probes": 1, "timeouts": 3}


def test_what_waits_leaves_in_full_segments_and_lost_neighbours_travel_together() -> None:
    dead = Link(10 * MS, loss=Bernoulli(1.0))
    link = Link(10 * MS, changes=(Change(590 * MS, dead), Change(1590 * MS, Link(10 * MS))))
    run = Run(link, 150)
    assert run.all_came()
    assert max(size for _, size in run.frames(0)) == HEADER_BYTES + MSS
    assert run.counts["timeouts"] >= 2
    assert run.delays[-1] == 10 + HOSTS
    assert len(run.frames(0)) < 150  # messages of the outage share segments


def test_the_window_bounds_what_is_under_way() -> None:
    run = Run(Link(100 * MS), at_ns=[0] * 40)
    # Ten in the first round trip; what waited behind them is in full segments.
    first = [frame for frame in run.frames(0) if frame[0] < 200 * MS]
    assert first == [(0, HEADER_BYTES + 4 + SIZE_BYTES)] * 10
    assert HEADER_BYTES + MSS in {size for _, size in run.frames(0)}


@pytest.mark.parametrize(("framing", "acknowledged_ms"), [("tcp", 0), ("websocket", 40)])
def test_only_a_server_that_has_just_answered_delays_its_acknowledgement(
    framing: str, acknowledged_ms: int
) -> None:
    run = Run(Link(10 * MS), at_ns=[0, 200 * MS], framing=framing)
    first, second = (at for at, _ in run.frames(1))
    waited_ns = first - 10 * MS - 2 * HOST_NS
    assert acknowledged_ms * MS - HOST_NS <= waited_ns <= acknowledged_ms * MS * 1.2
    assert second == 200 * MS + 10 * MS + HOST_NS


def test_reordering_is_learnt() -> None:
    """A packet that overtakes by 30 ms: at first a loss, later no more."""
    run = Run(Link(30 * MS, reorder=Reorder(0.1)), 2000)
    assert run.all_came()
    late = [at for at, _ in run.frames(0) if at not in set(run.sent_ns)]
    assert 0 < len(late) < 20
    assert max(run.delays) < 30 + 3 * HOSTS


def test_damaged_segments_are_not_read() -> None:
    run = Run(Link(10 * MS, corrupt=0.1), 300)
    assert run.all_came()
    damaged = sum(row[4] == Outcome.CORRUPTED for row in run.stream.link_rows)
    assert damaged > 20
    assert run.counts["retransmissions"] >= damaged * 0.8


def test_equal_seeds_give_equal_streams() -> None:
    link = Link(20 * MS, 5 * MS, "normal", Bernoulli(0.1), 0.02)
    runs = [Run(link, 300, seed=seed) for seed in ("1", "1", "2")]
    rows = [run.stream.link_rows for run in runs]
    assert rows[0] == rows[1] != rows[2]
    assert runs[0].received == runs[1].received


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    loss=st.floats(0, 0.4),
    back=st.floats(0, 0.4),
    duplicate=st.floats(0, 0.2),
    corrupt=st.floats(0, 0.1),
    jitter_ms=st.integers(0, 40),
    delay_ms=st.integers(0, 200),
    seed=st.integers(0, 1000),
)
def test_everything_comes_once_in_order_and_never_early(
    loss: float,
    back: float,
    duplicate: float,
    corrupt: float,
    jitter_ms: int,
    delay_ms: int,
    seed: int,
) -> None:
    jitter = min(jitter_ms, delay_ms) * MS
    forward = Link(delay_ms * MS, jitter, "uniform", Bernoulli(loss), duplicate, corrupt)
    reverse = Link(delay_ms * MS, jitter, "uniform", Bernoulli(back), duplicate, corrupt)
    run = Run(forward, 60, reverse=reverse, seed=str(seed))
    assert run.all_came()
    instants = [at for _, at in run.received]
    assert instants == sorted(instants)
    assert min(run.delays) >= delay_ms - jitter / MS


@pytest.mark.parametrize(
    ("framing", "size", "framed"),
    [
        ("tcp", 100, 104),
        ("websocket", 125, 131),
        ("websocket", 126, 134),
        ("websocket", 1 << 16, 65550),
    ],
)
def test_messages_are_marked_off_as_on_the_wire(framing: str, size: int, framed: int) -> None:
    assert framed_bytes(framing, size) == framed  # type: ignore[arg-type]


def test_networks_without_validation_are_refused() -> None:
    clean, narrow = Link(10 * MS), Link(10 * MS, rate=Rate(100_000, 1600, latency_ns=300 * MS))
    dips = replace(
        narrow, rate=Rate(1_000_000, 1600, latency_ns=300 * MS), changes=(Change(MS, narrow),)
    )
    ten_s = 10_000 * MS

    def require(forward: Link, reverse: Link, size_bytes: int) -> None:
        require_validated(LinkPair(forward, reverse), "tcp", size_bytes, INTERVAL_NS, ten_s)

    require(narrow, clean, 100)
    require(replace(dips, changes=(Change(9_000 * MS, narrow),)), clean, 640)
    require(Link(loss=Bernoulli(0.1), changes=(Change(MS, Link(loss=Bernoulli(1.0))),)), clean, 640)
    with pytest.raises(Unsupported, match=r"forward link that carries .* 284000 bit/s, got 1000"):
        require(dips, clean, 640)
    with pytest.raises(Unsupported, match="reverse link that carries"):
        require(clean, Link(rate=Rate(20_000, 1600, latency_ns=300 * MS)), 100)
    with pytest.raises(Unsupported, match=r"loses at most 20%.*got 30\.0%"):
        require(Link(loss=Bernoulli(0.3)), clean, 100)
    with pytest.raises(Unsupported, match=r"at most 3 packets in a row.*got 4\.0"):
        require(Link(loss=GilbertElliott(0.01, 0.25)), clean, 100)


@pytest.mark.parametrize("hz", [100, 250, 1000])
def test_a_timer_fires_at_the_ticks_of_its_host(hz: int) -> None:
    """A wait of 40 ms ends at a tick, and never before it is over: within 1 ms at 1000 a second,
    within 10 at 100."""
    tick_ns = NS_PER_S // hz
    wheels = [Wheel(phase_ns, hz) for phase_ns in range(0, tick_ns, tick_ns // 10)]
    waits_ns = [wheel.expiry_ns(0, wheel.ticks_of(40 * MS)) for wheel in wheels]
    assert min(waits_ns) >= 40 * MS
    assert 40 * MS + tick_ns // 2 < max(waits_ns) <= 40 * MS + 2 * tick_ns


def test_a_connection_follows_the_ticks_that_it_is_given() -> None:
    delays = {
        hz: Run(Link(10 * MS, loss=lost(0)), at_ns=[0], hz=hz).delays[0] for hz in (100, 1000)
    }
    assert delays[100] != delays[1000]
    assert 230 <= delays[1000] <= 230 + HOSTS + 8 * 2

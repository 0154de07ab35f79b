"""Traces in media time: what they are drawn from, and how they meet a codec's packets."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from harness.errors import BadInput
from harness.network.fitting import LOST, PacketClock, fit
from harness.network.link import (
    Bernoulli,
    Change,
    Deliveries,
    Hits,
    Link,
    LinkPair,
    MediaTimeLoss,
    Rate,
    Recording,
    Replay,
)
from harness.network.model import LinkModel
from harness.network.trace import draw, placed, playable_ns, semantics
from harness.records import Outcome

MS = 1_000_000
S = 1_000_000_000
HOUR = 3600 * S
BURSTS = MediaTimeLoss(0.1, 80 * MS)


def pair(link: Link) -> LinkPair:
    return LinkPair(link, Link())


def clock(
    frame_ms: float = 20, frames: int = 50, lookahead: int = 0, delay: int = 0
) -> PacketClock:
    """At 48 kHz, where 13.3 ms are 640 samples."""
    return PacketClock(round(48 * frame_ms), 48_000, lookahead, delay, frames)


def due_ns(of: PacketClock) -> list[int]:
    first = 1 + of.lookahead_frames
    size = of.frame_samples * S
    return [(first + k) * size // of.sample_rate_hz for k in range(of.frames)]


def lost_packets(link: Link, of: PacketClock, late_ns: int = 0) -> list[bool]:
    """Which packets a link takes that are each sent ``late_ns`` after they were due."""
    model = LinkModel(link, "any")
    lost = [False] * of.frames
    for k, at_ns in enumerate(due_ns(of)):
        model.offer(k, 100, at_ns + late_ns)
        for ended in model.collect(at_ns + late_ns):
            lost[ended.packet] = ended.outcome is Outcome.LOST
    return lost


def lost_media(link: Link, of: PacketClock, grid: int) -> np.ndarray:
    """Lost media time, in steps of 1/grid of a packet."""
    return np.repeat(lost_packets(link, of), grid)


# --- drawing --------------------------------------------------------------------------------------


def test_the_loss_state_has_the_asked_share_and_mean_burst() -> None:
    spells = draw(pair(Link(loss=BURSTS)), 1, 10 * HOUR).forward.spells
    lengths = np.array([end - start for start, end in spells])
    n = len(lengths)
    # Exponential spells: the mean of n has a relative deviation of 1 / sqrt(n).
    assert lengths.mean() == pytest.approx(80 * MS, rel=4 / math.sqrt(n))
    assert lengths.std() == pytest.approx(80 * MS, rel=8 / math.sqrt(n))
    assert lengths.sum() / (10 * HOUR) == pytest.approx(0.1, rel=8 / math.sqrt(n))
    gaps = np.array([after[0] - before[1] for before, after in pairwise(spells)])
    assert gaps.mean() == pytest.approx(720 * MS, rel=4 / math.sqrt(n))


def test_the_state_is_stationary_from_the_start() -> None:
    begins_lost = [
        bool(spells) and spells[0][0] == 0
        for seed in range(2000)
        if (spells := draw(pair(Link(loss=MediaTimeLoss(0.3, 80 * MS))), seed, S).forward.spells)
        is not None
    ]
    assert np.mean(begins_lost) == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / 2000))


@pytest.mark.parametrize("shares", [(0.0, 0.02), (0.05, 0.1), (0.3, 0.6), (0.6, 0.9)])
def test_a_larger_share_only_adds_losses(shares: tuple[float, float]) -> None:
    few, many = (
        draw(pair(Link(loss=MediaTimeLoss(share, 80 * MS))), 3, 100 * S).forward.spells
        for share in shares
    )
    assert len(many) > 0
    assert all(any(b0 <= a0 and a1 <= b1 for b0, b1 in many) for a0, a1 in few)


def test_a_trace_hangs_on_the_seed_and_nothing_else() -> None:
    link = Link(delay_ns=50 * MS, jitter_ns=10 * MS, coherence_ns=100 * MS, loss=BURSTS)
    draw.cache_clear()
    first = draw(pair(link), 7, 10 * S)
    draw.cache_clear()
    assert draw(pair(link), 7, 10 * S) == first
    assert draw(pair(link), 7, 10 * S).sha256 == first.sha256
    assert draw(pair(link), 8, 10 * S).sha256 != first.sha256


@pytest.mark.parametrize("distribution", ["uniform", "normal", "pareto"])
def test_a_coherent_delay_keeps_its_distribution_and_its_correlation(distribution: str) -> None:
    link = Link(
        delay_ns=200 * MS,
        jitter_ns=20 * MS,
        distribution=distribution,  # type: ignore[arg-type]
        coherence_ns=100 * MS,
    )
    deviations = np.array(draw(pair(link), 5, HOUR).forward.deviations)
    steps = np.arange(0, HOUR, 10 * MS)
    values = deviations[np.searchsorted(deviations[:, 0], steps, side="right") - 1, 1] / MS
    spread = 20 / math.sqrt(3) if distribution == "uniform" else 20
    assert values.std() == pytest.approx(spread, rel=0.1)
    assert abs(values.mean()) < 2
    if distribution == "normal":
        correlation = np.corrcoef(values[:-10], values[10:])[0, 1]
        assert correlation == pytest.approx(math.exp(-1), abs=0.03)


# --- fitting --------------------------------------------------------------------------------------


def recorded(*lost: int, interval_ms: int = 20, **options: object) -> Link:
    recording = Recording(
        "loss",
        "0" * 64,
        len(lost) * interval_ms * MS,
        tuple(n * interval_ms * MS for n in range(len(lost))),
        loss=tuple(map(float, lost)),
    )
    return Link(replay=Replay(recording, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("late_ms", [0, 0.03, 3, 14.9])
def test_a_recorded_packet_is_the_packet_that_is_lost(late_ms: float) -> None:
    """Whatever encoding takes, packet k has the fate of entry k."""
    link = fit(draw(pair(recorded(0, 1, 0, 0, 1, 1, 0)), 1, S), clock(frames=7)).forward
    lost = lost_packets(link, clock(frames=7), round(late_ms * MS))
    assert lost == [False, True, False, False, True, True, False]


@pytest.mark.parametrize(("lookahead", "delay"), [(0, 312), (1, 64), (3, 1024)])
def test_look_ahead_moves_the_packets_and_not_the_media(lookahead: int, delay: int) -> None:
    """Frame k holds the input from k * F - D on: the spell of 100...120 ms hits just those."""
    of = clock(frames=12, lookahead=lookahead, delay=delay)
    entries = (0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)
    link = fit(draw(pair(recorded(*entries, hits="media")), 1, S), of).forward
    size = of.frame_samples
    expected = [
        k * size - delay < 120 * 48 and (k + 1) * size - delay > 100 * 48 for k in range(12)
    ]
    assert sum(expected) == 2
    assert lost_packets(link, of) == expected


@pytest.mark.parametrize("delay", [0, 66, 312, 480, 954, 960, 1500])
def test_a_recorded_packet_is_one_packet_whatever_the_delay_of_the_filters(delay: int) -> None:
    """Recorded at the codec's own interval: as many are lost, and each with its own delay."""
    recording = Recording(
        "arrivals",
        "0" * 64,
        10 * S,
        tuple(n * 20 * MS for n in range(500)),
        loss=tuple(float(n % 10 == 9) for n in range(500)),
        delay_ns=tuple((n % 10) * 3 * MS for n in range(500)),
        interval_ns=20 * MS,
    )
    of = clock(frames=490, delay=delay)
    link = fit(draw(pair(Link(delay_ns=5 * MS, replay=Replay(recording))), 1, 12 * S), of).forward
    lost = np.flatnonzero(lost_packets(link, of, late_ns=MS))
    assert len(lost) == 49 - (delay >= 960)
    assert set(np.diff(lost)) == {10}
    assert lost[0] == 9 + delay // 960
    model = LinkModel(link, "any")
    for k, at_ns in enumerate(due_ns(of)):
        model.offer(k, 100, at_ns + MS)
    taken = {e.packet: (e.out_ns - e.in_ns) // MS for e in model.collect(HOUR) if e.out_ns >= 0}
    assert [taken[lost[3] + n] for n in range(1, 10)] == [5 + 3 * n for n in range(9)]


@pytest.mark.parametrize(("hits", "expected"), [("media", [1, 1, 0]), ("instant", [1, 0, 0])])
def test_a_packet_is_lost_for_any_media_or_for_its_last_sample(
    hits: Hits, expected: list[int]
) -> None:
    """Packets of 60 ms; the state holds from 40 to 80 ms."""
    link = fit(draw(pair(recorded(0, 0, 1, 1, 0, 0, 0, 0, 0, hits=hits)), 1, S), clock(60, 3))
    assert lost_packets(link.forward, clock(60, 3)) == [bool(lost) for lost in expected]


def test_codecs_of_13_and_60_ms_lose_the_same_media() -> None:
    trace = draw(pair(Link(loss=BURSTS)), 11, 600 * S)
    short, long = clock(40 / 3, 9 * 5000), clock(60, 2 * 5000)
    lost_short = lost_media(fit(trace, short).forward, short, 1)
    lost_long = lost_media(fit(trace, long).forward, long, 1)
    grid_short, grid_long = np.repeat(lost_short, 2), np.repeat(lost_long, 9)
    both = (grid_short & grid_long).sum()
    assert both / grid_short.sum() > 0.98
    # The price of long packets: more is lost around each spell, 1 - (1 - share) exp(-T / good).
    assert grid_short.mean() == pytest.approx(1 - 0.9 * math.exp(-13.3 / 720), rel=0.15)
    assert grid_long.mean() == pytest.approx(1 - 0.9 * math.exp(-60 / 720), rel=0.15)


@pytest.mark.parametrize("frame_ms", [40 / 3, 20, 60])
def test_sampled_at_instants_the_share_of_lost_packets_is_that_of_time(frame_ms: float) -> None:
    loss = replace(BURSTS, hits="instant")
    of = clock(frame_ms, round(3000 * 1000 / frame_ms))
    lost = lost_packets(fit(draw(pair(Link(loss=loss)), 2, 3010 * S), of).forward, of)
    assert np.mean(lost) == pytest.approx(0.1, rel=0.1)


def test_a_coherent_delay_is_the_same_for_every_codec_at_the_same_media_time() -> None:
    link = Link(delay_ns=50 * MS, jitter_ns=10 * MS, distribution="normal", coherence_ns=S)
    trace = draw(pair(link), 4, 30 * S)
    seen = {}
    for of in (clock(20, 900), clock(60, 300, lookahead=1, delay=500)):
        model = LinkModel(fit(trace, of).forward, "any")
        for k, at_ns in enumerate(due_ns(of)):
            model.offer(k, 100, at_ns)
        middles = [(2 * k + 1) * of.frame_samples / 96 - of.delay_samples / 48 for k in range(900)]
        seen[of.frame_samples] = {
            middles[ended.packet]: (ended.out_ns - ended.in_ns) / MS
            for ended in model.collect(HOUR)
        }
    short, long = seen[960], seen[2880]
    differences = [
        abs(long[media] - short[min(short, key=lambda other: abs(other - media))])
        for media in list(long)[:-2]
    ]
    assert max(differences) < 4  # two instants up to 10 ms apart, of a process of 1 s
    assert np.ptp(list(short.values())) > 20


# --- recordings -----------------------------------------------------------------------------------


def rates(link: Link) -> list[tuple[int, int]]:
    return [(at_ns, part.rate.rate_bps) for at_ns, part in link.segments()]  # type: ignore[union-attr]


RATES = Recording("csv", "1" * 64, 3 * S, (0, S, 2 * S), rate_bps=(1_000_000, 0, 500_000))
SHARES = Recording("csv", "5" * 64, 2 * S, (0, S), loss=(0.0, 0.3))


def test_a_recorded_rate_begins_at_its_offset_and_again_at_its_end() -> None:
    link = Link(replay=Replay(RATES, offset_ns=1_500 * MS, end="loop", queue_ns=100 * MS))
    fitted = fit(draw(pair(link), 1, 4 * S), clock()).forward
    assert rates(fitted) == [
        (0, 0),
        (500 * MS, 500_000),
        (1_500 * MS, 1_000_000),
        (2_500 * MS, 0),
        (3_500 * MS, 500_000),
    ]


def test_recorded_delays_are_added_and_recorded_shares_are_drawn_per_packet() -> None:
    recording = Recording(
        "csv", "2" * 64, 2 * S, (0, S), loss=(0.0, 0.3), delay_ns=(5 * MS, 0), rate_bps=(10**6,) * 2
    )
    replay = Replay(recording, end="loop", queue_bytes=10_000)
    first, second = (
        part
        for _, part in fit(
            draw(pair(Link(delay_ns=20 * MS, replay=replay)), 1, 2 * S), clock()
        ).forward.segments()
    )
    assert (first.delay_ns, first.loss) == (25 * MS, None)
    assert (second.delay_ns, second.loss) == (20 * MS, Bernoulli(0.3))


def test_a_recording_that_is_spread_begins_anywhere_and_is_met_whole() -> None:
    recording = Recording("loss", "4" * 64, 931 * S, (0,), loss=(0.0,), interval_ns=20 * MS)
    whole = pair(Link(replay=Replay(recording, spread=True, end="loop")))
    fitting = pair(Link(replay=Replay(recording, spread=True)))
    for of, room_ns in ((whole, 931 * S), (fitting, 917 * S)):
        begins = []
        for seed in range(400):
            replay = placed(of, seed, 14 * S).forward.replay
            assert replay is not None
            assert not replay.spread
            assert replay.offset_ns % (20 * MS) == 0
            begins.append(replay.offset_ns)
        assert placed(of, 7, 14 * S) == placed(of, 7, 14 * S)
        assert max(begins) < room_ns
        met = np.zeros(931, bool)
        for begin in begins:
            met[begin // S : begin // S + 14] = True
        assert met.mean() > 0.95
        counts = np.histogram(begins, 10, (0, room_ns))[0]
        assert abs(counts - 40).max() < 4 * math.sqrt(40)
    fixed = pair(Link(replay=Replay(recording, 5 * S)))
    assert placed(fixed, 1, 14 * S) == fixed


def test_two_recordings_of_one_journey_begin_together() -> None:
    both = LinkPair(*[Link(replay=Replay(RATES, spread=True, end="loop", queue_ns=S))] * 2)
    begun = placed(both, 3, S)
    assert begun.forward == begun.reverse
    assert begun.forward.replay is not None
    assert begun.forward.replay.offset_ns > 0


def test_a_recording_shorter_than_the_audio_begins_at_its_beginning() -> None:
    link = Link(replay=Replay(RATES, spread=True, end="stop", queue_ns=S))
    begun = placed(pair(link), 3, 5 * S)
    assert begun.forward.replay is not None
    assert begun.forward.replay.offset_ns == 0
    assert playable_ns(begun, 5 * S) == 3 * S


def test_deliveries_go_on_after_the_recording_ends() -> None:
    recording = Recording("mahimahi", "3" * 64, 10 * MS, deliveries_ns=(1 * MS, 1 * MS, 10 * MS))
    link = Link(replay=Replay(recording, offset_ns=2 * MS, end="loop", queue_bytes=3000))
    rate = fit(draw(pair(link), 1, 25 * MS), clock()).forward.rate
    assert isinstance(rate, Deliveries)
    assert [ns // MS for ns in rate.at_ns] == [8, 9, 9, 18, 19, 19]


@pytest.mark.parametrize(("end", "expected_s"), [("loop", 5.0), ("stop", 2.0)])
def test_a_recording_shorter_than_the_audio_loops_or_ends_it(end: str, expected_s: float) -> None:
    link = Link(replay=Replay(RATES, offset_ns=S, end=end, queue_ns=S))  # type: ignore[arg-type]
    assert playable_ns(pair(link), 5 * S) == expected_s * S


def test_a_recording_shorter_than_the_audio_is_refused_where_it_may_not_be() -> None:
    link = Link(replay=Replay(RATES, queue_ns=S))
    assert playable_ns(pair(link), 3 * S) == 3 * S
    with pytest.raises(BadInput, match=r"has 3s left .* takes 4s; write end: loop"):
        playable_ns(pair(link), 4 * S)


# --- schedules ------------------------------------------------------------------------------------


def test_a_schedule_runs_on_the_clock_of_the_link() -> None:
    gap = Link(delay_ns=20 * MS, loss=LOST)
    after = Link(delay_ns=80 * MS)
    link = Link(delay_ns=20 * MS, changes=(Change(50 * MS, gap), Change(90 * MS, after)))
    of = clock(frames=6, lookahead=2, delay=480)
    fitted = fit(draw(pair(link), 1, S), of).forward
    assert fitted == link
    assert lost_packets(fitted, of) == [at // MS == 60 or at // MS == 80 for at in due_ns(of)]


def test_media_time_loss_of_a_schedule_stays_in_its_time() -> None:
    link = Link(changes=(Change(S, Link(loss=MediaTimeLoss(0.9, 500 * MS))), Change(3 * S, Link())))
    spells = draw(pair(link), 1, 5 * S).forward.spells
    assert spells
    assert spells[0][0] >= S
    assert spells[-1][1] <= 3 * S


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        (Link(), "per-packet"),
        (Link(loss=Bernoulli(0.1)), "per-packet"),
        (Link(loss=BURSTS), "media-time"),
        (Link(jitter_ns=1, coherence_ns=1, duplicate=0.1), "per-packet+media-time"),
        (Link(changes=(Change(1, Link(delay_ns=1)),)), "scheduled"),
        (Link(replay=Replay(RATES, queue_ns=1)), "recorded"),
        (Link(replay=Replay(SHARES, queue_ns=1)), "per-packet+recorded"),
        (Link(rate=Rate(1000, 1600, 1)), "per-packet"),
    ],
)
def test_the_way_of_impairing_has_a_name(link: Link, expected: str) -> None:
    assert semantics(pair(link)) == expected


def test_an_engine_refuses_what_is_not_fitted() -> None:
    for link in (Link(loss=BURSTS), Link(replay=Replay(RATES, queue_ns=1)), Link(coherence_ns=1)):
        with pytest.raises(ValueError, match="expected a fitted link"):
            LinkModel(link, "any")

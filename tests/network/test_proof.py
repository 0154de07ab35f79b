"""The proof accepts links that do what was asked, and catches those that do something else."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from harness.network.fitting import PacketClock, fit
from harness.network.link import (
    Bernoulli,
    Change,
    GilbertElliott,
    Link,
    LinkPair,
    LossTrace,
    MediaTimeLoss,
    Rate,
    Recording,
    Reorder,
    Replay,
)
from harness.network.model import LinkModel
from harness.network.proof import ProofFigure, prove
from harness.network.trace import draw
from harness.records import LINK_LOG, Columns, from_rows

MS = 1_000_000
RATE = Rate(100_000, 500, latency_ns=200 * MS)
LINKS = {
    "clean": Link(),
    "delay": Link(delay_ns=50 * MS),
    "uniform": Link(50 * MS, 10 * MS),
    "normal": Link(50 * MS, 10 * MS, "normal"),
    "pareto": Link(20 * MS, 15 * MS, "pareto"),
    "paretonormal": Link(20 * MS, 15 * MS, "paretonormal"),
    "bernoulli": Link(loss=Bernoulli(0.05)),
    "rare loss": Link(loss=Bernoulli(0.001)),
    "total loss": Link(loss=Bernoulli(1.0)),
    "bursts": Link(20 * MS, loss=GilbertElliott(0.02, 0.25)),
    "elliott": Link(loss=GilbertElliott(0.02, 0.1, 0.6, 0.01)),
    "trace": Link(loss=LossTrace((0, 0, 0, 1, 1))),
    "duplicates": Link(10 * MS, 5 * MS, duplicate=0.1, loss=Bernoulli(0.1)),
    "corruption": Link(corrupt=0.05, duplicate=0.05),
    "reorder": Link(60 * MS, reorder=Reorder(0.25, 5)),
    "rate": Link(10 * MS, rate=RATE),
    "rate and loss": Link(10 * MS, loss=Bernoulli(0.05), rate=RATE),
    "everything": Link(40 * MS, 5 * MS, "normal", GilbertElliott(0.02, 0.3), 0.02, 0.02, rate=RATE),
}


def log_of(
    link: Link,
    packets: int = 500,
    spacing_ns: int = 20 * MS,
    size_bytes: int = 200,
    seed: str = "1",
) -> Columns:
    """What a perfect engine would log, forward, at an even pace."""
    model = LinkModel[int](link, seed)
    ended = []
    for packet in range(packets):
        model.offer(packet, size_bytes, packet * spacing_ns)
        ended += model.collect(packet * spacing_ns)
    while (now := model.next_ns()) is not None:
        ended += model.collect(now)
    rows = [(0, e.in_ns, e.out_ns, e.size_bytes, e.outcome) for e in ended]
    return from_rows(LINK_LOG, rows)


def by_name(asked: Link, log: Columns) -> dict[str, ProofFigure]:
    figures = prove(LinkPair(asked, Link()), log)
    json.dumps([asdict(f) for f in figures])  # it ends in the tables as JSON
    return {f.figure: f for f in figures if f.direction == "forward"}


@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize("packets", [60, 500, 3000])
def test_a_link_that_does_as_asked_is_accepted(name: str, packets: int) -> None:
    for seed in "12345":
        for spacing_ns in (20 * MS, 12 * MS):  # 80 and 133 kbit/s
            log = log_of(LINKS[name], packets, spacing_ns, seed=seed)
            wrong = [f for f in prove(LinkPair(LINKS[name], Link()), log) if f.ok is False]
            assert wrong == []


WRONG = [
    ("delay", Link(50 * MS), Link(55 * MS)),
    ("delay", Link(50 * MS, 10 * MS, "normal"), Link(55 * MS, 10 * MS, "normal")),
    ("delay", Link(20 * MS, 15 * MS, "pareto"), Link(26 * MS, 15 * MS, "pareto")),
    ("delay", Link(), Link(3 * MS)),
    ("jitter", Link(50 * MS, 10 * MS), Link(50 * MS)),
    ("jitter", Link(50 * MS), Link(50 * MS, 5 * MS)),
    ("jitter", Link(50 * MS, 10 * MS, "normal"), Link(50 * MS, 20 * MS, "normal")),
    ("loss", Link(loss=Bernoulli(0.1)), Link(loss=Bernoulli(0.2))),
    ("loss", Link(loss=Bernoulli(0.05)), Link()),
    ("loss", Link(), Link(loss=Bernoulli(0.01))),
    ("loss", Link(loss=LossTrace((0, 0, 1))), Link(loss=LossTrace((0, 1, 1)))),
    ("burst", Link(loss=GilbertElliott(0.02, 0.2)), Link(loss=Bernoulli(0.09))),
    ("burst", Link(loss=Bernoulli(0.09)), Link(loss=GilbertElliott(0.03, 0.3))),
    ("duplicates", Link(duplicate=0.1), Link()),
    ("duplicates", Link(), Link(duplicate=0.02)),
    ("corruption", Link(corrupt=0.1), Link()),
    ("corruption", Link(), Link(corrupt=0.02)),
    ("reordering", Link(60 * MS, reorder=Reorder(0.5)), Link(60 * MS)),
    ("reordering", Link(60 * MS), Link(60 * MS, reorder=Reorder(0.25))),
    ("queue drops", Link(60 * MS), Link(60 * MS, limit_packets=2)),
]


@pytest.mark.parametrize(("figure", "asked", "real"), WRONG)
def test_a_link_that_does_something_else_is_caught(figure: str, asked: Link, real: Link) -> None:
    for seed in "123":
        assert by_name(asked, log_of(real, 500, seed=seed))[figure].ok is False


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.25, 2, 1000])
@pytest.mark.parametrize("spacing_ns", [3 * MS, 12 * MS])
def test_a_wrong_rate_is_caught(factor: float, spacing_ns: int) -> None:
    real = replace(RATE, rate_bps=int(RATE.rate_bps * factor))
    figure = by_name(Link(rate=RATE), log_of(Link(rate=real), 500, spacing_ns))["rate"]
    assert figure.ok is False
    demand = 200 * 8 * 1e9 / spacing_ns
    assert figure.measured == pytest.approx(min(factor * RATE.rate_bps, demand), rel=0.1)


def test_a_half_rate_is_caught_even_when_the_rate_asked_would_not_queue() -> None:
    real = replace(RATE, rate_bps=RATE.rate_bps // 2)
    figure = by_name(Link(rate=RATE), log_of(Link(rate=real), 500, 20 * MS))["rate"]
    assert figure.ok is False


def test_a_rate_that_was_never_reached_proves_nothing() -> None:
    figure = by_name(Link(rate=RATE), log_of(Link(rate=RATE), 500, 100 * MS))["rate"]
    assert figure.ok is None
    assert "not exercised" in figure.note


def test_a_stalled_host_does_not_condemn_the_link() -> None:
    link = Link(50 * MS, 10 * MS, "normal", rate=RATE)
    log = log_of(link, 500, 12 * MS)
    stalled = (log["out_ns"] > 2_000 * MS) & (log["out_ns"] < 2_300 * MS)
    log["out_ns"] = np.where(stalled, 2_300 * MS, log["out_ns"])
    assert [f for f in prove(LinkPair(link, Link()), log) if f.ok is False] == []


@pytest.mark.parametrize(("apart_us", "ok"), [(50, True), (500, False)])
def test_packets_of_a_burst_may_be_stamped_in_another_order(apart_us: int, ok: bool) -> None:
    """Two cores that stamp what one sender sends each have a queue of their own."""
    log = log_of(Link(10 * MS))
    stamped_late = np.arange(len(log["in_ns"])) % 2 == 0
    log["in_ns"] = np.repeat(log["in_ns"][::2], 2) + stamped_late * apart_us * 1000
    log["out_ns"] = np.repeat(log["out_ns"][::2], 2) + ~stamped_late * 12 * MS
    assert by_name(Link(10 * MS, rate=RATE), log)["reordering"].ok is ok


def test_no_packets_at_all_is_a_failure_forward_only() -> None:
    figures = prove(LinkPair(Link(), Link()), from_rows(LINK_LOG, []))
    assert [(f.direction, f.ok) for f in figures] == [("forward", False)]


def test_directions_are_judged_apart() -> None:
    log = log_of(Link(50 * MS))
    log["direction"][:] = 1
    both = {k: np.concatenate([log[k], log_of(Link())[k]]) for k in log}
    assert [f for f in prove(LinkPair(Link(), Link(50 * MS)), both) if f.ok is False] == []
    wrong = [f for f in prove(LinkPair(Link(50 * MS), Link()), both) if f.ok is False]
    times = ("delay", "delay p95")
    assert {(f.direction, f.figure) for f in wrong} == {
        (direction, figure) for direction in ("forward", "reverse") for figure in times
    }


STEP = replace(Link(50 * MS), changes=(Change(2000 * MS, Link(80 * MS)),))


def judged_by(engine: str, asked: Link, log: Columns) -> dict[str, bool | None]:
    figures = prove(LinkPair(asked, Link()), log, engine=engine)
    return {f.figure: f.ok for f in figures if f.direction == "forward"}


@pytest.mark.parametrize(
    ("engine", "off_us", "ok"),
    [
        ("netem", 900, True),
        ("netem", 3_000, False),
        ("relay", 200, True),
        ("relay", 700, False),
        ("model", 0, True),
        ("model", 20, False),
    ],
)
def test_a_delay_is_held_to_what_its_engine_can_do(engine: str, off_us: int, ok: bool) -> None:
    for link in (Link(50 * MS), STEP):
        log = log_of(link)
        log["out_ns"] = log["out_ns"] + off_us * 1000
        assert judged_by(engine, link, log)["delay"] is ok


@pytest.mark.parametrize("engine", ["netem", "relay", "model"])
@pytest.mark.parametrize(
    "link",
    [
        Link(50 * MS),
        Link(50 * MS, 2 * MS, "normal"),
        STEP,
    ],
    ids=["static", "jittered", "changing"],
)
def test_a_tail_that_nobody_asked_for_is_caught(engine: str, link: Link) -> None:
    """One packet in eleven is 20 ms later: neither median nor quartiles see it."""
    log = log_of(link, 1000)
    late = np.arange(len(log["in_ns"])) % 11 == 0
    assert judged_by(engine, link, log)["delay p95"] is True
    log["out_ns"] = log["out_ns"] + late * 20 * MS
    judged = judged_by(engine, link, log)
    assert judged["delay p95"] is False
    if engine != "model":
        assert judged["delay"] is True


@pytest.mark.parametrize("name", LINKS)
def test_the_model_is_exact_and_held_to_that(name: str) -> None:
    for seed in "123":
        log = log_of(LINKS[name], 500, seed=seed)
        assert False not in judged_by("model", LINKS[name], log).values()


def test_the_tail_of_a_clipped_distribution_is_that_of_what_is_left_of_it() -> None:
    """A third of the packets would leave before they come; a quarter more skip the delay."""
    clipped = Link(5 * MS, 15 * MS, "normal")
    assert judged_by("model", clipped, log_of(clipped, 2000))["delay p95"] is True
    narrower = log_of(Link(5 * MS, 10 * MS, "normal"), 2000)
    assert judged_by("model", clipped, narrower)["delay p95"] is False


# --- links that change ----------------------------------------------------------------------------

S = 1000 * MS
AUDIO_NS = 10 * S
FRAME_NS = 20 * MS
CLOCK = PacketClock(320, 16_000, 0, 0, AUDIO_NS // FRAME_NS)


def scheduled(base: Link, *changes: tuple[int, Link]) -> Link:
    return replace(base, changes=tuple(Change(at_ns, link) for at_ns, link in changes))


def limited(rate_bps: int) -> Link:
    return Link(10 * MS, rate=Rate(rate_bps, 1600, limit_bytes=60_000))


def ramp(step_ns: int) -> Link:
    parts = [(2 * S + n * FRAME_NS, Link(20 * MS + n * step_ns)) for n in range(100)]
    return scheduled(Link(20 * MS), *parts)


def recorded(**what: tuple[float, ...]) -> Link:
    """Twenty steps of a second; read from memory, so without a hash."""
    at_ns = tuple(n * S for n in range(20))
    recording = Recording("csv", "", 20 * S, at_ns, **what)  # type: ignore[arg-type]
    return Link(10 * MS, replay=Replay(recording, end="loop", queue_ns=300 * MS))


def deliveries(offset_ns: int) -> Link:
    """70 kbit/s on average, in clumps."""
    at_ns = tuple(n * 170 * MS + n * n % 7 * 40 * MS for n in range(130))
    recording = Recording("mahimahi", "", 30 * S, deliveries_ns=tuple(sorted(at_ns)))
    return Link(10 * MS, replay=Replay(recording, offset_ns, "loop", queue_bytes=60_000))


GE = GilbertElliott(0.02, 0.3)
LOSSY = Link(20 * MS, 5 * MS, "normal", GE)
CHANGING = {
    "media-time loss": Link(20 * MS, loss=MediaTimeLoss(0.1, 80 * MS)),
    "instant hits": Link(20 * MS, loss=MediaTimeLoss(0.2, 30 * MS, "instant"), duplicate=0.05),
    "coherent": Link(50 * MS, 15 * MS, "normal", coherence_ns=200 * MS),
    "coherent, quick": Link(50 * MS, 15 * MS, "pareto", coherence_ns=20 * MS),
    "all in media time": Link(
        *(50 * MS, 15 * MS, "normal", MediaTimeLoss(0.1, 80 * MS), 0.05, 0.05),
        coherence_ns=200 * MS,
    ),
    "gap": scheduled(
        LOSSY,
        (3 * S, replace(LOSSY, delay_ns=120 * MS)),
        (4 * S, replace(LOSSY, loss=Bernoulli(1.0))),
        (4 * S + 800 * MS, LOSSY),
    ),
    "other losses": scheduled(
        Link(loss=Bernoulli(0.05)), (3 * S, Link(loss=GE)), (6 * S, Link(loss=Bernoulli(0.3)))
    ),
    "list of losses": scheduled(
        Link(loss=LossTrace((0, 0, 1))), (3 * S, Link(40 * MS, loss=LossTrace((0, 0, 1))))
    ),
    "ramp": ramp(MS),
    "rate step": scheduled(limited(500_000), (3 * S, limited(60_000)), (6 * S, limited(500_000))),
    "outage": scheduled(limited(500_000), (3 * S, limited(0)), (4 * S, limited(500_000))),
    "recorded rate": recorded(rate_bps=tuple(40_000 + n * 7 % 10 * 20_000 for n in range(20))),
    "recorded loss": recorded(loss=tuple(n % 5 / 20 for n in range(20))),
    "recorded delay": recorded(delay_ns=tuple(n * 7 % 10 * 5 * MS for n in range(20))),
    "deliveries": deliveries(0),
    "reordering": scheduled(
        Link(60 * MS, reorder=Reorder(0.3, 3)),
        (3 * S, Link(60 * MS, reorder=Reorder(0.3, 3), duplicate=0.1)),
    ),
    "other jitters": scheduled(
        Link(60 * MS, 10 * MS), (3 * S, Link(10 * MS, 8 * MS, "pareto")), (6 * S, Link(90 * MS))
    ),
}


def fitted(link: Link, seed: int) -> Link:
    return fit(draw(LinkPair(link, Link()), seed, 2 * AUDIO_NS), CLOCK).forward


def streamed(link: Link, seed: int, late_ns: int = 0) -> Columns:
    """The log of a perfect engine, or of one whose changes are all late, under 20 ms packets."""
    model = LinkModel[int](link, str(seed), late_ns)
    for packet in range(CLOCK.frames):
        model.offer(packet, 200, (packet + 1) * FRAME_NS)
    ended = model.collect(10**15)
    rows = [(0, e.in_ns, e.out_ns, e.size_bytes, e.outcome) for e in ended]
    return from_rows(LINK_LOG, rows)


def verdicts(asked: Link, log: Columns, **how: object) -> dict[str, ProofFigure]:
    figures = prove(LinkPair(asked, Link()), log, 0, **how)  # type: ignore[arg-type]
    json.dumps([asdict(f) for f in figures])
    return {f.figure: f for f in figures}


@pytest.mark.parametrize("name", CHANGING)
def test_a_link_that_changes_as_asked_is_accepted(name: str) -> None:
    for seed in range(8):
        link = fitted(CHANGING[name], seed)
        found = verdicts(link, streamed(link, seed))
        assert [f for f in found.values() if f.ok is False] == []
    exercised = {
        "media-time loss": {"loss windows", "loss", "delay", "jitter", "queue drops"},
        "all in media time": {"loss windows", "delay changes", "duplicates", "corruption"},
        "gap": {"loss windows", "loss", "delay changes", "jitter"},
        "rate step": {"departures", "rate", "delay"},
        "outage": {"departures"},
        "recorded rate": {"departures", "rate"},
        "deliveries": {"departures", "rate"},
        "recorded delay": {"delay changes"},
        "reordering": {"reordering"},
    }
    assert {name for name, f in found.items() if f.ok} >= exercised.get(name, {"loss"})


MEDIA_LOSS = CHANGING["media-time loss"]
SPIKE = scheduled(Link(20 * MS), (5 * S, Link(60 * MS)), (5 * S + 400 * MS, Link(20 * MS)))
WRONG_CHANGES = {
    "windows a packet late": ("loss windows", MEDIA_LOSS, MEDIA_LOSS, FRAME_NS),
    "no windows": ("loss windows", MEDIA_LOSS, Link(20 * MS), 0),
    "windows unasked": ("loss", SPIKE, scheduled(SPIKE, (S, Link(loss=Bernoulli(1.0)))), 0),
    "deviations too late": ("delay changes", CHANGING["coherent"], CHANGING["coherent"], S),
    "coherence ignored": ("delay changes", CHANGING["coherent"], Link(50 * MS), 0),
    "half a ramp": ("delay changes", ramp(MS), ramp(MS // 2), 0),
    "ramp ignored": ("delay changes", ramp(MS), Link(20 * MS), 0),
    "ramp 100 ms late": ("delay changes", ramp(MS), ramp(MS), 100 * MS),
    "spike ignored": ("delay changes", SPIKE, Link(20 * MS), 0),
    "gap ignored": ("loss windows", CHANGING["gap"], LOSSY, 0),
    "wrong rate": (
        "rate",
        CHANGING["rate step"],
        scheduled(limited(500_000), (3 * S, limited(66_000)), (6 * S, limited(500_000))),
        0,
    ),
    "rate step late": ("departures", CHANGING["rate step"], CHANGING["rate step"], 300 * MS),
    "rate step ignored": ("rate", CHANGING["rate step"], limited(500_000), 0),
    "rate unasked": ("departures", scheduled(limited(500_000), (S, SPIKE)), limited(60_000), 0),
    "outage ignored": ("departures", CHANGING["outage"], limited(500_000), 0),
    "another recording": ("departures", deliveries(0), deliveries(5 * S), 0),
    "too many losses": (
        "loss",
        CHANGING["other losses"],
        scheduled(Link(loss=Bernoulli(0.05)), (3 * S, Link(loss=Bernoulli(0.4)))),
        0,
    ),
    "another list": ("loss", CHANGING["list of losses"], Link(loss=LossTrace((0, 1, 1))), 0),
    "twice the jitter": (
        "jitter",
        scheduled(Link(60 * MS, 10 * MS), (3 * S, Link(90 * MS, 10 * MS))),
        scheduled(Link(60 * MS, 20 * MS), (3 * S, Link(90 * MS, 20 * MS))),
        0,
    ),
    "copies unasked": ("duplicates", SPIKE, replace(SPIKE, changes=(), duplicate=0.1), 0),
    "damage unasked": ("corruption", SPIKE, replace(SPIKE, changes=(), corrupt=0.1), 0),
}


@pytest.mark.parametrize("name", WRONG_CHANGES)
def test_a_link_that_changes_otherwise_is_refused(name: str) -> None:
    figure, asked, real, late_ns = WRONG_CHANGES[name]
    for seed in range(4):
        log = streamed(fitted(real, seed), seed, late_ns)
        assert verdicts(fitted(asked, seed), log)[figure].ok is False


def test_media_time_counts_from_t0_on_the_clock_of_the_log() -> None:
    link = fitted(MEDIA_LOSS, 1)
    log = streamed(link, 1)
    later = log | {"in_ns": log["in_ns"] + S, "out_ns": log["out_ns"] + S}
    pair = LinkPair(link, Link())
    assert [f for f in prove(pair, later, S) if f.ok is False] == []
    assert {f.figure for f in prove(pair, later) if f.ok is False} >= {"loss windows", "loss"}


def made(link: Link, late_ns: int) -> dict[str, dict[str, object]]:
    """What an engine would say whose changes were all so late."""
    planned = len(link.changes)
    return {
        "forward": {
            "planned": planned,
            "skipped": 0,
            "spacing_ns": 100 * MS,
            "worst_lateness_ns": late_ns,
            "median_lateness_ns": late_ns,
            "late": [[change.at_ns, late_ns] for change in link.changes],
            "behind_ns": planned * late_ns,
            "span_ns": AUDIO_NS,
        }
    }


def test_what_a_late_change_did_is_left_out_and_said() -> None:
    link = fitted(MEDIA_LOSS, 2)
    log = streamed(link, 2, 25 * MS)
    without = verdicts(link, log)
    assert without["loss windows"].ok is without["loss"].ok is False
    found = verdicts(link, log, changes=made(link, 25 * MS))
    assert [f for f in found.values() if f.ok is False] == []
    assert found["loss windows"].ok
    assert "made up to 25.00 ms late" in found["changes in time"].note
    found = verdicts(link, log, changes=made(link, 100 * MS))
    assert found["changes in time"].ok is False


def test_figures_have_the_decimals_that_every_cpu_agrees_on() -> None:
    link = LINKS["everything"]
    figures = prove(LinkPair(link, Link()), log_of(link))
    numbers = [n for f in figures for n in (f.asked, f.measured, f.tolerance) if n is not None]
    assert len(numbers) > 10
    assert numbers == [round(number, 6) for number in numbers]

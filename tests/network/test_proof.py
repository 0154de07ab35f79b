"""The proof accepts links that do what was asked, and catches those that do something else."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from harness.network.link import (
    Bernoulli,
    GilbertElliott,
    Link,
    LinkPair,
    LossTrace,
    Rate,
    Reorder,
)
from harness.network.model import LinkModel
from harness.network.proof import ProofFigure, prove
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


def test_no_packets_at_all_is_a_failure_forward_only() -> None:
    figures = prove(LinkPair(Link(), Link()), from_rows(LINK_LOG, []))
    assert [(f.direction, f.ok) for f in figures] == [("forward", False)]


def test_directions_are_judged_apart() -> None:
    log = log_of(Link(50 * MS))
    log["direction"][:] = 1
    both = {k: np.concatenate([log[k], log_of(Link())[k]]) for k in log}
    assert [f for f in prove(LinkPair(Link(), Link(50 * MS)), both) if f.ok is False] == []
    wrong = [f for f in prove(LinkPair(Link(50 * MS), Link()), both) if f.ok is False]
    assert {(f.direction, f.figure) for f in wrong} == {("forward", "delay"), ("reverse", "delay")}

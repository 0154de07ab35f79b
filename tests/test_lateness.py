"""A thread that fell behind its schedule is seen, at whichever end, whatever the codec's frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from harness.cell import _verdict, lateness_of
from harness.endpoint.sender import SenderCore
from harness.lateness import P99_LIMIT_NS, WORST_LIMIT_NS, Lateness, Schedule
from harness.media.playout import ReceiverCore
from harness.media.settings import ReceiverSettings
from harness.records import Observed
from tests.media.simulation import FACTS, STREAM, T0, ScriptedDecoder, arrivals, send, voiced
from tests.virtual.streams import Fixed, streamed

MS = 1_000_000


def problems(observed: Observed) -> list[str]:
    return [doubt.reason for doubt in _verdict([], observed, lateness_of(observed))]


def with_sender(late: Lateness) -> Observed:
    clean = streamed()
    return replace(clean, sender=clean.sender | {"lateness": late.figures()})


def test_one_percent_or_one_action_may_be_late_and_none_by_much() -> None:
    assert Lateness.of([0] * 97 + [6 * MS]) == Lateness(98, 0, 6 * MS)
    assert Lateness.of([0] * 396 + [6 * MS] * 4).p99_ns == 0
    assert Lateness.of([0] * 395 + [6 * MS] * 5).p99_ns == 6 * MS
    assert Lateness.of([30 * MS]) == Lateness(1, 30 * MS, 30 * MS)
    assert Lateness.of([]) == Lateness(0, 0, 0)
    assert Lateness.of([-5, -7]) == Lateness(2, 0, 0), "early is on time"
    assert Lateness(400, P99_LIMIT_NS, WORST_LIMIT_NS).problems("the relay") == []
    assert Lateness(400, 11 * MS, 31 * MS).problems("the relay") == [
        "the relay fell behind: late by p99 11.0 ms (limit 10 ms) and worst 31.0 ms (limit 20"
        " ms) in 400 actions; use fewer --jobs"
    ]


def test_a_call_that_was_preempted_is_late_and_one_that_always_takes_long_is_not() -> None:
    steady, preempted = Schedule(20 * MS), Schedule(20 * MS)
    for number in range(50):
        due_ns = number * 20 * MS
        steady.note(0, due_ns, due_ns, due_ns + 18 * MS)
        cost_ns = 30 * MS if number in (7, 20) else MS
        preempted.note(0, due_ns, due_ns, due_ns + cost_ns)
    assert steady.lateness() == Lateness(50, 0, 0)
    assert preempted.lateness().worst_ns == 28 * MS


def test_streams_of_one_thread_wait_for_each_other_for_a_frame_and_no_longer() -> None:
    schedule = Schedule(20 * MS)
    schedule.note("a", 0, 0, 15 * MS)
    schedule.note("b", 0, 15 * MS, 30 * MS)
    assert schedule.lateness().worst_ns == 0
    schedule.note("a", 20 * MS, 30 * MS, 90 * MS)
    schedule.note("b", 20 * MS, 90 * MS, 91 * MS)
    assert schedule.lateness().worst_ns >= 50 * MS


def test_a_receiver_whose_pulls_are_late_makes_its_cell_invalid() -> None:
    def heard(late_ns: Iterator[int]) -> Lateness:
        now = T0
        core = ReceiverCore(
            ReceiverSettings(), FACTS, ScriptedDecoder(FACTS), STREAM, SENT.frames, lambda: now
        )
        for packet, recv_ns in COME:
            core.on_packet(packet, recv_ns)
        while (pull_ns := core.next_pull_ns()) is not None:
            now = pull_ns + next(late_ns)
            core.pull()
        return Lateness(**core.figures()["lateness"])

    SENT = send(voiced(320 * 100))
    COME = [(packet, at) for at, packet in arrivals(SENT, [0])]
    assert heard(iter([0] * 100)) == Lateness(100, 0, 0)
    late = heard(iter([0] * 50 + [36 * MS] + [0] * 49))
    assert late == Lateness(100, 0, 36 * MS)
    clean = streamed()
    (problem,) = problems(replace(clean, receiver=clean.receiver | {"lateness": late.figures()}))
    assert problem.startswith("the receiver fell behind: late by worst 36.0 ms (limit 20 ms)")
    often = heard(iter(([0] * 9 + [12 * MS]) * 10))
    assert often.problems("the receiver") == [
        "the receiver fell behind: late by p99 12.0 ms (limit 10 ms) in 100 actions; use fewer"
        " --jobs"
    ]


def test_a_sender_of_one_second_chunks_that_is_late_by_100_ms_makes_its_cell_invalid() -> None:
    facts = replace(FACTS, frame_samples=16_000)
    now = T0

    class Encoder:
        def encode(self, _: object) -> bytes:
            return b"payload"

    pcm = np.zeros(16_000 * 5, np.int16)
    core = SenderCore(facts, Encoder(), STREAM, pcm, T0, 1_000, lambda _: True, lambda: now)
    for late_ns in (0, 0, 100 * MS, 0, 0):
        ready_ns = core.next_ready_ns()
        assert ready_ns is not None
        now = ready_ns + late_ns
        core.step()
    assert core.figures()["late_frames"] == 0, "not by a whole frame"
    (problem,) = problems(with_sender(Lateness(**core.figures()["lateness"])))
    assert problem == (
        "the sender fell behind: late by worst 100.0 ms (limit 20 ms) in 5 actions;"
        " use fewer --jobs"
    )


@pytest.mark.parametrize("where", ["relay", "read"])
def test_a_relay_or_a_reading_thread_that_was_preempted_makes_its_cell_invalid(where: str) -> None:
    clean = streamed()
    late = Lateness(400, 0, 25 * MS).figures()
    if where == "relay":
        counters = clean.link["counters"] | {"lateness": late}
        (problem,) = problems(replace(clean, link=clean.link | {"counters": counters}))
    else:
        (problem,) = problems(replace(clean, receiver=clean.receiver | {"read_lateness": late}))
    assert "fell behind: late by worst 25.0 ms (limit 20 ms)" in problem
    assert where in problem


def test_a_codec_that_is_slow_but_in_time_is_not_late() -> None:
    cost = Fixed({"encode": 15 * MS, "decode": 15 * MS})
    assert problems(streamed(frames=50, compute=cost)) == []


def test_what_was_due_before_the_first_packet_came_is_not_late() -> None:
    now = T0
    sent = send(voiced(320 * 40))
    core = ReceiverCore(
        ReceiverSettings(), FACTS, ScriptedDecoder(FACTS), STREAM, sent.frames, lambda: now
    )
    for at, packet in arrivals(sent, lambda i: None if i < 20 else 0):
        core.on_packet(packet, at)
        now = max(now, at)
    now = T0 + 21 * 20 * MS
    while (pull_ns := core.next_pull_ns()) is not None:
        now = max(now, pull_ns)
        core.pull()
    assert core.figures()["lateness"]["worst_ns"] == 0

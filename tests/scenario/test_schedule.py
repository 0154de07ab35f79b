"""Links that change over time, from the file to the changes that engines follow."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from harness.errors import ScenarioError
from harness.network.link import Bernoulli, Change, Link, LinkPair, MediaTimeLoss, Rate
from harness.scenario import config_sha256, loads

MS = 1_000_000
S = 1_000_000_000
TEXT = """\
name: t
corpus: [librispeech]
codecs: [pcm]
transports: [udp]
networks:
"""


def network(written: str) -> LinkPair:
    return loads(f"{TEXT}  - {written}\n", "s.yaml", Path("/nowhere")).networks[0].pair


def forward(link: str, *schedule: str) -> Link:
    return network(f"{{name: n, forward: {{{link}, schedule: [{', '.join(schedule)}]}}}}").forward


def mistakes(written: str) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        network(written)
    return caught.value.mistakes


def course(link: Link) -> list[tuple[float, float]]:
    """(seconds, delay in ms) of all changes."""
    return [(change.at_ns / S, change.link.delay_ns / MS) for change in link.changes]


class TestWhatHolds:
    def test_from_an_instant_on(self) -> None:
        link = forward("delay: 10ms, loss: 1%", "{at: 5s, delay: 40ms}", "{at: 7s, loss: 2%}")
        assert link.segments() == [
            (0, Link(10 * MS, loss=Bernoulli(0.01))),
            (5 * S, Link(40 * MS, loss=Bernoulli(0.01))),
            (7 * S, Link(40 * MS, loss=Bernoulli(0.02))),
        ]

    def test_for_a_time_and_then_as_it_would_be_without(self) -> None:
        link = forward("delay: 10ms", "{at: 1s, delay: 30ms}", "{at: 2s, for: 500ms, loss: 100%}")
        assert link.changes == (
            Change(1 * S, Link(30 * MS)),
            Change(2 * S, Link(30 * MS, loss=Bernoulli(1.0))),
            Change(2 * S + 500 * MS, Link(30 * MS)),
        )

    def test_the_entry_further_down_wins_while_both_hold(self) -> None:
        link = forward(
            "delay: 10ms",
            "{at: 1s, for: 4s, delay: 20ms}",
            "{at: 2s, for: 1s, delay: 30ms}",
            "{at: 4s, for: 3s, delay: 40ms}",
        )
        assert course(link) == [(1, 20), (2, 30), (3, 20), (4, 40), (7, 10)]

    def test_again_and_again_for_ten_minutes(self) -> None:
        link = forward("delay: 10ms", "{at: 5s, for: 1s, every: 15s, delay: 20ms}")
        assert course(link)[:5] == [(5, 20), (6, 10), (20, 20), (21, 10), (35, 20)]
        assert course(link)[-2:] == [(590, 20), (591, 10)]
        assert len(link.changes) == 2 * 40

    def test_from_the_beginning(self) -> None:
        """No change at 0: the link is so already while connections are made."""
        link = forward("delay: 10ms", "{at: 0s, delay: 20ms}")
        assert link == Link(20 * MS)

    def test_what_changes_nothing_is_no_change(self) -> None:
        link = forward("delay: 10ms", "{at: 1s, delay: 10ms}", "{at: 2s, for: 1s, loss: 0%}")
        assert link == Link(10 * MS)

    def test_bursts_in_media_time_for_a_while(self) -> None:
        burst = "{at: 1s, for: 2s, loss: {model: media-time, loss: 50%, burst: 40ms}}"
        link = forward("delay: 10ms", burst)
        assert link.changes[0].link.loss == MediaTimeLoss(0.5, 40 * MS)
        assert link.changes[1] == Change(3 * S, Link(10 * MS))


class TestRamps:
    def test_steps_of_100_ms_at_the_middle_of_each(self) -> None:
        link = forward("delay: 10ms", "{at: 5s, over: 2s, delay: 50ms}")
        assert len(link.changes) == 21
        assert course(link)[:2] == [(5, 11), (5.1, 13)]
        assert course(link)[-2:] == [(6.9, 49), (7, 50)]

    @pytest.mark.parametrize(
        ("over", "steps"), [("10s", 100), ("2s", 20), ("200ms", 20), ("50ms", 10), ("1ms", 1)]
    )
    def test_how_fine(self, over: str, steps: int) -> None:
        """At least 20 where they are not shorter than 5 ms; none longer than 100 ms."""
        link = forward("delay: 0ms", f"{{at: 1s, over: {over}, delay: 1s}}")
        assert len(link.changes) == steps + 1

    def test_every_key_that_has_a_line(self) -> None:
        rate = "rate: {rate: %s, latency: 150ms}"
        link = forward(
            f"delay: 10ms, jitter: 2ms, {rate % '100kbit'}",
            f"{{at: 1s, over: 2s, delay: 30ms, jitter: 4ms, loss: 20%, {rate % '300kbit'}}}",
        )
        assert link.changes[10] == Change(
            2 * S,
            Link(
                20 * MS + 500_000,
                3 * MS + 50_000,
                loss=Bernoulli(pytest.approx(0.105)),  # type: ignore[arg-type]
                rate=Rate(205_000, 1600, latency_ns=150 * MS),
            ),
        )
        assert link.changes[-1].link.rate == Rate(300_000, 1600, latency_ns=150 * MS)

    def test_it_starts_with_what_held_before_it(self) -> None:
        link = forward(
            "delay: 10ms", "{at: 1s, over: 1s, delay: 110ms}", "{at: 2s, over: 1s, delay: 10ms}"
        )
        assert course(link)[19:21] == [(1.95, 107.5), (2.05, 102.5)]
        assert course(link)[-1] == (3, 10)

    def test_down_to_no_loss(self) -> None:
        link = forward("loss: 10%", "{at: 1s, over: 1s, loss: 0%}")
        assert link.changes[-1] == Change(2 * S, Link())


class TestOverlay:
    def test_a_schedule_is_laid_onto_what_all_keys_make(self) -> None:
        pair = network(
            "{name: n, both: {delay: 20ms, schedule: [{at: 1s, loss: 5%}]},"
            " forward: {delay: 40ms}, reverse: {schedule: [{at: 2s, delay: 1ms}]}}"
        )
        assert pair.forward.changes == (Change(1 * S, Link(40 * MS, loss=Bernoulli(0.05))),)
        assert pair.reverse.changes == (Change(2 * S, Link(1 * MS)),)

    def test_of_a_preset(self) -> None:
        pair = network("{preset: starlink, name: n, forward: {delay: 40ms}}")
        assert pair.forward.changes[:2] == (
            Change(5 * S, Link(40 * MS, loss=Bernoulli(0.5))),
            Change(5 * S + 200 * MS, Link(40 * MS)),
        )
        assert network("{preset: starlink, name: n, both: {schedule: null}}").forward == Link(
            13 * MS
        )

    def test_the_way_back_changes_without_the_faults(self) -> None:
        pair = network(
            "{name: n, forward: {delay: 10ms, schedule:"
            " [{at: 1s, loss: 5%, delay: 20ms}, {at: 2s, for: 1s, corrupt: 1%}]}}"
        )
        assert pair.reverse.changes == (Change(1 * S, Link(20 * MS)),)


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ("[{at: 5s}]", "[0]: expected something to change (delay, jitter,"),
        ("[{delay: 5ms}]", '[0]: expected the key "at", which is missing'),
        ("[{at: 5s, dela: 5ms}]", 'got "dela"; did you mean "delay"?'),
        ("[{at: 5s, fore: 5ms, loss: 1%}]", 'got "fore"; did you mean "for"?'),
        ("[{at: 5s, for_: 5ms, loss: 1%}]", 'got "for_"; did you mean "for"?'),
        ("[{at: 5s, for: 1s, over: 1s, delay: 1ms}]", '[0]: expected one of "for" and "over"'),
        ("[{at: 5s, every: 1s, delay: 1ms}]", '[0].every: expected a "for" beside "every"'),
        ("[{at: 5s, for: 2s, every: 1s, delay: 1ms}]", "[0].for: expected at most every (1s), got"),
        ("[{at: 11min, delay: 1ms}]", "[0].at: expected a time of 0ns...600s, got 660s"),
        ("[{at: 1s, for: 0s, delay: 1ms}]", "[0].for: expected a duration of 1ms...600s, got 0ns"),
        ("[{at: 1s, over: 1s, corrupt: 1%}]", "[0].corrupt: expected only delay, jitter, loss"),
        (
            "[{at: 1s, over: 1s, loss: {model: media-time, loss: 1%, burst: 80ms}}]",
            "[0].loss: expected only delay, jitter, loss, rate (loss as a probability)",
        ),
        (
            "[{at: 1s, over: 1s, rate: {rate: 1mbit, latency: 1s}}]",
            '[0].rate: expected a rate to start from beside "over"',
        ),
        (
            "[{at: 0s, loss: {model: gilbert-elliott, p: 1%, r: 1}}, {at: 1s, over: 1s, loss: 1%}]",
            '[1].loss: expected a probability to start from beside "over"',
        ),
        (
            "[{at: 0s, for: 1ms, every: 2ms, delay: 1ms}]",
            ": expected at most 10000 changes of the link, got 600001",
        ),
        (
            "[{at: 1s, delay: 5ms, reorder: {probability: 1%}}, {at: 2s, delay: 0ms}]",
            "[1]: expected a delay beside reorder",
        ),
        (
            "[{at: 1s, rate: {rate: 1mbit, latency: 20ms, burst: 1kB}}]",
            "[0].rate.burst: expected at least 1514B (one full frame), got 1kB",
        ),
        ("[{at: 1s, schedule: []}]", "[0].schedule: expected a known key (delay, jitter"),
        ("{at: 1s, delay: 1ms}", ": expected a list, got a mapping"),
    ],
)
def test_mistakes(schedule: str, said: str) -> None:
    (found,) = mistakes(f"{{name: n, both: {{schedule: {schedule}}}}}")
    assert "$.networks[0].both.schedule" in found
    assert said in found


def test_all_mistakes_at_once_each_at_its_line() -> None:
    found = mistakes(
        "name: n\n    forward:\n      schedule:\n        - {at: 5, loss: 1%}\n"
        "        - {at: 1s, for: 1s, loss: 200%}\n        - {at: 1s, delai: 1ms}"
    )
    assert [line.split(": ")[:2] for line in found] == [
        ["s.yaml:9", "$.networks[0].forward.schedule[0].at"],
        ["s.yaml:10", "$.networks[0].forward.schedule[1].loss"],
        ["s.yaml:11", "$.networks[0].forward.schedule[2].delai"],
    ]


def test_the_largest_schedule_is_no_trouble() -> None:
    began = time.process_time()
    text = TEXT + "  - {name: n, both: {schedule: [{at: 0s, for: 60ms, every: 121ms, loss: 9%}]}}\n"
    scenario = loads(text, "s.yaml", Path("/nowhere"))
    assert len(scenario.networks[0].pair.forward.changes) > 9_900
    config_sha256(scenario)
    assert time.process_time() - began < 5

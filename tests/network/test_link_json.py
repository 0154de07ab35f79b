"""Links that change travel as differences, exactly; those to be drawn only show themselves."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import BadInput
from harness.network import link_from_json, link_to_json
from harness.network.link import (
    Bernoulli,
    Change,
    Deliveries,
    GilbertElliott,
    Link,
    LinkPair,
    MediaTimeLoss,
    Rate,
    Recording,
    Reorder,
    Replay,
)
from harness.network.link_json import LONGEST_SHOWN, link_summary

MS = 1_000_000
statics = st.builds(
    Link,
    delay_ns=st.integers(0, 2**40),
    jitter_ns=st.integers(0, 2**31),
    distribution=st.sampled_from(["uniform", "normal"]),
    loss=st.none()
    | st.builds(Bernoulli, st.floats(0, 1))
    | st.builds(GilbertElliott, *[st.floats(0, 1)] * 4),
    duplicate=st.floats(0, 1),
    reorder=st.none() | st.builds(Reorder, st.floats(0, 1), st.integers(1, 99)),
    rate=st.none()
    | st.builds(Rate, st.integers(0, 2**40), st.integers(1, 2**30), limit_bytes=st.integers(1))
    | st.builds(
        Deliveries,
        st.lists(st.integers(0, 2**40)).map(lambda at_ns: tuple(sorted(at_ns))),
        st.integers(1, 2**30),
    ),
)


@st.composite
def changing(draw: st.DrawFn) -> Link:
    instants = sorted(draw(st.sets(st.integers(0, 2**40), max_size=5)))
    changes = tuple(Change(at_ns, draw(statics)) for at_ns in instants)
    return replace(draw(statics), changes=changes)


@given(st.builds(LinkPair, changing(), changing()))
def test_a_link_that_changes_survives_the_journey(pair: LinkPair) -> None:
    assert link_from_json(json.loads(json.dumps(link_to_json(pair)))) == pair


def test_thousands_of_changes_take_little_room() -> None:
    base = Link(20 * MS, rate=Rate(1_000_000, 1600, latency_ns=100 * MS))
    changes = tuple(Change(n * 5 * MS, replace(base, delay_ns=n)) for n in range(1, 4001))
    pair = LinkPair(replace(base, changes=changes), Link())
    text = json.dumps(link_to_json(pair))
    assert len(text) < 4000 * 40
    assert link_from_json(json.loads(text)) == pair


def test_a_summary_says_how_many_and_which() -> None:
    def long(last_ns: int) -> Link:
        instants = (*range(LONGEST_SHOWN), last_ns)
        changes = tuple(Change(at_ns, Link(delay_ns=at_ns)) for at_ns in instants)
        return Link(rate=Deliveries(instants, 9000), changes=changes)

    one, other = (link_summary(LinkPair(long(last), Link())) for last in (99, 100))
    assert one["forward"]["changes"]["count"] == LONGEST_SHOWN + 1
    assert one["forward"]["rate"]["at_ns"]["count"] == LONGEST_SHOWN + 1
    assert one["forward"]["changes"]["sha256"] != other["forward"]["changes"]["sha256"]
    assert one["reverse"] == other["reverse"]
    short = LinkPair(Link(changes=(Change(5, Link(7)),)), Link())
    assert link_summary(short) == link_to_json(short)


RECORDING = Recording("csv", "ab" * 32, 9_000 * MS, tuple(range(5000)), delay_ns=(1,) * 5000)


@pytest.mark.parametrize(
    ("link", "shown"),
    [
        (
            Link(loss=MediaTimeLoss(0.1, 80 * MS)),
            {"loss": {"model": "media_time", "share": 0.1, "burst_ns": 80 * MS, "hits": "media"}},
        ),
        (Link(jitter_ns=MS, coherence_ns=200 * MS), {"coherence_ns": 200 * MS}),
        (
            Link(replay=Replay(RECORDING, 3, "loop", "instant", queue_ns=5)),
            {
                "replay": {
                    "format": "csv",
                    "sha256": "ab" * 32,
                    "duration_ns": 9_000 * MS,
                    "offset_ns": 3,
                    "end": "loop",
                    "hits": "instant",
                    "queue_ns": 5,
                    "queue_bytes": None,
                    "spread": False,
                }
            },
        ),
        (
            Link(changes=(Change(5, Link(loss=MediaTimeLoss(0.2, MS))),)),
            {
                "changes": [
                    [
                        5,
                        {
                            "loss": {
                                "model": "media_time",
                                "share": 0.2,
                                "burst_ns": MS,
                                "hits": "media",
                            }
                        },
                    ]
                ]
            },
        ),
    ],
    ids=["media time", "coherence", "recording", "scheduled"],
)
def test_what_is_still_to_be_drawn_is_shown_but_not_read(link: Link, shown: dict) -> None:
    data = json.loads(json.dumps(link_to_json(LinkPair(link, Link()))))
    assert {name: data["forward"][name] for name in shown} == shown
    assert len(json.dumps(data)) < 1000
    with pytest.raises(BadInput, match="expected a link that is fitted"):
        link_from_json(data)


@pytest.mark.parametrize(
    "changes", [7, [7], [[1]], [[1, {"speed": 1}]], [[1, {"changes": []}]], [[1, {"rate": 5}]]]
)
def test_damaged_changes_are_refused(changes: object) -> None:
    data = link_to_json(LinkPair(Link(), Link()))
    data["forward"]["changes"] = changes
    with pytest.raises(BadInput, match="not a link description"):
        link_from_json(data)

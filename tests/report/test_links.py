"""Networks in words, the trace that a block shares, and what happens over time."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from harness.network.link import (
    Bernoulli,
    Change,
    Deliveries,
    GilbertElliott,
    Link,
    LinkPair,
    LossTrace,
    MediaTimeLoss,
    Rate,
    Recording,
    Replay,
)
from harness.network.link_json import link_summary, link_to_json
from harness.report import links
from tests.report.small_run import run_of

MS, S = 10**6, 10**9
SPELLS = MediaTimeLoss(0.1, 80 * MS)
RECORDING = Recording("csv", "3fa91c2e" + 56 * "0", 60 * S)


def asked(forward: Link, reverse: Link | None = None) -> str:
    return json.dumps(link_to_json(LinkPair(forward, Link() if reverse is None else reverse)))


@pytest.mark.parametrize(
    "link",
    [
        Link(delay_ns=1),
        Link(loss=SPELLS),
        Link(replay=Replay(RECORDING)),
        Link(changes=(Change(S, Link(delay_ns=MS)),)),
    ],
)
def test_a_clean_link_asks_nothing_of_either_direction(link: Link) -> None:
    assert links.is_clean(asked(Link(), Link()))
    assert not links.is_clean(asked(Link(), link))
    assert not links.is_clean(asked(link, Link()))
    assert not links.is_clean(None)


@pytest.mark.parametrize(
    ("link", "words"),
    [
        (Link(), "nothing asked of it"),
        (
            Link(delay_ns=15 * MS, jitter_ns=10 * MS, loss=GilbertElliott(0.025, 0.5)),
            "15ms ± 10ms (uniform), loss gilbert-elliott 4.8%, bursts of 2.0 packets",
        ),
        (
            Link(delay_ns=15 * MS, jitter_ns=10 * MS, coherence_ns=200 * MS),
            "15ms ± 10ms (uniform, coherent over 200ms)",
        ),
        (Link(loss=Bernoulli(0.05), duplicate=0.01), "loss bernoulli 5.0%, duplicate 1.0%"),
        (Link(loss=LossTrace((0, 0, 0, 1))), "loss trace 25.0% of 4 packets"),
        (Link(loss=GilbertElliott(0.0, 0.0)), "loss gilbert-elliott 0.0%"),
        (Link(loss=SPELLS), "loss media-time 10.0%, bursts of 80ms"),
        (
            Link(loss=MediaTimeLoss(0.1, 80 * MS, "instant")),
            "loss media-time 10.0%, bursts of 80ms, by a packet's last sample",
        ),
        (Link(rate=Rate(240_000, 3000, limit_bytes=1)), "240kbit/s"),
        (Link(rate=Deliveries((1, 2), 3000)), "delivery opportunities"),
        (
            Link(delay_ns=MS, replay=Replay(RECORDING, 5 * S, "loop", queue_ns=S)),
            "1ms, recorded (csv 3fa91c2e, 60s, from 5s, again and again)",
        ),
        (Link(replay=Replay(RECORDING)), "recorded (csv 3fa91c2e, 60s)"),
        (Link(changes=(Change(5 * S, Link(delay_ns=MS)),)), "a change at 5s"),
        (
            Link(
                loss=SPELLS,
                changes=(Change(S, Link(delay_ns=MS)), Change(2 * S, Link(loss=SPELLS))),
            ),
            "loss media-time 10.0%, bursts of 80ms, 2 changes between 1s and 2s",
        ),
    ],
)
def test_links_in_words(link: Link, words: str) -> None:
    assert links.describe_link(asked(link)) == words


def test_a_way_back_that_is_another_is_told() -> None:
    assert links.describe_link(asked(Link(), Link(delay_ns=MS))) == "nothing asked of it; back: 1ms"
    assert links.describe_link(asked(Link(delay_ns=MS), Link(delay_ns=MS))) == "1ms"


def test_a_schedule_too_long_to_be_written_out_is_counted() -> None:
    changes = tuple(Change(i * S, Link(delay_ns=i * MS)) for i in range(1, 40))
    pair = LinkPair(Link(changes=changes), Link())
    summary = json.dumps(link_summary(pair))
    assert links.describe_link(summary) == "39 changes over time"
    assert links.course(summary).empty
    assert len(links.course(json.dumps(link_to_json(pair)))) == 40


def test_a_schedule_over_time() -> None:
    link = Link(
        delay_ns=30 * MS,
        loss=SPELLS,
        changes=(
            Change(S, Link(delay_ns=90 * MS, loss=SPELLS, rate=Rate(64_000, 2000, limit_bytes=1))),
            Change(3 * S, Link(delay_ns=30 * MS)),
        ),
    )
    steps = links.course(asked(link))
    assert steps["second"].tolist() == [0, 1, 3]
    assert steps["delay_ms"].tolist() == [30, 90, 30]
    assert steps["loss_percent"].tolist() == pytest.approx([10, 10, 0])
    assert steps["rate_kbps"].isna().tolist() == [True, False, True]
    assert steps["rate_kbps"][1] == 64
    assert links.course(asked(Link(delay_ns=MS))).empty


def test_a_block_whose_cells_met_different_traces_is_found() -> None:
    def cell(block: str, codec: str, trace: str | None) -> dict[str, object]:
        return {
            "block": block,
            "codec": codec,
            "utterance": "u",
            "trace_sha256": trace,
            "impairment": "media-time+scheduled",
            "link_asked": asked(Link(loss=SPELLS)),
        }

    good = [cell("b0", "x", "aa" * 32), cell("b0", "y", "aa" * 32), cell("b0", "z", None)]
    found = links.networks(run_of(good, []))["n"]
    assert (found.blocks, found.split, found.traces, found.digest) == (1, (), 1, "aaaaaaaa")
    assert found.impairment == ("media-time", "scheduled")
    assert found.varies
    bad = [*good, cell("b1", "x", "bb" * 32), cell("b1", "y", "cc" * 32)]
    found = links.networks(run_of(bad, []))["n"]
    assert (found.blocks, found.split, found.traces) == (2, ("b1",), 3)


@pytest.mark.parametrize(
    ("impairment", "link", "has_trace", "said"),
    [
        ("per-packet", Link(loss=Bernoulli(0.1)), False, "no trace is drawn: each codec's packets"),
        ("media-time", Link(loss=SPELLS), True, "yes, all 1 blocks"),
        (
            "per-packet+recorded",
            Link(replay=Replay(RECORDING)),
            True,
            "yes, all 1 blocks, but for what is per packet: each codec's packets draw their own",
        ),
        ("per-packet", Link(delay_ns=MS), False, "–"),
    ],
)
def test_what_packets_draw_themselves_is_not_called_one_trace(
    impairment: str, link: Link, has_trace: bool, said: str
) -> None:
    cell = {"block": "b", "utterance": "u", "trace_sha256": "aa" * 32, "impairment": impairment}
    cells = [cell | {"codec": codec, "link_asked": asked(link)} for codec in ("x", "y")]
    found = links.networks(run_of(cells, []))["n"]
    assert found.has_trace == has_trace
    assert found.shared.startswith(said)


def test_which_seconds_of_a_recording_were_met() -> None:
    def met(*parts: tuple[float, float], offset: Replay | None = None) -> str:
        replay = offset or Replay(RECORDING, end="loop", spread=True)
        cells = [
            {
                "block": f"b{number}",
                "codec": "x",
                "utterance": "u",
                "trace_sha256": "aa" * 32,
                "impairment": "recorded",
                "link_asked": asked(Link(replay=replay)),
                "recorded_part": json.dumps({"forward": part}),
            }
            for number, part in enumerate(parts)
        ]
        return links.networks(run_of(cells, []))["n"].met

    assert met((5, 20), (15, 25)) == "33% of it: seconds 5–25"
    assert met((30, 42), (50, 68)) == "50% of it: seconds 0–8, 30–42, 50–60"
    assert met((3, 80)) == "100% of it: seconds 0–60"
    many = [(6 * n, 6 * n + 1) for n in range(10)]
    assert met(*many).endswith("36–37, 42–43 and 2 more")
    spread = Replay(RECORDING, spread=True)
    assert "each block from a place of its own" in links.describe_link(asked(Link(replay=spread)))


def test_runs_from_before_traces_say_nothing_of_them() -> None:
    run = run_of([{"codec": "x", "utterance": "u", "link_asked": asked(Link(delay_ns=MS))}], [])
    run.cells[["impairment", "trace_sha256", "control"]] = pd.NA
    found = links.networks(run)["n"]
    assert (found.impairment, found.traces, found.blocks) == ((), 0, 0)


def test_the_example_is_the_ok_cell_with_most_packets() -> None:
    cells = [
        {"codec": "a", "utterance": "u", "packets_sent": 100},
        {"codec": "b", "utterance": "u", "packets_sent": 300},
        {"codec": "c", "utterance": "u", "packets_sent": 900, "status": "failed"},
        {"codec": "d", "utterance": "u", "packets_sent": 900, "transport": "tcp"},
    ]
    found = links.example(run_of(cells, []), "n")
    assert found is not None
    assert found["codec"] == "b"
    assert links.example(run_of(cells[2:3], []), "n") is None

"""One fate per packet, and an account per frame that adds up to the nanosecond."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.media.fates import join
from harness.media.settings import ReceiverSettings
from harness.records import LINK_IDENTITY, LINK_LOG, Columns, Outcome, datagram_identity, from_rows
from harness.store import schema

from .simulation import FACTS, MS, T0, Sent, arrivals, listen, send, voiced, with_fec

SENT = send(voiced(320 * 40))
K = SENT.frames
PARTS = schema.LATENCY_PARTS


def joined(
    sent: Sent,
    came: list[tuple[int, bytes]],
    log: Columns | None = None,
    reliable: bool = False,
    facts=FACTS,
    receiver: ReceiverSettings | None = None,
) -> tuple[Columns, Columns]:
    heard = listen(came, sent.frames, receiver, facts, stop_ns=T0 + 3_000 * MS)
    return join(
        sent_packets=sent.packet_rows,
        sent_frames=sent.frame_rows,
        received_packets=heard.packets,
        played_frames=heard.frames,
        link_log=log,
        facts=facts,
        t0_ns=T0,
        reliable=reliable,
    )


def link_log(sent: Sent, outcomes: dict[int, Outcome], noise: bool = False) -> Columns:
    """The log of a link that delivers what is not in ``outcomes``."""
    rows = []
    for i, (send_ns, packet) in enumerate(sent.packets):
        outcome = outcomes.get(i, Outcome.DELIVERED)
        out_ns = -1 if outcome in (Outcome.LOST, Outcome.QUEUE, Outcome.HELD) else send_ns
        identity = datagram_identity(packet)
        if noise:  # ARP, the reverse direction, and a duplicate
            rows.append((0, send_ns, send_ns, 42, Outcome.LOST, 0, 0))
            rows.append((1, send_ns, -1, len(packet) + 42, Outcome.LOST, identity, 0))
        rows.append((0, send_ns, out_ns, len(packet) + 42, outcome, identity, 0))
        if noise:
            row = (0, send_ns, send_ns, len(packet) + 42, Outcome.DUPLICATE, identity, 0)
            rows.append(row)
    return from_rows(LINK_LOG | LINK_IDENTITY, rows)


def test_the_tables_are_those_of_the_store() -> None:
    packets, frames = joined(SENT, arrivals(SENT, [0]))
    assert list(packets) == [name for name in schema.PACKETS if name != "cell_id"]
    assert list(frames) == [name for name in schema.FRAMES if name != "cell_id"]
    for table, columns in ((schema.PACKETS, packets), (schema.FRAMES, frames)):
        for name, column in columns.items():
            expected = {"int": np.integer, "str": np.str_}[table[name].type]
            assert np.issubdtype(column.dtype, expected), name
            assert column.shape == (len(SENT.packets),), name


def test_a_perfect_network() -> None:
    packets, frames = joined(SENT, arrivals(SENT, [30 * MS]))
    assert set(packets["fate"]) == {"played"}
    assert (packets["copies"] == 1).all()
    assert (packets["transit_ns"] == 30 * MS).all()
    assert packets["send_ns"][2] == 60 * MS
    assert packets["media_ns"][2] == 40 * MS
    assert set(frames["kind"]) == {"decoded"}
    accounts = {part: set(frames[part].tolist()) for part in (*PARTS, "mouth_to_ear_ns")}
    assert accounts == {
        "fill_ns": {20 * MS},
        "lookahead_ns": {0},
        "encode_ns": {0},
        "send_ns": {0},
        "network_ns": {30 * MS},
        "buffer_ns": {60 * MS},
        "decode_ns": {0},
        "playout_ns": {10 * MS},
        "mouth_to_ear_ns": {120 * MS},
    }


def test_each_cause_has_its_fate() -> None:
    outcomes = {
        4: Outcome.LOST,
        8: Outcome.QUEUE,
        10: Outcome.HELD,
        12: Outcome.CORRUPTED,
        16: Outcome.DELIVERED,
    }
    # 20 comes late; 24 after 25.
    delays: dict[int, int | None] = {**dict.fromkeys(outcomes), 20: 200 * MS, 24: 30 * MS}
    came = arrivals(SENT, lambda i: delays.get(i, 0))
    expected = {4: "lost", 8: "queue", 10: "late", 12: "undecodable", 16: "late", 20: "late"}
    expected[24] = "reordered"
    for noise in (False, True):
        packets, _ = joined(SENT, came, link_log(SENT, outcomes, noise))
        assert {i: f for i, f in enumerate(packets["fate"]) if f != "played"} == expected
    assert packets["transit_ns"].mask.sum() == 5
    assert packets["copies"][[4, 20, 24]].tolist() == [0, 1, 1]

    without_log, _ = joined(SENT, came)
    assert [without_log["fate"][i] for i in outcomes] == ["lost"] * 5
    stream, _ = joined(SENT, came, link_log(SENT, outcomes), reliable=True)
    assert [stream["fate"][i] for i in outcomes] == ["late"] * 5


@pytest.mark.parametrize("missing", [0, 3, 12])
def test_a_row_that_the_log_lacks_leaves_no_other_packet_in_doubt(missing: int) -> None:
    """All packets have one size, and nothing but the first one tells where the log begins."""
    outcomes = {4: Outcome.LOST, 12: Outcome.QUEUE, 13: Outcome.DELIVERED, 30: Outcome.CORRUPTED}
    log = {name: np.delete(column, missing) for name, column in link_log(SENT, outcomes).items()}
    came = arrivals(SENT, lambda i: None if i in outcomes or i == missing else 0)
    packets, _ = joined(SENT, came, log)
    expected = {4: "lost", 12: "queue", 13: "late", 30: "undecodable"} | {missing: "lost"}
    assert {i: f for i, f in enumerate(packets["fate"]) if f != "played"} == expected


def test_of_equal_datagrams_the_first_sent_is_the_first_that_entered() -> None:
    alike = {name: column.copy() for name, column in SENT.packet_rows.items()}
    alike["identity"][:] = 7
    log = link_log(SENT, {5: Outcome.LOST, 9: Outcome.QUEUE})
    log["identity"][:] = 7
    came = arrivals(SENT, lambda i: None if i in (5, 9) else 0)
    packets, _ = joined(replace(SENT, packet_rows=alike), came, log)
    assert {i: f for i, f in enumerate(packets["fate"]) if f != "played"} == {5: "lost", 9: "queue"}


def test_a_log_written_as_packets_leave_is_read_as_they_entered() -> None:
    outcomes = {4: Outcome.LOST, 30: Outcome.QUEUE}
    log = link_log(SENT, outcomes)
    by_end = np.argsort(np.where(log["out_ns"] < 0, log["in_ns"], log["in_ns"] + 90 * MS))
    came = arrivals(SENT, lambda i: None if i in outcomes else 0)
    packets, _ = joined(SENT, came, {name: column[by_end] for name, column in log.items()})
    assert (packets["fate"][4], packets["fate"][30]) == ("lost", "queue")


def test_what_the_senders_own_socket_refused_is_a_queue_drop_and_never_entered_the_link() -> None:
    refused = {name: column.copy() for name, column in SENT.packet_rows.items()}
    refused["send_ns"][5] = -1
    entered = replace(SENT, packets=[p for i, p in enumerate(SENT.packets) if i != 5])
    log = link_log(entered, {9: Outcome.LOST})  # the tenth that entered is packet 10
    came = arrivals(SENT, lambda i: None if i in (5, 10) else 0)
    packets, _ = joined(replace(SENT, packet_rows=refused), came, log)
    assert {i: f for i, f in enumerate(packets["fate"]) if f != "played"} == {
        5: "queue",
        10: "lost",
    }
    assert packets["send_ns"].mask.tolist() == [i == 5 for i in range(K)]


def test_fragments_share_their_frame_but_not_their_fate() -> None:
    sent = send(voiced(320 * 40), max_packet_bytes=340)
    log = link_log(sent, {21: Outcome.LOST})
    packets, _ = joined(sent, arrivals(sent, lambda i: None if i == 21 else 0), log)
    assert {i: f for i, f in enumerate(packets["fate"]) if f != "played"} == {
        20: "incomplete",
        21: "lost",
    }


def test_a_datagram_in_ip_fragments_ends_as_the_worst_of_them_does() -> None:
    sent = send(voiced(320 * 8), facts=replace(FACTS, frame_samples=320 * 4))
    sizes = {len(packet) for _, packet in sent.packets}
    assert sizes == {2580}, "two fragments each"
    ends = [(Outcome.DELIVERED, Outcome.QUEUE), (Outcome.LOST, Outcome.CORRUPTED)]
    rows = [
        (
            0,
            send_ns,
            send_ns if outcome == Outcome.DELIVERED else -1,
            size,
            outcome,
            datagram_identity(packet),
            fragment,
        )
        for (send_ns, packet), outcomes in zip(sent.packets, ends, strict=True)
        for fragment, (size, outcome) in enumerate(
            zip((1514, 34 + 2588 - 1480), outcomes, strict=True)
        )
    ]
    packets, _ = joined(sent, [], from_rows(LINK_LOG | LINK_IDENTITY, rows))
    assert list(packets["fate"]) == ["queue", "lost"]
    # The log lacks what it could not keep up with: the first fragment of the second datagram.
    packets, _ = joined(sent, [], from_rows(LINK_LOG | LINK_IDENTITY, [*rows[:2], rows[3]]))
    assert list(packets["fate"]) == ["queue", "undecodable"]
    whole = [(*row[:4], Outcome.DELIVERED, *row[5:]) for row in rows]
    packets, _ = joined(sent, [], from_rows(LINK_LOG | LINK_IDENTITY, [*whole[:2], whole[3]]))
    assert list(packets["fate"]) == ["late", "lost"], "nobody knows of the second"


def test_damaged_packets_are_undecodable_where_the_link_says_so() -> None:
    came = arrivals(SENT, [0])
    came[3] = (came[3][0], came[3][1][:-1] + bytes([came[3][1][-1] ^ 1]))
    packets, frames = joined(SENT, came, link_log(SENT, {3: Outcome.CORRUPTED}))
    assert packets["fate"][3] == "undecodable"
    assert frames["kind"][3] == "concealed"


def test_copies_are_counted() -> None:
    came = [arrival for arrival in arrivals(SENT, [MS]) for _ in range(3)]
    packets, _ = joined(SENT, came)
    assert set(packets["copies"]) == {3}
    assert set(packets["fate"]) == {"played"}


def test_nothing_arrived() -> None:
    packets, frames = joined(SENT, [])
    assert set(packets["fate"]) == {"lost"}
    assert set(frames["kind"]) == {"silence"}
    assert frames["mouth_to_ear_ns"].mask.all()
    assert not frames["capture_ns"].mask.any()


def test_a_sender_that_stopped_early_leaves_nulls_at_the_receiver() -> None:
    half = {name: column[:20] for name, column in SENT.packet_rows.items()}
    frames_half = {name: column[:20] for name, column in SENT.frame_rows.items()}
    for rows in (20, 0):
        sent = replace(
            SENT,
            packet_rows={n: c[:rows] for n, c in half.items()},
            frame_rows={n: c[:rows] for n, c in frames_half.items()},
        )
        packets, frames = joined(sent, arrivals(SENT, lambda i, n=rows: 0 if i < n else None))
        assert len(packets["seq"]) == rows
        assert frames["encode_ns"].mask.tolist() == [k >= rows for k in range(K)]


def test_inserted_time_belongs_to_no_frame() -> None:
    long = send(voiced(320 * 120))
    came = arrivals(long, lambda i: (300 - 20 * (i - 80)) * MS if 80 <= i < 95 else 0)
    _, frames = joined(long, came, receiver=ReceiverSettings(mode="adaptive"))
    inserted = frames["frame"].mask
    assert inserted.any()
    for name in ("media_ns", "capture_ns", "network_ns", "mouth_to_ear_ns", "payload_bytes"):
        assert frames[name].mask[inserted].all()


ANY_DELAYS = st.lists(
    st.one_of(st.none(), st.integers(0, 300 * MS)), min_size=len(SENT.packets), max_size=K
)


@given(
    ANY_DELAYS,
    st.sampled_from(["fixed", "adaptive"]),
    st.integers(0, 700),
    st.integers(0, 2),
    st.dictionaries(st.integers(0, K - 1), st.sampled_from(list(Outcome)[:4])),
)
def test_packets_are_partitioned_and_every_account_adds_up(
    delays: list[int | None],
    mode: str,
    delay_samples: int,
    lookahead: int,
    outcomes: dict[int, Outcome],
) -> None:
    facts = replace(with_fec(), delay_samples=delay_samples, lookahead_frames=lookahead)
    came = arrivals(SENT, delays)
    # An encoder with look-ahead has later schedules; the accounts must add up all the same.
    late_sender = {name: column.copy() for name, column in SENT.frame_rows.items()}
    for name in ("ready_ns", "encode_start_ns", "encode_end_ns", "sent_ns"):
        late_sender[name] += lookahead * 20 * MS
    packets, frames = joined(
        replace(SENT, frame_rows=late_sender),
        came,
        link_log(SENT, outcomes),
        facts=facts,
        receiver=ReceiverSettings(mode=mode),  # type: ignore[arg-type]
    )
    counted = Counter(packets["fate"].tolist())
    assert sum(counted.values()) == K
    assert sum(frames["kind"] == "decoded") + sum(frames["kind"] == "stretched") == (
        counted["played"] + counted["reordered"]
    )
    total = sum(frames[part] for part in PARTS)
    mouth_to_ear = frames["mouth_to_ear_ns"]
    heard = ~np.ma.getmaskarray(mouth_to_ear)
    assert total[heard].tolist() == mouth_to_ear[heard].tolist()
    assert (
        mouth_to_ear[heard].tolist() == (frames["play_ns"] - frames["capture_ns"])[heard].tolist()
    )
    made_up = np.isin(frames["kind"], ("concealed", "silence"))
    assert (heard == ~made_up).all()

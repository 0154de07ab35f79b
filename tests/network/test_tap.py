"""Matching frames in to frames out, at exact times."""

from __future__ import annotations

import struct

import numpy as np

from harness.network.datagrams import Datagrams
from harness.network.relay import flipped
from harness.network.tap import Row, Sighting, attribute_queue, log_columns, match, sighting
from harness.records import Outcome, datagram_identity

MS = 1_000_000


def frame(number: int, size_bytes: int = 100, ethertype: bytes = b"\x08\x00") -> bytes:
    head = bytes(12) + ethertype + number.to_bytes(4, "big")
    return head + bytes((number * 7 + i) % 256 for i in range(size_bytes - len(head)))


def seen(*times_and_frames: tuple[int, bytes]) -> list[Sighting]:
    return [sighting(ns, data) for ns, data in times_and_frames]


def test_delivery_loss_and_reordering() -> None:
    entered = seen((0, frame(0)), (1, frame(1)), (2, frame(2)))
    left = seen((10, frame(2)), (20, frame(0)))
    assert match(entered, left) == (
        [
            Row(0, 20, 100, Outcome.DELIVERED),
            Row(1, -1, 100, Outcome.LOST),
            Row(2, 10, 100, Outcome.DELIVERED),
        ],
        0,
    )


def test_a_copy_is_a_row_of_its_own() -> None:
    rows, unexplained = match(seen((0, frame(0))), seen((5, frame(0)), (6, frame(0))))
    assert rows == [Row(0, 5, 100, Outcome.DELIVERED), Row(0, 6, 100, Outcome.DUPLICATE)]
    assert unexplained == 0


def test_byte_identical_packets_are_told_apart_by_order() -> None:
    twice = seen((0, frame(0)), (3, frame(0)))
    rows, _ = match(twice, seen((5, frame(0)), (8, frame(0))))
    assert rows == [Row(0, 5, 100, Outcome.DELIVERED), Row(3, 8, 100, Outcome.DELIVERED)]


def test_a_flipped_bit_is_found_between_losses_of_the_same_size() -> None:
    entered = seen(*((n, frame(n)) for n in range(5)))
    for bit in (0, 100, 8 * 13, 8 * 60, 8 * 99):  # byte 13 is half of the EtherType
        left = seen((10, frame(0)), (13, flipped(frame(3), bit)))
        rows, unexplained = match(entered, left)
        lost, corrupted = Outcome.LOST, Outcome.CORRUPTED
        assert [r.outcome for r in rows] == [Outcome.DELIVERED, lost, lost, corrupted, lost]
        assert rows[3].out_ns == 13
        assert unexplained == 0


def test_a_damaged_twin_of_a_delivered_packet_is_its_copy() -> None:
    rows, _ = match(seen((0, frame(0))), seen((5, frame(0)), (6, flipped(frame(0), 800 - 1))))
    assert [r.outcome for r in rows] == [Outcome.DELIVERED, Outcome.DUPLICATE]


def test_other_protocols_are_no_packets_and_strangers_are_counted() -> None:
    arp = b"\x08\x06"
    rows, unexplained = match(
        seen((0, frame(0, ethertype=arp)), (1, frame(1))),
        seen((0, frame(0, ethertype=arp)), (2, frame(1)), (3, frame(99, 60))),
    )
    assert rows == [Row(1, 2, 100, Outcome.DELIVERED)]
    assert unexplained == 1


def test_queue_drops_are_those_that_met_the_longest_queue() -> None:
    # Packets 0...5 enter together at 0 and leave one a millisecond; 6 is dropped then, 7 is lost
    # by chance much later.
    rows = [Row(0, n * MS, 100, Outcome.DELIVERED) for n in range(6)]
    rows += [Row(1, -1, 100, Outcome.LOST), Row(500 * MS, -1, 100, Outcome.LOST)]
    delays_ns = [0] * len(rows)
    attributed = attribute_queue(rows, 1, delays_ns)
    assert [r.outcome for r in attributed[-2:]] == [Outcome.QUEUE, Outcome.LOST]
    assert attribute_queue(rows, 0, delays_ns) == rows
    assert {r.outcome for r in attribute_queue(rows, 2, delays_ns)[-2:]} == {Outcome.QUEUE}
    # Where the loss model surely took the first, the queue's must be the other.
    attributed = attribute_queue(rows, 1, delays_ns, {len(rows) - 2})
    assert [r.outcome for r in attributed[-2:]] == [Outcome.LOST, Outcome.QUEUE]
    # Its own delay decides when a packet met the queue: the second now reached it when full.
    delays_ns[-2:] = 50 * MS, -499 * MS
    attributed = attribute_queue(rows, 1, delays_ns)
    assert [r.outcome for r in attributed[-2:]] == [Outcome.LOST, Outcome.QUEUE]


def test_columns_carry_both_directions() -> None:
    log = log_columns([Row(0, 1, 60, Outcome.DELIVERED)], [Row(5, -1, 70, Outcome.LOST)])
    assert log["direction"].tolist() == [0, 1]
    assert log["out_ns"].tolist() == [1, -1]


def frame_of(payload: bytes, ip_id: int = 1, offset: int = 0, more: bool = False) -> bytes:
    """An Ethernet frame with (a fragment of) a UDP datagram; ``payload`` is what IP carries."""
    flags = offset // 8 | (0x2000 if more else 0)
    size = 20 + len(payload)
    ip = struct.pack(">BBHHHBBH8s", 0x45, 0, size, ip_id, flags, 64, 17, 0, bytes(8))
    return bytes(12) + b"\x08\x00" + ip + payload


def test_the_link_knows_a_datagram_as_its_sender_does_whole_or_in_ip_fragments() -> None:
    payload = np.random.default_rng(1).bytes(4000)
    datagram, small = bytes(8) + payload, bytes(8) + payload[:100]
    datagrams, known = Datagrams(), datagram_identity(payload)
    assert datagrams.identify(frame_of(small)) == (datagram_identity(payload[:100]), 0)
    assert known != datagram_identity(payload[:100])
    assert datagrams.identify(frame_of(datagram[:1480], 9, 0, more=True)) == (known, 0)
    assert datagrams.identify(frame_of(datagram[1480:2960], 9, 1480, more=True)) == (known, 1)
    assert datagrams.identify(frame_of(datagram[2960:], 9, 2960)) == (known, 2)
    assert datagrams.identify(frame_of(datagram[1480:2960], 8, 1480, more=True)) == (0, 1)
    tcp = bytearray(frame_of(small))
    tcp[23] = 6
    assert datagrams.identify(bytes(tcp)) == (0, 0)
    assert datagrams.identify(b"\xff" * 12 + b"\x08\x06" + bytes(28)) == (0, 0), "ARP"

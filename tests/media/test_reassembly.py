"""Frames out of fragments, whatever the order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.media.packet import Packet, packetise
from harness.media.reassembly import Reassembler


def fragments_of(payload: bytes, room: int = 30) -> list[Packet]:
    return packetise(
        payload, stream_id=1, frame=3, first_seq=0, max_packet_bytes=room, header_bytes=20
    )


@given(st.permutations(range(5)))
def test_any_order_gives_the_payload_when_the_last_fragment_is_in(order: list[int]) -> None:
    payload = bytes(range(50))
    packets = fragments_of(payload)
    frames = Reassembler()
    for time, i in enumerate(order):
        assert frames.peek(3, by_ns=1000) is None
        expected = "complete" if time == 4 else "partial"
        assert frames.add(packets[i], index=i, recv_ns=time) == expected
    assert frames.peek(3, by_ns=3) is None, "not yet complete then"
    assert frames.ready(by_ns=4) == [3]
    taken = frames.take(3)
    assert taken is not None
    assert taken.payload == payload
    assert taken.arrivals == list(zip(order, range(5), strict=True))
    assert len(frames) == 0


def test_copies_are_told_from_late_packets_even_after_the_frame_was_taken() -> None:
    first, second = fragments_of(bytes(20))
    frames = Reassembler()
    assert frames.add(first, 0, 0) == "partial"
    assert frames.add(first, 1, 1) == "duplicate"
    frames.take(3)
    assert frames.note_late(first), "a copy of what came in time"
    assert not frames.note_late(second), "late, but the first of its kind"
    assert frames.note_late(second)


def test_packets_that_contradict_each_other_are_refused() -> None:
    frames = Reassembler()
    frames.add(fragments_of(bytes(20))[0], 0, 0)
    with pytest.raises(ValueError, match="fragments"):
        frames.add(fragments_of(bytes(50))[3], 1, 1)
    assert frames.take(4) is None

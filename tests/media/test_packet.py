"""Packets survive the round trip, and nothing damaged gets past the checksum."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import Unsupported
from harness.media.packet import (
    IP_UDP_BYTES,
    ForeignPacket,
    Packet,
    Purpose,
    packetise,
)
from harness.media.wire import HARNESS

HEADER_BYTES = HARNESS.header_bytes
HEADER = {"header_bytes": HEADER_BYTES}

U32 = st.integers(0, 2**32 - 1)
PACKETS = st.integers(1, 255).flatmap(
    lambda fragments: st.builds(
        Packet,
        stream_id=U32,
        seq=U32,
        frame=U32,
        fragment=st.integers(0, fragments - 1),
        fragments=st.just(fragments),
        end=st.booleans(),
        payload=st.binary(min_size=1, max_size=300),
        purpose=st.sampled_from(Purpose),
        whole_bytes=st.just(0),
    )
)


@given(PACKETS)
def test_parse_inverts_pack(packet: Packet) -> None:
    assert HARNESS.parse(HARNESS.pack(packet)) == packet


@given(PACKETS, st.data())
def test_any_flipped_bit_is_seen(packet: Packet, data: st.DataObject) -> None:
    damaged = bytearray(HARNESS.pack(packet))
    bit = data.draw(st.integers(0, 8 * len(damaged) - 1))
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ValueError, match=r"CRC|not a packet"):
        HARNESS.parse(bytes(damaged))


@given(st.binary(max_size=100))
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"CRC|short|not a packet"):
        HARNESS.parse(data)


def test_another_protocol_is_foreign() -> None:
    with pytest.raises(ForeignPacket):
        HARNESS.parse(b"\x80" + bytes(40))  # RTP


@given(st.binary(min_size=1, max_size=5000), st.integers(68, 1500))
def test_fragments_fit_the_mtu_and_make_up_the_payload(payload: bytes, mtu: int) -> None:
    room = mtu - IP_UDP_BYTES
    packets = packetise(
        payload,
        stream_id=1,
        frame=7,
        first_seq=2**32 - 1,
        max_packet_bytes=room,
        header_bytes=HEADER_BYTES,
        end=True,
    )
    assert b"".join(p.payload for p in packets) == payload
    assert all(len(HARNESS.pack(p)) <= room for p in packets)
    assert len(packets) == -(-len(payload) // (room - HEADER_BYTES))
    assert [p.fragment for p in packets] == list(range(len(packets)))
    assert {(p.frame, p.fragments, p.end) for p in packets} == {(7, len(packets), True)}
    assert [p.seq for p in packets] == [(2**32 - 1 + i) % 2**32 for i in range(len(packets))]


def test_streams_are_not_fragmented() -> None:
    packets = packetise(
        bytes(99_999), stream_id=1, frame=0, first_seq=0, max_packet_bytes=None, **HEADER
    )
    assert len(packets) == 1


@pytest.mark.parametrize("room", [HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 1])
def test_a_payload_that_cannot_be_carried_names_the_remedy(room: int) -> None:
    with pytest.raises(Unsupported, match="mtu_bytes"):
        packetise(
            bytes(256),
            stream_id=1,
            frame=0,
            first_seq=0,
            max_packet_bytes=room,
            header_bytes=HEADER_BYTES,
        )

"""The header that an older system wrote, byte by byte, and what it cannot say."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from harness.errors import Unsupported
from harness.media.encodec_udp import EncodecUdpWire
from harness.media.feedback import Nack
from harness.media.packet import IP_UDP_BYTES, ForeignPacket, Packet, Purpose, packetise

from .simulation import FACTS

FRAMES = 40
CHUNK = bytes(range(256)) + bytes(190)
"""446 bytes, as of a quarter of a second of EnCodec at 12 kbit/s in ECDC."""
WIRE = EncodecUdpWire(replace(FACTS, delay_samples=60), 7, FRAMES)


def packets(frame: int = 4) -> list[Packet]:
    return packetise(
        CHUNK,
        stream_id=7,
        frame=frame,
        first_seq=12,
        max_packet_bytes=248 - IP_UDP_BYTES,
        header_bytes=WIRE.header_bytes,
        end=frame == FRAMES - 1,
    )


def test_a_chunk_of_446_bytes_is_three_packets_of_192_bytes_and_a_header() -> None:
    sent = [WIRE.pack(packet) for packet in packets()]
    assert [len(data) for data in sent] == [220, 220, 28 + 62]
    heads = [struct.unpack(">7I", data[:28]) for data in sent]
    assert heads == [
        (4, 446, 1, 12, 3, 0, 192),
        (4, 446, 1, 12, 3, 1, 192),
        (4, 446, 1, 12, 3, 2, 62),
    ]
    assert b"".join(data[28:] for data in sent) == CHUNK


@pytest.mark.parametrize("frame", [0, 4, FRAMES - 1])
def test_what_is_packed_is_read_back(frame: int) -> None:
    assert [WIRE.parse(WIRE.pack(packet)) for packet in packets(frame)] == packets(frame)


def test_the_first_chunk_overlaps_with_none_and_hard_cut_ones_never() -> None:
    assert WIRE.pack(packets(0)[0])[8:12] == bytes(4)
    assert EncodecUdpWire(FACTS, 7, FRAMES).pack(packets()[0])[8:12] == bytes(4)


@pytest.mark.parametrize(
    "words",
    [
        (4, 446, 1, 12, 3, 0, 191),  # not the bytes that follow
        (4, 191, 1, 12, 3, 0, 192),  # more than the whole
        (4, 446, 1, 12, 3, 3, 192),
        (4, 446, 1, 12, 256, 0, 192),
        (FRAMES, 446, 1, 12, 3, 0, 192),
    ],
)
def test_what_contradicts_itself_is_damaged(words: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\d") as caught:
        WIRE.parse(struct.pack(">7I", *words) + bytes(192))
    assert not isinstance(caught.value, ForeignPacket)


def test_the_systems_end_mark_and_what_is_no_fragment_are_foreign() -> None:
    for data in (struct.pack(">7I", FRAMES, 0, 0, 120, 1, 0, 0), b"", bytes(27)):
        with pytest.raises(ForeignPacket):
            WIRE.parse(data)


def test_it_carries_media_one_way_and_nothing_else() -> None:
    with pytest.raises(Unsupported, match="parity"):
        WIRE.pack(packets()[0]._replace(purpose=Purpose.PARITY))
    with pytest.raises(ForeignPacket):
        WIRE.pack_feedback(Nack(7, (1,)))
    with pytest.raises(ForeignPacket):
        WIRE.parse_feedback(bytes(40))

"""RTP and RTCP, octet by octet where the RFCs draw them, and both ends against each other."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.codecs.base import CodecFacts
from harness.errors import Unsupported
from harness.media.feedback import Nack, Report
from harness.media.packet import REPORT_TIMES, SEQUENCES, ForeignPacket, Packet, Purpose
from harness.media.rtp import RtpWire, wire_of
from harness.media.wire import HARNESS

STREAM = 0xCAFE0000
NS = 1_000_000_000
FRAMES = 70_000


def facts(payload_format: str = "opus", rate_hz: int = 16_000, frame: int = 320) -> CodecFacts:
    return CodecFacts(rate_hz, frame, 0, 0, 24_000, "test", payload_format=payload_format)


def wire(*of: object, frames: int = FRAMES) -> RtpWire:
    return RtpWire(facts(*of), STREAM, frames)  # type: ignore[arg-type]


def media(number: int, payload: bytes = b"abcd", last: int = FRAMES - 1) -> Packet:
    return Packet(STREAM, number, number, 0, 1, number == last, payload)


def again(number: int, of: Packet) -> Packet:
    payload = of.seq.to_bytes(4, "big") + of.payload
    seq = SEQUENCES[Purpose.RETRANSMISSION] + number
    return of._replace(seq=seq, payload=payload, purpose=Purpose.RETRANSMISSION)


def report(after: int, now_ns: int = 12 * NS, media_ns: int = 3 * NS) -> Packet:
    times = REPORT_TIMES.pack(now_ns, media_ns)
    seq = SEQUENCES[Purpose.REPORT] + after
    return Packet(STREAM, seq, after, 0, 1, False, times, Purpose.REPORT)


class TestMedia:
    def test_the_header_is_that_of_rfc_3550(self) -> None:
        data = wire().pack(media(3))
        assert data == bytes.fromhex("8060 0003 00000b40 cafe0000") + b"abcd"  # 3 x 960 at 48 kHz
        assert wire().pack(media(0))[1] == 0x80 | 96, "the marker begins the talkspurt"

    @pytest.mark.parametrize(
        ("name", "rate_hz", "frame", "payload_type", "step", "on_the_wire"),
        [
            ("PCMU", 8_000, 160, 0, 160, b"abcd"),
            ("PCMA", 8_000, 160, 8, 160, b"abcd"),
            ("G722", 16_000, 320, 9, 160, b"abcd"),  # 8 kHz, whatever its rate
            ("GSM", 8_000, 160, 3, 160, b"abcd"),
            ("L16", 24_000, 480, 96, 480, b"badc"),  # network byte order
            ("opus", 8_000, 160, 96, 960, b"abcd"),  # 48 kHz, whatever its rate
            ("AMR", 8_000, 160, 96, 160, b"\xf0abcd"),  # no mode request
            ("AMR-WB", 16_000, 320, 96, 320, b"\xf0abcd"),
            ("", 24_000, 320, 96, 320, b"abcd"),
        ],
    )
    def test_payload_formats_have_their_type_clock_and_octets(
        self, name: str, rate_hz: int, frame: int, payload_type: int, step: int, on_the_wire: bytes
    ) -> None:
        data = wire(name, rate_hz, frame).pack(media(2))
        _, kind, _, timestamp, _ = struct.unpack_from(">BBHII", data)
        assert (kind, timestamp, data[12:]) == (payload_type, 2 * step, on_the_wire)
        assert len(data) == wire(name, rate_hz, frame).header_bytes + 4
        assert wire(name, rate_hz, frame).parse(data) == media(2)

    def test_sequence_numbers_go_on_after_16_bits_and_the_last_frame_ends(self) -> None:
        sender, listener = wire(), wire()
        lost = {5, 65_534, 65_535, 65_536}
        for number in range(FRAMES):
            data = sender.pack(media(number))
            if number not in lost:
                assert listener.parse(data) == media(number)

    def test_an_old_packet_keeps_its_number(self) -> None:
        sender, listener = wire(), wire()
        packets = [sender.pack(media(n)) for n in range(65_540)]
        for n in (*range(65_530), 65_537, 65_531, 65_539):
            assert listener.parse(packets[n]).seq == n

    def test_what_needs_fragments_is_refused_with_the_remedy(self) -> None:
        with pytest.raises(Unsupported, match="do not fragment; use a shorter codec frame"):
            wire().pack(media(3)._replace(fragments=2))
        with pytest.raises(Unsupported, match="no parity"):
            wire().pack(media(3)._replace(purpose=Purpose.PARITY))

    def test_a_retransmission_is_a_stream_of_its_own(self) -> None:
        sender, listener = wire("L16"), wire("L16")
        original = media(66_000)
        for data in (sender.pack(media(n)) for n in range(0, 65_900, 100)):
            listener.parse(data)
        data = sender.pack(again(1, original))
        assert data[1] == 97
        assert data[2:4] == b"\0\1"
        assert data[8:12] == (STREAM ^ 1).to_bytes(4, "big")
        assert data[12:14] == (66_000 & 0xFFFF).to_bytes(2, "big"), "its OSN (RFC 4588, 4)"
        assert listener.parse(data) == again(1, original)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\x80\x60",
            b"\x40" + bytes(20),  # version 1
            wire().pack(media(1)).replace(b"\xca\xfe", b"\xca\xff"),
            wire("PCMU", 8_000, 160).pack(media(1)),
            HARNESS.pack(media(1)),
        ],
    )
    def test_what_is_not_of_this_stream_is_foreign(self, data: bytes) -> None:
        with pytest.raises(ForeignPacket):
            wire().parse(data)

    @given(st.binary(max_size=80))
    def test_any_bytes_are_a_packet_or_a_value_error(self, data: bytes) -> None:
        for start in (b"", b"\x80\xc8\0\6\xca\xfe\0\0", wire().pack(media(1))[:12]):
            try:
                packet = wire().parse(start + data)
            except ValueError:
                continue
            assert 0 <= packet.seq < 2**32
            assert packet.payload

    def test_only_rtp_has_a_state(self) -> None:
        assert wire_of("udp", facts(), STREAM, 5) is HARNESS
        assert isinstance(wire_of("rtp", facts(), STREAM, 5), RtpWire)


class TestReports:
    def test_the_senders_is_that_of_rfc_3550_with_a_name(self) -> None:
        sender = wire()
        for number in range(3):
            sender.pack(media(number))
        now_ns = 12 * NS + NS // 2
        data = sender.pack(report(3, now_ns, 60_000_000))
        assert data[:28] == bytes.fromhex(
            "80c80006 cafe0000 0000000c80000000 00000b40 00000003 0000000c"
        ), "12.5 s, 60 ms at 48 kHz, three packets, twelve octets"
        assert data[28:] == bytes.fromhex("81ca0004 cafe0000 0107") + b"harness" + bytes(3)
        assert wire().parse(data) == report(3, now_ns, 60_000_000)

    def test_the_receivers_closes_the_round_trip(self) -> None:
        sender, listener = wire(), wire()
        told = listener.parse(sender.pack(report(3, 12_345_678_901)))
        (sent_ns, _) = REPORT_TIMES.unpack(told.payload)
        assert sent_ns == 12_345_678_901
        said = Report(STREAM, 99, 90, 10, 8, NS // 1000, 40_000_000, 7, sent_ns, 250_000_000)
        data = listener.pack_feedback(said)
        assert data[:4] == bytes.fromhex("81c90009")
        assert data[12] == 25, "a tenth of what was expected, in 256ths"
        assert data[13:16] == b"\0\0\x0a"
        assert data[-20:-16] == bytes.fromhex("81ca0004")
        assert sender.parse_feedback(data) == replace_held(said)

    def test_without_a_report_of_the_sender_it_says_so(self) -> None:
        data = wire().pack_feedback(Report(STREAM, 9, 10, 0, 0, 0, 0, 0))
        assert data[24:32] == bytes(8)
        assert wire().parse_feedback(data) == Report(STREAM, 9, 10, 0, 0, 0, 0, 0, -1, 0)

    def test_the_fraction_lost_counts_since_the_last_one(self) -> None:
        listener = wire()
        first = listener.pack_feedback(Report(STREAM, 99, 50, 50, 50, 0, 0, 0))
        second = listener.pack_feedback(Report(STREAM, 199, 150, 50, 50, 0, 0, 0))
        copies = listener.pack_feedback(Report(STREAM, 199, 210, -10, 50, 0, 0, 0))
        assert [data[12] for data in (first, second, copies)] == [128, 0, 0]
        assert wire().parse_feedback(copies) == Report(STREAM, 199, 210, -10, 50, 0, 0, 0)

    @given(st.sets(st.integers(65_000, 66_500), min_size=1, max_size=64))
    def test_requests_are_packed_by_17_and_name_what_is_missing(self, missing: set[int]) -> None:
        sender, listener = wire(), wire()
        sender.pack(media(66_500))
        data = listener.pack_feedback(Nack(STREAM, tuple(sorted(missing))))
        assert data[0] & 0x1F == 1
        assert data[1] == 205
        assert sender.parse_feedback(data) == Nack(STREAM, tuple(sorted(missing)))

    def test_seventeen_in_a_row_are_one_entry(self) -> None:
        data = wire().pack_feedback(Nack(STREAM, tuple(range(40, 58))))
        assert data[12:] == bytes.fromhex("0028ffff 00390000")

    def test_a_request_for_more_than_any_of_ours_is_for_is_refused(self) -> None:
        """17 numbers for each 4 octets: a datagram could name 278,000 packets."""
        entries = b"\x00\x28\xff\xff" * 4
        data = wire().pack_feedback(Nack(STREAM, (1,)))[:12] + entries
        data = data[:2] + (len(data) // 4 - 1).to_bytes(2, "big") + data[4:]
        with pytest.raises(ValueError, match="more than 64 packets"):
            wire().parse_feedback(data)

    @given(st.binary(max_size=60))
    def test_any_bytes_are_feedback_or_a_value_error(self, data: bytes) -> None:
        for start in (b"", b"\x81\xc9\0\7", b"\x81\xcd\0\3"):
            try:
                wire().parse_feedback(start + data)
            except ValueError:
                continue


def replace_held(said: Report) -> Report:
    """As it comes: without what RTCP has no room for, at its resolution."""
    return said._replace(held_ns=0)

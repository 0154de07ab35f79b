"""What a receiver says, when, and what the sender makes of it; all at exact times."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.media.adaptation import LossDelay
from harness.media.feedback import Nack, Report, Reporter, parse
from harness.media.settings import SenderSettings

MS = 1_000_000
FRAME = 20 * MS
NACKS = SenderSettings(nack_retries=2, nack_wait_ns=5 * MS, nack_every_ns=50 * MS)
ADAPTS = SenderSettings(adapt="loss-delay", report_every_ns=100 * MS)


def never(_: int) -> None:
    """The instant at which a frame is played, before the first is."""


def reporter(settings: SenderSettings, came: dict[int, int]) -> Reporter:
    """After packets (sequence number, one per frame: arrival in ms)."""
    found = Reporter(settings, 9)
    for seq, at_ms in came.items():
        found.add(seq, seq, seq * FRAME, at_ms * MS)
    return found


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 2**32 - 1), max_size=64))
def test_messages_survive_the_round_trip(stream: int, seqs: list[int]) -> None:
    nack = Nack(stream, tuple(seqs))
    assert parse(nack.pack()) == nack
    report = Report(stream, 7, 5, 3, 4_000, 123_000, 9_000)
    assert parse(report.pack()) == report


@given(st.binary(max_size=60), st.integers(0, 400))
def test_other_bytes_are_refused(data: bytes, bit: int) -> None:
    with pytest.raises(ValueError, match=r"CRC|feedback"):
        parse(data)
    damaged = bytearray(Nack(9, (1, 2, 3)).pack())
    damaged[bit // 8 % len(damaged)] ^= 1 << bit % 8
    with pytest.raises(ValueError, match=r"CRC|feedback"):
        parse(bytes(damaged))


class TestNack:
    def test_a_gap_is_asked_for_after_its_wait_and_so_many_times(self) -> None:
        listener = reporter(NACKS, {0: 0, 1: 20, 4: 80})
        assert listener.next_ns() == 85 * MS
        assert listener.take(84 * MS, never) == []
        (first,) = listener.take(85 * MS, never)
        assert first == Nack(9, (2, 3))
        assert listener.next_ns() == 135 * MS
        (again,) = listener.take(135 * MS, never)
        assert again == Nack(9, (2, 3))
        assert listener.next_ns() is None

    def test_what_came_meanwhile_is_not_asked_for(self) -> None:
        listener = reporter(NACKS, {0: 0, 3: 60, 2: 62})
        listener.found(1)
        assert listener.next_ns() is None

    def test_what_would_come_too_late_is_not_asked_for(self) -> None:
        listener = reporter(NACKS, {0: 0, 3: 60})
        due = {1: 64 * MS, 2: 84 * MS}
        (asked,) = listener.take(65 * MS, due.get)
        assert asked == Nack(9, (2,))

    def test_frames_of_several_packets_are_dated_by_their_neighbours(self) -> None:
        listener = Reporter(NACKS, 9)
        listener.add(0, 0, 0, 0)
        listener.add(8, 4, 4 * FRAME, 80 * MS)  # two packets a frame
        due = {k: k * 100 * MS for k in range(5)}
        (asked,) = listener.take(150 * MS, due.get)
        assert asked == Nack(9, (4, 5, 6, 7))


class TestReports:
    def test_they_come_at_their_interval_and_count_as_rfc_3550_does(self) -> None:
        listener = reporter(ADAPTS, {0: 10, 1: 34, 3: 70})
        assert listener.next_ns() == 110 * MS
        assert listener.take(109 * MS, never) == []
        (report,) = listener.take(110 * MS, never)
        assert isinstance(report, Report)
        assert (report.highest_seq, report.received, report.lost) == (3, 3, 1)
        # Transits 10, 14, 10 ms: J = 4/16, then 0.25 + (4 - 0.25)/16.
        assert report.jitter_ns == 484_375
        assert report.delay_ns == 0
        assert report.held_ns == 40 * MS
        assert listener.next_ns() == 210 * MS

    def test_a_growing_queue_shows_before_it_drops(self) -> None:
        listener = reporter(ADAPTS, {seq: 20 * seq + 10 + 5 * seq for seq in range(9)})
        (report,) = listener.take(300 * MS, never)
        assert isinstance(report, Report)
        assert report.delay_ns == 40 * MS


class TestLossDelay:
    """draft-ietf-rmcat-gcc-02, section 6, and a fixed threshold of delay."""

    def control(self) -> LossDelay:
        return LossDelay(24_000, 8_000, 40_000)

    def report(self, received: int, lost: int, delay_ms: int = 0) -> Report:
        return Report(9, received + lost - 1, received, lost, 0, delay_ms * MS, 0)

    def test_much_loss_halves_by_its_share(self) -> None:
        assert self.control().on_report(self.report(80, 20), None, 0) == 24_000 * 0.9

    def test_some_loss_leaves_it_and_none_lets_it_grow(self) -> None:
        control = self.control()
        assert control.on_report(self.report(95, 5), None, 0) == 24_000
        assert control.on_report(self.report(195, 5), None, 1000 * MS) == 24_000 * 1.08
        assert control.on_report(self.report(295, 5), None, 1500 * MS) == round(24_000 * 1.08**1.5)
        # However long nothing was heard: a second's worth at most.
        assert control.on_report(self.report(395, 5), None, 9500 * MS) == round(24_000 * 1.08**2.5)

    def test_a_queue_backs_off_once_per_round_trip(self) -> None:
        control = self.control()
        assert control.on_report(self.report(50, 0, 150), 300 * MS, 0) == 20_400
        assert control.on_report(self.report(100, 0, 150), 300 * MS, 200 * MS) == 20_400
        assert control.on_report(self.report(150, 0, 150), 300 * MS, 300 * MS) == 17_340

    def test_it_stays_within_its_bounds(self) -> None:
        control = self.control()
        for n in range(1, 40):
            highest = control.on_report(self.report(100 * n, 0), None, n * 1000 * MS)
        assert highest == 40_000
        control = self.control()
        for n in range(1, 40):
            lowest = control.on_report(self.report(10 * n, 90 * n), None, n)
        assert lowest == 8_000

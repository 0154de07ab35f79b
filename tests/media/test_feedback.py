"""What a receiver says, when, and what the sender makes of it; all at exact times."""

from __future__ import annotations

from dataclasses import replace
from heapq import heappop, heappush
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.media.adaptation import LossDelay
from harness.media.feedback import MAX_DROPOUT, MOST_NACKED, Nack, Report, Reporter, parse
from harness.media.protection import interleaved_slot
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
    report = Report(stream, 7, 5, 3, 2, 4_000, 123_000, 9_000)
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

    def test_interleaved_frames_are_dated_by_the_order_in_which_they_leave(self) -> None:
        settings = SenderSettings(nack_retries=1, interleave=3)
        order = sorted(range(60), key=lambda frame: interleaved_slot(frame, 3))
        assert order[30:35] == [33, 31, 29, 36, 34]
        listener = Reporter(settings, 9)
        for seq in (30, 34):
            frame = order[seq]
            listener.add(seq, frame, interleaved_slot(frame, 3) * FRAME, seq * FRAME)
        dated: list[int] = []
        listener.take(10_000 * MS, lambda frame: dated.append(frame))
        assert dated == order[31:34]

    def test_what_redundancy_has_restored_is_not_asked_for(self) -> None:
        listener = reporter(NACKS, {0: 0, 4: 80})
        (asked,) = listener.take(85 * MS, never, {2}.__contains__)
        assert asked == Nack(9, (1, 3))


class TestNumbers:
    """What a peer's sequence numbers may cost (RFC 3550, A.1)."""

    BOTH = SenderSettings(nack_retries=2, adapt="loss-delay", report_every_ns=100 * MS)

    def test_one_number_far_ahead_is_not_believed(self) -> None:
        listener = reporter(self.BOTH, {0: 0, 2**30 - 1: 20, 1: 22, 2: 41})
        (report,) = listener.take(100 * MS, never)
        assert isinstance(report, Report)
        assert (report.highest_seq, report.received, report.lost) == (2, 3, 0)

    @pytest.mark.parametrize("start", [5_000, 2**31])
    def test_two_in_a_row_are_and_nothing_between_is_missing(self, start: int) -> None:
        came = {0: 0, start: 20, start + 1: 40, start + 3: 80}
        listener = reporter(self.BOTH, came)
        nack, report = listener.take(100 * MS, never)
        assert nack == Nack(9, (start + 2,))
        assert isinstance(report, Report)
        assert (report.highest_seq, report.received, report.lost) == (start + 3, 3, 1)

    def test_a_wrong_first_number_is_got_over(self) -> None:
        listener = reporter(self.BOTH, {2**30 - 1: 0, 0: 20, 1: 40, 3: 80})
        nack, report = listener.take(100 * MS, never)
        assert nack == Nack(9, (2,))
        assert isinstance(report, Report)
        assert (report.highest_seq, report.lost) == (3, 1)

    def test_so_many_are_missing_at_most(self) -> None:
        listener = Reporter(self.BOTH, 9)
        for step in range(20):
            listener.add(step * MAX_DROPOUT, 1, 0, step * MS)
        asked: set[int] = set()
        for at_ms in range(60, 200):
            for message in listener.take(at_ms * MS, never):
                asked |= set(message.seqs) if isinstance(message, Nack) else set()
        assert len(asked) == MAX_DROPOUT
        (report,) = [m for m in listener.take(300 * MS, never) if isinstance(m, Report)]
        assert report.overdue == report.lost == 19 * (MAX_DROPOUT - 1)

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 2**32 - 1) | st.integers(0, 20_000),
                st.integers(0, 500),
                st.integers(0, 100),
            ),
            max_size=40,
        ),
        st.integers(1, 5),
    )
    def test_any_numbers_make_reports_that_can_be_sent(
        self, packets: list[tuple[int, int, int]], depth: int
    ) -> None:
        listener = Reporter(replace(self.BOTH, interleave=depth), 9)
        at_ms = 0
        for seq, frame, later_ms in packets:
            at_ms += later_ms
            listener.add(seq, frame, frame * FRAME, at_ms * MS)
            for message in listener.take(at_ms * MS, never):
                assert parse(message.pack()).stream_id == 9
                if isinstance(message, Nack):
                    assert len(message.seqs) <= MOST_NACKED
                else:
                    assert message.overdue >= 0


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
        listener = reporter(ADAPTS, {seq: 25 * seq + 10 for seq in range(5)})
        (first,) = listener.take(110 * MS, never)
        for seq in range(5, 9):
            listener.add(seq, seq, seq * FRAME, (25 * seq + 10) * MS)
        (second,) = listener.take(300 * MS, never)
        assert isinstance(first, Report)
        assert isinstance(second, Report)
        assert (first.delay_ns, second.delay_ns) == (0, 25 * MS), "of packet 5, above that of 0"

    def test_one_quick_packet_tells_that_there_is_no_queue(self) -> None:
        listener = reporter(ADAPTS, {0: 0, 1: 140, 2: 40, 3: 180, 4: 190})
        (report,) = listener.take(200 * MS, never)
        assert isinstance(report, Report)
        assert report.delay_ns == 0
        listener.add(5, 5, 100 * MS, 230 * MS)
        (report,) = listener.take(300 * MS, never)
        assert isinstance(report, Report)
        assert report.delay_ns == 130 * MS
        (report,) = listener.take(400 * MS, never)
        assert isinstance(report, Report)
        assert report.delay_ns == 130 * MS, "nothing came since"

    def test_what_is_overtaken_is_lost_to_rfc_3550_and_not_overdue(self) -> None:
        listener = reporter(ADAPTS, {0: 0, 2: 40, 1: 60, 3: 80, 5: 100})
        (first,) = listener.take(100 * MS, never)
        assert isinstance(first, Report)
        assert (first.lost, first.overdue) == (1, 0)
        # Transits 0, 0, 40, 20, 0 ms: J is 5.5 ms, and four of it are over.
        (second,) = listener.take(200 * MS, never)
        assert isinstance(second, Report)
        assert (second.lost, second.overdue) == (1, 1)

    def test_interleaving_is_no_queue(self) -> None:
        """Frames wait at the sender by schedule, which the receiver knows."""
        at = Reporter(SenderSettings(adapt="loss-delay", interleave=4), 9)
        order = sorted(range(100), key=lambda frame: interleaved_slot(frame, 4))
        for seq, frame in enumerate(order):
            due_ns = interleaved_slot(frame, 4) * FRAME
            at.add(seq, frame, due_ns, due_ns + 30 * MS)
        (report,) = at.take(10_000 * MS, never)
        assert isinstance(report, Report)
        assert (report.jitter_ns, report.delay_ns, report.lost) == (0, 0, 0)


class TestLossDelay:
    """draft-ietf-rmcat-gcc-02, section 6, and a fixed threshold of delay."""

    def control(self) -> LossDelay:
        return LossDelay(24_000, 8_000, 40_000)

    def report(self, received: int, lost: int, delay_ms: int = 0) -> Report:
        return Report(9, received + lost - 1, received, lost, lost, 0, delay_ms * MS, 0)

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


class TestTogether:
    """Reporter and LossDelay in a closed loop over a link with jitter, a bottleneck, or both."""

    LOWEST, HIGHEST = 6_000, 64_000
    OVERHEAD_BYTES = 46

    def loop(
        self, jitter_ms: float, bottleneck_bps: float, every_ms: int = 200, seconds: int = 60
    ) -> tuple[list[int], list[float]]:
        """The rate after each report, and how long each packet waited in the queue (ms). The jitter
        is normal around 300 ms, so that packets overtake each other; none is lost."""
        settings = SenderSettings(adapt="loss-delay", report_every_ns=every_ms * MS)
        listener = Reporter(settings, 9)
        control = LossDelay(24_000, self.LOWEST, self.HIGHEST)
        chance = Random(1)
        rates, waits_ms = [24_000], []
        arriving: list[tuple[int, int]] = []
        free_ns = 0
        for number in range(50 * seconds):
            now_ns = number * FRAME
            while arriving and arriving[0][0] <= now_ns:
                at_ns, seq = heappop(arriving)
                while (due_ns := listener.next_ns()) is not None and due_ns <= at_ns:
                    for report in listener.take(due_ns, never):
                        assert isinstance(report, Report)
                        rates.append(control.on_report(report, 200 * MS, due_ns))
                listener.add(seq, seq, seq * FRAME, at_ns)
            bits = rates[-1] * 0.02 + 8 * self.OVERHEAD_BYTES
            start_ns = max(now_ns, free_ns)
            free_ns = start_ns + round(bits / bottleneck_bps * 1e9)
            waits_ms.append((start_ns - now_ns) / MS)
            delay_ms = max(300 + chance.gauss(0, jitter_ms), 0)
            heappush(arriving, (free_ns + round(delay_ms * MS), number))
        return rates, waits_ms

    @pytest.mark.parametrize("every_ms", [100, 200, 1000])
    @pytest.mark.parametrize("jitter_ms", [0, 20, 40, 60])
    def test_jitter_alone_does_not_hold_the_rate_down(self, jitter_ms: int, every_ms: int) -> None:
        rates, _ = self.loop(jitter_ms, 1e9, every_ms)
        assert rates[-1] == self.HIGHEST
        settled = rates[len(rates) // 2 :]
        assert min(settled) > 0.8 * self.HIGHEST

    @pytest.mark.parametrize("jitter_ms", [0, 20, 40])
    def test_a_bottleneck_does_with_or_without_jitter(self, jitter_ms: int) -> None:
        bottleneck_bps = 50_000
        rates, waits_ms = self.loop(jitter_ms, bottleneck_bps)
        fits = bottleneck_bps - 50 * 8 * self.OVERHEAD_BYTES
        settled, waits_ms = rates[len(rates) // 2 :], sorted(waits_ms[len(waits_ms) // 2 :])
        assert 0.6 * fits < sum(settled) / len(settled) < 1.02 * fits
        assert waits_ms[len(waits_ms) // 2] < 150
        assert waits_ms[-1] < 400

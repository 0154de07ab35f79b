"""What the processes that measure ask of the kernel."""

from __future__ import annotations

import threading

import pytest

from harness.linux import NARROW_NS, ClockOffset, clock_offset
from harness.transports.base import TransportSettings
from harness.transports.udp import UdpReceiver, connected
from harness.units import monotonic_ns

APART_NS = 1_000_000_000_000
MS = 1_000_000


class Clocks:
    """Two clocks ``APART_NS`` apart; the n-th read of either is followed by a pause."""

    def __init__(self, *pauses_ns: int) -> None:
        self._now_ns = 5_000
        self._pauses = iter(pauses_ns)

    def monotonic_ns(self) -> int:
        read_ns = self._now_ns
        self._now_ns += next(self._pauses, 60)
        return read_ns

    def realtime_ns(self) -> int:
        return self.monotonic_ns() + APART_NS


def offset(*pauses_ns: int) -> ClockOffset:
    clocks = Clocks(*pauses_ns)
    return clock_offset(clocks.realtime_ns, clocks.monotonic_ns)


@pytest.mark.parametrize("pauses_ns", [(36 * MS,), (60, 36 * MS), (60, 60, 36 * MS)])
def test_a_preemption_while_the_clocks_are_read_does_not_move_one_against_the_other(
    pauses_ns: tuple[int, ...],
) -> None:
    found = offset(*pauses_ns)
    assert found.width_ns <= NARROW_NS
    assert abs(found.ns - APART_NS) <= found.width_ns / 2


def test_where_every_bracket_is_wide_the_narrowest_counts_and_says_so() -> None:
    pauses_ns = [9 * MS, 9 * MS, 60] * 5 + [1 * MS, 3 * MS, 60] + [9 * MS, 9 * MS, 60] * 20
    found = offset(*pauses_ns)
    assert found.width_ns == 4 * MS
    assert abs(found.ns - APART_NS) <= 2 * MS


def test_a_datagram_is_stamped_when_it_arrives_and_not_when_it_is_read() -> None:
    held, stamps = threading.Event(), []
    both = threading.Semaphore(0)

    def on_packet(_: bytes, recv_ns: int) -> None:
        stamps.append(recv_ns)
        both.release()
        held.wait(10)

    receiver = UdpReceiver("127.0.0.1", on_packet)
    sender = connected("127.0.0.1", receiver.port, TransportSettings())
    try:
        sender.send(b"first")
        assert both.acquire(timeout=10), "the thread holds the first now, and reads nothing"
        before_ns = monotonic_ns()
        sender.send(b"second")
        sent_ns = monotonic_ns()
        held.set()
        assert both.acquire(timeout=10)
        assert before_ns - NARROW_NS <= stamps[1] <= sent_ns + NARROW_NS
    finally:
        held.set()
        sender.close()
        receiver.close()

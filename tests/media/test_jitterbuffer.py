"""The target depth follows the last five seconds of arrivals."""

from __future__ import annotations

from harness.media.jitterbuffer import Anchor, DelayEstimator
from harness.media.settings import ReceiverSettings

MS = 1_000_000
FRAME_NS = 20 * MS


def estimator(**settings: int) -> DelayEstimator:
    return DelayEstimator(ReceiverSettings(mode="adaptive", **settings), FRAME_NS)


def test_the_start_depth_holds_until_a_second_has_been_heard() -> None:
    delays = estimator(start_ns=90 * MS)
    for frame in range(49):
        delays.add(frame, 5 * MS)
        assert delays.target_ns() == 90 * MS
    delays.add(49, 5 * MS)
    assert delays.target_ns() == FRAME_NS


def test_the_target_is_a_high_quantile_of_the_delay_variation() -> None:
    delays = estimator()
    for i in range(250):
        delays.add(i, (1_000 + i) * MS)  # PDV 0...249 ms, evenly; a constant delay does not matter
    assert delays.fastest_ns == 1_000 * MS
    assert delays.target_ns() == int(0.97 * 249) * MS


def test_the_target_stays_a_band_below_the_maximum() -> None:
    delays = estimator(max_ns=200 * MS)
    for i in range(100):
        delays.add(i, i % 2 * 900 * MS)
    assert delays.target_ns() == 180 * MS


def test_what_is_five_seconds_old_is_forgotten() -> None:
    delays = estimator()
    for i in range(250):
        delays.add(i, i % 2 * 100 * MS)
    assert delays.target_ns() == 100 * MS
    for i in range(250, 500):
        delays.add(i, 30 * MS)
    assert delays.target_ns() == FRAME_NS
    assert delays.fastest_ns == 30 * MS


def test_five_seconds_are_five_seconds_with_two_packets_a_frame_too() -> None:
    delays = estimator()
    for frame in range(250):
        delays.add(frame, 10 * MS)
        delays.add(frame, (115 if frame < 10 else 15) * MS)  # a frame is there when all of it is
    assert delays.fastest_ns == 15 * MS
    assert delays.target_ns() == 100 * MS, "the first frames are in the window still"
    for frame in range(250, 260):
        delays.add(frame, 15 * MS)
    assert delays.target_ns() == FRAME_NS


def test_the_anchor_is_the_least_of_the_first_ten() -> None:
    anchor = Anchor()
    for delay_ms in (50, 40, 60, 45, 44, 43, 42, 41, 47, 30, 20):
        anchor.add(delay_ms * MS)
    assert anchor.least_ns == 30 * MS

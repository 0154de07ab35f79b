"""The target depth follows the last five seconds of arrivals."""

from __future__ import annotations

from harness.media.jitterbuffer import BAND_NS, Anchor, DelayEstimator
from harness.media.settings import ReceiverSettings

MS = 1_000_000
FRAME_NS = 20 * MS


def estimator(**settings: int) -> DelayEstimator:
    return DelayEstimator(ReceiverSettings(mode="adaptive", **settings), FRAME_NS)


def test_the_start_depth_fades_within_a_second() -> None:
    delays = estimator(start_ns=100 * MS)
    targets = [delays.target_ns()]
    for frame in range(50):
        delays.add(frame, 5 * MS)
        targets.append(delays.target_ns())
    assert targets[0] == 100 * MS
    assert targets[25] == 50 * MS
    assert targets[50] == FRAME_NS
    assert targets == sorted(targets, reverse=True)


def test_a_delay_above_the_start_depth_counts_at_once() -> None:
    delays = estimator(start_ns=60 * MS)
    for frame in range(5):
        delays.add(frame, (95 if frame == 3 else 5) * MS)
    assert delays.target_ns() == 90 * MS


def test_the_target_is_a_high_quantile_of_the_delay_variation() -> None:
    delays = estimator()
    for i in range(250):
        delays.add(i, (1_000 + i) * MS)  # PDV 0...249 ms, evenly; a constant delay does not matter
    assert delays.fastest_ns == 1_000 * MS
    assert delays.target_ns() == 240 * MS  # 96 % of 249, rounded up


def test_the_target_stays_a_band_below_the_maximum() -> None:
    delays = estimator(max_ns=200 * MS)
    for i in range(100):
        delays.add(i, i % 2 * 900 * MS)
    assert delays.target_ns() == 200 * MS - BAND_NS


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

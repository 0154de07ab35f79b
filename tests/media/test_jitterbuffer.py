"""The target depth follows the last five seconds of arrivals."""

from __future__ import annotations

from harness.media.jitterbuffer import DelayEstimator
from harness.media.settings import ReceiverSettings

MS = 1_000_000
FRAME_NS = 20 * MS


def estimator(**settings: int) -> DelayEstimator:
    return DelayEstimator(ReceiverSettings(mode="adaptive", **settings), FRAME_NS)


def test_the_start_depth_holds_until_a_second_has_been_heard() -> None:
    delays = estimator(start_ns=90 * MS)
    for _ in range(49):
        delays.add(5 * MS)
        assert delays.target_ns() == 90 * MS
    delays.add(5 * MS)
    assert delays.target_ns() == FRAME_NS


def test_the_target_is_a_high_quantile_of_the_delay_variation() -> None:
    delays = estimator()
    for i in range(250):
        delays.add((1_000 + i) * MS)  # PDV 0...249 ms, evenly; a constant delay does not matter
    assert delays.fastest_ns == 1_000 * MS
    assert delays.target_ns() == int(0.97 * 249) * MS


def test_the_target_stays_a_band_below_the_maximum() -> None:
    delays = estimator(max_ns=200 * MS)
    for i in range(100):
        delays.add(i % 2 * 900 * MS)
    assert delays.target_ns() == 180 * MS


def test_what_is_five_seconds_old_is_forgotten() -> None:
    delays = estimator()
    for i in range(250):
        delays.add(i % 2 * 100 * MS)
    assert delays.target_ns() == 100 * MS
    for _ in range(250):
        delays.add(30 * MS)
    assert delays.target_ns() == FRAME_NS
    assert delays.fastest_ns == 30 * MS

"""From a played track to decisions and figures, with a classifier that knows what it hears."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.sinks.listen import heard
from harness.sinks.settings import SinkSettings
from harness.sinks.task import METRIC_NAMES, Outcome, Stream, run_with

MS = 1_000_000
RATE_HZ = 16_000
FRAME = 320
FACTS = {"sample_rate_hz": RATE_HZ, "frame_samples": FRAME}
DELAY_NS = 150 * MS
"""From the capture of a sample to its leaving the device."""


def frames_of(count: int, lost: set[int] | None = None) -> dict[str, NDArray[Any]]:
    """A stream played without a hitch, each frame 100 ms on its way."""
    number = np.arange(count)
    away = np.isin(number, list(lost or ()))
    known = np.full(count, 20 * MS)
    zero = np.zeros(count, np.int64)
    return {
        "capture_ns": np.ma.MaskedArray(number * 20 * MS),
        "fill_ns": np.ma.MaskedArray(known),
        "lookahead_ns": np.ma.MaskedArray(zero),
        "encode_ns": np.ma.MaskedArray(zero),
        "send_ns": np.ma.MaskedArray(zero),
        "network_ns": np.ma.MaskedArray(np.full(count, 100 * MS), mask=away),
        "play_ns": number * 20 * MS + DELAY_NS,
        "played_start": number * FRAME,
        "played_samples": np.full(count, FRAME),
    }


class Steps:
    """Hears the level of a window."""

    library = "steps 1"
    real_time_factor = 0.5

    def __init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []

    def classify(self, windows: NDArray[np.float32]) -> list[str]:
        self.calls.append(windows.shape)
        return [f"{round(100 * level)}" for level in np.abs(windows).mean(axis=1)]


class Clock:
    """Goes on by 7 ms whenever it is read."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        self.now_ns += 7 * MS
        return self.now_ns


def staircase(chunks: int) -> NDArray[np.int16]:
    """Each chunk of 1,024 samples at one of ten levels."""
    levels = (1 + np.arange(chunks) * 3 % 9) / 10
    return np.repeat(levels * 32768, 1024).astype(np.int16)


def outcome(settings: SinkSettings, pcm: NDArray[np.int16], cost: str, **more: Any) -> Outcome:
    played = more.pop("played", pcm)
    stream = Stream(played, RATE_HZ, frames_of(len(pcm) // FRAME), FACTS, pcm, RATE_HZ)
    return run_with(Steps(), settings, stream, 1, cost, Clock())


def value(result: Outcome, metric: str, mode: str = "") -> float | None:
    (found,) = [r["value"] for r in result.scores if (r["metric"], r["mode"]) == (metric, mode)]
    return found


def test_chunks_bear_the_instants_of_playing_arriving_and_capture() -> None:
    pcm = staircase(10)
    played = heard(pcm, RATE_HZ, frames_of(32), FACTS, 1024)
    assert len(played) == 10
    ends = (np.arange(10) + 1) * 64 * MS
    assert played.came_ns.tolist() == (ends + DELAY_NS).tolist()
    assert played.start_ns.tolist() == (ends - 64 * MS).tolist()
    assert played.captured_ns.tolist() == ends.tolist()
    arrived = heard(pcm, RATE_HZ, frames_of(32), FACTS, 1024, "arrival")
    # The first chunk ends in the fourth frame, which is captured at 80 ms and travels for 100.
    assert arrived.came_ns[:2].tolist() == [180 * MS, 240 * MS]
    # Nobody waits for the fourth frame if it never comes; the third had come at 160.
    waited = heard(pcm, RATE_HZ, frames_of(32, lost={3}), FACTS, 1024, "arrival")
    assert waited.came_ns[0] == 160 * MS


def test_a_frame_that_was_late_at_the_device_swaps_no_chunks() -> None:
    frames = frames_of(32)
    frames["play_ns"][3] += 200 * MS
    settings = SinkSettings(batch_windows=1)
    pcm = staircase(10)
    result = run_with(
        Steps(), settings, Stream(pcm, RATE_HZ, frames, FACTS, pcm, RATE_HZ), 1, "zero"
    )
    assert value(result, "task_accuracy", "due") == 1


def test_stretched_and_inserted_time_keeps_the_media_time() -> None:
    """Frame 0, then 20 ms of waiting, then frame 1 at half its speed."""
    frames = frames_of(4)
    frames["capture_ns"] = np.ma.MaskedArray([0, 0, 20 * MS, 40 * MS], mask=[0, 1, 0, 0])
    frames["played_samples"] = np.array([FRAME, FRAME, 2 * FRAME, FRAME])
    frames["played_start"] = np.array([0, FRAME, 2 * FRAME, 4 * FRAME])
    frames["play_ns"] = np.array([0, 20, 40, 80]) * MS
    pcm = np.zeros(5 * FRAME, np.int16)
    audio = heard(pcm, RATE_HZ, frames, FACTS, FRAME)
    assert (audio.start_ns / MS).tolist() == [0, 20, 20, 30, 40]
    assert (audio.captured_ns / MS).tolist() == [20, 20, 30, 40, 60]
    assert (audio.came_ns / MS).tolist() == [20, 40, 60, 80, 100]


def test_what_was_played_unharmed_is_decided_as_the_reference_is() -> None:
    result = outcome(SinkSettings(batch_windows=1), staircase(50), "zero")
    assert value(result, "task_accuracy", "given") == value(result, "task_accuracy", "due") == 1
    assert value(result, "sink_windows", "due") == value(result, "sink_windows", "classified") == 49
    assert value(result, "time_to_decision", "p50") == 150
    assert value(result, "sink_busy") == 0
    assert [row.media_ns for row in result.decisions] == [at * 64 * MS for at in range(49)]


def test_what_was_played_wrong_is_decided_wrong_and_known_by_its_media_time() -> None:
    pcm = staircase(50)
    damaged = pcm.copy()
    damaged[20 * 1024 : 22 * 1024] = 0
    result = outcome(SinkSettings(batch_windows=1), pcm, "zero", played=damaged)
    wrong = [row.media_ns // (64 * MS) for row in result.decisions if row.label != row.clean]
    assert wrong == [19, 20, 21]
    assert value(result, "sink_windows", "silent") == 1
    assert value(result, "task_accuracy", "given") == pytest.approx(46 / 49)


@pytest.mark.parametrize(
    ("cost", "inference_ns", "waited_ms"),
    [("zero", None, 150), ("profile", None, 214), ("measured", None, 157), ("zero", MS, 151)],
)
def test_a_call_takes_what_is_measured_stated_or_asked(
    cost: str, inference_ns: int | None, waited_ms: float
) -> None:
    settings = SinkSettings(batch_windows=1, inference_ns=inference_ns)
    result = outcome(settings, staircase(50), cost)
    assert value(result, "time_to_decision", "p50") == waited_ms


def test_an_overloaded_ring_drops_and_what_it_still_decides_stays_right() -> None:
    settings = SinkSettings(batch_windows=1, ring_chunks=4, inference_ns=200 * MS)
    result = outcome(settings, staircase(200), "zero")
    due, given = value(result, "task_accuracy", "due"), value(result, "task_accuracy", "given")
    assert given == 1
    assert due is not None
    assert 0.25 < due < 0.4
    missing = value(result, "sink_windows", "missing")
    assert missing == round((1 - due) * 199)
    assert value(result, "sink_chunks", "deepest") == 4
    assert value(result, "sink_chunks", "dropped")


def test_replies_without_ids_slip_and_reach_the_wrong_client() -> None:
    three = SinkSettings(shared=True, clients=3, apart_ns=500 * MS)
    result = outcome(three, staircase(100), "zero")
    misdirected = value(result, "sink_windows", "misdirected")
    mixed = value(result, "sink_windows", "mixed")
    assert misdirected is not None
    assert mixed is not None
    # Of windows with the audio of two, one client of three is wrong for certain.
    assert 0.2 < misdirected / len(result.decisions) < 0.5
    assert mixed > 200
    accuracy = value(result, "task_accuracy", "due")
    assert accuracy is not None
    assert accuracy < 0.5
    alone = outcome(SinkSettings(clients=3, apart_ns=500 * MS), staircase(100), "zero")
    assert value(alone, "task_accuracy", "due") == 1
    assert value(alone, "sink_windows", "misdirected") == 0


def test_one_client_of_the_old_queue_gets_all_but_the_last_right() -> None:
    result = outcome(SinkSettings(shared=True), staircase(50), "zero")
    assert value(result, "task_accuracy", "given") == 1
    assert value(result, "sink_windows", "missing") == 1
    assert value(result, "time_to_decision", "p50") == 214


def test_too_little_audio_is_a_reason_and_no_figure() -> None:
    result = outcome(SinkSettings(), staircase(1), "zero")
    assert {row["metric"] for row in result.scores} == set(METRIC_NAMES)
    assert all(row["value"] is None and row["reason"] for row in result.scores)

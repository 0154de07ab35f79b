"""From the track that a listener's device played to chunks, each with the instants at which it was
whole and at which its audio was captured. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import soxr
from numpy.typing import NDArray

from harness.score.network import Table, numbers
from harness.sinks.settings import RATE_HZ, Takes
from harness.units import NS_PER_S

Positions = NDArray[np.floating]
_FULL_SCALE = 32768.0


@dataclass(frozen=True)
class Heard:
    """Chunks of one stream; ns from the capture of input sample 0."""

    samples: NDArray[np.float32]
    """Shape (chunks, chunk_samples), at ``RATE_HZ``, full scale 1."""
    came_ns: NDArray[np.int64]
    """When the last sample of each had left the device, or its frame had arrived."""
    start_ns: NDArray[np.int64]
    """Media time of its first sample: when it was captured."""
    captured_ns: NDArray[np.int64]
    """When its last sample was captured."""

    def __len__(self) -> int:
        return len(self.samples)


def heard(
    played: NDArray[np.int16],
    rate_hz: int,
    frames: Table,
    facts: Mapping[str, Any],
    chunk_samples: int,
    takes: Takes = "play",
) -> Heard:
    """``frames`` are the cell's rows of that table, in order of playing; ``facts`` its codec's.

    What does not fill a chunk at the end is left out. Time that an adaptive buffer inserted counts
    as media time of what it waited for; a stretched frame's runs so much slower or faster.
    """
    track = as_heard(played, rate_hz)
    count = len(track) // chunk_samples
    samples = track[: count * chunk_samples].reshape(count, chunk_samples)
    edges = np.arange(count + 1, dtype=np.float64) * (
        chunk_samples * rate_hz / RATE_HZ
    )  # in samples as played

    length = numbers(frames, "played_samples")
    there = length > 0
    length = length[there]
    first = numbers(frames, "played_start")[there]
    play_ns = numbers(frames, "play_ns")[there]
    frame_ns = facts["frame_samples"] * NS_PER_S / facts["sample_rate_hz"]
    capture_ns = numbers(frames, "capture_ns")[there]
    inserted = np.isnan(capture_ns)
    lasts_ns = np.where(inserted, 0.0, frame_ns)
    capture_ns = _next_known(capture_ns)

    def row_of(positions: Positions, side: Literal["left", "right"]) -> NDArray[np.intp]:
        found: NDArray[np.intp] = np.maximum(np.searchsorted(first, positions, side) - 1, 0)
        return found

    def captured(positions: Positions, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        share = np.minimum((positions - first[rows]) / length[rows], 1.0)
        instants: NDArray[np.int64] = np.rint(capture_ns[rows] + share * lasts_ns[rows]).astype(
            np.int64
        )
        return instants

    if not count or not len(first):
        none = np.zeros(0, np.int64)
        return Heard(samples[:0], none, none, none)
    starts, ends = edges[:-1], edges[1:]
    last = row_of(ends, "left")
    came: Positions
    if takes == "play":
        came = play_ns[last] + (ends - first[last]) * (NS_PER_S / rate_hz)
    else:
        came = _arrivals_ns(frames)[there][last]
    return Heard(
        samples,
        # A device that ran dry plays a frame late, and the next at its own instant all the same.
        np.maximum.accumulate(np.rint(came).astype(np.int64)),
        captured(starts, row_of(starts, "right")),
        captured(ends, last),
    )


def _arrivals_ns(frames: Table) -> Positions:
    """When each frame had come, in order as from a stream; nobody waits for what never does."""
    ready = sum(numbers(frames, part) for part in ("capture_ns", "fill_ns", "lookahead_ns"))
    carried = sum(numbers(frames, part) for part in ("encode_ns", "send_ns", "network_ns"))
    arrived = np.where(np.isnan(carried), ready, ready + carried)
    return np.maximum.accumulate(np.where(np.isnan(arrived), 0.0, arrived))


def as_heard(pcm: NDArray[np.int16], rate_hz: int) -> NDArray[np.float32]:
    """Audio as classifiers take it: at ``RATE_HZ`` (soxr, high quality), full scale 1."""
    samples = pcm.astype(np.float32) / np.float32(_FULL_SCALE)
    if rate_hz == RATE_HZ:
        return samples
    return np.asarray(soxr.resample(samples, rate_hz, RATE_HZ, quality="HQ"), np.float32)


def _next_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each NaN replaced by the next value that is none, the last ones by the last."""
    known = np.flatnonzero(~np.isnan(values))
    if not len(known):
        return np.zeros_like(values)
    places = np.searchsorted(known, np.arange(len(values)))
    return values[known[np.minimum(places, len(known) - 1)]]

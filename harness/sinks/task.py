"""One cell's stream through a sink, after it has been played, and what came of the task.

Why afterwards: nothing that the sink does reaches the stream, and the records bear the instant at
which every frame arrived and every sample left the device. So chunks come in this replay exactly
when they would have come live; every batch is really classified, and the classifier is busy for as
long as that call took: a live consumer with a core of its own would have seen the same queue,
dropped the same chunks and decided as late. The same code serves all labs. Where the virtual lab
may not measure, what a window costs is what the classifier states of itself, or nothing.

The clean decisions are those of the same classifier, in the same way, on the reference audio of the
same media time. A window's id is that time, its first sample's. Who gets replies without ids takes
the n-th for that of its n-th window.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from harness.errors import CellFailed, HarnessError
from harness.score import figures
from harness.score.metrics import METRICS, PERCENTILES, Score, score
from harness.score.network import Table
from harness.sinks import classifiers
from harness.sinks.classifiers import Classifier
from harness.sinks.listen import Heard, as_heard, heard
from harness.sinks.settings import RATE_HZ, SinkSettings
from harness.sinks.sink import Chunk, Decision, Sink, Window, make, replay
from harness.units import NS_PER_MS, NS_PER_S, monotonic_ns, samples_to_ns

METRIC_NAMES = (
    "task_accuracy",
    "time_to_decision",
    "sink_windows",
    "sink_chunks",
    "sink_inference",
    "sink_busy",
)
_CLEAN_AT_ONCE = 64


class Stream(NamedTuple):
    """What a listener heard of one cell, and the audio that it should have heard."""

    played: NDArray[np.int16]
    rate_hz: int
    frames: Table
    facts: Mapping[str, Any]
    reference: NDArray[np.int16]
    reference_hz: int


def read(
    played_path: Path, reference_path: Path, frames: Table, facts: Mapping[str, Any]
) -> Stream:
    """The same from a run's files. Raises CellFailed where they cannot be read."""
    try:
        played, rate_hz = soundfile.read(played_path, dtype="int16")
        reference, reference_hz = soundfile.read(reference_path, dtype="int16")
    except (OSError, soundfile.LibsndfileError) as error:
        raise CellFailed(f"audio cannot be read: {error}") from error
    return Stream(played, rate_hz, frames, facts, reference, reference_hz)


class Told(NamedTuple):
    """A decision as it is written down; times in ns from the capture of input sample 0."""

    client: int
    """Whose audio the window's first chunk is."""
    media_ns: int
    """The window's id."""
    given_to: int
    label: str
    """``silent`` where the gate kept it from the classifier."""
    clean: str
    """What the client should have been told by this reply; empty where nothing was due."""
    decided_ns: int
    waited_ns: int
    """From the capture of its last sample."""


@dataclass(frozen=True)
class Outcome:
    scores: list[Score]
    decisions: list[Told]

    @property
    def decided_ns(self) -> list[int]:
        """Instants of the replies to the stream's own client, in ns from t0."""
        return [told.decided_ns for told in self.decisions if told.given_to == 0]


def run_sink(settings: SinkSettings, stream: Stream, seed: int, cost: str) -> Outcome:
    """The figures of a sink on a cell that streamed. ``cost`` of a call: ``measured``; ``profile``,
    what the classifier states of itself; or ``zero``. A classifier that is missing or broken is the
    reason why there are none."""
    try:
        classifier = classifiers.create(settings.classifier)
    except HarnessError as error:
        return Outcome([_row(key, mode, None, str(error)) for key, mode in _keys()], [])
    return run_with(classifier, settings, stream, seed, cost)


def run_with(
    classifier: Classifier,
    settings: SinkSettings,
    stream: Stream,
    seed: int,
    cost: str,
    clock_ns: Callable[[], int] = monotonic_ns,
) -> Outcome:
    """The same with a classifier at hand; ``clock_ns`` tells what its calls take."""
    audio = heard(
        stream.played,
        stream.rate_hz,
        stream.frames,
        stream.facts,
        settings.chunk_samples,
        settings.takes,
    )
    if not settings.windows_due(len(audio)):
        reason = f"expected audio for a window of {settings.window_chunks} chunks, got {len(audio)}"
        return Outcome([_row(key, mode, None, reason) for key, mode in _keys()], [])
    task = _Task(classifier, settings, audio, cost, clock_ns)
    clean = task.clean(as_heard(stream.reference, stream.reference_hz))
    sink = make(settings, seed)
    decisions = replay(sink, task.chunks(), task.classify)
    told = task.told(decisions, clean)
    return Outcome(_scores(task, sink, decisions, told), told)


class _Task:
    """A classifier at work on one stream."""

    def __init__(
        self,
        classifier: Classifier,
        settings: SinkSettings,
        audio: Heard,
        cost: str,
        clock_ns: Callable[[], int],
    ) -> None:
        self.classifier = classifier
        self.settings = settings
        self.audio = audio
        self.spent_ns: list[int] = []
        """By call."""
        self._cost = cost
        self._clock_ns = clock_ns
        for _ in range(2):  # the first calls of a network are slow
            self._labels(audio.samples[: settings.window_chunks][np.newaxis])

    def chunks(self) -> list[Chunk]:
        """Of all clients."""
        loudness = _rms(self.audio.samples)
        return [
            Chunk(client, index, int(came) + client * self.settings.apart_ns, float(rms))
            for client in range(self.settings.clients)
            for index, (came, rms) in enumerate(zip(self.audio.came_ns, loudness, strict=True))
        ]

    def classify(self, windows: Sequence[Window]) -> tuple[list[str], int]:
        audio = np.stack([self.audio.samples[[chunk.number for chunk in w]] for w in windows])
        began_ns = self._clock_ns()
        labels = self._labels(audio)
        self.spent_ns.append(self._charged(len(windows), self._clock_ns() - began_ns))
        return labels, self.spent_ns[-1]

    def clean(self, reference: NDArray[np.float32]) -> list[str]:
        """By number of window, what should be decided."""
        settings = self.settings
        starts = [
            round(int(self.audio.start_ns[at * settings.hop_chunks]) * RATE_HZ / NS_PER_S)
            for at in range(settings.windows_due(len(self.audio)))
        ]
        size = settings.window_samples
        before = max(0, -min(starts))
        after = max(0, max(starts) + size - len(reference))
        padded = np.pad(reference, (before, after))
        windows = np.stack([padded[before + at : before + at + size] for at in starts])
        windows = windows.reshape(len(starts), settings.window_chunks, settings.chunk_samples)
        labels: list[str] = []
        for at in range(0, len(windows), _CLEAN_AT_ONCE):
            labels += self._labels(windows[at : at + _CLEAN_AT_ONCE])
        silent = _rms(windows).mean(axis=1) < settings.gate_rms
        return ["silent" if gate else label for gate, label in zip(silent, labels, strict=True)]

    def told(self, decisions: Sequence[Decision], clean: Sequence[str]) -> list[Told]:
        replies: Counter[int] = Counter()
        rows = []
        for window, client, label, decided_ns in decisions:
            # Without an id, a client counts what it gets.
            at = replies[client] if self.settings.shared else window[0].number
            at //= 1 if self.settings.shared else self.settings.hop_chunks
            replies[client] += 1
            first, last = window[0], window[-1]
            captured_ns = int(self.audio.captured_ns[last.number])
            captured_ns += last.client * self.settings.apart_ns
            rows.append(
                Told(
                    client=first.client,
                    media_ns=int(self.audio.start_ns[first.number]),
                    given_to=client,
                    label=label or "silent",
                    clean=clean[at] if at < len(clean) else "",
                    decided_ns=decided_ns,
                    waited_ns=decided_ns - captured_ns,
                )
            )
        return rows

    def _labels(self, windows: NDArray[np.float32]) -> list[str]:
        """Shape (windows, chunks, samples)."""
        count, chunks, samples = windows.shape
        if not self.settings.shared:
            return self.classifier.classify(windows.reshape(count, chunks * samples))
        votes = self.classifier.classify(windows.reshape(count * chunks, samples))
        return [
            Counter(votes[at : at + chunks]).most_common(1)[0][0]
            for at in range(0, count * chunks, chunks)
        ]

    def _charged(self, windows: int, measured_ns: int) -> int:
        if self.settings.inference_ns is not None:
            return windows * self.settings.inference_ns
        if self._cost == "measured":
            return measured_ns
        factor = self.classifier.real_time_factor if self._cost == "profile" else 0.0
        return round(windows * factor * self.settings.window_samples * NS_PER_S / RATE_HZ)


def _rms(audio: NDArray[np.float32]) -> NDArray[np.float64]:
    power: NDArray[np.float64] = np.mean(audio.astype(np.float64) ** 2, axis=-1)
    return np.sqrt(power)


# -- figures ---------------------------------------------------------------------------------------


def _scores(
    task: _Task, sink: Sink, decisions: Sequence[Decision], told: Sequence[Told]
) -> list[Score]:
    settings = task.settings
    due = settings.clients * settings.windows_due(len(task.audio))
    answered = [row for row in told if row.clean]
    agreeing = sum(row.label == row.clean for row in answered)
    waited = [row.waited_ns / NS_PER_MS for row in told]
    calls = [spent / NS_PER_MS for spent in task.spent_ns]
    ends = [row.decided_ns for row in told]
    chunk_ns = samples_to_ns(settings.chunk_samples, RATE_HZ)
    lasted_ns = max([*ends, _last_ns(task)]) - int(task.audio.came_ns[0]) + chunk_ns
    owners = [{chunk.client for chunk in decision.window} for decision in decisions]
    values: dict[tuple[str, str], float | None] = {
        ("task_accuracy", "given"): agreeing / len(answered) if answered else None,
        ("task_accuracy", "due"): agreeing / due,
        ("sink_windows", "due"): due,
        ("sink_windows", "classified"): sum(row.label is not None for row in decisions),
        ("sink_windows", "silent"): sum(row.label is None for row in decisions),
        ("sink_windows", "missing"): due - len(answered),
        ("sink_windows", "mixed"): sum(len(clients) > 1 for clients in owners),
        ("sink_windows", "misdirected"): sum(
            decision.client not in clients
            for decision, clients in zip(decisions, owners, strict=True)
        ),
        ("sink_chunks", "taken"): settings.clients * len(task.audio),
        ("sink_chunks", "dropped"): sink.dropped_chunks,
        ("sink_chunks", "deepest"): sink.deepest,
        ("sink_busy", ""): sum(task.spent_ns) / lasted_ns,
    }
    reasons = {("task_accuracy", "given"): "no client was given a decision that was due"}
    for metric, spans in (("time_to_decision", waited), ("sink_inference", calls)):
        modes = METRICS[metric].modes
        quantiles = [PERCENTILES[mode] for mode in modes]
        for mode, quantile, found in zip(
            modes, quantiles, figures.percentiles(spans, quantiles), strict=True
        ):
            values[metric, mode] = found
            needed = figures.samples_needed(quantile)
            reasons[metric, mode] = f"needs {needed} samples, got {len(spans)}"
    return [
        _row(key, mode, values[key, mode], reasons.get((key, mode), ""), task.classifier.library)
        for key, mode in _keys()
    ]


def _last_ns(task: _Task) -> int:
    """When the last chunk of the last client came."""
    settings = task.settings
    return int(task.audio.came_ns[-1]) + (settings.clients - 1) * settings.apart_ns


def _keys() -> list[tuple[str, str]]:
    return [(metric, mode) for metric in METRIC_NAMES for mode in METRICS[metric].modes]


def _row(metric: str, mode: str, value: float | None, reason: str, library: str = "") -> Score:
    package, _, version = library.partition(" ")
    return score(
        metric,
        None if value is None else float(value),
        mode=mode,
        track="played",
        reason=reason if value is None else None,
        package=package,
        version=version,
    )

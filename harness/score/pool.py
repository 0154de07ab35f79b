"""Scoring many cells on all cores, in processes that may crash.

PESQ's reference code segfaults on some input, and audio packages are C at heart. So a cell is
scored in a worker process; if that dies or takes too long, a fresh worker gets the cell's measures
one by one, and only the one that kills it again has no score. Audio travels as paths of files.
"""

from __future__ import annotations

import multiprocessing
import queue
import signal
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import pebble
import soundfile

from harness.errors import Unsupported
from harness.score.metrics import Score
from harness.score.quality import MEASURES, AudioTask, Measure, score_audio, unscored
from harness.threads import new_processes_with_one_thread

T = TypeVar("T")
R = TypeVar("R")
TIMEOUT_S = 120.0


@dataclass(frozen=True)
class ScoreTask:
    """The audio of one cell as files that soundfile reads; see ``AudioTask`` for the rest."""

    cell_id: str
    reference_path: Path
    media_path: Path
    played_path: Path
    kind: str
    weights: str
    facts: Mapping[str, Any]
    measures: tuple[Measure, ...] = MEASURES
    codec_kind: str = ""
    assets: Mapping[str, Path | Unsupported] = field(default_factory=dict)


def score_files(task: ScoreTask) -> list[Score]:
    """The scores of one cell, in this process: one per measure, in order."""
    try:
        reference, reference_hz = soundfile.read(task.reference_path, dtype="int16")
        media, _ = soundfile.read(task.media_path, dtype="int16")
        played, _ = soundfile.read(task.played_path, dtype="int16")
    except (OSError, soundfile.LibsndfileError) as error:
        return [unscored(measure, f"audio cannot be read: {error}") for measure in task.measures]
    audio = AudioTask(
        reference,
        reference_hz,
        media,
        played,
        task.kind,
        task.weights,
        task.facts,
        codec_kind=task.codec_kind,
        assets=task.assets,
    )
    return score_audio(audio, task.measures)


class WorkerLost(Exception):
    """A worker did not bring its task to an end; the text says how."""


class Workers:
    """A context manager over ``count`` processes, each with one thread and deaf to Ctrl-C.

    Leaving the context waits for what was submitted; leaving it by an exception (Ctrl-C included)
    ends the processes at once. ``name`` says what they are for; each begins with
    ``begin(*arguments)``.
    """

    def __init__(
        self, count: int, name: str, begin: Callable[..., None] | None = None, *arguments: Any
    ) -> None:
        self._count = count
        self._make = partial(Worker, name, begin, *arguments)
        self._threads = ThreadPoolExecutor(count, name)
        self._environment = ExitStack()
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._all: list[Worker] = []

    def __enter__(self) -> Self:
        self._environment.enter_context(new_processes_with_one_thread())
        self._all = [self._make() for _ in range(self._count)]
        for worker in self._all:
            self._idle.put(worker)
        return self

    def submit_to_one(self, use: Callable[[Worker, T], R], task: T) -> Future[R]:
        """Have ``use`` called, in a thread, with a worker that is idle. The future fails as
        ``use`` does, or if the context is left early (CancelledError)."""
        return self._threads.submit(self._lend, use, task)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            for worker in self._all:
                worker.abandon()
        self._threads.shutdown(wait=True)
        for worker in self._all:
            worker.close()
        self._environment.close()

    def _lend(self, use: Callable[[Worker, T], R], task: T) -> R:
        worker = self._idle.get()  # there are as many threads as workers
        try:
            return use(worker, task)
        finally:
            self._idle.put(worker)


class Scorer(Workers):
    """Scores cells; ``timeout_s`` bounds a task once it has started."""

    def __init__(self, workers: int, timeout_s: float = TIMEOUT_S) -> None:
        super().__init__(workers, "scorer")
        self._timeout_s = timeout_s

    def submit(self, task: ScoreTask) -> Future[list[Score]]:
        """The cell's scores, one per measure and in their order. The future fails only if the
        scorer is left early (CancelledError)."""
        return self.submit_to_one(self._score, task)

    def _score(self, worker: Worker, task: ScoreTask) -> list[Score]:
        try:
            return worker.call(score_files, task, self._timeout_s)
        except WorkerLost:
            return one_by_one(worker, task, self._timeout_s)


def one_by_one(worker: Worker, task: ScoreTask, timeout_s: float = TIMEOUT_S) -> list[Score]:
    """The scores of one cell, each in a call of its own: for after a crash."""
    scores = []
    for measure in task.measures:
        try:
            scores += worker.call(score_files, replace(task, measures=(measure,)), timeout_s)
        except WorkerLost as lost:
            scores.append(unscored(measure, str(lost)))
    return scores


class Worker:
    """One process, deaf to Ctrl-C and made anew after a crash; ``name`` says what it is for. A
    pool of its own makes clear whose crash it was."""

    def __init__(
        self, name: str, begin: Callable[..., None] | None = None, *arguments: Any
    ) -> None:
        self._name = name
        self._new_pool = partial(
            pebble.ProcessPool,
            max_workers=1,
            context=multiprocessing.get_context("spawn"),
            initializer=begin,
            initargs=arguments,
        )
        self._pool = self._new_pool()
        self._running: Future[Any] | None = None
        self._abandoned = False
        self._lock = threading.Lock()

    def call(self, function: Callable[[T], R], task: T, timeout_s: float) -> R:
        """``function(task)``, a module's function, over there. Raises what it raises, WorkerLost,
        and CancelledError once abandoned."""
        with self._lock:
            if self._abandoned:
                raise CancelledError
            running = self._running = self._pool.schedule(function, (task,), timeout=timeout_s)
        try:
            answer: R = running.result()
        except TimeoutError:
            raise WorkerLost(f"the {self._name} took more than {timeout_s:.0f} s") from None
        except pebble.ProcessExpired as error:
            raise WorkerLost(f"the {self._name} crashed ({_cause(error.exitcode)})") from None
        except BrokenProcessPool:  # it died before pebble saw it start
            self.close()
            self._pool = self._new_pool()
            raise WorkerLost(f"the {self._name} crashed as soon as it had started") from None
        return answer

    def abandon(self) -> None:
        """Let go of the running task, if any, and take no other."""
        with self._lock:
            self._abandoned = True
            if self._running is not None:
                self._running.cancel()

    def close(self) -> None:
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()


def _cause(exit_code: int) -> str:
    return signal.Signals(-exit_code).name if exit_code < 0 else f"exit code {exit_code}"

"""The sink as a state machine: buffers, windows and batches, without samples, model or clock.

Whoever drives it hands in chunks with the instant at which they came, and asks for work whenever
the classifier is idle; ``now`` is always an argument, in ns, and never goes back.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from harness.sinks.settings import Drop, SinkSettings


class Chunk(NamedTuple):
    """The ``number``-th of a client, from 0, and the instant at which it was whole."""

    client: int
    number: int
    came_ns: int
    rms: float
    """Full scale is 1."""


Window = tuple[Chunk, ...]


@dataclass(frozen=True)
class Work:
    """What there is to do: ``windows`` to classify in one call, with the clients that get the
    replies; and windows that are silent, which are decided already."""

    windows: tuple[tuple[Window, int], ...] = ()
    silent: tuple[tuple[Window, int], ...] = ()


class Sink(Protocol):
    """Either kind of sink."""

    @property
    def dropped_chunks(self) -> int: ...

    @property
    def deepest(self) -> int:
        """Most chunks that ever waited in one buffer, those that block outside among them."""
        ...

    def take(self, chunk: Chunk) -> None:
        """A chunk comes in."""
        ...

    def work(self, now_ns: int) -> Work:
        """What an idle classifier is to do now."""
        ...

    def wake_ns(self) -> int | None:
        """When to ask an idle sink for work again though no chunk has come."""
        ...


class Ring:
    """At most ``capacity`` chunks in order of coming."""

    def __init__(self, capacity: int, drop: Drop) -> None:
        self._capacity = capacity
        self._drop = drop
        self._held: deque[Chunk] = deque()
        self._blocked: deque[Chunk] = deque()
        self.dropped = 0
        self.deepest = 0

    def __len__(self) -> int:
        return len(self._held)

    def put(self, chunk: Chunk) -> None:
        if len(self._held) < self._capacity:
            self._held.append(chunk)
        elif self._drop == "block":
            self._blocked.append(chunk)
        else:
            self.dropped += 1
            if self._drop == "drop-oldest":
                self._held.popleft()
                self._held.append(chunk)
        self.deepest = max(self.deepest, len(self._held) + len(self._blocked))

    def first(self, count: int) -> Window:
        """The oldest so many, or all that there are; they stay."""
        return tuple(self._held[index] for index in range(min(count, len(self._held))))

    def remove(self, count: int) -> None:
        """The oldest so many; as many that blocked come in."""
        for _ in range(min(count, len(self._held))):
            self._held.popleft()
            if self._blocked:
                self._held.append(self._blocked.popleft())


def _is_silent(window: Window, gate_rms: float) -> bool:
    return sum(chunk.rms for chunk in window) / len(window) < gate_rms


class IsolatedSink:
    """A ring for each client. Windows hold neighbours only: what a full ring dropped is missing
    from the decisions, and moves none of them."""

    def __init__(self, settings: SinkSettings) -> None:
        self._settings = settings
        self._rings = [Ring(settings.ring_chunks, settings.drop) for _ in range(settings.clients)]
        self._pending: list[Window] = []

    @property
    def dropped_chunks(self) -> int:
        return sum(ring.dropped for ring in self._rings)

    @property
    def deepest(self) -> int:
        return max(ring.deepest for ring in self._rings)

    def take(self, chunk: Chunk) -> None:
        self._rings[chunk.client].put(chunk)

    def work(self, now_ns: int) -> Work:
        settings, silent = self._settings, []
        while len(self._pending) < settings.batch_windows and (window := self._pull()):
            if _is_silent(window, settings.gate_rms):
                silent.append((window, window[0].client))
            else:
                self._pending.append(window)
        wake_ns = self.wake_ns()
        full = len(self._pending) == settings.batch_windows
        if not full and (wake_ns is None or now_ns < wake_ns):
            return Work(silent=tuple(silent))
        batch, self._pending = self._pending, []
        return Work(tuple((window, window[0].client) for window in batch), tuple(silent))

    def wake_ns(self) -> int | None:
        return self._pending[0][-1].came_ns + self._settings.wait_ns if self._pending else None

    def _pull(self) -> Window | None:
        """The window that has been complete for longest, out of its ring."""
        size = self._settings.window_chunks
        complete = [
            (window[-1].came_ns, window[0].client)
            for ring in self._rings
            if len(window := self._next(ring)) == size
        ]
        if not complete:
            return None
        ring = self._rings[min(complete)[1]]
        window = ring.first(size)
        ring.remove(self._settings.hop_chunks)
        return window

    def _next(self, ring: Ring) -> Window:
        """The beginning of the next window, or all of it; what cannot begin one is removed."""
        while window := ring.first(self._settings.window_chunks):
            start = window[0].number
            on_grid = start % self._settings.hop_chunks == 0
            if on_grid and all(chunk.number == start + at for at, chunk in enumerate(window)):
                break
            ring.remove(1)
        return window


class SharedSink:
    """One queue for all clients, which nothing tells apart; see ``SinkSettings.shared``.

    ``choose`` picks the client, of so many, whose thread takes a window.
    """

    def __init__(self, settings: SinkSettings, choose: Callable[[int], int]) -> None:
        self._settings = settings
        self._choose = choose
        self._queue = Ring(settings.ring_chunks, settings.drop)

    @property
    def dropped_chunks(self) -> int:
        return self._queue.dropped

    @property
    def deepest(self) -> int:
        return self._queue.deepest

    def take(self, chunk: Chunk) -> None:
        self._queue.put(chunk)

    def work(self, now_ns: int) -> Work:  # noqa: ARG002
        if len(self._queue) <= self._settings.window_chunks:
            return Work()
        window = self._queue.first(self._settings.window_chunks)
        self._queue.remove(self._settings.hop_chunks)
        given = ((window, self._choose(self._settings.clients)),)
        silent = _is_silent(window, self._settings.gate_rms)
        return Work(silent=given) if silent else Work(given)

    def wake_ns(self) -> int | None:
        return None


def make(settings: SinkSettings, seed: int) -> Sink:
    """The sink that ``settings`` describe; ``seed`` decides races of the shared one."""
    if settings.shared:
        return SharedSink(settings, random.Random(seed).randrange)
    return IsolatedSink(settings)


class Decision(NamedTuple):
    """A reply; ``label`` is None for a silent window."""

    window: Window
    client: int
    """To whom it was given."""
    label: str | None
    decided_ns: int


Classify = Callable[[Sequence[Window]], tuple[Sequence[str], int]]
"""The labels of some windows, and what that took in ns."""


def replay(sink: Sink, chunks: Sequence[Chunk], classify: Classify) -> list[Decision]:
    """Live through a stream, event by event: chunks come at their instants, the classifier is busy
    for as long as each call takes, and asks for the next batch as soon as it is idle."""
    coming = deque(sorted(chunks, key=lambda chunk: (chunk.came_ns, chunk.client, chunk.number)))
    decisions: list[Decision] = []
    now_ns = free_ns = coming[0].came_ns if coming else 0
    while True:
        while coming and coming[0].came_ns <= now_ns:
            sink.take(coming.popleft())
        wake_ns: int | None = free_ns
        if now_ns >= free_ns:
            work = sink.work(now_ns)
            decisions += [Decision(window, client, None, now_ns) for window, client in work.silent]
            if work.windows:
                labels, spent_ns = classify([window for window, _ in work.windows])
                free_ns = now_ns + spent_ns
                decisions += [
                    Decision(window, client, label, free_ns)
                    for (window, client), label in zip(work.windows, labels, strict=True)
                ]
            wake_ns = free_ns if work.windows or work.silent else sink.wake_ns()
        instants = [at for at in (wake_ns, coming[0].came_ns if coming else None) if at is not None]
        if not instants:
            return decisions
        now_ns = max(now_ns, min(instants))

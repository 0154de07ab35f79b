"""The warm pairs of a run: opened when they are needed, handed from cell to cell, bounded."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

from harness.errors import BadInput, CellFailed, Unsupported
from harness.labs.base import Lab, Pair
from harness.labs.capacity import Capacity


class PairPool:
    """At most ``most`` pairs at a time; a claim for more of them waits until it has the lab to
    itself, and then opens as many as it needs.

    A claim gets all of its pairs at once, so that two broadcasts never hold a part each and wait
    for the other's.
    """

    def __init__(self, lab: Lab, most: int) -> None:
        self._lab = lab
        self._capacity = Capacity(most)
        self._idle: queue.SimpleQueue[Pair] = queue.SimpleQueue()
        self._indices: set[int] = set()
        self._pairs: dict[int, Pair] = {}
        self._lock = threading.Lock()
        # Its threads live as long as the pairs: Linux takes the end of the thread that started a
        # process for the death of its parent (PR_SET_PDEATHSIG), and the agents end with that.
        self._opener = ThreadPoolExecutor(most, "pair")
        self.closing = False

    def warm_up(self, count: int) -> None:
        """Open pairs side by side until ``count`` are open, before any is claimed; one that fails
        to open is tried again by the claim that needs it."""
        for opened in [self._open() for _ in range(count - len(self._pairs))]:
            with suppress(CellFailed):
                self._idle.put(opened.result())

    @contextmanager
    def claim(self, count: int) -> Iterator[list[Pair]]:
        """Idle pairs, or new ones.

        Where what they are claimed for raises Unsupported or BadInput, they are brought back to
        idle and kept; after any other error they are closed.
        """
        with self._capacity.claim(count):
            pairs: list[Pair] = []
            try:
                for _ in range(count):
                    pairs.append(self._take())
                yield pairs
            except (Unsupported, BadInput):
                for pair in pairs:
                    if pair.reset():
                        self._idle.put(pair)
                    else:
                        self._close(pair)
                raise
            except BaseException:
                for pair in pairs:
                    self._close(pair)
                raise
            for pair in pairs:
                self._idle.put(pair)

    def close(self) -> None:
        """End all pairs, those in use included; whoever waits for a new one gets CellFailed."""
        with self._lock:
            self.closing = True
        for pair in list(self._pairs.values()):
            self._close(pair)
        self._opener.shutdown(wait=True)
        for pair in list(self._pairs.values()):  # that were being opened
            self._close(pair)

    def _take(self) -> Pair:
        if not self.closing:
            with suppress(queue.Empty):
                return self._idle.get_nowait()
        return self._open().result()

    def _open(self) -> Future[Pair]:
        with self._lock:
            if self.closing:
                raise CellFailed("the run was interrupted")
            return self._opener.submit(self._open_now)

    def _open_now(self) -> Pair:
        with self._lock:
            if self.closing:
                raise CellFailed("the run was interrupted")
            index = min(set(range(len(self._indices) + 1)) - self._indices)
            self._indices.add(index)
        try:
            pair = self._lab.open_pair(index)
        except BaseException:
            with self._lock:
                self._indices.discard(index)
            raise
        self._pairs[index] = pair
        return pair

    def _close(self, pair: Pair) -> None:
        with self._lock:
            known = self._pairs.pop(pair.index, None)
        if known is not None:
            pair.close()
            with self._lock:
                self._indices.discard(pair.index)

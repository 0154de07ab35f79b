"""Claims on something bounded, admitted in the order in which they are made.

A small claim never overtakes a large one, or small claims that keep coming would starve it. The
price is that a little of the whole may lie idle while a large claim waits for its turn.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import fsum

_ROUNDING = 1e-9
"""Shares of a core are sums of measured fractions."""


class Admission:
    """Who holds how much of a whole, and who waits; no thread, no clock.

    A share larger than the whole is cut to it: it is admitted once nobody else holds anything.
    """

    def __init__(self, whole: float) -> None:
        self._whole = whole
        self._held: dict[int, float] = {}
        self._waiting: dict[int, float] = {}
        self._tickets = 0

    def ask(self, share: float) -> int:
        """Queue a claim; its ticket, which is to be given back by :meth:`leave`."""
        self._tickets += 1
        self._waiting[self._tickets] = min(share, self._whole)
        self._admit()
        return self._tickets

    def is_admitted(self, ticket: int) -> bool:
        """Whether the claim holds its share."""
        return ticket in self._held

    def leave(self, ticket: int) -> None:
        """Free the share of a claim, or drop one that still waits."""
        self._held.pop(ticket, None)
        self._waiting.pop(ticket, None)
        self._admit()

    def _admit(self) -> None:
        for ticket, share in list(self._waiting.items()):
            if fsum(self._held.values()) + share > self._whole + _ROUNDING:
                return
            self._held[ticket] = self._waiting.pop(ticket)


class Capacity:
    """An :class:`Admission` that threads wait at."""

    def __init__(self, whole: float) -> None:
        self._admission = Admission(whole)
        self._changed = threading.Condition()

    @contextmanager
    def claim(self, share: float) -> Iterator[None]:
        """Wait for ``share`` of the whole, and hold it."""
        with self._changed:
            ticket = self._admission.ask(share)
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._admission.is_admitted(ticket))
            yield
        finally:
            with self._changed:
                self._admission.leave(ticket)
                self._changed.notify_all()

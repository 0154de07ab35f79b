"""Where packets enter the listener: a bounded queue between receiving and decoding.

What counts as waiting is every packet received whose frame has not been decoded yet, the jitter
buffer's included. Without a bound the gate stands open and keeps no account.
"""

from __future__ import annotations

import threading
from typing import Any

from harness.transports.base import WhenFull
from harness.units import monotonic_ns

_MOST_SAMPLES = 10_000


class Gate:
    """``enter`` is for the receiving thread, ``left`` for the one that plays.

    Full, it holds the receiving thread up (``block``), so that the transport's own flow control
    reaches the sender, or turns the packet away (``drop-newest``).
    """

    def __init__(self, packets: int, when_full: WhenFull) -> None:
        self._bound = packets
        self._blocks = when_full == "block"
        self._entered = self._left = self._dropped = 0
        self._depths: list[tuple[int, int]] = []
        self._is_open = False
        self._changed = threading.Condition()

    def enter(self) -> bool:
        """False where the packet is dropped."""
        if not self._bound:
            return True
        with self._changed:
            if self._blocks:
                self._changed.wait_for(self._has_room)
            elif not self._has_room():
                self._dropped += 1
                return False
            self._entered += 1
            self._note()
        return True

    def left(self, packets: int) -> None:
        """So many have been decoded or given up since the beginning."""
        if not self._bound or packets == self._left:
            return
        with self._changed:
            self._left = packets
            self._note()
            self._changed.notify()

    def open(self) -> None:
        """From now on hold nobody up."""
        with self._changed:
            self._is_open = True
            self._changed.notify()

    def counts(self) -> dict[str, Any]:
        """With a bound: ``receive_queue_depth``, [instant, packets waiting] at each change, and
        ``receive_queue_dropped``, how many were."""
        if not self._bound:
            return {}
        with self._changed:
            return {
                "receive_queue_depth": list(self._depths),
                "receive_queue_dropped": self._dropped,
            }

    def _has_room(self) -> bool:
        return self._is_open or self._entered - self._left < self._bound

    def _note(self) -> None:
        if len(self._depths) < _MOST_SAMPLES:
            self._depths.append((monotonic_ns(), self._entered - self._left))

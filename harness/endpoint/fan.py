"""One stream to several receivers: every packet goes to each of them, in turn."""

from __future__ import annotations

from collections.abc import Sequence

from harness.transports.base import Sender


class Fan:
    """The ways to the receivers. A packet counts as sent when the first of them gets it; what a
    socket refused is known for its own receiver alone."""

    def __init__(self, senders: Sequence[Sender]) -> None:
        self._senders = senders
        self.refused: list[list[int]] = [[] for _ in senders]
        """By receiver: which calls of :meth:`send`, counted from 0, its socket did not take."""
        self._calls = 0

    def send(self, packet: bytes) -> bool:
        """To all; True, as one refusal is not all of them."""
        for sender, refused in zip(self._senders, self.refused, strict=True):
            if not sender.send(packet):
                refused.append(self._calls)
        self._calls += 1
        return True

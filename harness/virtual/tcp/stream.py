"""Both ends of a connection and the two links between them, as one thing to send messages by."""

from __future__ import annotations

import random
from collections import deque
from typing import Generic, TypeVar

from harness.network.link import LinkPair
from harness.network.model import Ended, LinkModel
from harness.records import Outcome
from harness.units import NS_PER_S
from harness.virtual.tcp.receiver import Receiver
from harness.virtual.tcp.sender import Sender
from harness.virtual.tcp.wire import (
    DEFAULT_HZ,
    HEADER_BYTES,
    HOST_NS,
    NEVER_NS,
    Ack,
    Data,
    Framing,
    Wheel,
    framed_bytes,
)

_SOURCE_MAC_BITS = range(6 * 8, 12 * 8)
P = TypeVar("P")


def round_trip_ns(pair: LinkPair) -> int:
    """What the handshake of a connection over a fitted pair measures: the delays at t0."""
    return pair.forward.delay_ns + pair.reverse.delay_ns + 2 * HOST_NS


class TcpStream(Generic[P]):
    """Messages from one end of an established connection to the other.

    ``forward`` and ``reverse`` carry nothing else. ``rtt_ns`` is the round trip that the handshake
    measured, ``seed`` decides where between two ticks of the hosts' clocks the time ``start_ns``
    lies (it is what differs from one run to the next on a network without chance). ``hz`` is how
    many ticks these have a second.
    """

    def __init__(
        self,
        forward: LinkModel[Data],
        reverse: LinkModel[Ack],
        *,
        framing: Framing,
        rtt_ns: int,
        seed: str,
        start_ns: int = 0,
        hz: int = DEFAULT_HZ,
    ) -> None:
        tick_ns = NS_PER_S // hz
        self._links = (forward, reverse)
        self._framing: Framing = framing
        phases = random.Random(f"{seed}/ticks")
        self._receiver = Receiver(
            self._acknowledge,
            self._read,
            Wheel(phases.randrange(tick_ns << 12), hz),
            rtt_ns,
            framing == "websocket",
        )
        self._sender = Sender(
            self._transmit, Wheel(phases.randrange(tick_ns << 12), hz), max(rtt_ns, 1), start_ns
        )
        self._waiting: deque[tuple[int, P]] = deque()
        self._readable: list[tuple[P, int]] = []
        self.link_rows: list[tuple[int, int, int, int, int]] = []
        """LINK_LOG rows of the frames whose end has come: direction, in, out, size, outcome."""

    def send(self, packet: P, size_bytes: int, now_ns: int) -> None:
        """The application writes a message. Times never go back."""
        self.advance(now_ns)
        size_bytes = framed_bytes(self._framing, size_bytes)
        self._waiting.append((self._sender.written + size_bytes, packet))
        self._sender.write(size_bytes, now_ns)

    def next_ns(self) -> int | None:
        """When ``advance`` will have something to do next; None while nothing is under way."""
        earliest = min(self._sender.timer_ns, self._receiver.timer_ns)
        for link in self._links:
            ends_ns = link.next_ns()
            if ends_ns is not None and ends_ns + HOST_NS < earliest:
                earliest = ends_ns + HOST_NS
        return None if earliest == NEVER_NS else earliest

    def advance(self, now_ns: int) -> None:
        """Everything that happens until now, in order."""
        while (time_ns := self.next_ns()) is not None and time_ns <= now_ns:
            self._step(time_ns)

    def received(self) -> list[tuple[P, int]]:
        """Messages that have become readable since the last call, with the instant of each: what
        lies behind a hole waits for it."""
        readable, self._readable = self._readable, []
        return readable

    def counts(self) -> dict[str, int]:
        """What the sender did beyond sending everything once."""
        sender = self._sender
        return {
            "retransmissions": sender.retransmissions,
            "loss_probes": sender.probes,
            "timeouts": sender.timeouts,
        }

    def _step(self, now_ns: int) -> None:
        forward, reverse = self._links
        for data in forward.collect(now_ns - HOST_NS):
            if self._arrives(0, data):
                self._receiver.take(data.packet, now_ns)
        for ack in reverse.collect(now_ns - HOST_NS):
            if self._arrives(1, ack):
                self._sender.take(ack.packet, now_ns)
        for end in (self._receiver, self._sender):
            if end.timer_ns <= now_ns:
                end.fire(now_ns)

    def _arrives(self, direction: int, ended: Ended[Data] | Ended[Ack]) -> bool:
        """Log a frame's end; a damaged one fails a checksum, unless it is the sender's address on
        the Ethernet that is damaged, which nobody looks at."""
        _, in_ns, out_ns, size_bytes, outcome, flip_bit = ended
        self.link_rows.append((direction, in_ns, out_ns, size_bytes, outcome))
        if outcome is Outcome.DELIVERED:
            return True
        return out_ns >= 0 and (flip_bit is None or flip_bit in _SOURCE_MAC_BITS)

    def _read(self, complete: int, now_ns: int) -> None:
        while self._waiting and self._waiting[0][0] <= complete:
            self._readable.append((self._waiting.popleft()[1], now_ns))

    def _transmit(self, data: Data, now_ns: int) -> None:
        self._links[0].offer(data, HEADER_BYTES + data.end - data.seq, now_ns)

    def _acknowledge(self, ack: Ack, now_ns: int) -> None:
        self._links[1].offer(ack, ack.size_bytes(), now_ns)

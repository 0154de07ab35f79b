"""What a transport is set to do, and what it does.

A transport carries packets (byte strings of at least one byte) one way. Its sender never holds up
the caller: pacing follows the capture schedule whatever the network does, so what cannot be sent
at once waits in a backlog (streams) or is refused (datagrams), and both are counted.

A packet is stamped on CLOCK_MONOTONIC. Over UDP, RTP and QUIC it is the kernel's stamp of the
datagram's arrival (of the one that completes it, on a QUIC stream), however late the receiving
thread reads it. TCP hands over bytes, which have no stamps, and WebRTC's library keeps its sockets
to itself: there the stamp is taken when the packet is handed over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

OnPacket = Callable[[bytes, int], None]
"""Called with a packet and its ``recv_ns``, from the receiving thread."""

CONNECT_TIMEOUT_S = 20.0
MOST_PEERS = 16
"""Connections of one receiver at a time. It needs one, and a few more where attempts that the
sender gave up on a bad network have reached it."""
RECEIVE_PRIORITY = 3
"""SCHED_FIFO priority of receiving threads, above playing and pacing: a stamp must be prompt."""


Name = Literal["udp", "rtp", "quic-datagram", "quic-stream", "webrtc", "tcp", "websocket"]
QUIC_LEAST_MTU_BYTES = 1228
"""RFC 9000, section 14: datagrams of 1200 bytes must pass."""
NAMES: tuple[Name, ...] = get_args(Name)


WhenFull = Literal["block", "drop-oldest", "drop-newest"]
"""What becomes of a packet too many for a queue."""


@dataclass(frozen=True)
class TransportSettings:
    """``mtu_bytes`` is the IP MTU that datagrams are fragmented for (not on streams), ``gap_ns``
    the time between the packets of one payload.

    On TCP and WebSocket only: with ``wire`` bare a message is the payload and nothing else. At most
    ``in_flight`` messages wait for the receiver's acknowledgement, the next ones in a queue of
    ``queue`` messages; ``receive_queue`` bounds those received and not yet decoded. 0 is no bound.
    """

    transport: Name = "udp"
    mtu_bytes: int = 1500
    gap_ns: int = 0
    wire: Literal["harness", "bare", "encodec-udp-stream"] = "harness"
    in_flight: int = 0
    queue: int = 0
    when_full: WhenFull = "block"
    receive_queue: int = 0
    receive_when_full: WhenFull = "block"

    @property
    def wire_format(self) -> str:
        """What packets look like, as :func:`harness.media.rtp.wire_of` names it."""
        return "rtp" if self.transport == "rtp" else self.wire


class Sender(Protocol):
    """A connected sending end."""

    max_packet_bytes: int | None
    """Largest packet that it takes; None for any."""

    def send(self, packet: bytes) -> bool:
        """Hand over one packet without waiting; False where it was refused (buffer full).

        Raises OSError when the connection is broken.
        """
        ...

    def hear(self, on_message: Callable[[bytes], None]) -> None:
        """From now on call with whatever the receiver says, from a thread of its own.

        Raises Unsupported where there is no way back.
        """
        ...

    def flush(self, deadline_ns: int) -> None:
        """Wait, at most until then (CLOCK_MONOTONIC), for the kernel to take the backlog."""
        ...

    def counts(self) -> Mapping[str, Any]:
        """What happened besides: refusals, errors, the longest backlog."""
        ...

    def close(self) -> None: ...


class Receiver(Protocol):
    """A bound receiving end; its thread is running."""

    port: int

    def reply(self, message: bytes) -> None:
        """Say something to the sender whose packet came last; lost where none has come."""
        ...

    def counts(self) -> dict[str, Any]:
        """What happened besides; ``read_lateness`` (:class:`harness.lateness.Lateness`), from the
        kernel's stamps to the receiving thread's reading, where there are stamps."""
        ...

    def close(self) -> None: ...


class Transport(Protocol):
    """What a transport's file offers."""

    def connect(self, host: str, port: int, settings: TransportSettings) -> Sender:
        """Raises CellFailed if the receiver does not answer within CONNECT_TIMEOUT_S."""
        ...

    def listen(self, host: str, on_packet: OnPacket) -> Receiver:
        """Bind a free port of ``host`` and start receiving."""
        ...

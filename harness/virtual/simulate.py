"""One stream from sender to listener in virtual time: the endpoints' own state machines and the
link's own model, with no socket, no thread and no waiting.

Nothing that the listener does reaches the sender, over TCP neither (a socket takes what it is given
at once), so a stream is simulated stage by stage, each event at its exact instant: all that is
sent, all that the network makes of it, all that is played. The instants are those of
``endpoint/agent.py``: a sender that encodes for longer than a frame falls behind its schedule and
catches up; the listener decodes in one thread, packets are stamped in another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

from harness.codecs.base import Codec, Decoder, Encoder, Pcm
from harness.endpoint.sender import SenderCore, frame_count
from harness.media.packet import ETHERNET_BYTES, IP_UDP_BYTES
from harness.media.playout import ReceiverCore
from harness.media.settings import ReceiverSettings
from harness.network.link import LinkPair
from harness.network.link_json import link_summary
from harness.network.model import Ended, LinkModel
from harness.records import LINK_LOG, Observed, from_rows
from harness.transports.base import TransportSettings
from harness.virtual.compute import Compute
from harness.virtual.tcp import TcpStream, require_validated, round_trip_ns

NEVER_NS = 2**62
"""An instant that does not come."""
_SOURCE_MAC_BITS = range(48, 96)
"""Of an Ethernet frame: the bits that no checksum and no address filter looks at."""

_ENTERING = itemgetter(1)
"""Of a row of the link's log: when the frame entered."""

Arrival = tuple[bytes, int]
"""A packet and an instant: of its entering the network, or of its stamp in the receiver."""


@dataclass(frozen=True)
class Stream:
    """What is to be streamed: a fitted pair of links, a codec, audio, two endpoints' settings."""

    codec: Codec
    pcm: Pcm
    pair: LinkPair
    receiver: ReceiverSettings
    transport: TransportSettings
    stream_id: int
    seed: int
    compute: Compute
    stop_ns: int = NEVER_NS
    """From then on nobody waits for what has not come; until then, as long as anything comes."""


class Clock:
    """Virtual time of one endpoint, in ns; sample 0 is captured at 0."""

    def __init__(self) -> None:
        self.now_ns = 0

    def read(self) -> int:
        return self.now_ns

    def spend(self, ns: int) -> None:
        self.now_ns += ns


class Carried(NamedTuple):
    """What became of all that was sent: packets as they reach the listener, in order; the link's
    log; what is still inside the link at the end of all time; figures of the transport."""

    arrivals: list[Arrival]
    log: list[tuple[int, ...]]
    in_flight: int
    counts: dict[str, int]


def simulate(stream: Stream) -> Observed:
    """What both ends and the link observe of a stream; a pure function unless its compute is
    ``measured``.

    Raises CellFailed for a codec that breaks down, Unsupported for TCP on a network for which its
    model is not validated.
    """
    sender, sent = _send(stream)
    carry = _over_udp if stream.transport.transport == "udp" else _over_tcp
    carried = carry(stream, sent)
    receiver = _play(stream, carried.arrivals)
    counters = {"log_drops": 0, "refused": 0, "in_flight": carried.in_flight, "t0_ns": 0}
    return Observed(
        t0_ns=0,
        sent_packets=sender.packets(),
        sent_frames=sender.sent_frames(),
        received_packets=receiver.packets(),
        played_frames=receiver.frames(),
        link_log=from_rows(LINK_LOG, sorted(carried.log, key=_ENTERING)),
        media=receiver.media(),
        played=receiver.played(),
        sender={**sender.figures(), **carried.counts},
        receiver=receiver.figures(),
        link={"counters": counters},
        readback={"engine": "model", "seed": stream.seed, **link_summary(stream.pair)},
    )


def _send(stream: Stream) -> tuple[SenderCore, list[Arrival]]:
    """The sender, done, and its packets with the instants at which they come to the link."""
    clock, overheads = Clock(), stream.compute.overheads
    sent: list[Arrival] = []

    def send(packet: bytes) -> bool:
        clock.now_ns += overheads.send_ns
        sent.append((packet, clock.now_ns))
        return True

    core = SenderCore(
        stream.codec.facts,
        _TimedEncoder(stream.codec.encoder(), stream.compute, stream.seed, clock),
        stream.stream_id,
        stream.pcm,
        0,
        stream.transport.mtu_bytes - IP_UDP_BYTES,
        send,
        clock.read,
    )
    while (ready_ns := core.next_ready_ns()) is not None and ready_ns < stream.stop_ns:
        clock.now_ns = max(clock.now_ns, ready_ns + overheads.wake_ns)
        if clock.now_ns >= stream.stop_ns:
            break
        core.step()
    return core, sent


def _over_udp(stream: Stream, sent: list[Arrival]) -> Carried:
    """One datagram a packet. The checksum drops what a flipped bit has damaged."""
    model: LinkModel[bytes] = LinkModel(stream.pair.forward, f"{stream.seed}/0")
    for packet, now_ns in sent:
        model.offer(packet, len(packet) + IP_UDP_BYTES + ETHERNET_BYTES, now_ns)
    ended = model.collect(NEVER_NS)
    receive_ns = stream.compute.overheads.receive_ns
    arrivals = [
        (end.packet, end.out_ns + receive_ns)
        for end in ended
        if end.out_ns >= 0 and (end.flip_bit is None or end.flip_bit in _SOURCE_MAC_BITS)
    ]
    return Carried(arrivals, _log_rows(0, ended), model.in_flight, {})


def _over_tcp(stream: Stream, sent: list[Arrival]) -> Carried:
    """One message a packet, over a connection that was made before t0."""
    transport, pair, facts = stream.transport.transport, stream.pair, stream.codec.facts
    assert transport != "udp"
    message_bytes = -(-sum(len(packet) for packet, _ in sent) // max(len(sent), 1))
    require_validated(pair, transport, message_bytes, facts.frame_ns, len(sent) * facts.frame_ns)
    forward: LinkModel[Any] = LinkModel(pair.forward, f"{stream.seed}/0")
    reverse: LinkModel[Any] = LinkModel(pair.reverse, f"{stream.seed}/1")
    connection: TcpStream[bytes] = TcpStream(
        forward,
        reverse,
        framing=transport,
        rtt_ns=round_trip_ns(pair),
        seed=str(stream.seed),
    )
    for packet, now_ns in sent:
        connection.send(packet, len(packet), now_ns)
    connection.advance(stream.stop_ns)
    # Both ends hang up: what is on its way comes out, and nobody answers it.
    rest = [row for d, link in enumerate((forward, reverse)) for row in _left(d, link)]
    in_flight = forward.in_flight + reverse.in_flight
    log = [*connection.link_rows, *rest]
    return Carried(connection.received(), log, in_flight, connection.counts())


def _left(direction: int, link: LinkModel[Any]) -> list[tuple[int, ...]]:
    return _log_rows(direction, link.collect(NEVER_NS))


def _log_rows(direction: int, ended: Sequence[Ended[Any]]) -> list[tuple[int, ...]]:
    return [(direction, end.in_ns, end.out_ns, end.size_bytes, end.outcome) for end in ended]


def _play(stream: Stream, arrivals: list[Arrival]) -> ReceiverCore:
    """The listener, done."""
    clock, facts, stop_ns = Clock(), stream.codec.facts, stream.stop_ns
    overheads = stream.compute.overheads
    ahead_ns = overheads.wake_ns + overheads.play_ns
    core = ReceiverCore(
        stream.receiver,
        facts,
        _TimedDecoder(stream.codec.decoder(), stream.compute, stream.seed, clock),
        stream.stream_id,
        frame_count(len(stream.pcm), facts),
        clock.read,
    )
    coming = deque(arrivals)
    while not core.finished and clock.now_ns < stop_ns:
        pull_ns = core.next_pull_ns()
        if pull_ns is None and not coming:
            break
        due_ns = coming[0][1] if pull_ns is None else pull_ns + ahead_ns
        clock.now_ns = max(clock.now_ns, min(due_ns, stop_ns))
        _take_all(core, coming, clock.now_ns)
        if pull_ns is not None and pull_ns < stop_ns:
            core.pull()
    _take_all(core, coming, clock.now_ns)
    core.stop(stop_ns if stop_ns != NEVER_NS else clock.now_ns)
    return core


def _take_all(core: ReceiverCore, coming: deque[Arrival], now_ns: int) -> None:
    """Hand over what has arrived by now."""
    while coming and coming[0][1] <= now_ns:
        core.on_packet(*coming.popleft())


class _TimedEncoder:
    def __init__(self, encoder: Encoder, compute: Compute, seed: int, clock: Clock) -> None:
        self._encode = compute.timed(encoder.encode, "encode", seed, clock.spend)

    def encode(self, pcm: Pcm) -> bytes | None:
        return self._encode(pcm)


class _TimedDecoder:
    def __init__(self, decoder: Decoder, compute: Compute, seed: int, clock: Clock) -> None:
        timed = partial(compute.timed, seed=seed, spend=clock.spend)
        self._decode: Callable[[bytes], Pcm] = timed(decoder.decode, "decode")
        self._conceal: Callable[[], Pcm | None] = timed(decoder.conceal, "conceal")
        self._recover: Callable[[bytes, int], Pcm | None] = timed(decoder.recover, "recover")

    def decode(self, payload: bytes) -> Pcm:
        return self._decode(payload)

    def conceal(self) -> Pcm | None:
        return self._conceal()

    def recover(self, later_payload: bytes, frames_back: int = 1) -> Pcm | None:
        return self._recover(later_payload, frames_back)

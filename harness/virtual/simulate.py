"""One stream from sender to listener in virtual time: the endpoints' own state machines and the
link's own model, with no socket, no thread and no waiting.

Where nothing that the listener does reaches the sender (over TCP neither: a socket takes what it is
given at once), a stream is simulated stage by stage, each event at its exact instant: all that is
sent, all that the network makes of it, all that is played. Where the listener answers, or streams
share a link or a sender, all ends and all directions of links take turns, whoever's next event is
due first. The instants are those of ``endpoint/agent.py``: a sender that encodes for longer than a
frame falls behind its schedule and catches up; the listener decodes in one thread, packets are
stamped in another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from harness.codecs.base import Codec, Decoder, Encoder, Pcm
from harness.endpoint.sender import SenderCore, frame_count
from harness.errors import Unsupported
from harness.lateness import Schedule
from harness.media.packet import IP_UDP_BYTES, wire_sizes
from harness.media.playout import ReceiverCore
from harness.media.rtp import wire_of
from harness.media.settings import ReceiverSettings, SenderSettings
from harness.media.wire import Wire
from harness.network.link import LinkPair
from harness.network.link_json import link_summary
from harness.network.model import Ended, LinkModel
from harness.records import (
    LINK_IDENTITY,
    LINK_LOG,
    Observed,
    TrackRecords,
    datagram_identity,
    from_rows,
)
from harness.transports.base import TransportSettings
from harness.virtual.compute import Compute, Spend
from harness.virtual.tcp import TcpStream, require_validated, round_trip_ns

NEVER_NS = 2**62
"""An instant that does not come."""
_SOURCE_MAC_BITS = range(48, 96)
"""Of an Ethernet frame: the bits that no checksum and no address filter looks at."""

_ENTERING = itemgetter(1)
"""Of a row of the link's log: when the frame entered."""
_ORDER = itemgetter(0)

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
    sender: SenderSettings = field(default_factory=SenderSettings)
    assets: Mapping[str, Path] = field(default_factory=dict)
    """What the receiver's settings need."""
    start_ns: int = 0
    """Instant of the capture of its first sample."""
    sender_seed: int | None = None
    """Of what the sender's computing costs, where that is not ``seed``."""


def _is_stream(stream: Stream) -> bool:
    return stream.transport.transport in ("tcp", "websocket")


def _wire_of(stream: Stream) -> Wire:
    frames = frame_count(len(stream.pcm), stream.codec.facts)
    return wire_of(stream.transport.wire_format, stream.codec.facts, stream.stream_id, frames)


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


def simulate(stream: Stream, beside: Sequence[Stream] = ()) -> Observed:
    """What both ends and the link observe of a stream; a pure function unless its compute is
    ``measured``.

    Streams ``beside`` it share its link, and one process at either end. Raises CellFailed for a
    codec that breaks down, Unsupported for TCP on a network for which its model is not validated.
    """
    datagrams = stream.transport.transport in ("udp", "rtp")
    if not datagrams and stream.transport.transport not in ("tcp", "websocket"):
        raise Unsupported(
            f"{stream.transport.transport} is not modelled in virtual time; use a lab with real"
            " sockets (--lab netns or docker)"
        )
    if stream.transport.in_flight or stream.transport.queue or stream.transport.receive_queue:
        raise Unsupported(
            "in_flight, queue and receive_queue are not modelled in virtual time, where a socket"
            " takes all at once; use a lab with real sockets (--lab netns or docker)"
        )
    if not datagrams and (beside or stream.sender.needs_feedback):
        raise Unsupported(
            "nack, adapt and tracks need datagrams: reports have no way back on a stream"
        )
    if beside:
        return _side_by_side([stream, *beside])
    sender, listener = _Speaker(stream), _Listener(stream)
    if stream.sender.needs_feedback:
        carried = _converse([stream], [sender], [listener])
    else:
        sender.send_all()
        carried = (_over_udp if datagrams else _over_tcp)(stream, sender.sent)
        listener.coming.extend(carried.arrivals)
        listener.play_all()
    listener.stop()
    return _observed(stream, sender, listener, carried)


def simulate_broadcast(branches: Sequence[Stream], heard: int) -> Observed:
    """One sender, and a listener and a link for each of ``branches``, which differ in nothing else
    but their seeds: what the listener number ``heard`` and its link observe.

    What one listener says is heard by the sender that serves them all. Raises CellFailed, and
    Unsupported for what is not made of datagrams.
    """
    if any(stream.transport.transport not in ("udp", "rtp") for stream in branches):
        raise Unsupported("one sender to several receivers needs datagrams")
    sender = _Speaker(branches[0], receivers=len(branches))
    listeners = [_Listener(stream) for stream in branches]
    links = [
        (
            _Way(stream, 0, [(sender.sent, listener.coming)]),
            _Way(stream, 1, [(listener.said, heard_by_sender)]),
        )
        for stream, listener, heard_by_sender in zip(branches, listeners, sender.heard, strict=True)
    ]
    _take_turns([sender], [way for ways in links for way in ways], listeners)
    for listener in listeners:
        listener.stop()
    return _observed(branches[heard], sender, listeners[heard], _carried(links[heard]))


def _side_by_side(streams: Sequence[Stream]) -> Observed:
    """Streams over one link, between a process that paces and one that plays all of them."""
    sending, playing = Clock(), Clock()
    frame_ns = streams[0].codec.facts.frame_ns
    paced, played = Schedule(frame_ns), Schedule(frame_ns)
    senders = [_Speaker(stream, sending, schedule=paced) for stream in streams]
    listeners = [_Listener(stream, playing, schedule=played) for stream in streams]
    carried = _converse(streams, senders, listeners)
    for listener in listeners:
        listener.stop()
    tracks = tuple(
        TrackRecords(
            t0_ns=stream.start_ns,
            sent_packets=sender.core.packets(),
            sent_frames=sender.core.sent_frames(),
            received_packets=listener.core.packets(),
            played_frames=listener.core.frames(),
            sender=sender.core.figures(),
            receiver=listener.core.figures(),
        )
        for stream, sender, listener in zip(streams[1:], senders[1:], listeners[1:], strict=True)
    )
    return _observed(streams[0], senders[0], listeners[0], carried, tracks)


def _observed(
    stream: Stream,
    sender: _Speaker,
    listener: _Listener,
    carried: Carried,
    tracks: tuple[TrackRecords, ...] = (),
) -> Observed:
    counters = {"log_drops": 0, "refused": 0, "in_flight": carried.in_flight, "t0_ns": 0}
    return Observed(
        t0_ns=0,
        sent_packets=sender.core.packets(),
        sent_frames=sender.core.sent_frames(),
        received_packets=listener.core.packets(),
        played_frames=listener.core.frames(),
        link_log=from_rows(
            LINK_LOG if _is_stream(stream) else LINK_LOG | LINK_IDENTITY,
            sorted(carried.log, key=_ENTERING),
        ),
        media=listener.core.media(),
        played=listener.core.played(),
        sender={**sender.core.figures(), **carried.counts},
        receiver=listener.core.figures(),
        link={"counters": counters},
        readback={"engine": "model", "seed": stream.seed, **link_summary(stream.pair)},
        tracks=tracks,
    )


class _Speaker:
    """The sender and its clock; ``sent`` are its packets with the instants at which they come to
    the link, ``heard`` is what comes back from each of its receivers."""

    def __init__(
        self,
        stream: Stream,
        clock: Clock | None = None,
        receivers: int = 1,
        schedule: Schedule | None = None,
    ) -> None:
        self.sent: list[Arrival] = []
        self.heard: tuple[deque[Arrival], ...] = tuple(deque() for _ in range(receivers))
        self._clock = clock or Clock()
        self._overheads = stream.compute.overheads
        self._stop_ns = stream.stop_ns
        seed = stream.seed if stream.sender_seed is None else stream.sender_seed
        self.core = SenderCore(
            stream.codec.facts,
            _timed_encoder(stream.codec.encoder(), stream.compute, seed, self._clock.spend),
            stream.stream_id,
            stream.pcm,
            stream.start_ns,
            None if _is_stream(stream) else stream.transport.mtu_bytes - IP_UDP_BYTES,
            self._send,
            self._clock.read,
            stream.sender,
            _wire_of(stream),
            gap_ns=stream.transport.gap_ns,
            receivers=receivers,
            schedule=schedule,
        )

    def _send(self, packet: bytes) -> bool:
        self._clock.now_ns += self._overheads.send_ns
        self.sent.append((packet, self._clock.now_ns))
        return True

    def due_ns(self) -> int:
        """When :meth:`step` is due; NEVER_NS when it is done, or nobody waits any longer."""
        ready_ns = self.core.next_ready_ns()
        due_ns = NEVER_NS if ready_ns is None else ready_ns + self._overheads.wake_ns
        for heard in self.heard:
            if heard and heard[0][1] < due_ns:
                due_ns = heard[0][1]
        due_ns = max(due_ns, self._clock.now_ns)
        return due_ns if due_ns < self._stop_ns else NEVER_NS

    def step(self, now_ns: int) -> None:
        """Hear what has come, or encode and send; at :meth:`due_ns`."""
        self._clock.now_ns = now_ns
        for receiver, heard in enumerate(self.heard):
            if heard and heard[0][1] <= now_ns:
                self.core.on_feedback(heard.popleft()[0], receiver)
                return
        self.core.step()

    def send_all(self) -> None:
        """Everything, as nobody answers."""
        while (due_ns := self.due_ns()) != NEVER_NS:
            self.step(due_ns)


class _Datagram:
    """A packet on its way, in one frame or in IPv4 fragments that the receiver's kernel puts
    together again; it comes to ``coming``."""

    __slots__ = ("_came", "coming", "identity", "packet", "sizes")

    def __init__(self, packet: bytes, coming: list[Arrival] | deque[Arrival]) -> None:
        self.packet = packet
        self.identity = datagram_identity(packet)
        self.coming = coming
        self.sizes = wire_sizes(len(packet))
        self._came: set[int] | None = None

    def whole_with(self, fragment: int) -> bool:
        """Take a fragment that came: True where it is the last that was missing."""
        if len(self.sizes) == 1:
            return True
        self._came = {fragment, *(self._came or ())}
        if len(self._came) < len(self.sizes):
            return False
        self._came = None  # copies of all of them are a datagram once more
        return True


class _Piece(NamedTuple):
    """What one frame on the wire carries."""

    order: int
    datagram: _Datagram
    fragment: int


class _Way:
    """One direction of a link, from sockets to sockets; ``ends`` are what leaves each of them and
    where it comes to."""

    def __init__(
        self,
        stream: Stream,
        direction: int,
        ends: Sequence[tuple[list[Arrival], list[Arrival] | deque[Arrival]]],
    ) -> None:
        link = stream.pair.reverse if direction else stream.pair.forward
        self._direction = direction
        self._model: LinkModel[_Piece] = LinkModel(link, f"{stream.seed}/{direction}")
        self._ends = ends
        self._receive_ns = stream.compute.overheads.receive_ns
        self._offered = 0
        self._rows: list[tuple[int, tuple[int, ...]]] = []
        self.ip_fragments = 0

    @property
    def in_flight(self) -> int:
        return self._model.in_flight

    def due_ns(self) -> int:
        """When something may come out; NEVER_NS when nothing is inside."""
        at_ns = self._model.next_ns()
        return NEVER_NS if at_ns is None else at_ns

    def step(self, now_ns: int) -> None:
        """Let it come out; at :meth:`due_ns`."""
        self.collect(now_ns)

    def take(self) -> None:
        """What leaves the ends enters, in order of time."""
        for leaving, coming in self._ends:
            for packet, now_ns in leaving:
                datagram = _Datagram(packet, coming)
                if len(datagram.sizes) > 1:
                    self.ip_fragments += len(datagram.sizes)
                for fragment, size_bytes in enumerate(datagram.sizes):
                    piece = _Piece(self._offered, datagram, fragment)
                    self._model.offer(piece, size_bytes, now_ns)
                    self._offered += 1

    def collect(self, now_ns: int) -> None:
        """What has reached a socket by now: a checksum drops what a flipped bit has damaged."""
        direction = self._direction
        for end in self._model.collect(now_ns):
            order, datagram, fragment = end.packet
            row = (direction, end.in_ns, end.out_ns, end.size_bytes, end.outcome)
            self._rows.append((order, (*row, datagram.identity, fragment)))
            damaged = end.flip_bit is not None and end.flip_bit not in _SOURCE_MAC_BITS
            if end.out_ns >= 0 and not damaged and datagram.whole_with(fragment):
                datagram.coming.append((datagram.packet, end.out_ns + self._receive_ns))

    def log(self) -> list[tuple[int, ...]]:
        """LINK_LOG rows in the order of entering, which is more than their instants tell."""
        return [row for _, row in sorted(self._rows, key=_ORDER)]


def _over_udp(stream: Stream, sent: list[Arrival]) -> Carried:
    """One datagram a packet."""
    arrivals: list[Arrival] = []
    way = _Way(stream, 0, [(sent, arrivals)])
    way.take()
    way.collect(NEVER_NS)
    return _carried([way], arrivals)


def _converse(
    streams: Sequence[Stream], senders: Sequence[_Speaker], listeners: Sequence[_Listener]
) -> Carried:
    """Both ends of all streams, and both directions of the link that they share."""
    pairs = list(zip(senders, listeners, strict=True))
    forward = _Way(streams[0], 0, [(sender.sent, listener.coming) for sender, listener in pairs])
    reverse = _Way(streams[0], 1, [(listener.said, sender.heard[0]) for sender, listener in pairs])
    _take_turns(senders, [forward, reverse], listeners)
    return _carried([forward, reverse])


def _take_turns(
    senders: Sequence[_Speaker], ways: Sequence[_Way], listeners: Sequence[_Listener]
) -> None:
    """Each event in its turn, until nothing is due."""
    turns: list[_Speaker | _Way | _Listener] = [*senders, *ways, *listeners]
    leaving = [*(sender.sent for sender in senders), *(one.said for one in listeners)]
    while True:
        dues_ns = [one.due_ns() for one in turns]
        now_ns = min(dues_ns)
        if now_ns == NEVER_NS:
            return
        turn = turns[dues_ns.index(now_ns)]
        turn.step(now_ns)
        if not isinstance(turn, _Way):
            for way in ways:
                way.take()
            for packets in leaving:
                packets.clear()


def _carried(ways: Sequence[_Way], arrivals: list[Arrival] | None = None) -> Carried:
    """By the directions of one link, the forward one first."""
    log = [row for way in ways for row in way.log()]
    counts = {"ip_fragments": ways[0].ip_fragments}
    return Carried(arrivals or [], log, sum(way.in_flight for way in ways), counts)


def _over_tcp(stream: Stream, sent: list[Arrival]) -> Carried:
    """One message a packet, over a connection that was made before t0."""
    transport, pair, facts = stream.transport.transport, stream.pair, stream.codec.facts
    assert transport in ("tcp", "websocket")
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


class _Listener:
    """The receiver, its clock, and what is ``coming`` to it in order of arrival."""

    def __init__(
        self, stream: Stream, clock: Clock | None = None, schedule: Schedule | None = None
    ) -> None:
        self.coming: deque[Arrival] = deque()
        self.said: list[Arrival] = []
        self._clock = clock or Clock()
        self._stop_ns = stream.stop_ns
        self._answers = stream.sender.needs_feedback
        self._overheads = overheads = stream.compute.overheads
        self._ahead_ns = overheads.wake_ns + overheads.play_ns
        self.core = ReceiverCore(
            stream.receiver,
            stream.codec.facts,
            _TimedDecoder(stream.codec.decoder(), stream.compute, stream.seed, self._clock.spend),
            stream.stream_id,
            frame_count(len(stream.pcm), stream.codec.facts),
            self._clock.read,
            stream.sender,
            _wire_of(stream),
            assets=stream.assets,
            schedule=schedule,
        )

    def due_ns(self) -> int:
        """When :meth:`step` is due; NEVER_NS when all is played, or nothing can come of itself."""
        if self.core.finished or self._clock.now_ns >= self._stop_ns:
            return NEVER_NS
        pull_ns = self.core.next_pull_ns()
        due_ns = NEVER_NS if pull_ns is None else pull_ns + self._ahead_ns
        if self.coming and (self._answers or not self.core.has_played):
            due_ns = min(due_ns, self.coming[0][1])
        if self._answers and (answer_ns := self.core.next_feedback_ns()) is not None:
            due_ns = min(due_ns, answer_ns)
        if due_ns == NEVER_NS:
            return NEVER_NS
        return max(self._clock.now_ns, min(due_ns, self._stop_ns))

    def step(self, now_ns: int) -> None:
        """Take what has come by now; play and answer if that is due. At :meth:`due_ns`."""
        self._clock.now_ns = now_ns
        self._take_all()
        pull_ns = self.core.next_pull_ns()
        if (
            pull_ns is not None
            and pull_ns < self._stop_ns
            and (pull_ns + self._ahead_ns <= self._clock.now_ns)
        ):
            self.core.pull()
        if self._answers:
            answer_ns = self.core.next_feedback_ns()
            if answer_ns is not None and answer_ns <= self._clock.now_ns:
                for message in self.core.feedback(self._clock.now_ns):
                    self._clock.now_ns += self._overheads.send_ns
                    self.said.append((message, self._clock.now_ns))

    def play_all(self) -> None:
        """Everything, as all that will ever come is known."""
        while (due_ns := self.due_ns()) != NEVER_NS:
            self.step(due_ns)

    def stop(self) -> None:
        """Nobody waits any longer."""
        self._take_all()
        self.core.stop(self._stop_ns if self._stop_ns != NEVER_NS else self._clock.now_ns)

    def _take_all(self) -> None:
        while self.coming and self.coming[0][1] <= self._clock.now_ns:
            self.core.on_packet(*self.coming.popleft())


def _timed_encoder(encoder: Encoder, compute: Compute, seed: int, spend: Spend) -> Encoder:
    """An encoder whose calls take virtual time; it can change its rate if the other can."""
    timed = _TimedEncoder(encoder, compute, seed, spend)
    if (set_bitrate := getattr(encoder, "set_bitrate", None)) is not None:
        timed.set_bitrate = set_bitrate
    return timed


class _TimedEncoder:
    encode: Callable[[Pcm], bytes | None]
    set_bitrate: Callable[[int], int]

    def __init__(self, encoder: Encoder, compute: Compute, seed: int, spend: Spend) -> None:
        self.encode = compute.timed(encoder.encode, "encode", seed, spend)


class _TimedDecoder:
    """A decoder whose calls take virtual time."""

    def __init__(self, decoder: Decoder, compute: Compute, seed: int, spend: Spend) -> None:
        timed = partial(compute.timed, seed=seed, spend=spend)
        self.decode = timed(decoder.decode, "decode")
        self.conceal = timed(decoder.conceal, "conceal")
        self.recover = timed(decoder.recover, "recover")

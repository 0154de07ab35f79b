"""How packets travel, as written: the transport, what protects the stream, what its rate follows.

Numbers have the bounds of what is of use: more parity than data is repetition, and interleaving by
more than a dozen frames waits longer than a conversation may.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from harness.fields import BitrateBps, DurationNs
from harness.media.settings import MOST_TRACKS, SenderSettings
from harness.scenario.mistakes import Written, mistake, refuse
from harness.scenario.quantities import Delay, Mtu, Name, or_number, or_word
from harness.transports.base import NAMES, QUIC_LEAST_MTU_BYTES, TransportSettings, WhenFull
from harness.transports.base import Name as Transport
from harness.units import NS_PER_MS, NS_PER_S, format_bitrate, format_duration, format_size

_SENDER = SenderSettings()
_SETTINGS = TransportSettings()
_LONGEST_GAP_NS = 100 * NS_PER_MS
_RTCP_NS = 5 * NS_PER_S
"""RFC 3550's least interval between reports (6.2)."""
_OVER_TCP: tuple[Transport, ...] = ("tcp", "websocket")
_DATAGRAMS: tuple[Transport, ...] = ("udp", "rtp", "quic-datagram")
_ANSWERED: tuple[Transport, ...] = (*_DATAGRAMS, "webrtc")
_OWN_PACKETS = tuple(name for name in NAMES if name != "rtp")
_BESIDE: dict[str, tuple[Transport, ...]] = {
    **dict.fromkeys(("in_flight", "queue", "receive_queue"), _OVER_TCP),
    "wire": ("udp", *_OVER_TCP),
    "mtu": _DATAGRAMS,
    "gap": ("udp", "quic-datagram"),
    "repeat": _OWN_PACKETS,
    "fec": _OWN_PACKETS,
    "nack": _ANSWERED,
    "adapt": _ANSWERED,
    "tracks": ("udp", "rtp"),
}
"""Which keys have a meaning where: RTP's payload formats neither fragment nor carry our redundancy,
and on a stream nothing is lost, and nobody can answer."""


class Repeat(Written):
    """Each packet carries earlier payloads again (after RFC 2198)."""

    count: int = Field(ge=1, le=8, description="how many earlier payloads")
    distance: int = Field(
        default=_SENDER.repeat_distance, ge=1, le=50, description="frames between them"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_count(cls, value: Any) -> Any:
        return {"count": value} if isinstance(value, int) and not isinstance(value, bool) else value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return or_number(handler(core_schema), 8)


class Fec(Written):
    """Parity payloads over groups of frames (after RFC 5109 and RFC 8627)."""

    scheme: Literal["xor", "reed-solomon"] = "reed-solomon"
    data: int = Field(ge=1, le=48, description="frames in a group")
    parity: int = Field(default=1, ge=1, le=48, description="parity payloads for a group")

    @model_validator(mode="after")
    def _xor_makes_one(self) -> Fec:
        if self.scheme == "xor" and self.parity > 1:
            raise refuse(
                [mistake("expected 1 with scheme: xor; reed-solomon makes more", "parity")]
            )
        return self


class Nack(Written):
    """The receiver asks for packets that it misses (after RFC 4585 and RFC 4588)."""

    retries: int = Field(ge=1, le=10, description="how often it asks for one packet")
    wait: Delay = Field(
        default=_SENDER.nack_wait_ns, description="from the gap to asking: time for reordering"
    )
    every: Annotated[Delay, Field(gt=0)] = Field(
        default=_SENDER.nack_every_ns, description="between two requests for one packet"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_retries(cls, value: Any) -> Any:
        return (
            {"retries": value} if isinstance(value, int) and not isinstance(value, bool) else value
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return or_number(handler(core_schema), 10)


class Adapt(Written):
    """The encoder's rate follows the network (after draft-ietf-rmcat-gcc-02)."""

    mode: Literal["loss-delay"] = "loss-delay"
    every: Annotated[Delay, Field(gt=0)] = Field(
        default=_SENDER.report_every_ns, description="between two receiver reports"
    )
    lowest: BitrateBps = Field(default=0, description="default: the codec's lowest")
    highest: Annotated[BitrateBps, Field(gt=0)] | None = Field(
        default=None, description="default: the codec's highest"
    )
    follow: Literal["worst", "mean"] = Field(
        default=_SENDER.follow, description="of the rates that suit each receiver of a broadcast"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_mode(cls, value: Any) -> Any:
        return {"mode": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _in_order(self) -> Adapt:
        if self.highest is not None and self.highest < self.lowest:
            limit = format_bitrate(self.lowest)
            message = f"expected at least lowest ({limit}), got {format_bitrate(self.highest)}"
            raise refuse([mistake(message, "highest")])
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return or_word(handler(core_schema), {"enum": ["loss-delay"]})


class Queue(Written):
    """A bounded queue of messages."""

    messages: int = Field(ge=1, le=1000, description="how many may wait")
    when_full: WhenFull = Field(
        default=_SETTINGS.when_full,
        description="block: whoever has another one waits; drop-oldest: not in a receive_queue",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_messages(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            return {"messages": value}
        return value


class TransportEntry(Written):
    """How packets travel."""

    transport: Transport
    mtu: Mtu = Field(
        default=_SETTINGS.mtu_bytes,
        description="not on streams: IP MTU that payloads are fragmented for; udp: above 1.5kB, the"
        " links' own, datagrams travel in IPv4 fragments",
    )
    gap: DurationNs = Field(
        default=_SETTINGS.gap_ns,
        le=_LONGEST_GAP_NS,
        description="udp, quic-datagram: between the fragments of one payload",
    )
    repeat: Repeat | None = Field(
        default=None, description="not rtp: earlier payloads in each packet"
    )
    fec: Fec | None = Field(default=None, description="not rtp: parity over groups of frames")
    interleave: int = Field(
        default=_SENDER.interleave, ge=1, le=12, description="neighbours leave so far apart"
    )
    nack: Nack | None = Field(
        default=None, description="not on streams: ask again for what is missing"
    )
    adapt: Adapt | None = Field(default=None, description="not on streams: rate control")
    tracks: int = Field(
        default=1, ge=1, le=MOST_TRACKS, description="udp, rtp: streams side by side over one link"
    )
    wire: Literal["harness", "bare", "encodec-udp-stream"] = Field(
        default=_SETTINGS.wire,
        description="tcp, websocket: with bare, a message is the codec's payload and nothing else;"
        " udp: encodec-udp-stream is that system's header of 28 bytes",
    )
    in_flight: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="tcp, websocket: unacknowledged messages at most; 1 is stop-and-wait",
    )
    queue: Queue | None = Field(
        default=None, description="tcp, websocket: between encoding and sending"
    )
    receive_queue: Queue | None = Field(
        default=None, description="tcp, websocket: between receiving and decoding"
    )
    name: Name = Field(
        default_factory=lambda given: _name(given),
        description="default: the transport, with what is not its default",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"transport": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _has_its_keys(self) -> TransportEntry:
        misplaced = [
            mistake(f'expected "{key}" beside {" or ".join(places)} only', key)
            for key, places in _BESIDE.items()
            if key in self.model_fields_set and self.transport not in places
        ]
        if misplaced:
            raise refuse(misplaced)
        if self.transport != "udp" and self.mtu > _SETTINGS.mtu_bytes:
            expected = f"expected at most {format_size(_SETTINGS.mtu_bytes)}, but beside udp"
            raise refuse([mistake(f"{expected}, got {format_size(self.mtu)}", "mtu")])
        if self.transport == "quic-datagram" and self.mtu < QUIC_LEAST_MTU_BYTES:
            expected = f"expected at least {format_size(QUIC_LEAST_MTU_BYTES)} (RFC 9000, 14)"
            raise refuse([mistake(f"{expected}, got {format_size(self.mtu)}", "mtu")])
        return self

    @model_validator(mode="after")
    def _wire_fits(self) -> TransportEntry:
        """Formats of older systems go where these sent them, and carry nothing beside media."""
        places: tuple[Transport, ...] = ("udp",) if self.wire == "encodec-udp-stream" else _OVER_TCP
        if self.wire != "harness" and self.transport not in places:
            message = f"expected {self.wire} beside {' or '.join(places)} only"
            raise refuse([mistake(message, "wire")])
        if self.wire == "encodec-udp-stream":
            message = "expected none beside wire: encodec-udp-stream, which carries media alone"
            if wrong := [
                mistake(message, key)
                for key in ("fec", "nack", "adapt")
                if getattr(self, key) is not None
            ]:
                raise refuse(wrong)
        return self

    @model_validator(mode="after")
    def _bare_keeps_order(self) -> TransportEntry:
        """Without a header a packet is what its place among the others says."""
        if self.wire != "bare":
            return self
        wrong = [
            mistake("expected none beside wire: bare, which tells payloads by their order", key)
            for key in ("repeat", "fec", "interleave")
            if key in self.model_fields_set
        ]
        wrong += [
            mistake("expected block beside wire: bare, which has no gaps", key, "when_full")
            for key, queue in (("queue", self.queue), ("receive_queue", self.receive_queue))
            if queue is not None and queue.when_full != "block"
        ]
        if wrong:
            raise refuse(wrong)
        return self

    @model_validator(mode="after")
    def _what_is_decoded_next_stays(self) -> TransportEntry:
        if self.receive_queue is not None and self.receive_queue.when_full == "drop-oldest":
            message = "expected block or drop-newest: the oldest is what is decoded next"
            raise refuse([mistake(message, "receive_queue", "when_full")])
        return self

    @property
    def settings(self) -> TransportSettings:
        given: dict[str, Any] = {}
        if self.queue:
            given |= {"queue": self.queue.messages, "when_full": self.queue.when_full}
        if self.receive_queue:
            given |= {
                "receive_queue": self.receive_queue.messages,
                "receive_when_full": self.receive_queue.when_full,
            }
        return TransportSettings(
            self.transport,
            self.mtu,
            self.gap,
            wire=self.wire,
            in_flight=self.in_flight or 0,
            **given,
        )

    @property
    def sender(self) -> SenderSettings:
        """What is done for the stream beside carrying it."""
        given: dict[str, Any] = {"interleave": self.interleave}
        if self.transport == "rtp":
            given |= {"reports": True, "report_every_ns": _RTCP_NS}
        if self.repeat:
            given |= {"repeat": self.repeat.count, "repeat_distance": self.repeat.distance}
        if self.fec:
            given |= {
                "fec": self.fec.scheme,
                "fec_data": self.fec.data,
                "fec_parity": self.fec.parity,
            }
        if self.nack:
            given |= {
                "nack_retries": self.nack.retries,
                "nack_wait_ns": self.nack.wait,
                "nack_every_ns": self.nack.every,
            }
        if self.adapt:
            given |= {
                "adapt": self.adapt.mode,
                "report_every_ns": self.adapt.every,
                "lowest_bps": self.adapt.lowest,
                "highest_bps": self.adapt.highest or 0,
                "follow": self.adapt.follow,
            }
        return SenderSettings(**given)

    @property
    def configuration(self) -> Mapping[str, object]:
        configuration: dict[str, object] = {
            "settings": self.settings,
            "sender": self.sender,
            "name": self.name,
        }
        if self.tracks > 1:
            configuration["tracks"] = self.tracks
        return configuration

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return or_word(handler(core_schema), {"enum": list(NAMES)})


def _name(given: Mapping[str, Any]) -> str:
    parts = [given["transport"]]
    if given["mtu"] != _SETTINGS.mtu_bytes:
        parts.append(f"mtu{format_size(given['mtu'])}")
    if given["gap"]:
        parts.append(f"gap{format_duration(given['gap'])}")
    if repeat := given["repeat"]:
        distance = f"x{repeat.distance}" if repeat.distance > 1 else ""
        parts.append(f"repeat{repeat.count}{distance}")
    if fec := given["fec"]:
        scheme = "xor" if fec.scheme == "xor" else "rs"
        parts.append(f"{scheme}{fec.data}+{fec.parity}")
    if given["interleave"] > 1:
        parts.append(f"interleave{given['interleave']}")
    if nack := given["nack"]:
        parts.append(f"nack{nack.retries}")
    if given["adapt"]:
        parts.append("adapt")
    if given["tracks"] > 1:
        parts.append(f"tracks{given['tracks']}")
    if given["wire"] != _SETTINGS.wire:
        parts.append(given["wire"])
    if in_flight := given["in_flight"]:
        parts.append(f"in-flight{in_flight}")
    for key, short in (("queue", "queue"), ("receive_queue", "receive-queue")):
        if queue := given[key]:
            how = "" if queue.when_full == _SETTINGS.when_full else f"-{queue.when_full}"
            parts.append(f"{short}{queue.messages}{how}")
    return "-".join(parts)

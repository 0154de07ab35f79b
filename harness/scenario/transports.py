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
from harness.media.settings import SenderSettings
from harness.scenario.mistakes import Written, mistake, refuse
from harness.scenario.quantities import Delay, Mtu, Name, or_word
from harness.transports.base import TransportSettings
from harness.units import NS_PER_MS, format_bitrate, format_duration, format_size

TRANSPORTS = ("udp", "tcp", "websocket")
_SENDER = SenderSettings()
_SETTINGS = TransportSettings()
_LONGEST_GAP_NS = 100 * NS_PER_MS


class Repeat(Written):
    """Each packet carries earlier payloads again (after RFC 2198)."""

    count: int = Field(ge=1, le=8, description="how many earlier payloads")
    distance: int = Field(
        default=_SENDER.repeat_distance, ge=1, le=50, description="frames between them"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_count(cls, value: Any) -> Any:
        return {"count": value} if type(value) is int else value


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
        return {"retries": value} if type(value) is int else value


class Adapt(Written):
    """The encoder's rate follows the network (after draft-ietf-rmcat-gcc-02)."""

    mode: Literal["loss-delay"] = "loss-delay"
    every: Annotated[Delay, Field(gt=0)] = Field(
        default=_SENDER.report_every_ns, description="between two receiver reports"
    )
    lowest: BitrateBps = Field(default=0, description="default: the codec's lowest")
    highest: BitrateBps | None = Field(default=None, description="default: the codec's highest")

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


class TransportEntry(Written):
    """How packets travel."""

    transport: Literal["udp", "tcp", "websocket"]
    mtu: Mtu = Field(
        default=_SETTINGS.mtu_bytes,
        description="udp only: IP MTU that datagrams are fragmented for",
    )
    gap: DurationNs = Field(
        default=_SETTINGS.gap_ns,
        le=_LONGEST_GAP_NS,
        description="udp only: between the fragments of one payload",
    )
    repeat: Repeat | None = Field(default=None, description="earlier payloads in each packet")
    fec: Fec | None = Field(default=None, description="parity over groups of frames")
    interleave: int = Field(
        default=_SENDER.interleave, ge=1, le=12, description="neighbours leave so far apart"
    )
    nack: Nack | None = Field(default=None, description="udp only: ask again for what is missing")
    adapt: Adapt | None = Field(default=None, description="udp only: rate control")
    name: Name = Field(
        default_factory=lambda given: _name(given),
        description="default: the transport, with what is not its default",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"transport": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _of_datagrams(self) -> TransportEntry:
        if self.transport == "udp":
            return self
        misplaced = [key for key in ("mtu", "gap", "nack", "adapt") if key in self.model_fields_set]
        if misplaced:
            raise refuse([mistake(f'expected "{key}" beside udp only', key) for key in misplaced])
        return self

    @property
    def settings(self) -> TransportSettings:
        return TransportSettings(self.transport, self.mtu, self.gap)

    @property
    def sender(self) -> SenderSettings:
        """What is done for the stream beside carrying it."""
        given: dict[str, Any] = {"interleave": self.interleave}
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
            }
        return SenderSettings(**given)

    @property
    def configuration(self) -> Mapping[str, object]:
        return {"settings": self.settings, "sender": self.sender, "name": self.name}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return or_word(handler(core_schema), {"enum": list(TRANSPORTS)})


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
    return "-".join(parts)

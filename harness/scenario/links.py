"""Links as they are written, what they mean, and the named presets.

A written link says only what differs from what it is laid *onto*: a perfect link, or a preset's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails

from harness.fields import Probability
from harness.network.link import (
    Bernoulli,
    Distribution,
    GilbertElliott,
    Link,
    LinkPair,
    Loss,
    LossTrace,
    Rate,
    Reorder,
)
from harness.scenario.document import Loc, show
from harness.scenario.mistakes import Written, mistake, refuse
from harness.scenario.quantities import AT_LEAST_ONE, Delay, LinkRate, NotEmpty, QueueSize
from harness.units import format_size

PRESETS_FILE = Path(__file__).with_name("presets.yaml")
FULL_FRAME_BYTES = 1500 + 14
"""Largest frame of the lab's links, Ethernet header included: tbf drops what exceeds its burst."""
MAX_TRACE_BYTES = 10_000_000


def in_folder(written: str, info: ValidationInfo) -> Path:
    """A path of the file, relative to the folder of the scenario (context ``folder``)."""
    folder = Path((info.context or {}).get("folder", Path.cwd()))
    return folder / written


# --- loss -------------------------------------------------------------------------------------


class WrittenGilbertElliott(Written):
    """Bursts: a two-state Markov chain, stepped once per packet."""

    model: Literal["gilbert-elliott"]
    p: Probability = Field(description="P(good -> bad) per packet")
    r: Probability = Field(description="P(bad -> good) per packet; mean burst = 1/r packets")
    loss_bad: Probability = Field(default=1.0, description="loss in the bad state (tc's 1-h)")
    loss_good: Probability = Field(default=0.0, description="loss in the good state (tc's 1-k)")

    @field_validator("r")
    @classmethod
    def _the_bad_state_ends(cls, r: float) -> float:
        if r == 0:
            raise ValueError("expected r above 0 (the bad state would never end), got 0")
        return r

    def resolve(self) -> Loss:
        return GilbertElliott(self.p, self.r, self.loss_bad, self.loss_good)


class WrittenTrace(Written):
    """A recorded 0/1 list, one entry per packet in order of arrival (1 = lost), cyclic."""

    model: Literal["trace"]
    lost: Annotated[tuple[Literal[0, 1], ...] | None, NotEmpty] = Field(
        default=None, json_schema_extra=AT_LEAST_ONE
    )
    file: str | None = Field(default=None, description="one 0 or 1 per line", min_length=1)
    _entries: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _read_the_file(self, info: ValidationInfo) -> WrittenTrace:
        if (self.lost is None) == (self.file is None):
            raise refuse([mistake('expected one of "lost" and "file"')])
        self._entries = self.lost or read_trace(in_folder(str(self.file), info))
        return self

    def resolve(self) -> Loss:
        return LossTrace(self._entries)


def read_trace(path: Path) -> tuple[int, ...]:
    """The entries of a trace file: one 0 or 1 per line. Raises pydantic's ValidationError with
    the trace's own file and line."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_TRACE_BYTES:
            raise OSError("no regular file of at most 10 MB")
        lines = path.read_text("ascii", errors="replace").splitlines()
    except OSError as error:
        reason = error.strerror or str(error)
        raise refuse([mistake(f"expected a trace file, got {path}: {reason}", "file")]) from None
    wrong: list[InitErrorDetails] = []
    lost = []
    for number, line in enumerate(lines, 1):
        if line.strip() in ("0", "1"):
            lost.append(int(line))
        elif line.strip() and len(wrong) < 10:
            wrong.append(mistake(f"{path}:{number}: expected 0 or 1, got {show(line)}", "file"))
    if not lost and not wrong:
        wrong.append(mistake(f"{path}:1: expected one 0 or 1 per line, got none", "file"))
    if wrong:
        raise refuse(wrong)
    return tuple(lost)


def _loss_form(value: Any) -> str | None:
    if isinstance(value, (WrittenTrace, WrittenGilbertElliott)):
        return value.model
    if not isinstance(value, dict):
        return "probability"
    return value["model"] if value.get("model") in ("gilbert-elliott", "trace") else None


WrittenLoss = Annotated[
    Annotated[Probability, Tag("probability")]
    | Annotated[WrittenGilbertElliott, Tag("gilbert-elliott")]
    | Annotated[WrittenTrace, Tag("trace")],
    Discriminator(
        _loss_form,
        custom_error_type="loss_form",
        custom_error_message='expected a probability or a mapping with "model: gilbert-elliott" '
        'or "model: trace"',
    ),
]


# --- one direction, both directions -----------------------------------------------------------


class WrittenReorder(Written):
    """Some packets skip the delay and overtake."""

    probability: Probability
    gap: int = Field(default=1, ge=1, le=1_000_000, description="only every gap-th packet may")

    def resolve(self) -> Reorder:
        return Reorder(self.probability, self.gap)


class WrittenRate(Written):
    """A token bucket (tc-tbf) with a bounded queue behind it."""

    rate: LinkRate = Field(description="bit/s on the wire, Ethernet header included")
    burst: QueueSize = Field(
        default_factory=lambda given: default_burst_bytes(given["rate"]),
        description="depth of the bucket; default: the larger of 1600B and rate x 4 ms",
    )
    latency: Delay | None = Field(default=None, description="longest wait in the queue")
    limit: QueueSize | None = Field(default=None, description="or: bytes that the queue holds")

    @model_validator(mode="after")
    def _one_bound(self) -> WrittenRate:
        if (self.latency is None) == (self.limit is None):
            raise refuse([mistake('expected one of "latency" and "limit" (the queue\'s bound)')])
        return self

    def resolve(self) -> Rate:
        return Rate(self.rate, self.burst, self.latency, self.limit)


def default_burst_bytes(rate_bps: int) -> int:
    """One full frame with some room, or what passes in one tick of a 250 Hz kernel (tc-tbf(8))."""
    return max(1600, rate_bps // 8 // 250)


_PARTS = (WrittenGilbertElliott, WrittenTrace, WrittenReorder, WrittenRate)


class WrittenLink(Written):
    """One direction of a link; what is not written stays as it was."""

    delay: Delay = Field(default=0, description="one way")
    jitter: Delay = Field(
        default=0, description="half-width of uniform, standard deviation of the others"
    )
    distribution: Distribution = "uniform"
    loss: WrittenLoss | None = Field(default=None, description="null: none")
    duplicate: Probability = 0.0
    corrupt: Probability = 0.0
    reorder: WrittenReorder | None = None
    rate: WrittenRate | None = None
    limit_packets: int = Field(default=10_000, ge=1, le=2**31 - 1, description="of the delay queue")

    def onto(self, base: Link) -> Link:
        """``base`` with what is written here."""
        given: dict[str, Any] = {}
        for key in self.model_fields_set:
            value = getattr(self, key)
            if key in ("delay", "jitter"):
                given[f"{key}_ns"] = value
            elif key == "loss" and isinstance(value, float):
                given[key] = Bernoulli(value) if value else None
            else:
                given[key] = value.resolve() if isinstance(value, _PARTS) else value
        return replace(base, **given)


def contradictions(link: Link) -> Iterator[tuple[Loc, str]]:
    """What no engine could do, as (keys of the link, message)."""
    if link.reorder and not link.delay_ns:
        yield ("reorder",), "expected a delay beside reorder (packets overtake by skipping it)"
    if link.distribution != "uniform" and not link.jitter_ns:
        yield ("distribution",), "expected a jitter beside its distribution"
    if link.rate:
        for key, size in (("burst", link.rate.burst_bytes), ("limit", link.rate.limit_bytes)):
            if size is not None and size < FULL_FRAME_BYTES:
                yield (
                    ("rate", key),
                    f"expected at least {FULL_FRAME_BYTES}B (one full frame), "
                    f"got {format_size(size)}",
                )


def _reverse_form(value: Any) -> str:
    return "same" if isinstance(value, str) else "link"


class WrittenPair(Written):
    """Both directions. ``both`` is laid down first, ``forward`` and ``reverse`` onto it.

    Where there is neither a preset, nor ``both``, nor ``reverse``, the way back is the forward one
    without its faults: same delay, jitter and rate, but no loss, duplication, corruption or
    reordering. ``reverse: same`` repeats the forward link, faults included.
    """

    both: WrittenLink = Field(default_factory=WrittenLink, description="same in both directions")
    forward: WrittenLink = Field(default_factory=WrittenLink, description="carries the media")
    reverse: (
        Annotated[
            Annotated[Literal["same"], Tag("same")] | Annotated[WrittenLink, Tag("link")],
            Discriminator(_reverse_form),
        ]
        | None
    ) = Field(default=None, description="carries what comes back, such as ACKs")

    def onto(self, base: LinkPair | None) -> LinkPair:
        start = base or LinkPair(Link(), Link())
        forward = self.forward.onto(self.both.onto(start.forward))
        if self.reverse == "same":
            return LinkPair(forward, forward)
        if self.reverse is None and base is None and "both" not in self.model_fields_set:
            quiet = replace(forward, loss=None, duplicate=0.0, corrupt=0.0, reorder=None)
            return LinkPair(forward, quiet)
        reverse = self.both.onto(start.reverse)
        return LinkPair(forward, self.reverse.onto(reverse) if self.reverse else reverse)

    def check(self, pair: LinkPair) -> None:
        """Raises pydantic's ValidationError with the contradictions in ``pair``, each at the place
        that wrote it."""
        found: dict[tuple[Loc, str], InitErrorDetails] = {}
        for direction in ("forward", "reverse"):
            for keys, message in contradictions(getattr(pair, direction)):
                loc = (*self._writer(direction, str(keys[0])), *keys)
                found[loc, message] = mistake(message, *loc)
        if found:
            raise refuse(found.values())

    def _writer(self, direction: str, key: str) -> Loc:
        for place in (direction, "both", "forward"):
            link = getattr(self, place)
            if isinstance(link, WrittenLink) and key in link.model_fields_set:
                return (place,)
        return (direction,)


# --- presets ----------------------------------------------------------------------------------


class Preset(WrittenPair):
    """A named network: ``kind`` and ``source`` say how far its numbers can be trusted."""

    kind: Literal["ideal", "tool", "engineering", "measured", "standard"]
    meaning: str
    source: str

    @cached_property
    def pair(self) -> LinkPair:
        return self.onto(None)


class _Grid(Written):
    """Presets that differ in two numbers: ``{delay}`` and ``{loss}`` stand in name and meaning."""

    name: str
    kind: Literal["standard"]
    meaning: str
    source: str
    delays: tuple[str, ...]
    losses: tuple[str, ...]

    def presets(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for delay in self.delays:
            for loss in self.losses:
                values = {"delay": delay, "loss": loss}
                yield (
                    self.name.format(**values),
                    {
                        "kind": self.kind,
                        "source": self.source,
                        "meaning": self.meaning.format(**values),
                        "both": values,
                    },
                )


@cache
def presets() -> Mapping[str, Preset]:
    """All presets by name, in the order of the shipped table."""
    table = yaml.safe_load(PRESETS_FILE.read_text("utf-8"))
    written = dict(table["presets"])
    for grid in table["grids"]:
        written.update(_Grid.model_validate(grid).presets())
    return {name: Preset.model_validate(value) for name, value in written.items()}

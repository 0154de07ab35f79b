"""Links as they are written, what they mean, and the named presets.

A written link says only what differs from what it is laid *onto*: a perfect link, or a preset's.
A schedule is laid onto what results, so that it changes only what it writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from pydantic import (
    BeforeValidator,
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
    Hits,
    Link,
    LinkPair,
    Loss,
    LossTrace,
    MediaTimeLoss,
    Rate,
    Reorder,
    default_burst_bytes,
)
from harness.scenario.document import Loc, show
from harness.scenario.mistakes import Written, mistake, not_among, refuse
from harness.scenario.quantities import (
    AT_LEAST_ONE,
    FULL_FRAME_BYTES,
    Delay,
    LinkRate,
    Moment,
    NotEmpty,
    QueueSize,
    Slow,
    Spell,
)
from harness.scenario.recorded import WrittenReplay, in_folder
from harness.scenario.schedule import (
    MAX_CHANGES,
    RAMPS,
    Entry,
    ScheduleError,
    Step,
    compiled,
    steps,
)
from harness.units import NS_PER_MS, NS_PER_S, format_bitrate, format_duration, format_size

PRESETS_FILE = Path(__file__).with_name("presets.yaml")
MAX_TRACE_BYTES = 10_000_000
MAX_MEDIA_TIME_LOSS = 0.99
MAX_ENTRIES = 200


# --- loss -------------------------------------------------------------------------------------


class WrittenGilbertElliott(Written):
    """Bursts per packet (classic netem): a two-state Markov chain, stepped once per packet."""

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


class WrittenMediaTime(Written):
    """Bursts in media time, the same for every codec whatever its packet interval: a two-state
    Markov process in continuous time. The mean good spell is burst * (1 - loss) / loss."""

    model: Literal["media-time"]
    loss: Probability = Field(description="share of the time in the loss state, at most 99 %")
    burst: Slow = Field(description="mean duration of a loss spell")
    hits: Hits = Field(
        default="media",
        description="which packets a spell takes: all with any media in it (media), or those whose "
        "last sample is in it (instant)",
    )

    @field_validator("loss")
    @classmethod
    def _the_loss_state_ends(cls, loss: float) -> float:
        if loss > MAX_MEDIA_TIME_LOSS:
            raise ValueError(
                f'expected at most {MAX_MEDIA_TIME_LOSS:.0%} beside "model: media-time", '
                f"got {100 * loss:g}% (for a gap: loss: 100% in a schedule)"
            )
        return loss

    def resolve(self) -> Loss | None:
        return MediaTimeLoss(self.loss, self.burst, self.hits) if self.loss else None


class WrittenTrace(Written):
    """A recorded 0/1 list per packet, in order of arrival (1 = lost), cyclic."""

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


LOSS_MODELS = ("media-time", "gilbert-elliott", "trace")


def _known_model(value: Any) -> Any:
    if isinstance(value, dict) and "model" in value and value["model"] not in LOSS_MODELS:
        raise refuse([mistake(not_among("a model", value["model"], LOSS_MODELS), "model")])
    return value


def _loss_form(value: Any) -> str | None:
    if isinstance(value, (WrittenTrace, WrittenGilbertElliott, WrittenMediaTime)):
        return value.model
    if not isinstance(value, dict):
        return "probability"
    return value.get("model")


WrittenLoss = Annotated[
    Annotated[Probability, Tag("probability")]
    | Annotated[WrittenMediaTime, Tag("media-time")]
    | Annotated[WrittenGilbertElliott, Tag("gilbert-elliott")]
    | Annotated[WrittenTrace, Tag("trace")],
    Discriminator(
        _loss_form,
        custom_error_type="loss_form",
        custom_error_message='expected a probability or a mapping with "model: media-time", '
        '"model: gilbert-elliott" or "model: trace"',
    ),
    BeforeValidator(_known_model),
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
    latency: Delay | None = Field(
        default=None,
        description="longest wait in the queue; at least what one full frame takes at this rate",
    )
    limit: QueueSize | None = Field(default=None, description="or: bytes that the queue holds")

    @model_validator(mode="after")
    def _one_bound(self) -> WrittenRate:
        if (self.latency is None) == (self.limit is None):
            raise refuse([mistake('expected one of "latency" and "limit" (the queue\'s bound)')])
        return self

    def resolve(self) -> Rate:
        return Rate(self.rate, self.burst, self.latency, self.limit)


_PARTS = (WrittenMediaTime, WrittenGilbertElliott, WrittenTrace, WrittenReorder, WrittenRate)


class _LinkKeys(Written):
    """What holds at one instant of one direction; what is not written stays as it was."""

    delay: Delay = Field(default=0, description="one way")
    jitter: Delay = Field(
        default=0, description="half-width of uniform, standard deviation of the others"
    )
    distribution: Distribution = "uniform"
    coherence: Slow | None = Field(
        default=None,
        description="correlation time of the delay, a process in media time; null: every packet "
        "draws its own (classic netem)",
    )
    loss: WrittenLoss | None = Field(
        default=None,
        description="null: none; a probability: of each packet, independently (classic netem)",
    )
    duplicate: Probability = 0.0
    corrupt: Probability = 0.0
    reorder: WrittenReorder | None = None
    rate: WrittenRate | None = None
    limit_packets: int = Field(default=10_000, ge=1, le=2**31 - 1, description="of the delay queue")

    @property
    def given(self) -> dict[str, Any]:
        """The fields of ``Link`` that are written here."""
        found: dict[str, Any] = {}
        for key in self.model_fields_set & _LinkKeys.model_fields.keys():
            value = getattr(self, key)
            if key in ("delay", "jitter", "coherence"):
                found[f"{key}_ns"] = value or 0
            elif key == "loss" and isinstance(value, float):
                found[key] = Bernoulli(value) if value else None
            else:
                found[key] = value.resolve() if isinstance(value, _PARTS) else value
        return found


class WrittenChange(_LinkKeys):
    """From ``at`` on the link has what is written here: for ever, or ``for`` a time, after which
    it is what it would be without this entry; or it gets there in a straight line ``over`` a time.

    Where entries overlap, the one further down wins while both hold.
    """

    at: Moment = Field(description="after sample 0 of the audio")
    for_: Spell | None = Field(default=None, alias="for", description="then back")
    over: Spell | None = Field(
        default=None, description="a ramp of delay, jitter, loss (a probability) or the rate's rate"
    )
    every: Spell | None = Field(
        default=None, description='beside "for": again and again, for ten minutes'
    )

    @model_validator(mode="after")
    def _one_course(self) -> WrittenChange:
        wrong = []
        written = self.model_fields_set & _LinkKeys.model_fields.keys()
        if not written:
            keys = ", ".join(_LinkKeys.model_fields)
            wrong.append(mistake(f"expected something to change ({keys}), got none of them"))
        if self.for_ is not None and self.over is not None:
            wrong.append(mistake('expected one of "for" and "over", got both'))
        if self.every is not None:
            if self.for_ is None:
                wrong.append(mistake('expected a "for" beside "every"', "every"))
            elif self.for_ > self.every:
                limit, got = format_duration(self.every), format_duration(self.for_)
                wrong.append(mistake(f"expected at most every ({limit}), got {got}", "for"))
        if self.over is not None:
            straight = [key for key in _LinkKeys.model_fields if key in RAMPS]
            for key in sorted(written):
                if key not in RAMPS or (key == "loss" and not isinstance(self.loss, float)):
                    what = f'{", ".join(straight)} (loss as a probability) beside "over"'
                    wrong.append(mistake(f"expected only {what}", key))
                elif key == "rate" and self.rate is None:
                    wrong.append(mistake('expected a rate beside "over", got null', key))
        if wrong:
            raise refuse(wrong)
        return self

    @property
    def entry(self) -> Entry:
        return Entry(self.at, self.for_, self.over, self.every, self.given)


class WrittenLink(_LinkKeys):
    """One direction of a link; what is not written stays as it was."""

    schedule: Annotated[tuple[WrittenChange, ...], Field(max_length=MAX_ENTRIES)] | None = Field(
        default=None, description="changes over time, in place of any schedule from before"
    )
    trace: WrittenReplay | None = Field(default=None, description="a recorded network; null: none")

    @field_validator("schedule")
    @classmethod
    def _bounded(
        cls, schedule: tuple[WrittenChange, ...] | None
    ) -> tuple[WrittenChange, ...] | None:
        changes = sum(change.entry.changes for change in schedule or ())
        if changes > MAX_CHANGES:
            raise ValueError(f"expected at most {MAX_CHANGES} changes of the link, got {changes}")
        return schedule

    def onto(self, base: Draft) -> Draft:
        """``base`` with what is written here."""
        given = self.given
        if "trace" in self.model_fields_set:
            given["replay"] = self.trace.resolve() if self.trace else None
        schedule = base.schedule
        if "schedule" in self.model_fields_set:
            schedule = tuple(change.entry for change in self.schedule or ())
        return Draft(replace(base.link, **given), schedule)


@dataclass(frozen=True)
class Draft:
    """One direction, its schedule not yet laid onto it."""

    link: Link
    schedule: tuple[Entry, ...] = ()

    @property
    def quiet(self) -> Draft:
        """The same without its faults, and without the weather of a recording."""
        link = replace(self.link, **NO_FAULTS, replay=None)
        entries = (
            replace(entry, given={k: v for k, v in entry.given.items() if k not in NO_FAULTS})
            for entry in self.schedule
        )
        return Draft(link, tuple(entry for entry in entries if entry.given))

    @cached_property
    def steps(self) -> list[Step]:
        """Raises ScheduleError."""
        return steps(self.link, self.schedule)

    @property
    def compiled(self) -> Link:
        """Raises ScheduleError."""
        return compiled(self.steps)


class Drafts(NamedTuple):
    """Both directions."""

    forward: Draft
    reverse: Draft

    @property
    def compiled(self) -> LinkPair:
        """Raises ScheduleError."""
        return LinkPair(self.forward.compiled, self.reverse.compiled)


NO_FAULTS: dict[str, Any] = {"loss": None, "duplicate": 0.0, "corrupt": 0.0, "reorder": None}


def contradictions(link: Link) -> Iterator[tuple[Loc, str]]:
    """What no engine could do, as (keys of the link, message)."""
    if link.reorder and not link.delay_ns:
        yield ("reorder",), "expected a delay beside reorder (packets overtake by skipping it)"
    for key, is_written in (
        ("distribution", link.distribution != "uniform"),
        ("coherence", link.coherence_ns),
    ):
        if is_written and not link.jitter_ns:
            yield (key,), f"expected a jitter beside its {key}"
    if isinstance(link.rate, Rate):
        for key, size in (("burst", link.rate.burst_bytes), ("limit", link.rate.limit_bytes)):
            if size is not None and size < FULL_FRAME_BYTES:
                yield (
                    ("rate", key),
                    f"expected at least {FULL_FRAME_BYTES}B (one full frame), "
                    f"got {format_size(size)}",
                )
        latency_ns = link.rate.latency_ns
        least_ns = FULL_FRAME_BYTES * 8 * NS_PER_S // max(link.rate.rate_bps, 1)
        if latency_ns is not None and latency_ns < least_ns:
            least = format_duration(-(-least_ns // NS_PER_MS) * NS_PER_MS)
            yield (
                ("rate", "latency"),
                f"expected at least {least} (one full frame of {FULL_FRAME_BYTES}B takes so long at"
                f" {format_bitrate(link.rate.rate_bps)}/s), got {format_duration(latency_ns)}",
            )
    if link.replay:
        recording = link.replay.recording
        own = {
            "loss": link.loss and recording.loss,
            "rate": link.rate and not recording.of_packets,
            "schedule": link.changes,
        }
        for key in (key for key, is_twice in own.items() if is_twice):
            has = "" if key == "schedule" else f" that has a {key} of its own"
            yield (key,), f"expected no {key} beside a trace{has} ({key}: null takes it off)"


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

    def onto(self, base: Drafts | None) -> Drafts:
        start = base or Drafts(Draft(Link()), Draft(Link()))
        forward = self.forward.onto(self.both.onto(start.forward))
        if self.reverse == "same":
            return Drafts(forward, forward)
        if self.reverse is None and base is None and "both" not in self.model_fields_set:
            return Drafts(forward, forward.quiet)
        reverse = self.both.onto(start.reverse)
        return Drafts(forward, self.reverse.onto(reverse) if self.reverse else reverse)

    def check(self, drafts: Drafts) -> None:
        """Raises pydantic's ValidationError with the contradictions in ``drafts``, each at the
        place that wrote it."""
        found: dict[tuple[Loc, str], InitErrorDetails] = {}
        for direction in ("forward", "reverse"):
            for keys, message in _wrong(getattr(drafts, direction)):
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


def _wrong(draft: Draft) -> Iterator[tuple[Loc, str]]:
    """The contradictions in one direction; one that comes with a change, at its entry."""
    try:
        link = draft.compiled
    except ScheduleError as error:
        yield ("schedule", error.index, error.key), str(error)
        return
    always = set(contradictions(link))
    yield from always
    for step in draft.steps:
        for keys, message in contradictions(step.link):
            if (keys, message) not in always and step.active:
                yield ("schedule", step.active[-1], *keys), message


# --- presets ----------------------------------------------------------------------------------


class Preset(WrittenPair):
    """A named network: ``kind`` and ``source`` say how far its numbers can be trusted."""

    kind: Literal["ideal", "tool", "engineering", "measured", "standard"]
    meaning: str
    source: str

    @cached_property
    def drafts(self) -> Drafts:
        return self.onto(None)

    @cached_property
    def pair(self) -> LinkPair:
        return self.drafts.compiled


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

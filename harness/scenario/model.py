"""The typed, frozen scenario: axes of a matrix, and rules over them.

Every entry of an axis has a ``name`` that is unique on its axis and a ``configuration``, the
resolved settings in base units that its cells are hashed by.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    SerializeAsAny,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails

from harness import codecs
from harness.assets.items import SILENCE_NS
from harness.codecs.base import Params
from harness.errors import HarnessError
from harness.media.settings import ReceiverSettings
from harness.network.link import LinkPair
from harness.scenario.canonical import digest
from harness.scenario.document import Loc
from harness.scenario.links import Drafts, WrittenLink, WrittenPair, presets
from harness.scenario.mistakes import (
    Written,
    collect,
    mistake,
    name_the_keys,
    not_among,
    refuse,
)
from harness.scenario.quantities import (
    AT_LEAST_ONE,
    Delay,
    Name,
    NotEmpty,
    Patterns,
    Silence,
    Timeout,
    or_word,
)
from harness.scenario.recorded import in_folder
from harness.scenario.sinks import SinkEntry
from harness.scenario.sweeps import AXES as SWEPT
from harness.scenario.sweeps import Expanded, Sweep, SweepPoint, SweepSpec, base_name, specs
from harness.scenario.transports import TransportEntry
from harness.units import format_duration

MAX_CELLS = 100_000

_NAME: TypeAdapter[str] = TypeAdapter(Name)


# --- corpus -----------------------------------------------------------------------------------


class CorpusEntry(Written):
    """Audio to stream: a corpus that the harness knows by name, or a folder of own files."""

    corpus: Name | None = Field(default=None, description="name of a corpus, such as librispeech")
    items: Annotated[tuple[str, ...] | None, NotEmpty] = Field(
        default=None,
        description="ids of its items; default: all",
        json_schema_extra=AT_LEAST_ONE,
    )
    folder: (
        Annotated[
            Path,
            BeforeValidator(lambda value, info: _absolute(value, info)),
            WithJsonSchema({"type": "string", "minLength": 1}),
        ]
        | None
    ) = Field(default=None, description="WAV and FLAC files, relative to the scenario")
    kind: Literal["speech", "music"] = Field(
        default="speech", description="of the folder's files; music gets no PESQ"
    )
    limit: int | None = Field(default=None, ge=1, description="take the first so many")
    silence: Silence = Field(
        default=SILENCE_NS, description="before and after each item; P.862.3 wants half a second"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"corpus": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_source(self) -> CorpusEntry:
        if (self.corpus is None) == (self.folder is None):
            raise refuse([mistake('expected one of "corpus" and "folder"')])
        misplaced = "items" if self.folder else "kind"
        if misplaced in self.model_fields_set:
            beside = "corpus" if self.folder else "folder"
            raise refuse([mistake(f'expected "{misplaced}" beside "{beside}" only', misplaced)])
        return self

    @property
    def name(self) -> str:
        return self.corpus or str(self.folder)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return or_word(handler(core_schema), _NAME.json_schema())


def _absolute(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str):
        return value
    if not value or "\0" in value:
        raise ValueError(f"expected a folder, got {value!r}")
    return Path(os.path.abspath(in_folder(value, info)))  # noqa: PTH100 - resolve() asks the disk


# --- codecs -----------------------------------------------------------------------------------


class CodecEntry(Written):
    """A configured codec. All other keys are the codec's own parameters.

    ``name`` defaults to the codec and the parameters given: ``opus-24kbit``.
    """

    codec: str
    params: SerializeAsAny[Params]
    name: Name

    @model_validator(mode="before")
    @classmethod
    def _from_flat_keys(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str):
            value = {"codec": value}
        if not isinstance(value, dict) or isinstance(value.get("params"), Params):
            return value
        given = dict(value)
        mistakes: list[InitErrorDetails] = []
        name = None
        if "name" in given:
            written = given.pop("name")
            name = collect(
                mistakes,
                lambda: _NAME.validate_python(written, strict=True, context=info.context),
                "name",
            )
        if "codec" not in given:
            raise refuse([*mistakes, mistake('expected the key "codec", which is missing')])
        codec = given.pop("codec")
        if codec not in codecs.names():
            listed = not_among("a codec", codec, codecs.names())
            raise refuse([*mistakes, mistake(listed, "codec")])
        params = collect(mistakes, lambda: _codec_params(codec, given))
        if mistakes:
            raise refuse(mistakes)
        return {"codec": codec, "params": params, "name": name or _codec_name(codec, params)}

    @property
    def configuration(self) -> Mapping[str, object]:
        return {"codec": self.codec, "params": self.params, "name": self.name}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        name = _NAME.json_schema()
        return {
            "title": cls.__name__,
            "anyOf": [
                {"type": "string", "enum": list(codecs.names())},
                *(_codec_schema(codec, name, handler) for codec in codecs.names()),
            ],
        }


def _codec_params(codec: str, given: Mapping[str, Any]) -> Params:
    params_class = codecs.params_class(codec)
    try:
        return params_class.model_validate(given, strict=True)
    except ValidationError as error:
        keys = ["codec", "name", *params_class.model_fields]
        raise refuse(name_the_keys(error, keys)) from None
    except HarnessError as error:
        raise refuse([mistake(str(error))]) from None


def _codec_name(codec: str, params: Params) -> str:
    written = params.model_dump(mode="json", include=params.model_fields_set)
    parts = [codec]
    for key in type(params).model_fields:
        match written.get(key):
            case None | False:
                pass
            case True:
                parts.append(key)
            case str() as text:
                parts.append(text)
            case number:
                parts.append(f"{key}{number}")
    return re.sub(r"[^A-Za-z0-9._%+-]", "-", "-".join(parts))[:64]


def _codec_schema(
    codec: str, name: JsonSchemaValue, handler: GetJsonSchemaHandler
) -> JsonSchemaValue:
    params = handler(codecs.params_class(codec).__pydantic_core_schema__)
    schema = handler.resolve_ref_schema(params)
    properties = {"codec": {"const": codec}, "name": name, **schema.get("properties", {})}
    required = ["codec", *schema.get("required", [])]
    return {**schema, "title": codec, "properties": properties, "required": required}


# --- networks ---------------------------------------------------------------------------------


class NetworkEntry(WrittenPair):
    """An impaired link, forward and reverse apart: a preset, its overrides, or all of its own."""

    preset: str | None = Field(
        default=None,
        description="start from this one",
        json_schema_extra=lambda schema: schema.update(
            anyOf=[{"enum": list(presets())}, {"type": "null"}]
        ),
    )
    broadcast: Name | None = Field(
        default=None,
        description="networks that name the same one are links from one sender to its receivers",
    )
    name: Name = Field(description="may be left out where there is only a preset")

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"preset": value}
        if isinstance(value, dict) and value.keys() == {"preset"}:
            return {**value, "name": value["preset"]}
        return value

    @field_validator("preset")
    @classmethod
    def _known(cls, preset: str | None) -> str | None:
        if preset is not None and preset not in presets():
            raise refuse([mistake(not_among("a preset", preset, presets()))])
        return preset

    @model_validator(mode="after")
    def _possible(self) -> NetworkEntry:
        if not {"both", "forward", "reverse"} & self.model_fields_set and self.preset is None:
            raise refuse([mistake('expected "preset", "both" or "forward"')])
        self.check(self.drafts)
        return self

    @cached_property
    def drafts(self) -> Drafts:
        return self.onto(presets()[self.preset].drafts if self.preset is not None else None)

    @cached_property
    def pair(self) -> LinkPair:
        return self.drafts.compiled

    @cached_property
    def is_clean(self) -> bool:
        """Nothing is added in either direction."""
        return self.pair.forward.is_clean and self.pair.reverse.is_clean

    @cached_property
    def longest_delay_ns(self) -> int:
        """The largest delay that the forward link is asked for, a recording's own included."""
        forward = self.pair.forward
        recorded = forward.replay and forward.replay.recording.delay_ns
        return max(link.delay_ns for _, link in forward.segments()) + max(recorded or (0,))

    @property
    def recorded_ns(self) -> int | None:
        """How much audio its recordings are for; None where that is any length."""
        replays = (self.pair.forward.replay, self.pair.reverse.replay)
        return min(
            (
                replay.recording.duration_ns - replay.offset_ns
                for replay in replays
                if replay is not None and replay.end == "error"
            ),
            default=None,
        )

    @property
    def configuration(self) -> Mapping[str, object]:
        configuration: dict[str, object] = {"pair": self.pair, "name": self.name}
        if self.broadcast is not None:
            configuration["broadcast"] = self.broadcast
        links = (self.both, self.forward, self.reverse)
        traces = [link.trace for link in links if isinstance(link, WrittenLink) and link.trace]
        if traces:  # a recording is hashed by its file: see canonical.py
            configuration["read"] = [trace.reading for trace in traces]
        return configuration

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core_schema)
        mapping = handler.resolve_ref_schema(schema)
        mapping.pop("required", None)
        mapping["anyOf"] = [
            {"required": ["name", key]} for key in ("preset", "both", "forward", "reverse")
        ] + [{"required": ["preset"], "maxProperties": 1}]
        return or_word(schema, {"enum": list(presets())})


# --- receivers --------------------------------------------------------------------------------

_LISTENER = ReceiverSettings()


class JitterBuffer(Written):
    """Frames wait here so that late ones still arrive in time."""

    mode: Literal["fixed", "adaptive"] = _LISTENER.mode
    start: Delay = Field(
        default=_LISTENER.start_ns,
        description="depth at the first packet; fixed: above the fastest of the first ten",
    )
    max: Delay = Field(default=_LISTENER.max_ns, description="no frame waits longer")

    @model_validator(mode="after")
    def _start_within_max(self) -> JitterBuffer:
        if self.start > self.max:
            limit = format_duration(self.max)
            message = f"expected at most max ({limit}), got {format_duration(self.start)}"
            raise refuse([mistake(message, "start")])
        return self


class ReceiverEntry(Written):
    """What the listener's side is set to do."""

    jitter_buffer: JitterBuffer = JitterBuffer()
    concealment: Literal["codec", "zero", "repeat", "pitch", "tplcnet"] = Field(
        default=_LISTENER.concealment, description="of missing frames"
    )
    device: Delay = Field(
        default=_LISTENER.device_ns, description="from the jitter buffer to the loudspeaker"
    )
    sink: SinkEntry | None = Field(
        default=None, description="a classifier that listens to what is played"
    )
    name: Name = Field(
        default_factory=lambda given: _receiver_name(given),
        description="default: mode and start of the jitter buffer, concealment, classifier",
    )

    @property
    def settings(self) -> ReceiverSettings:
        buffer = self.jitter_buffer
        return ReceiverSettings(
            buffer.mode, buffer.start, buffer.max, self.concealment, self.device
        )

    @property
    def configuration(self) -> Mapping[str, object]:
        configuration: dict[str, object] = {"settings": self.settings, "name": self.name}
        if self.sink is not None:
            configuration["sink"] = self.sink.settings
        return configuration


def _receiver_name(given: Mapping[str, Any]) -> str:
    buffer = given["jitter_buffer"]
    suffix = "" if given["concealment"] == "codec" else f"-{given['concealment']}"
    if sink := given["sink"]:
        suffix += f"-{sink.classifier}" + ("-shared" if sink.shared else "")
    return f"{buffer.mode}-{format_duration(buffer.start)}{suffix}"


# --- rules ------------------------------------------------------------------------------------


class Combination(NamedTuple):
    """The names of one cell on the axes that rules speak of."""

    codec: str
    transport: str
    network: str
    receiver: str
    utterance: str | None = None
    """None while the corpus is not read: then a rule about utterances decides nothing yet."""


class Rule(Written):
    """Matches a cell that matches on every axis named; on an axis any of the patterns will do."""

    codec: Patterns | None = None
    transport: Patterns | None = None
    network: Patterns | None = None
    receiver: Patterns | None = None
    utterance: Patterns | None = None

    @model_validator(mode="after")
    def _about_something(self) -> Rule:
        if not self.patterns:
            raise refuse([mistake(f"expected one of the keys {', '.join(Combination._fields)}")])
        return self

    @cached_property
    def patterns(self) -> Mapping[str, tuple[str, ...]]:
        """The patterns by axis."""
        return {key: getattr(self, key) for key in Combination._fields if getattr(self, key)}

    def matches(self, cell: Combination, undecided: bool = False) -> bool:
        """``undecided`` is the answer of a pattern about an utterance that is not known yet."""
        for axis, patterns in self.patterns.items():
            name = getattr(cell, axis)
            if not (undecided if name is None else _any_match(name, patterns)):
                return False
        return True

    def unmatched(self, axis: str, names: Sequence[str]) -> Iterator[tuple[Loc, str]]:
        """The patterns that match none of an axis' names: their place, and what to say."""
        for index, pattern in enumerate(self.patterns.get(axis, ())):
            if not any(_any_match(name, (pattern,)) for name in names):
                # Where a word was written instead of a list, the index names no place and is
                # passed over.
                yield (axis, index), not_among(f"a {axis} of this scenario", pattern, names)


def _any_match(name: str, patterns: Iterable[str]) -> bool:
    """A point of a sweep matches by the name of its entry too."""
    base = base_name(name)
    names = (name,) if base == name else (name, base)
    return any(fnmatchcase(one, pattern) for pattern in patterns for one in names)


# --- scenario ---------------------------------------------------------------------------------

UsualMetric = Literal["pesq-wb", "pesq-nb", "stoi", "estoi", "pesq-wb-played", "pesq-nb-played"]
OptionalMetric = Literal["plcmos", "dnsmos", "visqol", "lsd", "si-sdr", "e-model"]
Metric = Literal[UsualMetric, OptionalMetric]
USUAL_METRICS: tuple[Metric, ...] = get_args(UsualMetric)
RankMetric = Literal[UsualMetric, "plcmos"]
"""Metrics with one score per cell."""
LegacySystem = Literal[
    "websocket-wavtokenizer",
    "tcp-esc",
    "udp-aac-blocks",
    "udp-encodec-fragments",
    "websocket-classifier",
]


def _different(values: tuple[str, ...]) -> tuple[str, ...]:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ValueError(f'expected each once, got "{value}" again')
    return values


_AXES = {
    "codec": "codecs",
    "transport": "transports",
    "network": "networks",
    "receiver": "receivers",
}


class Scenario(Written):
    """A matrix to run: every combination of the axes that the rules leave, ``repetitions`` times.

    ``timeout`` (ns) is how much longer than its audio a cell may take before it counts as failed.
    """

    name: Name
    description: str = ""
    seed: int = Field(
        default=1, ge=0, le=2**63 - 1, description="all randomness of the run derives from it"
    )
    repetitions: int = Field(
        default=1, ge=1, le=1000, description="each with other losses, the same for all codecs"
    )
    timeout: Timeout = Field(
        default=60_000_000_000, description="longer than its audio plus this, and a cell failed"
    )
    corpus: Annotated[tuple[CorpusEntry, ...], NotEmpty] = Field(json_schema_extra=AT_LEAST_ONE)
    codecs: Annotated[tuple[CodecEntry, ...], NotEmpty] = Field(json_schema_extra=AT_LEAST_ONE)
    transports: Annotated[tuple[TransportEntry, ...], NotEmpty] = Field(
        json_schema_extra=AT_LEAST_ONE
    )
    networks: Annotated[tuple[NetworkEntry, ...], NotEmpty] = Field(json_schema_extra=AT_LEAST_ONE)
    receivers: Annotated[tuple[ReceiverEntry, ...], NotEmpty] = Field(
        default=(ReceiverEntry(),), json_schema_extra=AT_LEAST_ONE
    )
    include: tuple[Rule, ...] = Field(default=(), description="if given: only these cells")
    exclude: tuple[Rule, ...] = Field(default=(), description="not these cells")
    sweeps: tuple[Sweep, ...] = Field(
        default=(), description="entries that become one per value of one of their keys"
    )
    controls: bool = Field(
        default=True,
        description="PCM in every block and every codec on the clean link, added where missing",
    )
    baseline: str | None = Field(
        default=None,
        description="the codec that the others are compared with; default: PCM, else the first",
    )
    metrics: Annotated[tuple[Metric, ...], AfterValidator(_different)] = Field(
        default=USUAL_METRICS,
        description="to score with; default: PESQ and STOI",
        json_schema_extra={"uniqueItems": True},
    )
    rank_by: RankMetric | None = Field(
        default=None,
        description="the metric that the verdict ranks by; default: pesq-wb-played if scored, else"
        " pesq-wb, else stoi",
    )
    legacy: Annotated[tuple[LegacySystem, ...], AfterValidator(_different)] = Field(
        default=(),
        description="older systems whose own figures are computed beside ours; default: none",
        json_schema_extra={"uniqueItems": True},
    )
    compute: Literal["profile", "measured", "zero"] = Field(
        default="profile",
        description="virtual lab: time that a codec takes, as recorded, as measured, or none",
    )

    @field_validator("corpus", "sweeps", *_AXES.values(), mode="wrap")
    @classmethod
    def _unique_names(
        cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Any:
        def repeated(entries: Iterable[tuple[int, Any]]) -> Iterator[InitErrorDetails]:
            first: dict[str, int] = {}
            for index, entry in entries:
                if first.setdefault(entry.name, index) != index:
                    other = f"{info.field_name}[{_written_index(info, first[entry.name])}]"
                    message = f'expected another name than {other}, got "{entry.name}" again'
                    yield mistake(message, index, "name")

        return _judged(cls, value, handler, info, repeated)

    @field_validator("include", "exclude", mode="wrap")
    @classmethod
    def _about_what_is_there(
        cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Any:
        def unmatched(rules: Iterable[tuple[int, Rule]]) -> Iterator[InitErrorDetails]:
            for index, rule in rules:
                for axis, field in _AXES.items():
                    # An axis with mistakes of its own is absent: nothing is judged by it.
                    names = [entry.name for entry in info.data.get(field, ())]
                    for place, message in rule.unmatched(axis, names) if names else ():
                        yield mistake(message, index, *place)

        return _judged(cls, value, handler, info, unmatched)

    @field_validator("baseline")
    @classmethod
    def _one_of_the_codecs(cls, baseline: str | None, info: ValidationInfo) -> str | None:
        entries = info.data.get("codecs", ())
        names = [entry.name for entry in entries]
        if info.data.get("controls") and not any(entry.codec == "pcm" for entry in entries):
            names.append(_free_name("pcm", names))
        if baseline is not None and entries and baseline not in names:
            raise ValueError(not_among("a codec of this scenario", baseline, names))
        return baseline

    @field_validator("rank_by")
    @classmethod
    def _one_of_the_metrics(cls, rank_by: str | None, info: ValidationInfo) -> str | None:
        metrics = info.data.get("metrics")
        if rank_by is not None and metrics is not None and rank_by not in metrics:
            raise ValueError(not_among("a metric of this scenario", rank_by, metrics))
        return rank_by

    @model_validator(mode="after")
    def _some_cells(self) -> Scenario:
        axes = [getattr(self, field) for field in _AXES.values()]
        combinations = math.prod(map(len, axes)) * self.repetitions
        if combinations > MAX_CELLS:
            raise refuse(
                [mistake(f"expected at most {MAX_CELLS} cells per utterance, got {combinations}")]
            )
        if not any(
            self.keeps(Combination(*(entry.name for entry in entries)))
            for entries in product(*axes)
        ):
            rules = "exclude" if self.exclude else "include"
            raise refuse([mistake("expected rules that leave a cell, got none left", rules)])
        return self

    @model_validator(mode="after")
    def _broadcasts_have_receivers(self) -> Scenario:
        mistakes = []
        for index, entry in enumerate(self.networks):
            if entry.broadcast is None:
                continue
            if base_name(entry.name) != entry.name:
                message = (
                    "expected no broadcast in a swept network: one sender cannot serve its points"
                )
                mistakes.append(mistake(message, "networks", index, "broadcast"))
            elif len(self.receivers_of(entry)) < 2:
                message = (
                    f'expected two networks or more with broadcast "{entry.broadcast}", got one'
                )
                mistakes.append(mistake(message, "networks", index, "broadcast"))
        if mistakes:
            raise refuse(mistakes)
        return self

    def receivers_of(self, network: NetworkEntry) -> tuple[NetworkEntry, ...]:
        """The links of the broadcast that a network belongs to, whatever the rules; else none."""
        if network.broadcast is None:
            return ()
        return tuple(one for one in self.networks if one.broadcast == network.broadcast)

    def keeps(self, cell: Combination) -> bool:
        """Whether the rules leave this combination; may say yes to what an utterance decides."""
        if self.include and not any(rule.matches(cell, undecided=True) for rule in self.include):
            return False
        return not any(rule.matches(cell, undecided=False) for rule in self.exclude)

    @cached_property
    def sweep_specs(self) -> tuple[SweepSpec, ...]:
        """The sweeps with their entries, for the report."""
        names = {axis: [e.name for e in getattr(self, field)] for axis, field in SWEPT.items()}
        return specs(self.sweeps, names)

    @cached_property
    def _points(self) -> Mapping[tuple[str, str], tuple[SweepPoint, ...]]:
        found: dict[tuple[str, str], tuple[SweepPoint, ...]] = {}
        for spec in self.sweep_specs:
            for entry in spec.entries:
                key = (spec.axis, entry.name)
                found[key] = (*found.get(key, ()), SweepPoint(spec.name, entry.x, spec.unit))
        return found

    def points(self, axis: str, name: str) -> tuple[SweepPoint, ...]:
        """Where an entry of that axis stands on sweeps."""
        return self._points.get((axis, name), ())

    @cached_property
    def pcm_control(self) -> CodecEntry | None:
        """The codec that is added to every block as its null codec; None where there is one."""
        if not self.controls or any(entry.codec == "pcm" for entry in self.codecs):
            return None
        name = _free_name("pcm", [entry.name for entry in self.codecs])
        return CodecEntry.model_validate({"codec": "pcm", "name": name})

    @cached_property
    def clean_control(self) -> NetworkEntry | None:
        """The network that every codec is run over as well; None where there is one."""
        if not self.controls or any(entry.is_clean for entry in self.networks):
            return None
        name = _free_name("clean", [entry.name for entry in self.networks])
        return NetworkEntry.model_validate({"preset": "clean", "name": name})

    @property
    def baseline_name(self) -> str:
        """The codec that the others are compared with."""
        if self.baseline is not None:
            return self.baseline
        uncoded = [entry.name for entry in self.codecs if entry.codec == "pcm"]
        if self.pcm_control is not None:
            uncoded.append(self.pcm_control.name)
        return [*uncoded, self.codecs[0].name][0]

    @property
    def configuration(self) -> Mapping[str, object]:
        """All that decides what runs, resolved; the free text is left out."""
        lists = {
            field: [entry.configuration for entry in getattr(self, field)]
            for field in _AXES.values()
        }
        keys = (
            *("name", "seed", "repetitions", "timeout", "corpus", "include", "exclude"),
            *("controls", "metrics", "legacy", "compute"),
        )
        return {**{key: getattr(self, key) for key in keys}, **lists}


def _free_name(name: str, taken: Iterable[str]) -> str:
    return f"{name}-control" if name in taken else name


def _written_index(info: ValidationInfo, index: int) -> int:
    """Where an entry stands in the file: sweeps before it have moved it."""
    expanded: Expanded | None = (info.context or {}).get("expanded")
    return expanded.written_index(str(info.field_name), index) if expanded else index


def entry_name(field: str, written: object) -> str | None:
    """The name of an entry as data of the list ``field``; None where its mistakes hide it."""
    if isinstance(written, dict) and isinstance(written.get("name"), str):
        return str(written["name"])
    if field == "networks":
        name = written.get("preset") if isinstance(written, dict) else written
        return name if isinstance(name, str) else None
    found = collect([], partial(_NAMED[field].model_validate, written, strict=True))
    return found.name if found else None


_NAMED: Mapping[str, type[CodecEntry | TransportEntry | ReceiverEntry]] = {
    "codecs": CodecEntry,
    "transports": TransportEntry,
    "receivers": ReceiverEntry,
}
"""The axes whose entries name themselves."""


def _judged(
    model: type[Scenario],
    value: Any,
    handler: ValidatorFunctionWrapHandler,
    info: ValidationInfo,
    judge: Callable[[Iterable[tuple[int, Any]]], Iterable[InitErrorDetails]],
) -> Any:
    """The entries of a list, or all mistakes: each entry's own, and those that ``judge`` finds
    among the entries that have none."""
    mistakes: list[InitErrorDetails] = []
    entries = collect(mistakes, lambda: handler(value))
    if entries is None and isinstance(value, (list, tuple)):
        entry_type = get_args(model.model_fields[str(info.field_name)].annotation)[0]
        alone = [
            collect([], partial(entry_type.model_validate, item, context=info.context))
            for item in value
        ]
        mistakes += judge((i, entry) for i, entry in enumerate(alone) if entry is not None)
    else:
        mistakes += judge(enumerate(entries or ()))
    if mistakes:
        raise refuse(mistakes)
    return entries


def config_sha256(scenario: Scenario) -> str:
    """Hash of everything that decides what runs."""
    return digest(scenario.configuration)

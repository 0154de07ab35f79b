"""Recorded networks as they are written in a scenario.

The file is read when the scenario is: whatever is wrong with it is a mistake of the scenario, and
a cell's id follows its bytes. What a validation's context holds: ``folder`` (of the scenario),
``fetch`` (url, sha256 -> bytes) and ``recordings`` (those read already).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from harness.errors import BadInput, HarnessError
from harness.fields import DurationNs, FrequencyHz, SizeBytes
from harness.network.link import Hits, Recording, Replay
from harness.scenario.document import show
from harness.scenario.mistakes import Written, message_of, mistake, refuse
from harness.scenario.quantities import FULL_FRAME_BYTES, Delay, QueueSize, Slow
from harness.units import NS_PER_MS, format_duration, format_size

Fetch = Callable[[str, str], bytes]
"""The bytes at a URL that have this sha256. Raises HarnessError."""
Format = Literal["loss", "rtpdump", "arrivals", "mahimahi", "opennetlab", "csv", "parquet"]

MAX_FILE_BYTES = 64_000_000
MAX_MISTAKES = 10
"""Of one file: the rest is probably the same one."""
SHORTEST_LOOP_NS = 10 * NS_PER_MS
DEFAULT_QUEUE_NS = 300 * NS_PER_MS
DEFAULT_QUEUE_BYTES = 150_000

_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "interval": ("loss", "rtpdump", "arrivals"),
    "clock": ("rtpdump", "arrivals"),
    "part": ("opennetlab",),
}
"""Keys that only some formats have."""


def in_folder(written: str, info: ValidationInfo) -> Path:
    """A path of the file, relative to the folder of the scenario (context ``folder``)."""
    folder = Path((info.context or {}).get("folder", Path.cwd()))
    return folder / written


class Queue(NamedTuple):
    """The bound of a queue: one of the two."""

    ns: int | None
    size_bytes: int | None


_DURATION: TypeAdapter[int] = TypeAdapter(DurationNs)
_LONGEST_WAIT: TypeAdapter[int] = TypeAdapter(Delay)
_SIZE: TypeAdapter[int] = TypeAdapter(QueueSize)


def _queue(value: Any) -> Queue:
    if isinstance(value, Queue):
        return value
    if not isinstance(value, str):
        what = 'a duration such as "300ms" or a size such as "100kB"'
        raise ValueError(f"expected {what}, got {show(value)}")
    is_size = value.rstrip()[-1:] in ("b", "B")
    try:
        if not is_size:
            return Queue(_LONGEST_WAIT.validate_python(value), None)
        size_bytes = _SIZE.validate_python(value)
    except ValidationError as error:
        raise ValueError(message_of(error.errors()[0])) from None
    if size_bytes < FULL_FRAME_BYTES:
        least = f"{FULL_FRAME_BYTES}B (one full frame)"
        raise ValueError(f"expected at least {least}, got {format_size(size_bytes)}")
    return Queue(None, size_bytes)


QueueBound = Annotated[
    Queue,
    PlainValidator(_queue),
    WithJsonSchema(
        {
            "anyOf": [TypeAdapter(kind).json_schema() for kind in (DurationNs, SizeBytes)],
            "description": "longest wait in the queue, or bytes that it holds",
        }
    ),
]


def _offset(value: Any) -> Any:
    if value == "spread":
        return value
    try:
        return _DURATION.validate_python(value)
    except ValidationError as error:
        message = message_of(error.errors()[0])
        raise ValueError(message.replace("expected ", 'expected "spread" or ', 1)) from None


Offset = Annotated[
    Literal["spread"] | int,
    PlainValidator(_offset),
    WithJsonSchema({"anyOf": [{"const": "spread"}, _DURATION.json_schema()]}),
]


class WrittenReplay(Written):
    """A recorded network in place of the link's own loss and rate; its delay is added to the
    link's. A file beside the scenario, or a URL whose content is known."""

    format: Format = Field(
        description="loss: one 0 or 1 per packet and line; rtpdump, arrivals: packets of a call; "
        "mahimahi: delivery opportunities; opennetlab: JSON; csv, parquet: time_s with rate_bps, "
        "delay_ms, loss"
    )
    file: str | None = Field(default=None, min_length=1, description="relative to the scenario")
    url: str | None = Field(default=None, json_schema_extra={"pattern": "^https?://"})
    sha256: str | None = Field(
        default=None,
        description="of the bytes; a url needs it",
        json_schema_extra={"pattern": "^[0-9a-f]{64}$"},
    )
    offset: Offset = Field(
        default="spread",
        description="begin so far into the recording; spread: anywhere, drawn for each utterance "
        "and repetition, so that the whole of it is met",
    )
    end: Literal["error", "loop", "stop"] = Field(
        default="error",
        description="where the audio is longer: refuse the cell, begin again, or cut the audio",
    )
    hits: Hits = Field(
        default="instant",
        description="which packets a recorded loss takes, as in loss; instant: one packet for each "
        "that was recorded, where a codec sends as often",
    )
    interval: Slow | None = Field(
        default=None, description="loss, rtpdump, arrivals: between packets"
    )
    clock: FrequencyHz | None = Field(
        default=None, description="rtpdump, arrivals: of the RTP time stamps"
    )
    part: Literal["uplink", "downlink"] = Field(default="uplink", description="opennetlab")
    queue: QueueBound | None = Field(
        default=None,
        description="before a recorded rate; default: 300ms, mahimahi: 150kB",
    )
    _recording: Recording

    @field_validator("url")
    @classmethod
    def _is_web(cls, url: str | None) -> str | None:
        if url is not None and not re.match(r"https?://[^\s/]", url):
            raise ValueError(f"expected a URL that begins with https://, got {show(url)}")
        return url

    @field_validator("sha256")
    @classmethod
    def _is_digest(cls, sha256: str | None) -> str | None:
        if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256):
            raise ValueError(f"expected 64 hexadecimal digits (lower case), got {show(sha256)}")
        return sha256

    @model_validator(mode="after")
    def _read(self, info: ValidationInfo) -> WrittenReplay:
        wrong = []
        if (self.file is None) == (self.url is None):
            wrong.append(mistake('expected one of "file" and "url"'))
        if self.url is not None and self.sha256 is None:
            wrong.append(mistake('expected "sha256" beside "url", which is missing'))
        for key, formats in _OPTIONS.items():
            if key in self.model_fields_set and self.format not in formats:
                listed = " or ".join(f'"format: {name}"' for name in formats)
                wrong.append(mistake(f'expected "{key}" beside {listed} only', key))
        if self.format == "loss" and self.interval is None:
            wrong.append(mistake('expected "interval" (between packets) beside "format: loss"'))
        if wrong:
            raise refuse(wrong)
        self._recording = self._from_context(info)
        if wrong := self._misfits(self._recording):
            raise refuse(wrong)
        return self

    @property
    def reading(self) -> tuple[object, ...]:
        """What decides, beside the file's bytes, which recording they give."""
        return (self.format, self.interval, self.clock, self.part)

    def resolve(self) -> Replay:
        has_queue = not self._recording.of_packets
        queue = self.queue or (
            Queue(None, DEFAULT_QUEUE_BYTES)
            if self._recording.deliveries_ns is not None
            else Queue(DEFAULT_QUEUE_NS, None)
        )
        return Replay(
            self._recording,
            0 if self.offset == "spread" else self.offset,
            self.end,
            self.hits,
            queue.ns if has_queue else None,
            queue.size_bytes if has_queue else None,
            spread=self.offset == "spread",
        )

    def _misfits(self, recording: Recording) -> list[Any]:
        """What does not go with what was read."""
        wrong = []
        length = format_duration(recording.duration_ns)
        if self.offset != "spread" and self.offset >= recording.duration_ns:
            got = format_duration(self.offset)
            wrong.append(
                mistake(f"expected less than the recording's {length}, got {got}", "offset")
            )
        if self.end == "loop" and recording.duration_ns < SHORTEST_LOOP_NS:
            least = format_duration(SHORTEST_LOOP_NS)
            wrong.append(
                mistake(f"expected a recording of at least {least} to loop, got {length}", "end")
            )
        if self.queue is not None and recording.of_packets:
            wrong.append(mistake("expected a queue beside a recorded rate only", "queue"))
        elif self.queue is not None and recording.deliveries_ns and self.queue.ns is not None:
            message = (
                'expected a size such as "100kB" (delivery opportunities have no rate to wait'
                f" by), got {format_duration(self.queue.ns)}"
            )
            wrong.append(mistake(message, "queue"))
        if "hits" in self.model_fields_set and recording.loss is None:
            wrong.append(mistake("expected hits beside a recorded loss only", "hits"))
        return wrong

    def _from_context(self, info: ValidationInfo) -> Recording:
        """The recording, read once per scenario. Raises pydantic's ValidationError."""
        known: dict[object, Recording] = (info.context or {}).get("recordings", {})
        key = (self.file, self.url, self.sha256, self.reading)
        if key not in known:
            known[key] = self._fresh(info)
        return known[key]

    def _fresh(self, info: ValidationInfo) -> Recording:
        # Late: it loads numpy, which a scenario without recordings does not need.
        from harness.network.recordings import read

        place = "file" if self.file is not None else "url"
        name = self.url or str(in_folder(str(self.file), info))
        try:
            data = self._bytes(info)
            return read(
                data,
                self.format,
                name=name,
                interval_ns=self.interval,
                clock_hz=self.clock,
                part=self.part,
            )
        except (BadInput, OSError) as error:
            lines = str(error).splitlines()[:MAX_MISTAKES]
            raise refuse(mistake(line, place) for line in lines or ["cannot be read"]) from None

    def _bytes(self, info: ValidationInfo) -> bytes:
        if self.file is not None:
            path = in_folder(self.file, info)
            if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
                most = format_size(MAX_FILE_BYTES)
                raise BadInput(f"{path}: expected a file of at most {most}, got none")
            data = path.read_bytes()
        else:
            fetch: Fetch | None = (info.context or {}).get("fetch")
            assert self.url is not None
            assert self.sha256 is not None
            if fetch is None:
                raise BadInput(f"expected a file, got {self.url}, which nothing here can fetch")
            try:
                data = fetch(self.url, self.sha256)
            except HarnessError as error:
                raise BadInput(str(error)) from None
        found = hashlib.sha256(data).hexdigest()
        if self.sha256 not in (None, found):
            raise refuse([mistake(f"expected the sha256 of the file, {found}", "sha256")])
        return data

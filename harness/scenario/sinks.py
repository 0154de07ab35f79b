"""The ``sink`` of a receiver: a classifier that listens to what is played."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from harness.fields import DurationNs, Probability
from harness.scenario.mistakes import Written, mistake, refuse
from harness.scenario.quantities import Delay
from harness.sinks.settings import RATE_HZ, ClassifierName, Drop, SinkSettings, Takes
from harness.units import NS_PER_S

_SINK = SinkSettings()
_MAX_CLIENTS = 64


class SinkEntry(Written):
    """A streaming classifier on what the listener plays: buffer, windows, batches, clients."""

    classifier: ClassifierName = _SINK.classifier
    takes: Takes = Field(
        default=_SINK.takes, description="audio as it is played, or as soon as it arrives"
    )
    chunk: Annotated[DurationNs, Field(gt=0, le=10 * NS_PER_S)] = Field(
        default=64_000_000, description="audio that comes in at once; whole samples at 16 kHz"
    )
    window: int = Field(
        default=_SINK.window_chunks, ge=1, le=10_000, description="chunks that are decided on"
    )
    overlap: Probability = Field(default=0.5, description="share of a window, in whole chunks")
    ring: int = Field(default=_SINK.ring_chunks, ge=1, description="chunks that may wait")
    drop: Drop = Field(default=_SINK.drop, description="what a full ring does with one more")
    batch: int = Field(
        default=_SINK.batch_windows, ge=1, le=1024, description="windows in one call, at most"
    )
    wait: Delay = Field(
        default=_SINK.wait_ns, description="for a batch to fill, from its first window on"
    )
    gate: float = Field(
        default=_SINK.gate_rms,
        ge=0,
        le=1,
        description="RMS (full scale 1) below which a window is silent, and not classified",
    )
    clients: int = Field(
        default=_SINK.clients, ge=1, le=_MAX_CLIENTS, description="that send this stream"
    )
    apart: Delay = Field(
        default=_SINK.apart_ns, description="between the starts of one client and the next"
    )
    shared: bool = Field(
        default=_SINK.shared,
        description="one queue for all clients, replies without ids: a known program's way",
    )
    inference: Delay | None = Field(
        default=None, description="time that a window costs, instead of what it really takes"
    )

    @model_validator(mode="after")
    def _in_whole_chunks(self) -> SinkEntry:
        mistakes = []
        if self.chunk * RATE_HZ % NS_PER_S:
            message = "expected whole samples at 16 kHz, such as 64ms or a multiple of 62.5us"
            mistakes.append(mistake(message, "chunk"))
        shared_chunks = self.overlap * self.window
        if abs(shared_chunks - round(shared_chunks)) > 1e-9 or round(shared_chunks) >= self.window:
            message = (
                f"expected whole chunks of a window of {self.window}, and fewer than all,"
                f" got {shared_chunks:g}"
            )
            mistakes.append(mistake(message, "overlap"))
        if self.ring < self.window + self.shared:
            least = self.window + self.shared
            mistakes.append(mistake(f"expected at least {least}, got {self.ring}", "ring"))
        if self.shared:
            mistakes += [
                mistake('expected nothing beside "shared", which batches the chunks', key)
                for key in ("batch", "wait")
                if key in self.model_fields_set
            ]
        if mistakes:
            raise refuse(mistakes)
        return self

    @property
    def settings(self) -> SinkSettings:
        return SinkSettings(
            classifier=self.classifier,
            takes=self.takes,
            chunk_samples=self.chunk * RATE_HZ // NS_PER_S,
            window_chunks=self.window,
            hop_chunks=self.window - round(self.overlap * self.window),
            ring_chunks=self.ring,
            drop=self.drop,
            batch_windows=self.batch,
            wait_ns=self.wait,
            gate_rms=self.gate,
            clients=self.clients,
            apart_ns=self.apart,
            shared=self.shared,
            inference_ns=self.inference,
        )

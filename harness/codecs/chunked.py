"""Stateless models that code one chunk of audio at a time, as codecs with their true delay.

Such a model hears its whole chunk before it says anything, and knows nothing of the chunk before:
the chunk is latency, and its edges are heard. Chunks of C samples that share V samples with the
next ("overlap") are fed F = C - V samples per call::

    chunk k     input samples [kF - V, (k + 1)F); before the first there is silence
    payload k   made in the call that brings input frame k: L = 0
    decoder     holds back the last D samples of a chunk until the next one is there, and blends
                them with its first; so payload k yields samples [kF - D, (k + 1)F - D)

A listener waits F + D samples at least: with a blend D = V, which is the whole chunk. ``boundary``
is the gain of the newer chunk over the V samples that two have in common, the older one having the
rest of 1:

* ``average``: 1/2 throughout;
* ``linear``: from 0 to 1 in equal steps;
* ``cosine``: raised cosine, sin^2, which is smooth at both ends and sums to 1 too;
* ``hard``: a cut half-way, so that both sides are as far as possible from an edge of their chunk.
  Half of the overlap then needs not be held back: D = V // 2.

A chunk that is lost takes the samples with it that only it had. What was held back for it is
played as it is, then there is silence; the first chunk after the gap is blended with nothing. With
an overlap of one half, one chunk lost is therefore no gap at all.

To make a codec of a model: give its ``Params`` the base :class:`Params`, whose two methods say at
which rate it runs and which chunk lengths it hands back whole, and pass the model, as a
:class:`Model`, to :func:`codec`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, WithJsonSchema, model_validator

from harness.codecs import base
from harness.codecs.base import CodecFacts, Pcm
from harness.units import (
    NS_PER_S,
    format_duration,
    format_frequency,
    parse_duration_ns,
    parse_probability,
)

Samples = NDArray[np.float32]
"""Mono, full scale -1...1, shape (samples,)."""
Boundary = Literal["hard", "average", "linear", "cosine"]
_LONGEST_S = 10
"""A chunk longer than this is a file, not a stream."""


def _length(value: object) -> int | str:
    """Samples as an int, or a duration in its shortest writing. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ValueError(f"expected samples, got {value} (it is negative)")
        return int(value)
    try:
        return format_duration(parse_duration_ns(value))
    except ValueError:
        raise ValueError(
            f'expected samples such as 6000 or a duration such as "250ms", got {value!r}'
        ) from None


def _length_or_share(value: object) -> int | str:
    if isinstance(value, str) and value.strip().endswith("%"):
        return f"{100 * parse_probability(value):g}%"
    try:
        return _length(value)
    except ValueError as error:
        raise ValueError(f'{error}; or a share of the chunk such as "10%"') from None


def _schema(pattern: str, description: str, examples: list[int | str]) -> WithJsonSchema:
    return WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": pattern},
            ],
            "description": description,
            "examples": examples,
        }
    )


_DURATION = r"\d+(\.\d+)?\s*(ns|us|µs|ms|s)"
Length = Annotated[
    int | str,
    BeforeValidator(_length),
    _schema(rf"^{_DURATION}$", "a number of samples, or a duration", [6000, "250ms"]),
]
LengthOrShare = Annotated[
    int | str,
    BeforeValidator(_length_or_share),
    _schema(
        rf"^({_DURATION}|\d+(\.\d+)?\s*%)$",
        "a number of samples, a duration, or a share of the chunk",
        [600, "25ms", "10%"],
    ),
]


class Params(base.Params):
    """Base of a chunked codec's parameters; a subclass sets its own default of ``chunk``."""

    chunk: Length
    overlap: LengthOrShare = 0
    boundary: Boundary = "linear"

    def sample_rate_hz(self) -> int:
        """The rate that the model of these settings runs at."""
        raise NotImplementedError

    def round_trips(self, chunk_samples: int) -> bool:
        """Whether the model gives a chunk of that length back with all of its samples."""
        raise NotImplementedError

    def layout(self) -> Layout:
        """Chunk and overlap in samples. Raises ValueError for what the model cannot do."""
        rate_hz = self.sample_rate_hz()
        chunk = _in_samples(self.chunk, rate_hz)
        longest = _LONGEST_S * rate_hz
        if chunk > longest or not self.round_trips(chunk):
            near = " or ".join(map(str, _nearest(chunk, longest, self.round_trips)))
            raise ValueError(
                f"chunk: {chunk} samples do not round-trip through this model; expected {near}"
                f" samples at {format_frequency(rate_hz)}"
            )
        if isinstance(self.overlap, str) and self.overlap.endswith("%"):
            overlap = round(chunk * parse_probability(self.overlap))
        else:
            overlap = _in_samples(self.overlap, rate_hz)
        if 2 * overlap > chunk:
            raise ValueError(
                f"overlap: expected at most half of the chunk, {chunk // 2} samples, got {overlap}"
            )
        return Layout(rate_hz, chunk, overlap, self.boundary)

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        self.layout()
        return self


def _in_samples(length: int | str, rate_hz: int) -> int:
    if isinstance(length, int):
        return length
    samples, rest = divmod(parse_duration_ns(length) * rate_hz, NS_PER_S)
    if rest:
        raise ValueError(
            f"{length} is not a whole number of samples at {format_frequency(rate_hz)}: write it in"
            f" samples, {samples} or {samples + 1}"
        )
    return samples


def _nearest(length: int, longest: int, legal: Callable[[int], bool]) -> list[int]:
    """The next legal length below and the next above, where there are such."""
    below, above = range(min(length - 1, longest), 0, -1), range(length + 1, longest + 1)
    return [next(filter(legal, side)) for side in (below, above) if any(map(legal, side))]


@dataclass(frozen=True)
class Layout:
    """Where chunks lie. ``overlap_samples`` is at most half of ``chunk_samples``."""

    sample_rate_hz: int
    chunk_samples: int
    overlap_samples: int
    boundary: Boundary

    @property
    def frame_samples(self) -> int:
        """F: what each chunk has that the one before has not."""
        return self.chunk_samples - self.overlap_samples

    @property
    def delay_samples(self) -> int:
        """D: what the decoder holds back of a chunk."""
        return self.overlap_samples // (2 if self.boundary == "hard" else 1)

    def fade_in(self) -> Samples:
        """Gain of the newer chunk over the samples held back of the older one, shape (D,)."""
        size = self.delay_samples
        ramp = np.arange(1, size + 1, dtype=np.float32) / np.float32(size + 1)
        match self.boundary:
            case "hard":
                return np.ones_like(ramp)
            case "average":
                return np.full_like(ramp, 0.5)
            case "linear":
                return ramp
            case "cosine":
                faded: Samples = np.sin(np.float32(np.pi / 2) * ramp) ** 2
                return faded

    def bitrate_bps(self, payload_bits: int) -> int:
        """Rate of payloads of that size; what an overlap codes twice is in it."""
        return payload_bits * self.sample_rate_hz // self.frame_samples


class Model(Protocol):
    """Codes single chunks; without state, so that both ends of all streams may share it."""

    @property
    def payload_bits(self) -> int:
        """Bits of a chunk's codes, without their container: what its nominal bitrate is made of."""
        ...

    def encode(self, samples: Samples) -> bytes:
        """The payload of one chunk, shape (C,)."""
        ...

    def decode(self, payload: bytes) -> Samples:
        """The chunk, shape (C,). Raises ValueError if the payload cannot be decoded."""
        ...


def codec(
    layout: Layout,
    model: Model,
    *,
    library: str,
    weights: Literal["none", "real", "random"],
    rates: Sequence[Model] = (),
) -> ChunkedCodec:
    """``rates`` are models of other bitrates that a sender may change to while it streams; each
    decodes what any of them coded. Empty where the encoder has one rate for ever."""
    offered = sorted(layout.bitrate_bps(rate.payload_bits) for rate in rates)
    facts = CodecFacts(
        sample_rate_hz=layout.sample_rate_hz,
        frame_samples=layout.frame_samples,
        lookahead_frames=0,
        delay_samples=layout.delay_samples,
        nominal_bitrate_bps=layout.bitrate_bps(model.payload_bits),
        library=library,
        weights=weights,
        conceals=layout.delay_samples > 0,
        bitrate_range_bps=(offered[0], offered[-1]) if offered else None,
    )
    return ChunkedCodec(facts, layout, model, tuple(rates))


@dataclass(frozen=True)
class ChunkedCodec:
    facts: CodecFacts
    layout: Layout
    model: Model
    rates: tuple[Model, ...]

    def encoder(self) -> ChunkEncoder:
        if self.rates:
            return AdjustableChunkEncoder(self.layout, self.model, self.rates)
        return ChunkEncoder(self.layout, self.model)

    def decoder(self) -> ChunkDecoder:
        return ChunkDecoder(self.layout, self.model)


class ChunkEncoder:
    def __init__(self, layout: Layout, model: Model) -> None:
        self._layout = layout
        self._model = model
        self._past = np.zeros(layout.overlap_samples, np.int16)

    def encode(self, pcm: Pcm) -> bytes:
        chunk = np.concatenate((self._past, pcm))
        self._past = chunk[self._layout.frame_samples :]
        return self._model.encode(chunk.astype(np.float32) / np.float32(32768))


class AdjustableChunkEncoder(ChunkEncoder):
    def __init__(self, layout: Layout, model: Model, rates: Sequence[Model]) -> None:
        super().__init__(layout, model)
        self._rates = {layout.bitrate_bps(rate.payload_bits): rate for rate in rates}

    def set_bitrate(self, bps: int) -> int:
        nearest = min(self._rates, key=lambda rate: abs(rate - bps))
        self._model = self._rates[nearest]
        return nearest


class ChunkDecoder:
    def __init__(self, layout: Layout, model: Model) -> None:
        self._layout = layout
        self._model = model
        self._fade_in = layout.fade_in()
        self._held: Samples | None = None

    def decode(self, payload: bytes) -> Pcm:
        size, delay = self._layout.frame_samples, self._layout.delay_samples
        chunk = self._model.decode(payload)[self._layout.overlap_samples - delay :]
        frame = chunk[:size].copy()
        if self._held is not None:
            frame[:delay] = (1 - self._fade_in) * self._held + self._fade_in * frame[:delay]
        self._held = chunk[size:]
        return _int16(frame)

    def conceal(self) -> Pcm | None:
        """What was held back for the missing chunk, then silence."""
        held, self._held = self._held, None
        if not self._layout.delay_samples:
            return None
        frame = np.zeros(self._layout.frame_samples, np.int16)
        if held is not None:
            frame[: len(held)] = _int16(held)
        return frame

    def recover(self, later_payload: bytes, frames_back: int = 1) -> Pcm | None:  # noqa: ARG002
        return None


def _int16(samples: Samples) -> Pcm:
    pcm: Pcm = np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)
    return pcm

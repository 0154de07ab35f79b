"""What a codec is to the harness.

Conventions (all codecs, verified by ``tests/codecs/test_delay.py``):

* Audio is mono int16, shape (frame_samples,), at ``facts.sample_rate_hz``.
* The encoder is fed input frame i = samples [i*F, (i+1)*F). It returns payload k in the call
  that consumes input frame k + L, L = ``facts.lookahead_frames``; its first L calls return None.
  One payload per call after that, never empty.
* The decoder returns exactly F samples per payload (or per concealed frame). Sample n of its
  output timeline is input sample n - D, D = ``facts.delay_samples``.
* Hence the first sample of frame k is captured at (k*F - D)/fs, and frame k is ready to be
  encoded at (k + 1 + L)*F/fs: fill F/fs, look-ahead (D + L*F)/fs.
* Encoder and decoder own their state; two instances never share it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.fields import Frozen

Pcm = NDArray[np.int16]


class Params(Frozen):
    """Base of a codec's parameters: one subclass per codec, called ``Params`` in its file."""


@dataclass(frozen=True)
class CodecFacts:
    """What is true of one configured codec."""

    sample_rate_hz: int
    frame_samples: int
    lookahead_frames: int
    delay_samples: int
    nominal_bitrate_bps: int
    library: str
    """Name and version of the code that does the coding, for the provenance."""
    weights: Literal["none", "real", "random"] = "none"
    conceals: bool = False
    """True where ``Decoder.conceal`` returns audio (the codec has its own PLC)."""
    recovery_frames: int = 0
    """How many frames before it ``Decoder.recover`` can restore from a payload: 1 with in-band FEC,
    as many as it reaches back with DRED; 0 without redundancy."""
    bitrate_range_bps: tuple[int, int] | None = None
    """Lowest and highest rate that ``AdjustableEncoder.set_bitrate`` takes; None where the encoder
    has one rate for ever."""
    payload_format: str = ""
    """Its name among RTP's payload formats, where :mod:`harness.media.rtp` has it: ``opus``."""

    @property
    def frame_ns(self) -> int:
        return self.frame_samples * 1_000_000_000 // self.sample_rate_hz

    @property
    def algorithmic_delay_ns(self) -> int:
        """Fill + look-ahead: capture of a frame's first sample to the start of its encoding."""
        samples = (1 + self.lookahead_frames) * self.frame_samples + self.delay_samples
        return samples * 1_000_000_000 // self.sample_rate_hz


class Encoder(Protocol):
    def encode(self, pcm: Pcm) -> bytes | None:
        """Consume one frame, return the next payload, or None in the first L calls."""
        ...


class AdjustableEncoder(Encoder, Protocol):
    """An encoder whose rate a sender may change while it streams."""

    def set_bitrate(self, bps: int) -> int:
        """From the next frame on; the rate that it will really use (the nearest that it has).

        Any rate is taken: it is brought into ``facts.bitrate_range_bps``.
        """
        ...


class Decoder(Protocol):
    def decode(self, payload: bytes) -> Pcm:
        """The next frame. Raises ValueError if the payload cannot be decoded."""
        ...

    def conceal(self) -> Pcm | None:
        """The next frame, made up by the codec's own concealment; None where it has none."""
        ...

    def recover(self, later_payload: bytes, frames_back: int = 1) -> Pcm | None:
        """The missing frame, from redundancy in the payload of the frame ``frames_back`` after it
        (1 to ``facts.recovery_frames``); None where there is none.

        The caller decodes ``later_payload`` itself when its turn comes.
        """
        ...


class Codec(Protocol):
    @property
    def facts(self) -> CodecFacts: ...
    def encoder(self) -> Encoder: ...
    def decoder(self) -> Decoder: ...


Tier = Literal["core", "neural", "legacy"]


@dataclass(frozen=True)
class About:
    """What a reader wants to know of a codec before choosing it; ``harness codecs`` prints it."""

    title: str
    """Its full name with its standard: ``Opus (RFC 6716)``."""
    tier: Tier
    bitrates: str
    """The range or the list that may be set, as a scenario writes it: ``6-510 kbit``."""
    code_licence: str
    """SPDX expression of the library that codes."""
    weights_licence: str = ""
    """Of a neural codec's weights; empty where there are none."""
    causal: bool = True
    """False where a frame's coding needs audio after it (chunks with a reach)."""
    remedy: str = ""
    """The command that installs its library; empty where the harness itself brings it."""


class CodecModule(Protocol):
    """What a codec's file offers; it imports its own library inside ``create`` only."""

    Params: type[Params]
    ABOUT: About

    def required_assets(self, params: Any) -> tuple[str, ...]:
        """Names in the weights manifest that ``create`` needs; () for most codecs."""
        ...

    def create(self, params: Any, assets: Mapping[str, Path]) -> Codec:
        """Configured codec. Raises Unsupported (with the remedy) where its library is missing."""
        ...

"""What computing costs in virtual time.

Three ways, by name: ``zero`` (nothing takes any time), ``measured`` (the wall time of each call of
the codec, as it is made) and ``profile`` (times drawn from what was once measured, seeded: exactly
repeatable, whatever machine it runs on).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, ParamSpec, Protocol, TypeVar

import numpy as np

from harness.codecs.base import Codec
from harness.units import monotonic_ns

P = ParamSpec("P")
R = TypeVar("R")
Role = Literal["encode", "decode", "conceal", "recover"]
Spend = Callable[[int], None]
"""Lets so many ns pass."""
_WARM_UP_FRAMES = 8


@dataclass(frozen=True)
class Overheads:
    """What an endpoint's process costs beside its codec, all in ns."""

    wake_ns: int = 0
    """From the instant that a timer was set for to the process running."""
    send_ns: int = 0
    """From a call of ``send`` to the packet at the link, and to the return of the call."""
    receive_ns: int = 0
    """From a packet's leaving the link to its stamp in the receiver."""


class Compute(Protocol):
    """How long the endpoints' work takes, for one configured codec."""

    @property
    def name(self) -> str: ...

    @property
    def overheads(self) -> Overheads: ...

    def prepare(self, codec: Codec) -> None:
        """Called once before a stream."""
        ...

    def timed(self, call: Callable[P, R], role: Role, seed: int, spend: Spend) -> Callable[P, R]:
        """``call``, which then also spends what it costs."""
        ...


@dataclass(frozen=True)
class Zero:
    """Nothing takes any time."""

    name: str = "zero"
    overheads: Overheads = Overheads()

    def prepare(self, codec: Codec) -> None:
        """Nothing to do."""

    def timed(
        self,
        call: Callable[P, R],
        role: Role,  # noqa: ARG002
        seed: int,  # noqa: ARG002
        spend: Spend,  # noqa: ARG002
    ) -> Callable[P, R]:
        return call


@dataclass(frozen=True)
class Measured:
    """Every call of the codec costs the wall time that it took here."""

    name: str = "measured"
    overheads: Overheads = Overheads()

    def prepare(self, codec: Codec) -> None:
        """The first frames of any codec are slow, and are not to be those that are measured."""
        facts = codec.facts
        encoder, decoder = codec.encoder(), codec.decoder()
        noise = np.random.default_rng(0).normal(0, 1000, facts.frame_samples).astype(np.int16)
        for _ in range(facts.lookahead_frames + _WARM_UP_FRAMES):
            payload = encoder.encode(noise)
            if payload is not None:
                decoder.decode(payload)
        decoder.conceal()

    def timed(
        self,
        call: Callable[P, R],
        role: Role,  # noqa: ARG002
        seed: int,  # noqa: ARG002
        spend: Spend,
    ) -> Callable[P, R]:
        def timed_call(*args: P.args, **kwargs: P.kwargs) -> R:
            began_ns = monotonic_ns()
            try:
                return call(*args, **kwargs)
            finally:
                spend(monotonic_ns() - began_ns)

        return timed_call

"""What computing costs in virtual time.

Three ways, by name: ``zero`` (nothing takes any time), ``measured`` (the wall time of each call of
the codec, as it is made here and now) and ``profile`` (times drawn from what ``harness profile``
once measured, seeded: the same on any machine). A profile also knows what an endpoint's process
costs beside its codec, so that latencies agree with those of a real lab.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

import numpy as np

from harness.codecs.base import Codec, Params
from harness.errors import BadInput
from harness.units import monotonic_ns
from harness.virtual.profile import Overheads, Profile, Role, Timing

P = ParamSpec("P")
R = TypeVar("R")
COMPUTES = ("profile", "measured", "zero")
WARM_UP_FRAMES = 8
NONE = Overheads()
Spend = Callable[[int], None]
"""Lets so many ns of virtual time pass."""


class Compute(Protocol):
    """How long the work of both endpoints takes, for one configured codec."""

    @property
    def overheads(self) -> Overheads: ...

    def timed(self, call: Callable[P, R], role: Role, seed: int, spend: Spend) -> Callable[P, R]:
        """``call``, which then also spends what it costs."""
        ...


def compute(name: str, kind: str, params: Params, codec: Codec, profile: Profile) -> Compute:
    """The compute of that name for ``codec``, which is made from ``kind`` and ``params``.

    Raises Unsupported, with the remedy, for a codec that the profile does not know; BadInput for
    an unknown name.
    """
    match name:
        case "profile":
            return Profiled(profile.timing(kind, params, codec.facts.frame_ns), profile.overheads)
        case "measured":
            warm_up(codec)
            return Measured(profile.overheads)
        case "zero":
            return Zero()
    raise BadInput(f"compute: expected one of {', '.join(COMPUTES)}, got {name!r}")


def warm_up(codec: Codec) -> None:
    """The first frames of any codec are slow (imports, caches), and are not to be those that are
    measured."""
    facts = codec.facts
    encoder, decoder = codec.encoder(), codec.decoder()
    noise = np.random.default_rng(0).normal(0, 1000, facts.frame_samples).astype(np.int16)
    for _ in range(facts.lookahead_frames + WARM_UP_FRAMES):
        payload = encoder.encode(noise)
        if payload is not None:
            decoder.decode(payload)
    decoder.conceal()


@dataclass(frozen=True)
class Zero:
    """Nothing takes any time."""

    overheads: Overheads = NONE

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
    """Every call costs the wall time that it took; sockets, of which there are none, what a profile
    says."""

    overheads: Overheads = NONE

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


@dataclass(frozen=True)
class Profiled:
    """Every call costs a draw from the distribution of its role."""

    timing: Timing
    overheads: Overheads

    def timed(self, call: Callable[P, R], role: Role, seed: int, spend: Spend) -> Callable[P, R]:
        costs_ns = self.timing[role]
        count = len(costs_ns)
        draw = random.Random(f"{seed}/{role}").random

        def timed_call(*args: P.args, **kwargs: P.kwargs) -> R:
            spend(costs_ns[int(draw() * count)])
            return call(*args, **kwargs)

        return timed_call

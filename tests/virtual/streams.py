"""Small streams for tests of virtual time: PCM of 20 ms at 16 kHz unless said otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import numpy as np

from harness import codecs
from harness.codecs.base import Codec
from harness.media.settings import ReceiverSettings, SenderSettings
from harness.network.link import Link, LinkPair
from harness.records import Observed
from harness.transports.base import TransportSettings
from harness.virtual.compute import Compute, Zero
from harness.virtual.profile import Overheads, Role
from harness.virtual.simulate import NEVER_NS, Stream, simulate

MS = 1_000_000


@dataclass(frozen=True)
class Fixed:
    """What each call of a role costs, always or one after the other; what is not named is free."""

    costs_ns: dict[Role, int | list[int]]
    overheads: Overheads = field(default_factory=Overheads)

    def timed(
        self, call: Callable[..., Any], role: Role, seed: int, spend: Callable[[int], None]
    ) -> Callable[..., Any]:
        del seed
        cost_ns = self.costs_ns.get(role, 0)
        costs_ns = repeat(cost_ns) if isinstance(cost_ns, int) else iter(cost_ns)

        def timed_call(*arguments: Any) -> Any:
            spend(next(costs_ns))
            return call(*arguments)

        return timed_call


def codec(kind: str = "pcm", **params: Any) -> Codec:
    return codecs.create(kind, codecs.params_class(kind)(**params), {})


def streamed(
    forward: Link | None = None,
    frames: int = 10,
    *,
    of: Codec | None = None,
    receiver: ReceiverSettings | None = None,
    transport: TransportSettings | None = None,
    compute: Compute | None = None,
    seed: int = 1,
    stop_ns: int = NEVER_NS,
    sender: SenderSettings | None = None,
    reverse: Link | None = None,
) -> Observed:
    """Noise of ``frames`` frames, streamed."""
    made = of or codec()
    samples = frames * made.facts.frame_samples - made.facts.delay_samples
    pcm = np.random.default_rng(5).normal(0, 3000, samples).astype(np.int16)
    return simulate(
        Stream(
            codec=made,
            pcm=pcm,
            pair=LinkPair(forward or Link(), reverse or Link()),
            receiver=receiver or ReceiverSettings(),
            transport=transport or TransportSettings(),
            stream_id=9,
            seed=seed,
            compute=compute or Zero(),
            stop_ns=stop_ns,
            sender=sender or SenderSettings(),
        )
    )

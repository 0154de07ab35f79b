"""Did the link do what was asked? Asked against measured, from the link's own log.

Every figure is compared with what the description implies for *this* sample, not with its nominal
value: delays below zero count as zero, a pareto's median is not its mean, a packet that is both
lost and duplicated is delivered, Gilbert-Elliott starts in the good state. A tolerance is the
largest deviation that chance explains (``chance.py``: a correct link is refused with probability
``chance.ALPHA`` per figure), plus for times what an engine on a busy machine adds.

Medians and quartiles, because a busy or stalling host delays some packets and not the link; and the
95th percentile, because what delays one packet in twenty is what a jitter buffer is set by. The
tolerances are the engine's: one that is good to 0.2 ms is not granted 1 ms.

``static.py`` judges links that stay what they are, ``changing.py`` those that change over time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from harness.errors import Blame
from harness.network.link import Deliveries, Link, LinkPair, Rate
from harness.network.proof import changing, static
from harness.network.proof.changing import GUARD_NS
from harness.network.proof.sample import ENGINES, Figure, Sample
from harness.records import Columns

__all__ = ["GUARD_NS", "ProofFigure", "prove"]

Direction = Literal["forward", "reverse"]
_DECIMALS = 6
_UNITS_OF_CHANCE = ("share", "packets")
"""Of figures that count what a link's effects did to packets."""


@dataclass(frozen=True)
class ProofFigure:
    """One comparison. ``ok`` is None where the traffic did not exercise the figure (see note)."""

    direction: Direction
    figure: str
    asked: float | None
    measured: float | None
    tolerance: float | None
    unit: str
    ok: bool | None
    note: str = ""

    @property
    def blame(self) -> Blame:
        """Whose fault a wrong figure is: a busy machine delays packets, it does not draw losses."""
        return "asked" if self.unit in _UNITS_OF_CHANCE else "machine"


def _is_fluid(link: Link) -> bool:
    return isinstance(link.rate, Rate) and link.rate.is_fluid


def prove(
    pair: LinkPair,
    log: Columns,
    t0_ns: int | None = None,
    changes: Mapping[str, Any] | None = None,
    engine: str = "netem",
) -> list[ProofFigure]:
    """All figures of both directions; a direction that carried nothing has none, but a forward
    direction without packets is itself a failure.

    ``pair`` is fitted, ``log`` a LINK_LOG. Changes count from ``t0_ns`` on the log's clock (None:
    0). ``changes`` are what an engine that had to make them in real time says of it, by direction:
    the netem engine's counter of that name. ``engine`` says which times to expect
    (:data:`harness.network.proof.sample.ENGINES`).
    """
    figures: list[ProofFigure] = []
    directions: tuple[Direction, ...] = ("forward", "reverse")
    for number, direction in enumerate(directions):
        link = pair.reverse if number else pair.forward
        sample = Sample(log, number, ENGINES[engine])
        if sample.packets:
            if link.changes or isinstance(link.rate, Deliveries) or _is_fluid(link):
                made = (changes or {}).get(direction)
                found = changing.figures(link, sample, t0_ns or 0, made)
            else:
                found = static.figures(link, sample)
            figures += [ProofFigure(direction, **_rounded(figure)) for figure in found]
        elif direction == "forward":
            figures.append(
                ProofFigure(
                    direction, "packets", None, 0, None, "packets", False, "none entered the link"
                )
            )
    return figures


def _rounded(figure: Figure) -> dict[str, Any]:
    """A figure with as many decimals as do not depend on how a CPU adds."""
    return {
        name: round(value, _DECIMALS) if isinstance(value, float) else value
        for name, value in figure.items()
    }

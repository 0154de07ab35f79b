"""Whose fault it is that a cell is not ``ok``: that decides whether it is streamed again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.cell import _blame, _verdict, lateness_of, without_streaming
from harness.errors import Blame, CellFailed, HarnessError, ReadBackMismatch, Unsupported
from harness.lateness import Lateness
from harness.network.proof import ProofFigure
from harness.records import Observed


def figure(unit: str) -> ProofFigure:
    return ProofFigure("forward", "something", 1.0, 2.0, 0.5, unit, ok=False)


def observed(**changed: Any) -> Observed:
    sender = {"lateness": Lateness(500, 0, 0).figures(), "boot_id": "a", "time_ns": 1}
    of = {"sender": sender, "receiver": sender, "link": {"counters": {}}, "tracks": ()}
    return cast(Observed, SimpleNamespace(**of | changed))


LATE = {"lateness": Lateness(500, 1_000_000, 40_000_000).figures()}


@pytest.mark.parametrize(
    ("figures", "seen", "compute", "expected"),
    [
        ([], observed(), None, None),
        ([figure("ms")], observed(), None, "machine"),
        ([figure("bit/s")], observed(), None, "machine"),
        ([figure("share")], observed(), None, "asked"),
        ([figure("packets")], observed(), None, "asked"),
        ([figure("share"), figure("ms")], observed(), None, "machine"),
        ([], observed(link={"counters": {"unexplained": 2}}), None, "machine"),
        ([], observed(sender=LATE), None, "machine"),
        ([], observed(sender=LATE), "measured", "machine"),
        ([], observed(sender=LATE), "profile", "asked"),
        ([], observed(receiver={"boot_id": "b", "time_ns": 1}), None, "asked"),
    ],
)
def test_an_invalid_cell_is_blamed_on_the_machine_where_it_had_a_part_in_it(
    figures: list[ProofFigure], seen: Observed, compute: str | None, expected: Blame | None
) -> None:
    doubts = _verdict(figures, seen, lateness_of(seen))
    assert bool(doubts) == (expected is not None)
    assert _blame(doubts, compute) == expected


@pytest.mark.parametrize(
    ("error", "status", "blame"),
    [
        (CellFailed("the agent died"), "failed", "machine"),
        (ReadBackMismatch("another qdisc"), "failed", "asked"),
        (Unsupported("no such codec"), "unsupported", "asked"),
    ],
)
def test_a_cell_that_did_not_stream_has_the_blame_of_its_error(
    error: HarnessError, status: str, blame: Blame
) -> None:
    row = without_streaming({"cell_id": "a"}, error).row
    assert (row["status"], row["blame"]) == (status, blame)

"""Which questions a matrix asks, and whether it has the utterances to answer them. Pure.

Known before anything runs: how many comparisons the report will make at once, and how many
utterances a family of so many needs (:class:`harness.stats.difference.Family`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from harness.plan import Cell, Plan
from harness.scenario import Scenario
from harness.stats.difference import Family

MOST_NAMED = 3


@dataclass(frozen=True)
class Question:
    """One that is asked of several networks alike."""

    asked: str
    networks: tuple[str, ...]
    family: Family

    def __str__(self) -> str:
        where = ", ".join(self.networks)
        if len(self.networks) > MOST_NAMED:
            where = f"each of {len(self.networks)} networks"
        return f"{self.asked} on {where}: {self.family}"


def questions(scenario: Scenario, cells: Plan) -> list[Question]:
    """The verdict and the differences to the baseline, of the speech in ``cells``. Questions
    without a comparison are left out."""
    by_network: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells.cells:
        if cell.item.kind == "speech":
            by_network[cell.network.name].append(cell)
    alike: dict[tuple[str, Family], list[str]] = defaultdict(list)
    for network, mine in sorted(by_network.items()):
        for asked, comparisons in _comparisons(scenario, mine, set(by_network) != {network}):
            if comparisons:
                family = Family(comparisons, len({cell.item.id for cell in mine}))
                alike[asked, family].append(network)
    return [Question(asked, tuple(names), family) for (asked, family), names in alike.items()]


def _comparisons(
    scenario: Scenario, cells: Iterable[Cell], among_others: bool
) -> Iterator[tuple[str, int]]:
    """What is asked on a network, and the number of comparisons that it takes; as
    :mod:`harness.report.verdicts` and :mod:`harness.report.differences` make them."""
    cells = list(cells)
    ways = {(cell.codec.name, cell.transport.name, cell.receiver.name) for cell in cells}
    pcm = {cell.codec.name for cell in cells if cell.codec.codec == "pcm"}
    controls = pcm if {codec for codec, _, _ in ways} - pcm else set()
    if not (among_others and cells[0].network.is_clean):
        candidates = sum(codec not in controls for codec, _, _ in ways)
        yield "verdict", candidates * (candidates - 1) // 2
    baseline = scenario.baseline_name
    added = scenario.pcm_control.name if scenario.pcm_control else None
    against = {way[1:] for way in ways if way[0] == baseline}
    compared = [way for way in ways if way[0] not in (baseline, added) and way[1:] in against]
    yield f"differences to {baseline}", len(compared)

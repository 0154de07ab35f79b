"""From a matrix to an ordered list of cells. Pure: no clock, no files, no global random state.

* A cell's id is a hash of its whole configuration and of nothing else, so that it stays the same
  when other cells come, go or move.
* Cells that share network, utterance and repetition form a *block* and share a seed: in media time
  they meet the same losses, so that codecs are compared in pairs. The points of a swept network
  share the seed too (common random numbers): a higher loss comes from similar events.
* Two controls show what the rig itself does: PCM in every block (the null codec) and every codec
  over the clean link (the null network). Where the scenario has such entries, their cells serve.
* Blocks run in a seeded random order, and so do the cells within a block: a machine that grows
  slower during the run favours no codec. Order is by hash, hence one cell more or less leaves the
  order of the others alone.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import product
from typing import Any, Literal, NamedTuple

from harness.assets.items import SILENCE_NS, ItemRef
from harness.errors import BadInput
from harness.scenario import (
    CodecEntry,
    Combination,
    NetworkEntry,
    ReceiverEntry,
    Scenario,
    SweepPoint,
    TransportEntry,
    base_name,
    digest,
)
from harness.scenario.mistakes import not_among
from harness.store.schema import SCHEMA_VERSION
from harness.units import NS_PER_S, format_duration

OVERHEAD_S = 1.5
"""Wall time of a cell beside its audio: link, codec warm-up, connection, tail, collection."""
UNKNOWN_ITEM_S = 10.0
"""Taken for an item whose duration nobody knows yet."""
ID_DIGITS = 16
MIN_ID_PREFIX = 4


@dataclass(frozen=True)
class Branch:
    """One receiver of a broadcast: its link, and that link's seed."""

    network: NetworkEntry
    seed: int


@dataclass(frozen=True)
class Cell:
    """One combination to run once."""

    cell_id: str
    block: str
    item: ItemRef
    codec: CodecEntry
    transport: TransportEntry
    network: NetworkEntry
    receiver: ReceiverEntry
    repetition: int
    """0-based."""
    seed: int
    """Of the link, below 2**53: exact in JSON and in a float column."""
    timeout_s: float
    """Wall time after which the cell counts as failed."""
    control: Literal["codec", "network"] | None = None
    """What it is a control of: PCM on every network, every codec on the clean link."""
    sweep: tuple[SweepPoint, ...] = ()
    """The points on the sweeps of its scenario that it belongs to."""
    branches: tuple[Branch, ...] = ()
    """All receivers of the broadcast whose sender it listens to, its own among them; else none."""

    @property
    def sender_seed(self) -> int:
        """Of what the sender's computing costs: one for all receivers of a broadcast."""
        return self.branches[0].seed if self.branches else self.seed

    @property
    def listeners(self) -> tuple[Cell, ...]:
        """A cell for each receiver of its broadcast, in the order of ``branches``; else itself."""
        return tuple(
            self
            if branch.network.name == self.network.name
            else replace(self, network=branch.network, seed=branch.seed)
            for branch in self.branches
        ) or (self,)

    @property
    def stream_id(self) -> int:
        """32 bits that its packets carry, so that another cell's stray packet is told apart."""
        return int(self.cell_id[:8], 16)

    @property
    def label(self) -> str:
        """``codec/transport/network/receiver/utterance/repetition``, for people."""
        return "/".join(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        entries = (self.codec, self.transport, self.network, self.receiver)
        return (*(entry.name for entry in entries), self.item.id, str(self.repetition))

    @property
    def expected_s(self) -> float:
        """Wall time that it should take: audio, delay of link and listener, overhead."""
        listener = self.receiver.settings
        delay_ns = self.network.longest_delay_ns + listener.start_ns + listener.device_ns
        return _seconds(self.item) + delay_ns / NS_PER_S + OVERHEAD_S


@dataclass(frozen=True)
class Plan:
    """Cells in the order in which they are to start."""

    cells: tuple[Cell, ...]

    def select(self, pattern: str | None) -> Plan:
        """The cells whose label, whose name on one axis, or whose id matches; all for None.

        ``opus*``, ``tcp``, ``*/udp/clean/*``, the first digits of an id (at least four). Raises
        BadInput where none does.
        """
        if pattern is None:
            return self
        chosen = tuple(cell for cell in self.cells if _selects(pattern, cell))
        if not chosen:
            names = sorted({name for cell in self.cells for name in cell.names[:-1]})
            raise BadInput(not_among("a label, a name or the start of a cell id", pattern, names))
        return Plan(chosen)

    def expected_wall_s(self, jobs: int) -> float:
        """Wall time of streaming with ``jobs`` cells side by side, each starting when one ends."""
        if jobs < 1:
            raise BadInput(f"expected at least 1 job, got {jobs}")
        ends = [0.0] * min(jobs, max(1, len(self.cells)))
        for cell in self.cells:
            heapq.heapreplace(ends, ends[0] + cell.expected_s)
        return max(ends)

    @cached_property
    def audio_s(self) -> float:
        """Sum of the audio to be streamed."""
        return sum(_seconds(cell.item) for cell in self.cells)


class _Way(NamedTuple):
    """What is run in one cell, beside the item and the repetition."""

    codec: CodecEntry
    transport: TransportEntry
    network: NetworkEntry
    receiver: ReceiverEntry


def plan(scenario: Scenario, items: Sequence[ItemRef]) -> Plan:
    """All cells that the scenario's rules leave, for the items that its corpus holds, and their
    controls, to which the rules do not apply.

    Raises BadInput where there is no item, where two share an id, where a rule names an utterance
    that is not among them, where no cell is left, or where a recorded network is shorter than an
    item and does not say what then.
    """
    _check_items(scenario, items)
    ways = {item.id: list(_ways(scenario, item)) for item in items}
    if not any(ways.values()):
        raise BadInput(f"{scenario.name}: expected rules that leave a cell, got none left")
    _check_recordings(scenario, items, ways)
    configurations: dict[int, str] = {}
    cells = [
        _cell(scenario, configurations, item, way, repetition)
        for item in items
        for way in [*ways[item.id], *_controls(scenario, ways[item.id])]
        for repetition in range(scenario.repetitions)
    ]

    def order(name: str) -> str:
        return digest({"order": scenario.seed, "of": name})

    return Plan(tuple(sorted(cells, key=lambda cell: (order(cell.block), order(cell.cell_id)))))


def _ways(scenario: Scenario, item: ItemRef) -> Iterator[_Way]:
    """What the rules leave for an item."""
    for way in product(scenario.codecs, scenario.transports, scenario.networks, scenario.receivers):
        codec, transport, network, receiver = (entry.name for entry in way)
        if scenario.keeps(Combination(codec, transport, network, receiver, item.id)):
            yield _Way(*way)


def _controls(scenario: Scenario, ways: Sequence[_Way]) -> list[_Way]:
    """The controls to add: over the transports and to the receivers that ``ways`` have, once."""
    pcm, clean = scenario.pcm_control, scenario.clean_control
    found: dict[tuple[str, ...], _Way] = {}
    for way in ways:
        added = [way._replace(codec=pcm)] if pcm else []
        if clean:
            added += [one._replace(network=clean) for one in (way, *added)]
        for one in added:
            found.setdefault(tuple(entry.name for entry in one), one)
    return list(found.values())


def _cell(
    scenario: Scenario,
    configurations: dict[int, str],
    item: ItemRef,
    way: _Way,
    repetition: int,
) -> Cell:
    audio: list[str | int] = [item.id, item.sha256 or item.source]
    if item.silence_ns != SILENCE_NS:
        audio.append(item.silence_ns)

    def shared(network: str) -> dict[str, Any]:
        return {
            "scenario_seed": scenario.seed,
            "network": network,
            "item": audio,
            "repetition": repetition,
        }

    def seed_of(network: NetworkEntry) -> int:
        return int(digest({**shared(base_name(network.name)), "use": "link"})[:16], 16) >> 11

    seed = seed_of(way.network)
    branches = tuple(
        Branch(network, seed_of(network)) for network in scenario.receivers_of(way.network)
    )
    configuration: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "seed": seed,
        "repetition": repetition,
        "item": audio,
        "kind": item.kind,
    }
    for axis, entry in way._asdict().items():
        if id(entry) not in configurations:
            configurations[id(entry)] = digest(entry.configuration)
        configuration[axis] = configurations[id(entry)]
    if branches:
        configuration["branches"] = [
            [digest(branch.network.configuration), branch.seed] for branch in branches
        ]
    return Cell(
        cell_id=digest(configuration)[:ID_DIGITS],
        block=digest(shared(way.network.name))[:ID_DIGITS],
        item=item,
        **way._asdict(),
        repetition=repetition,
        seed=seed,
        timeout_s=_seconds(item) + scenario.timeout / NS_PER_S,
        control=_control(way),
        sweep=tuple(
            point
            for axis in ("codec", "transport", "network", "receiver")
            for point in scenario.points(axis, getattr(way, axis).name)
        ),
        branches=branches,
    )


def _control(way: _Way) -> Literal["codec", "network"] | None:
    if way.network.is_clean:
        return "network"
    return "codec" if way.codec.codec == "pcm" else None


def _check_recordings(
    scenario: Scenario, items: Sequence[ItemRef], ways: dict[str, list[_Way]]
) -> None:
    """No item is longer than what is recorded, where the scenario does not say what then."""
    wrong = []
    for item in items:
        for network in {way.network.name: way.network for way in ways[item.id]}.values():
            left_ns = network.recorded_ns
            if left_ns is not None and (item.seconds or 0) * NS_PER_S > left_ns:
                wrong.append(
                    f"{scenario.name}: network {network.name}: expected a recording as long as"
                    f" {item.id} ({item.seconds:g}s), got {format_duration(left_ns)} from its"
                    " offset on; write end: loop or end: stop beside the trace"
                )
    if wrong:
        raise BadInput("\n".join(wrong))


def _check_items(scenario: Scenario, items: Sequence[ItemRef]) -> None:
    ids = [item.id for item in items]
    if not ids:
        raise BadInput(f"{scenario.name}: expected a corpus with audio, got no item")
    if repeated := sorted(name for name, count in Counter(ids).items() if count > 1):
        raise BadInput(f"{scenario.name}: expected each item once, got {', '.join(repeated)} again")
    wrong = [
        f"{scenario.name}: $.{field}[{index}].utterance: {message}"
        for field in ("include", "exclude")
        for index, rule in enumerate(getattr(scenario, field))
        for _, message in rule.unmatched("utterance", ids)
    ]
    if wrong:
        raise BadInput("\n".join(wrong))


def _seconds(item: ItemRef) -> float:
    return UNKNOWN_ITEM_S if item.seconds is None else item.seconds


def _selects(pattern: str, cell: Cell) -> bool:
    if len(pattern) >= MIN_ID_PREFIX and cell.cell_id.startswith(pattern):
        return True
    return any(fnmatchcase(name, pattern) for name in (cell.label, *cell.names[:-1]))

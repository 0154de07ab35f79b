"""How many utterances and seeds does a scenario need? ``harness power``: a pilot in the virtual
lab, and what :mod:`harness.stats.power` makes of it, for every codec against the baseline.

It plans for the test that the report makes of differences to the baseline: all configurations of a
network at once. Needs are worked out at the level that this family leaves to each comparison, and
the one of the scenario's own number of seeds is verified with the report's own function
(:mod:`harness.stats.simulated`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from harness.assets import Corpus
from harness.errors import BadInput
from harness.plan import Plan
from harness.run import Options, Pilot, planned, run
from harness.runners import Observer
from harness.scenario import Metric
from harness.scenario.mistakes import not_among
from harness.score.quality import MEASURES, OPTIONAL, measures
from harness.stats import MIN_CLUSTERS
from harness.stats.difference import Pair as Entries
from harness.stats.power import DESIGNS, MOST, Aim, Comparison, Need, compare
from harness.stats.simulated import (
    RUNS,
    Spread,
    level_of_each,
    share_found,
    spread_of,
    utterances_to_find,
)
from harness.store import Tables, load

COMPARABLE = tuple(one.name for one in (*MEASURES, *OPTIONAL) if len(measures([one.name])) == 1)
"""Metrics with one figure for each cell."""
PILOT_UTTERANCES = 12
PILOT_SEEDS = 4
SEEDS = (1, 2, 3, 5, 10, 20)
"""For which needs are told."""
MOST_SIMULATED = 150
"""Utterances up to which the report's own test is simulated."""
NEEDS = ("seeds", "paired", "apart", "x", "independent", "x")
"""Headings of the rows of ``needs``."""


@dataclass(frozen=True)
class Wanted:
    """What the command line says. ``pilot`` is utterances and seeds; None: ``PILOT_UTTERANCES``, or
    all there are, and ``PILOT_SEEDS``. ``metric`` None is what the verdict ranks by. ``out`` None
    keeps nothing of the pilot."""

    scenario: Path
    metric: Metric | None = None
    pilot: tuple[int, int] | None = None
    out: Path | None = None
    jobs: int | None = None


@dataclass(frozen=True)
class Tested:
    """What the report tests at once on a network: configurations against their baseline."""

    spread: Spread
    pairs: tuple[Entries, ...]


@dataclass(frozen=True)
class Pair:
    """A codec and the baseline, over one network; ``reason`` says why there is no comparison."""

    network: str
    transport: str
    receiver: str
    codec: str
    baseline: str
    comparison: Comparison | None
    reason: str | None
    tested: Tested | None = None
    """The family that it belongs to; None where no block of the pilot has all of them."""

    @property
    def entries(self) -> Entries:
        """As they are named in ``tested``."""
        return _entry(self.codec, self), _entry(self.baseline, self)

    @property
    def label(self) -> str:
        return "/".join((self.codec, self.transport, self.network, self.receiver))


@dataclass(frozen=True)
class Outcome:
    """``utterances`` and ``repetitions`` are those of the scenario, not the pilot's; ``directory``
    is the pilot's, None where it was not kept."""

    pairs: tuple[Pair, ...]
    metric: Metric
    utterances: int
    repetitions: int
    pilot: tuple[int, int]
    directory: Path | None


def power(wanted: Wanted, observer: Observer) -> Outcome:
    """Run a pilot and compare.

    Raises BadInput, before anything is run, where the scenario has too few utterances that the
    metric is for, no second codec, or fewer utterances than the pilot asks for; and after it where
    no pair of codecs has scores.
    """
    if wanted.metric is not None and wanted.metric not in COMPARABLE:
        raise BadInput(f"--metric: {not_among('a metric', wanted.metric, COMPARABLE)}")
    loaded, cells, corpus = planned(wanted.scenario, None, observer.note)
    metric = wanted.metric or loaded.rank_by or "pesq-wb-played"
    utterances = _utterances(metric, wanted.scenario, cells, corpus)
    count, seeds = wanted.pilot or (min(PILOT_UTTERANCES, len(utterances)), PILOT_SEEDS)
    if not MIN_CLUSTERS <= count <= len(utterances) or seeds < 2:
        raise BadInput(
            f"--pilot: expected {MIN_CLUSTERS} to {len(utterances)} utterances (as many as"
            f" {wanted.scenario} has) x at least 2 seeds, got {count}x{seeds}"
        )
    codecs = sorted({cell.codec.name for cell in cells.cells})
    if len(codecs) < 2:
        raise BadInput(
            f"{wanted.scenario}: expected two codecs to tell apart, got {codecs[0]} alone; add one,"
            " or write controls: true to have PCM beside it"
        )
    with ExitStack() as stack:
        out = wanted.out or Path(stack.enter_context(TemporaryDirectory(prefix="harness-power-")))
        spread = tuple(utterances[i * len(utterances) // count] for i in range(count))
        pilot = Pilot(spread, seeds, metric)
        done = run(
            Options(wanted.scenario, out, "virtual", jobs=wanted.jobs, pilot=pilot), observer
        )
        if done.interrupted:
            raise KeyboardInterrupt
        pairs = compared(load(done.directory), metric)
    if not any(pair.comparison for pair in pairs):
        reasons = sorted({pair.reason for pair in pairs if pair.reason})
        raise BadInput(
            f"{wanted.scenario}: no pair of codecs has {metric} scores to work with:"
            f" {'; '.join(reasons) or 'no cell was comparable'}"
        )
    return Outcome(
        pairs,
        metric,
        len(utterances),
        loaded.repetitions,
        (count, seeds),
        None if wanted.out is None else done.directory,
    )


def compared(run: Tables, metric: Metric) -> tuple[Pair, ...]:
    """Every codec of a run against the run's baseline, on each network, transport and receiver."""
    (measure,) = measures([metric])
    key = {"metric": measure.metric, "mode": measure.mode, "track": measure.track}
    scores = run.scores[(run.scores[list(key)] == list(key.values())).all(axis=1)]
    fine = run.cells[run.cells["status"] == "ok"]
    scored = fine.merge(
        scores[["cell_id", "value", "reason"]], on="cell_id", suffixes=("_cell", "")
    )
    baseline = str(run.runs["baseline"].iloc[0])
    tested = {
        network: _tested(mine, baseline) for network, mine in scored.groupby("network", sort=False)
    }
    pairs = []
    for place, cells in run.cells.groupby(["network", "transport", "receiver"]):
        network, transport, receiver = map(str, place)
        mine = scored[scored["cell_id"].isin(cells["cell_id"])]
        for codec in sorted(set(cells["codec"]) - {baseline}):
            found = compare(mine, codec, baseline)
            reason = None if found else _why_not(cells, mine, codec, baseline)
            pairs.append(
                Pair(
                    *(network, transport, receiver, codec, baseline, found, reason),
                    tested.get(network),
                )
            )
    return tuple(pairs)


def _tested(scored: pd.DataFrame, baseline: str) -> Tested | None:
    """Of the scored cells of one network."""
    places = scored[["codec", "transport", "receiver"]]
    rows = scored.assign(entry=["/".join(place) for place in places.itertuples(index=False)])
    spread = spread_of(rows, entry="entry")
    if spread is None:
        return None
    names = set(spread.names)
    pairs = [
        (name, against)
        for name in spread.names
        if (against := "/".join([baseline, *name.split("/")[1:]])) in names and against != name
    ]
    return Tested(spread, tuple(pairs)) if pairs else None


def _entry(codec: str, pair: Pair) -> str:
    return "/".join((codec, pair.transport, pair.receiver))


def heading(outcome: Outcome, aim: Aim) -> str:
    """What the needs are, in words."""
    utterances, seeds = outcome.pilot
    return (
        f"Utterances needed to tell {aim.delta:g} of {outcome.metric} from"
        f" {outcome.pairs[0].baseline} with probability {aim.power:g}, at a level of"
        f" {aim.alpha:g} for all comparisons of a network together, with 95 % intervals; from a"
        f" pilot of {utterances} utterances x {seeds} seeds. paired: codecs meet the same"
        " utterances and the same losses; apart: each has losses of its own; independent:"
        " utterances of its own, too (so many for each). x: times what pairs need."
    )


def spread(found: Comparison) -> str:
    """The pilot's mean difference and standard deviations, in words."""
    utterance, paired, apart = (
        math.sqrt(variance)
        for variance in (
            found.components["paired"].utterance,
            found.components["paired"].seed,
            found.components["apart"].seed,
        )
    )
    return (
        f"pilot: difference {found.mean:+.3f}; sd of it between utterances {utterance:.3f}, between"
        f" seeds {paired:.3f} (losses apart: {apart:.3f})"
    )


def needs(pair: Pair, aim: Aim) -> Iterator[tuple[str, ...]]:
    """One row of ``NEEDS`` per number of seeds."""
    assert pair.comparison is not None
    for seeds in SEEDS:
        level = in_family(pair, seeds, aim)
        paired, apart, independent = (
            pair.comparison.need(design, seeds, level) for design in DESIGNS
        )
        yield (
            str(seeds),
            _in_words(paired),
            _in_words(apart),
            f"{apart.utterances / paired.utterances:.1f}",
            _in_words(independent),
            f"{independent.utterances / paired.utterances:.1f}",
        )


def in_family(pair: Pair, seeds: int, aim: Aim) -> Aim:
    """The aim of this comparison, at the level that its family leaves it."""
    if pair.tested is None:
        return aim
    level = level_of_each(pair.tested.spread, pair.tested.pairs, seeds, aim.alpha)
    return aim._replace(alpha=level)


def simulated(pair: Pair, outcome: Outcome, aim: Aim) -> str | None:
    """What the report's own test does in simulated runs of the scenario, in words; None where the
    pilot had no block with all of its family."""
    tested, found = pair.tested, pair.comparison
    if tested is None or found is None or pair.entries not in tested.pairs:
        return None
    of = (tested.spread, tested.pairs, pair.entries, aim.delta)
    share = share_found(*of, outcome.utterances, outcome.repetitions)
    start = found.need("paired", outcome.repetitions, in_family(pair, outcome.repetitions, aim))
    least = utterances_to_find(
        *of, outcome.repetitions, aim.power, start.utterances, MOST_SIMULATED
    )
    count = len(tested.pairs)
    needs = f"more than {MOST_SIMULATED}" if least is None else str(least)
    return (
        f"the report's own test ({count} comparison{'s' * (count != 1)} as one family, {RUNS}"
        f" simulated runs): the scenario's {outcome.utterances} utterances x {outcome.repetitions}"
        f" seeds find it in {share:.0%}; {aim.power:.0%} take {needs} utterances"
    )


def seeds(pair: Pair, utterances: int, aim: Aim) -> str:
    """How many seeds make the utterances that there are enough, in words."""
    found, aim = pair.comparison, in_family(pair, 1, aim)
    assert found is not None
    counts = {design: found.seeds_for(design, utterances, aim) for design in DESIGNS}
    words = [
        f"{design}: {'no number of seeds is enough' if count is None else f'{count} seeds'}"
        for design, count in counts.items()
    ]
    return f"with the scenario's {utterances} utterances, {'; '.join(words)}"


def _in_words(need: Need) -> str:
    mine, low, high = (f"{bound}+" if bound == MOST else str(bound) for bound in need)
    return f"{mine} [{low}, {high}]"


def _utterances(metric: Metric, scenario: Path, cells: Plan, corpus: Corpus) -> tuple[str, ...]:
    """Ids of the items that are streamed and that the metric is for, in order of the corpus."""
    (measure,) = measures([metric])
    kinds = measure.kinds
    streamed = {cell.item.id for cell in cells.cells}
    fit = tuple(item.id for item in corpus.items if item.kind in kinds and item.id in streamed)
    if not fit:
        raise BadInput(
            f"--metric {metric}: is for {' and '.join(kinds)} only, and {scenario} has none"
        )
    if len(fit) < MIN_CLUSTERS:
        raise BadInput(
            f"{scenario}: expected at least {MIN_CLUSTERS} utterances (below that nothing is"
            f" claimed), got {len(fit)}; take more of the corpus"
        )
    return fit


def _why_not(cells: pd.DataFrame, scored: pd.DataFrame, codec: str, baseline: str) -> str:
    for name in (codec, baseline):
        mine = scored[scored["codec"] == name]
        if mine["value"].notna().any():
            continue
        other = cells.loc[cells["codec"] == name, "reason"]
        reasons = [*mine["reason"].dropna(), *other.dropna()]
        return f"{name} has no scores" + (f" ({reasons[0]})" if reasons else "")
    return f"{codec} and {baseline} share too few blocks"

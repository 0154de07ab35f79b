"""How many utterances and seeds does a scenario need? ``harness power``: a pilot in the virtual
lab, and what :mod:`harness.stats.power` makes of it, for every codec against the baseline.
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
from harness.run import Observer, Options, Pilot, planned, run
from harness.scenario import Metric
from harness.scenario.mistakes import not_among
from harness.score.quality import MEASURES, OPTIONAL, measures
from harness.stats import MIN_CLUSTERS
from harness.stats.power import DESIGNS, MOST, Aim, Comparison, Need, compare
from harness.store import Tables, load

COMPARABLE = tuple(one.name for one in (*MEASURES, *OPTIONAL) if len(measures([one.name])) == 1)
"""Metrics with one figure for each cell."""
PILOT_UTTERANCES = 12
PILOT_SEEDS = 4
SEEDS = (1, 2, 3, 5, 10, 20)
"""For which needs are told."""
NEEDS = ("seeds", "paired", "apart", "x", "independent", "x")
"""Headings of the rows of ``needs``."""


@dataclass(frozen=True)
class Wanted:
    """What the command line says. ``pilot`` is utterances and seeds; None: ``PILOT_UTTERANCES``, or
    all there are, and ``PILOT_SEEDS``. ``out`` None keeps nothing of the pilot."""

    scenario: Path
    metric: Metric = "pesq-wb"
    pilot: tuple[int, int] | None = None
    out: Path | None = None
    jobs: int | None = None


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

    @property
    def label(self) -> str:
        return "/".join((self.codec, self.transport, self.network, self.receiver))


@dataclass(frozen=True)
class Outcome:
    """``utterances`` are those that the scenario has, beyond the pilot's; ``directory`` is the
    pilot's, None where it was not kept."""

    pairs: tuple[Pair, ...]
    utterances: int
    pilot: tuple[int, int]
    directory: Path | None


def power(wanted: Wanted, observer: Observer) -> Outcome:
    """Run a pilot and compare.

    Raises BadInput, before anything is run, where the scenario has too few utterances that the
    metric is for, no second codec, or fewer utterances than the pilot asks for; and after it where
    no pair of codecs has scores.
    """
    if wanted.metric not in COMPARABLE:
        raise BadInput(f"--metric: {not_among('a metric', wanted.metric, COMPARABLE)}")
    _, cells, corpus = planned(wanted.scenario, None, observer.note)
    utterances = _utterances(wanted, cells, corpus)
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
        pilot = Pilot(spread, seeds, wanted.metric)
        done = run(
            Options(wanted.scenario, out, "virtual", jobs=wanted.jobs, pilot=pilot), observer
        )
        if done.interrupted:
            raise KeyboardInterrupt
        pairs = compared(load(done.directory), wanted.metric)
    if not any(pair.comparison for pair in pairs):
        reasons = sorted({pair.reason for pair in pairs if pair.reason})
        raise BadInput(
            f"{wanted.scenario}: no pair of codecs has {wanted.metric} scores to work with:"
            f" {'; '.join(reasons) or 'no cell was comparable'}"
        )
    return Outcome(
        pairs, len(utterances), (count, seeds), None if wanted.out is None else done.directory
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
    pairs = []
    for place, cells in run.cells.groupby(["network", "transport", "receiver"]):
        network, transport, receiver = map(str, place)
        mine = scored[scored["cell_id"].isin(cells["cell_id"])]
        for codec in sorted(set(cells["codec"]) - {baseline}):
            found = compare(mine, codec, baseline)
            reason = None if found else _why_not(cells, mine, codec, baseline)
            pairs.append(Pair(network, transport, receiver, codec, baseline, found, reason))
    return tuple(pairs)


def heading(wanted: Wanted, outcome: Outcome, aim: Aim) -> str:
    """What the needs are, in words."""
    utterances, seeds = outcome.pilot
    return (
        f"Utterances needed to tell {aim.delta:g} of {wanted.metric} from"
        f" {outcome.pairs[0].baseline} with probability {aim.power:g} at a level of {aim.alpha:g},"
        f" with 95 % intervals; from a pilot of {utterances} utterances x {seeds} seeds. paired:"
        " codecs meet the same utterances and the same losses; apart: each has losses of its own;"
        " independent: utterances of its own, too (so many for each). x: times what pairs need."
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


def needs(found: Comparison, aim: Aim) -> Iterator[tuple[str, ...]]:
    """One row of ``NEEDS`` per number of seeds."""
    for seeds in SEEDS:
        paired, apart, independent = (found.need(design, seeds, aim) for design in DESIGNS)
        yield (
            str(seeds),
            _in_words(paired),
            _in_words(apart),
            f"{apart.utterances / paired.utterances:.1f}",
            _in_words(independent),
            f"{independent.utterances / paired.utterances:.1f}",
        )


def seeds(found: Comparison, utterances: int, aim: Aim) -> str:
    """How many seeds make the utterances that there are enough, in words."""
    counts = {design: found.seeds_for(design, utterances, aim) for design in DESIGNS}
    words = [
        f"{design}: {'no number of seeds is enough' if count is None else f'{count} seeds'}"
        for design, count in counts.items()
    ]
    return f"with the scenario's {utterances} utterances, {'; '.join(words)}"


def _in_words(need: Need) -> str:
    mine, low, high = (f"{bound}+" if bound == MOST else str(bound) for bound in need)
    return f"{mine} [{low}, {high}]"


def _utterances(wanted: Wanted, cells: Plan, corpus: Corpus) -> tuple[str, ...]:
    """Ids of the items that are streamed and that the metric is for, in order of the corpus."""
    (measure,) = measures([wanted.metric])
    kinds = measure.kinds
    streamed = {cell.item.id for cell in cells.cells}
    fit = tuple(item.id for item in corpus.items if item.kind in kinds and item.id in streamed)
    if not fit:
        raise BadInput(
            f"--metric {wanted.metric}: is for {' and '.join(kinds)} only, and {wanted.scenario}"
            " has none"
        )
    if len(fit) < MIN_CLUSTERS:
        raise BadInput(
            f"{wanted.scenario}: expected at least {MIN_CLUSTERS} utterances (below that nothing is"
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

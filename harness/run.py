"""A matrix from scenario to report, top to bottom.

Everything made is owned by an ``ExitStack`` and labelled with the run id; every finished cell is
on disk before the next one starts on the same pair.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness import assets, resume, scenario
from harness.errors import Unsupported
from harness.labs.base import session
from harness.labs.choose import open_lab
from harness.labs.leftovers import clean
from harness.labs.virtual import VirtualLab
from harness.plan import Plan, plan
from harness.report import write_report
from harness.report.sections import misaligned
from harness.runners import (
    Observer,
    SocketRunner,
    VirtualRunner,
    Weights,
    needed_assets,
)
from harness.scenario import Metric, Scenario, config_sha256
from harness.score.quality import Measure, measures
from harness.scoring import score_cells
from harness.store import RunStore, load, owned
from harness.store.provenance import run_facts


@dataclass(frozen=True)
class Pilot:
    """A sample of a scenario: some of its utterances, so many repetitions of each, one metric; and
    no clean network that nobody asked for."""

    utterances: tuple[str, ...]
    repetitions: int
    metric: Metric

    def scenario(self, whole: Scenario) -> Scenario:
        return whole.model_copy(
            update={
                "name": f"{whole.name}-pilot",
                "repetitions": self.repetitions,
                "metrics": (self.metric,),
            }
        )

    def cells(self, whole: Plan) -> Plan:
        return Plan(
            tuple(
                cell
                for cell in whole.cells
                if cell.item.id in self.utterances and cell.control != "network"
            )
        )


@dataclass(frozen=True)
class Options:
    """What the command line says beside the scenario."""

    scenario: Path
    out: Path = Path("results")
    lab: str = "auto"
    link: str = "auto"
    resume: Path | None = None
    other_host: bool = False
    """Whether a run may be resumed on another host than it began on."""
    only: str | None = None
    jobs: int | None = None
    pilot: Pilot | None = None


@dataclass
class Outcome:
    """How a run ended: the statuses of the cells that were planned, ``missing`` where one is not
    written down."""

    directory: Path
    statuses: dict[str, int]
    interrupted: bool = False
    report: Path | None = None
    unsupported: str | None = None
    """Why, where no cell could be run."""

    @property
    def all_well(self) -> bool:
        """Whether every cell is ok, or cannot be had here while others are."""
        return "ok" in self.statuses and self.statuses.keys() <= {"ok", "unsupported"}


def run(options: Options, observer: Observer) -> Outcome:
    """Run a scenario whole. Raises BadInput, AssetError, MachineCannot before any cell starts."""
    began = time.monotonic()
    wanted, corpus, asset_store = _inputs(options.scenario, observer.note)
    if options.pilot is not None:
        wanted = options.pilot.scenario(wanted)
    whole = plan(wanted, corpus.items)
    cells = whole.select(options.only)
    if options.pilot is not None:
        cells = options.pilot.cells(cells)
    references = assets.prepare_all({cell.item for cell in cells.cells}, asset_store)
    _note_doubts(references, wanted, observer.note)
    weights = _weights(cells, measures(wanted.metrics), asset_store)
    facts = run_facts()

    with ExitStack() as claim:
        store = _claimed_store(options, wanted, claim, observer)
        row = store.run_row()
        if options.resume is not None:
            resume.check_samples(row, corpus, references, options.resume)
            resume.check_cells(store.finished(), whole, options.resume)
            if not options.other_host:
                resume.check_host(row, json.loads(facts["host"]), options.resume)
        row |= {
            "scenario": wanted.name,
            "scenario_yaml": options.scenario.read_text(encoding="utf-8"),
            "config_sha256": config_sha256(wanted),
            "baseline": wanted.baseline_name,
            "rank_by": wanted.rank_by,
            "added_controls": json.dumps(
                {
                    "codec": wanted.pcm_control.name if wanted.pcm_control else None,
                    "network": wanted.clean_control.name if wanted.clean_control else None,
                }
            ),
            "corpus_warning": corpus.warning,
            "corpus": json.dumps([item.id for item in corpus.items]),
            "items": resume.merged_items(row, references.values()),
        }
        wanted_lab = resume.resumed_choice("lab", options.lab, row["lab"])
        wanted_link = resume.resumed_choice("link", options.link, row["link"])
        outcome = Outcome(store.directory, {})
        try:
            with ExitStack() as stack:
                mine = stack.enter_context(session(store.run_id))
                lab, lab_why = open_lab(wanted_lab, mine, asset_store.cache, observer.note)
                stack.callback(lab.close)
                matrix: SocketRunner | VirtualRunner
                if isinstance(lab, VirtualLab):
                    matrix = VirtualRunner(
                        options.jobs, wanted, store, mine.control_dir, references, weights, observer
                    )
                else:
                    matrix = SocketRunner(options.jobs, lab, store, references, weights, observer)
                    stack.callback(matrix.close)
                engine, engine_why = matrix.choose_engine(wanted_link)
                observer.note(f"lab {lab.name} ({lab_why}); link engine {engine} ({engine_why})")
                row |= {"lab": lab.name, "link": engine}
                if row["lab_why"] is None:
                    row |= {"lab_why": lab_why, "link_why": engine_why}
                of_session = {"engine": json.dumps(lab.facts()), "jobs": matrix.jobs}
                row = resume.with_session(row, facts | of_session)
                store.write_run(row)
                for column, value in matrix.stream(cells, engine).items():
                    row[column] = (row[column] or 0) + value
            if isinstance(matrix, SocketRunner):
                score_cells(store, wanted, weights, observer)
        except KeyboardInterrupt:
            outcome.interrupted = True
        row |= {
            "finished_utc": None if outcome.interrupted else datetime.now(UTC).isoformat(),
            "wall_s": (row["wall_s"] or 0) + time.monotonic() - began,
        }
        store.write_run(row)
        for note in store.repair_parts():
            observer.note(note)
        store.compact()
        outcome.report = write_report(store.directory)
        if warning := misaligned(load(store.directory)):
            observer.note(warning)
        ended = store.finished()
        outcome.statuses = dict(Counter(ended.get(cell.cell_id, "missing") for cell in cells.cells))
        if outcome.statuses.keys() == {"unsupported"}:
            outcome.unsupported = _commonest_reason(store, cells)
    return outcome


def check(path: Path, note: Callable[[str], None]) -> tuple[Scenario, Plan]:
    """A scenario and its cells, nothing fetched; notes what is doubtful of the items at hand.

    Raises BadInput, AssetError.
    """
    store = assets.AssetStore.default()
    wanted = scenario.load(path, store.content)
    items = assets.listed(wanted.corpus, path.parent)
    _note_doubts(assets.prepare_all(assets.at_hand(items, store), store), wanted, note)
    return wanted, plan(wanted, items)


def _commonest_reason(store: RunStore, cells: Plan) -> str:
    """Of those for which cells are not ok."""
    planned = [cell.cell_id for cell in cells.cells]
    reasons = Counter(
        reason
        for batch in store.batches("cells", planned, ["reason"])
        for reason in batch["reason"].to_pylist()
    )
    return str(reasons.most_common(1)[0][0])


def planned(
    path: Path, only: str | None, note: Callable[[str], None]
) -> tuple[Scenario, Plan, assets.Corpus]:
    """A scenario and its cells, nothing started; notes what is doubtful of its items.

    Raises BadInput, AssetError.
    """
    wanted, corpus, store = _inputs(path, note)
    cells = plan(wanted, corpus.items).select(only)
    _note_doubts(assets.prepare_all({cell.item for cell in cells.cells}, store), wanted, note)
    return wanted, cells, corpus


def _note_doubts(
    references: Mapping[str, assets.Prepared], wanted: Scenario, note: Callable[[str], None]
) -> None:
    """Why scores of some items deserve less trust, and how many have no PESQ."""
    for reference in references.values():
        for warning in reference.warnings:
            note(f"{reference.item.id}: {warning}")
    if any(measure.metric == "pesq" for measure in measures(wanted.metrics)) and (
        lacking := assets.without_pesq(references.values())
    ):
        note(lacking)


def _inputs(
    path: Path, note: Callable[[str], None]
) -> tuple[Scenario, assets.Corpus, assets.AssetStore]:
    store = assets.AssetStore.default()
    wanted = scenario.load(path, store.content)
    return wanted, assets.load_corpora(wanted.corpus, path.parent, store, note), store


def _weights(cells: Plan, wanted: Sequence[Measure], store: assets.AssetStore) -> Weights:
    """What codecs and measures need, fetched before any cell starts. Raises AssetError if
    damaged."""
    found: Weights = {}
    of_codecs = {name for cell in cells.cells for name in needed_assets(cell)}
    of_measures = {name for measure in wanted for name in measure.assets}
    for name in sorted(of_codecs | of_measures):
        try:
            found[name] = store.weights(name)
        except Unsupported as error:
            found[name] = error
    return found


def _claimed_store(
    options: Options, wanted: Scenario, claim: ExitStack, observer: Observer
) -> RunStore:
    """The run's directory, this process's alone until ``claim`` is closed; of one that is resumed,
    what a killed process left behind is gone and what is damaged is set aside."""
    if options.resume is None:
        store = RunStore.create(options.out, wanted.name, datetime.now(UTC))
        claim.enter_context(owned(store.directory))
        return store
    before = RunStore.open(options.resume)
    claim.enter_context(owned(before.directory))
    store = RunStore.open(before.directory)
    resume.check_scenario(store.run_row(), wanted, options.resume, options.scenario)
    for leftover in clean(dry_run=False, run_id=store.run_id):
        observer.note(f"removed {leftover}")
    for note in store.repair():
        observer.note(note)
    return store

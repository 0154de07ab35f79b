"""A matrix from scenario to report, top to bottom.

Everything made is owned by an ``ExitStack`` and labelled with the run id; every finished cell is
on disk before the next one starts on the same pair.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from harness import assets, codecs, resume, scenario
from harness.cell import (
    CellResult,
    Leg,
    describe,
    facts_of,
    served,
    stream,
    together,
    without_streaming,
)
from harness.codecs.base import CodecFacts, Pcm
from harness.errors import BadInput, HarnessError, MachineCannot, Unsupported
from harness.labs.base import Lab, session
from harness.labs.capacity import Capacity
from harness.labs.choose import open_lab
from harness.labs.leftovers import clean
from harness.labs.pairs import PairPool
from harness.labs.virtual import ENGINE, VirtualLab
from harness.plan import Cell, Plan, plan
from harness.report import write_report
from harness.report.sections import misaligned
from harness.scenario import Metric, Scenario, config_sha256
from harness.score import emodel
from harness.score.legacy import legacy_rows
from harness.score.network import network_scores
from harness.score.pool import Scorer, ScoreTask
from harness.score.quality import Measure, measures
from harness.sinks.task import Outcome as Decided
from harness.sinks.task import read, run_sink
from harness.store import RunStore, load, owned
from harness.store.provenance import run_facts
from harness.virtual_matrix import virtual_matrix

ENGINES = ("auto", "netem", "relay")
RETRIES = 2
"""How often a cell is streamed again when the machine was the cause that it is not ok."""
Weights = dict[str, Path | Unsupported]
"""By name: where they are, or why the cells and scores that need them cannot be."""


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


class Observer(Protocol):
    """Who is told how far the run is; the command line draws it."""

    def note(self, text: str) -> None: ...
    def phase(self, name: str, total: int) -> None: ...
    def step(self, text: str, *, trouble: bool = False) -> None: ...


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


def default_jobs() -> int:
    """Cells side by side: voice is light, and the CPU budget holds back what is not."""
    return max(2, min(24, 3 * (os.cpu_count() or 1)))


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
                matrix: _Matrix | _VirtualMatrix
                if isinstance(lab, VirtualLab):
                    matrix = _VirtualMatrix(
                        options, wanted, store, mine.control_dir, references, weights, observer
                    )
                else:
                    matrix = _Matrix(options, lab, store, references, weights, observer)
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
            if isinstance(matrix, _Matrix):
                _score(store, wanted, weights, observer)
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


def _needed(cell: Cell) -> tuple[str, ...]:
    of_codec = codecs.module(cell.codec.codec).required_assets(cell.codec.params)
    return (*of_codec, *cell.receiver.settings.required_assets)


def _weights(cells: Plan, wanted: Sequence[Measure], store: assets.AssetStore) -> Weights:
    """What codecs and measures need, fetched before any cell starts. Raises AssetError if
    damaged."""
    found: Weights = {}
    of_codecs = {name for cell in cells.cells for name in _needed(cell)}
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


class _Matrix:
    """The streaming phase: warm pairs, handed from cell to cell."""

    def __init__(
        self,
        options: Options,
        lab: Lab,
        store: RunStore,
        references: dict[str, assets.Prepared],
        weights: Weights,
        observer: Observer,
    ) -> None:
        self.jobs = options.jobs or default_jobs()
        self._lab = lab
        self._store = store
        self._references = references
        self._weights = weights
        self._observer = observer
        self._pairs = PairPool(lab, self.jobs)
        self._facts: dict[str, CodecFacts | HarnessError] = {}
        self._pcm: dict[tuple[str, int], Pcm] = {}
        self._cpu = Capacity(os.cpu_count() or 1)

    def close(self) -> None:
        self._pairs.close()

    def choose_engine(self, wanted: str) -> tuple[str, str]:
        """netem where the kernel has it; the first pair's link agent is asked."""
        if wanted not in ENGINES:
            raise BadInput(f"--link: expected one of {', '.join(ENGINES)}, got {wanted!r}")
        with self._pairs.claim(1) as (pair,):
            can, _ = pair.link.call("probe")
        reasons = can.get("reasons", {})
        if wanted != "auto":
            if not can[wanted]:
                raise MachineCannot(f"--link {wanted}: {reasons.get(wanted, 'not available')}")
            return wanted, "asked for"
        if can["netem"] and can["tbf"]:
            return "netem", "auto: the kernel has netem and tbf"
        if can["relay"]:
            return "relay", f"auto: no netem here ({reasons.get('netem', 'unknown')})"
        raise MachineCannot(f"no link engine runs here: {reasons}")

    def stream(self, cells: Plan, engine: str) -> dict[str, Any]:
        """Every cell that the store does not have yet, and again, up to ``RETRIES`` times, what the
        machine disturbed; returns the phase's columns of ``runs``."""
        whole = self._store.finished().keys() - self._store.disturbed()
        todo = again = pending_cells(cells, whole, self._observer)
        side_by_side = min(self.jobs, max(1, len(together(todo))))
        pool = ThreadPoolExecutor(side_by_side, "cell")
        self._pairs.warm_up(side_by_side)
        began = time.monotonic()
        try:
            for attempt in range(1 + RETRIES):
                # What fell behind beside so many others gets more of the machine.
                again = self._round(pool, again, max(1, side_by_side >> attempt), engine, attempt)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            self.close()
            raise
        finally:
            pool.shutdown(wait=True)
        return {
            "stream_s": time.monotonic() - began,
            "audio_s": sum(self._references[cell.item.id].seconds for cell in todo),
        }

    def _round(
        self,
        pool: ThreadPoolExecutor,
        todo: Sequence[Cell],
        at_once: int,
        engine: str,
        attempt: int,
    ) -> list[Cell]:
        """Stream cells, so many at once; those that the machine disturbed."""
        begin_round(self._observer, "streaming", len(todo), attempt)
        left = iter(together(todo))
        waiting: dict[Future[list[CellResult]], list[Cell]] = {}
        disturbed: list[Cell] = []
        while True:
            for group in islice(left, at_once - len(waiting)):
                waiting[pool.submit(self._at_once, group, engine)] = group
            if not waiting:
                return disturbed
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                for cell, result in zip(waiting.pop(future), future.result(), strict=True):
                    _tell(self._observer, cell, result.row["status"], result.row["reason"])
                    if result.row.get("blame") == "machine":
                        disturbed.append(cell)

    def _at_once(self, cells: Sequence[Cell], engine: str) -> list[CellResult]:
        """Cells that one sender serves, on idle pairs, written down. A broken pair costs them
        alone."""
        cell, wanted = cells[0], {cell.network.name: cell for cell in cells}
        listeners = [wanted.get(one.network.name, one) for one in served(cell)]
        rows = [describe(one, self._lab.name, engine) for one in listeners]
        try:
            paths = {name: self._asset_path(name) for name in _needed(cell)}
            facts = self._facts_of(cell, paths)
            pcm = self._pcm_at(cell.item.id, facts.sample_rate_hz)
            reference_ns = self._references[cell.item.id].duration_ns
            with self._pairs.claim(len(listeners)) as pairs:
                legs = [Leg(*leg) for leg in zip(listeners, pairs, rows, strict=True)]
                results = stream(legs, facts, pcm, reference_ns, paths, self._cpu)
        except HarnessError as error:
            if self._pairs.closing:
                raise
            results = [without_streaming(row, error) for row in rows]
        found = {one.network.name: r for one, r in zip(listeners, results, strict=True)}
        for cell in cells:
            self._write(cell, found[cell.network.name])
        return [found[cell.network.name] for cell in cells]

    def _asset_path(self, name: str) -> str:
        found = self._weights[name]
        if isinstance(found, Unsupported):
            raise found
        return self._lab.asset_path(found)

    def _write(self, cell: Cell, result: CellResult) -> None:
        reference = self._references[cell.item.id]
        audio = dict(result.audio)
        if audio:
            heard = assets.until(reference, result.row["media_s"])
            audio["reference"] = (heard, reference.rate_hz)
        row = {**result.row, "reference_sha256": reference.sha256}
        self._store.write_cell(row, result.packets, result.frames, audio)

    def _facts_of(self, cell: Cell, paths: dict[str, str]) -> CodecFacts:
        key = f"{cell.codec.codec} {cell.codec.params.model_dump_json()}"
        if key not in self._facts:
            with self._pairs.claim(1) as (pair,):
                try:
                    self._facts[key] = facts_of(cell, pair, paths)
                except Unsupported as error:
                    self._facts[key] = error
        found = self._facts[key]
        if isinstance(found, HarnessError):
            raise found
        return found

    def _pcm_at(self, item: str, rate_hz: int) -> Pcm:
        key = (item, rate_hz)
        if key not in self._pcm:
            self._pcm[key] = assets.resampled(self._references[item], rate_hz)
        return self._pcm[key]


class _VirtualMatrix:
    """The whole of a matrix in virtual time: streaming and scoring."""

    def __init__(
        self,
        options: Options,
        wanted: Scenario,
        store: RunStore,
        scratch: Path,
        references: dict[str, assets.Prepared],
        weights: Weights,
        observer: Observer,
    ) -> None:
        self.jobs = options.jobs or len(os.sched_getaffinity(0))
        self._scenario = wanted
        self._store = store
        self._scratch = scratch
        self._references = references
        self._weights = weights
        self._observer = observer

    def choose_engine(self, wanted: str) -> tuple[str, str]:
        """There is one."""
        if wanted not in ("auto", ENGINE):
            raise BadInput(
                f"--link {wanted}: expected no --link with the virtual lab, whose link is the"
                f" {ENGINE}; {wanted} needs --lab docker or netns"
            )
        return ENGINE, "the virtual lab's own"

    def stream(self, cells: Plan, _: str) -> dict[str, Any]:
        """Every cell that the store does not have yet, scores included."""
        before, scored = self._store.finished(), self._store.scored()
        # One that was cut off before its scores were written streams again: that is cheap here.
        whole = {
            cell_id
            for cell_id, status in before.items()
            if status == "unsupported" or cell_id in scored
        } - self._store.disturbed()
        todo = again = pending_cells(cells, whole, self._observer)
        began = time.monotonic()
        with virtual_matrix(
            directory=self._store.directory,
            scratch=self._scratch,
            cells=todo,
            references=self._references,
            assets=self._weights,
            compute=self._scenario.compute,
            measures=measures(self._scenario.metrics),
            e_model=emodel.NAME in self._scenario.metrics,
            legacy=self._scenario.legacy,
            jobs=min(self.jobs, max(1, len(todo))),
        ) as matrix:
            for attempt in range(1 + RETRIES):
                begin_round(self._observer, "simulating", len(again), attempt)
                disturbed = []
                for cell, done in matrix.run(again):
                    _tell(self._observer, cell, done.status, done.reason)
                    if done.blame == "machine":
                        disturbed.append(cell)
                again = disturbed
        return {
            "stream_s": time.monotonic() - began,
            "audio_s": sum(self._references[cell.item.id].seconds for cell in todo),
        }


def pending_cells(cells: Plan, whole: Collection[str], observer: Observer) -> list[Cell]:
    """The cells that are not ``whole`` yet."""
    todo = [cell for cell in cells.cells if cell.cell_id not in whole]
    if len(todo) < len(cells.cells):
        observer.note(f"{len(cells.cells) - len(todo)} cells are finished already")
    return todo


def begin_round(observer: Observer, phase: str, count: int, attempt: int) -> None:
    """Report that ``count`` cells are up, for the first time or again."""
    if attempt == 0:
        observer.phase(phase, count)
    elif count:
        observer.note(f"{count} cells were disturbed by the machine; they are streamed again")
        observer.phase(f"{phase} again", count)


def _tell(observer: Observer, cell: Cell, status: str, reason: str | None) -> None:
    text = f"{status} {cell.label}" + (f": {reason}" if reason else "")
    observer.step(text, trouble=status != "ok")


def _score(store: RunStore, wanted: Scenario, weights: Weights, observer: Observer) -> None:
    """All cells that streamed and have no scores yet; on all cores, after the streaming."""
    tables = store.tables()
    streamed = tables.cells[tables.cells["audio_media"].notna()]
    todo = streamed[~streamed["cell_id"].isin(store.scored())]
    concealment = {entry.name: entry.settings.concealment for entry in wanted.receivers}
    rows: list[dict[str, Any]] = [dict(row) for _, row in todo.iterrows()]
    decided = _decide(store, wanted, rows, observer)
    observer.phase("scoring", len(todo))
    with Scorer(os.cpu_count() or 1) as scorer:
        futures = {
            scorer.submit(
                ScoreTask(
                    cell_id=row["cell_id"],
                    reference_path=store.directory / row["audio_reference"],
                    media_path=store.directory / row["audio_media"],
                    played_path=store.directory / row["audio_played"],
                    kind=row["kind"],
                    weights=row["weights"],
                    facts=json.loads(row["codec_facts"]),
                    measures=measures(wanted.metrics),
                    codec_kind=row["codec_kind"],
                    assets=weights,
                )
            ): row
            for row in rows
        }
        for future in as_completed(futures):
            row = futures.pop(future)
            cell_id = row["cell_id"]
            packets, frames = tables.packets_of([cell_id]), tables.frames_of([cell_id])
            network = network_scores(packets, frames, row)
            scores = [*future.result(), *network]
            if emodel.NAME in wanted.metrics:
                scores += emodel.planning_scores(frames, row, concealment[row["receiver"]])
            sink = decided.get(cell_id, Decided([], []))
            scores += sink.scores
            told = (packets, frames, row, [*network, *sink.scores], sink.decided_ns)
            legacy = legacy_rows(wanted.legacy, *told)
            store.write_scores(cell_id, scores, legacy)
            observer.step(f"scored {row['codec']}/{row['network']}/{row['utterance']}")


def _decide(
    store: RunStore, wanted: Scenario, rows: Sequence[Mapping[str, Any]], observer: Observer
) -> dict[str, Decided]:
    """What sinks made of cells, one after the other and before the scoring: what their
    classifiers take is measured, so they have the machine to themselves."""
    sinks = {entry.name: entry.sink.settings for entry in wanted.receivers if entry.sink}
    listened = [row for row in rows if row["receiver"] in sinks]
    if not listened:
        return {}
    observer.phase("classifying", len(listened))
    tables = store.tables()
    found = {}
    for row in listened:
        cell_id = row["cell_id"]
        heard = read(
            store.directory / row["audio_played"],
            store.directory / row["audio_reference"],
            tables.frames_of([cell_id]),
            json.loads(row["codec_facts"]),
        )
        outcome = run_sink(sinks[row["receiver"]], heard, int(row["seed"]), "measured")
        store.write_decisions(cell_id, outcome.decisions)
        found[cell_id] = outcome
        observer.step(f"classified {row['codec']}/{row['network']}/{row['utterance']}")
    return found

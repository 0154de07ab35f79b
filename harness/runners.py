"""The streaming of a matrix, one runner per kind of lab.

Cells that the machine disturbed are streamed again at the end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from harness import assets, codecs
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
from harness.labs.awake import POLLED, awake
from harness.labs.base import Lab
from harness.labs.capacity import Capacity
from harness.labs.headroom import Headroom
from harness.labs.pairs import PairPool
from harness.labs.virtual import ENGINE
from harness.plan import Cell, Plan
from harness.scenario import Scenario
from harness.score import emodel
from harness.score.quality import measures
from harness.store import RunStore
from harness.virtual_matrix import virtual_matrix

ENGINES = ("auto", "netem", "relay")
RETRIES = 2
"""How often a cell is streamed again when the machine was the cause that it is not ok."""
Weights = dict[str, Path | Unsupported]
"""By name: where they are, or why the cells and scores that need them cannot be."""


class Observer(Protocol):
    """Who is told how far the run is; the command line draws it."""

    def note(self, text: str) -> None: ...
    def phase(self, name: str, total: int) -> None: ...
    def step(self, text: str, *, trouble: bool = False) -> None: ...


def default_jobs() -> int:
    """Cells side by side: voice is light, and the CPU budget holds back what is not."""
    return max(2, min(24, 3 * (os.cpu_count() or 1)))


def needed_assets(cell: Cell) -> tuple[str, ...]:
    of_codec = codecs.module(cell.codec.codec).required_assets(cell.codec.params)
    return (*of_codec, *cell.receiver.settings.required_assets)


class SocketRunner:
    """The streaming phase: warm pairs, handed from cell to cell."""

    def __init__(
        self,
        jobs: int | None,
        lab: Lab,
        store: RunStore,
        references: dict[str, assets.Prepared],
        weights: Weights,
        observer: Observer,
    ) -> None:
        self.jobs = jobs or default_jobs()
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
            with awake() as processors:
                if processors == POLLED:
                    self._observer.note(
                        "this machine is virtual: its processors are kept busy while cells stream,"
                        " for one that sleeps wakes when its host pleases"
                    )
                for attempt in range(1 + RETRIES):
                    # What fell behind beside so many others gets more of the machine.
                    headroom = Headroom(max(1, side_by_side >> attempt))
                    again = self._round(pool, again, headroom, engine, attempt)
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
        headroom: Headroom,
        engine: str,
        attempt: int,
    ) -> list[Cell]:
        """Stream cells, as many at once as there is headroom for; those that were disturbed."""
        begin_round(self._observer, "streaming", len(todo), attempt)
        left = iter(together(todo))
        waiting: dict[Future[list[CellResult]], tuple[list[Cell], int]] = {}
        disturbed: list[Cell] = []
        while True:
            for group in islice(left, max(0, headroom.at_once - len(waiting))):
                job = pool.submit(self._at_once, group, engine)
                waiting[job] = (group, headroom.begin())
            if not waiting:
                return disturbed
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                group, began = waiting.pop(future)
                ended = list(zip(group, future.result(), strict=True))
                for cell, result in ended:
                    _tell(self._observer, cell, result.row["status"], result.row["reason"])
                hit = [cell for cell, result in ended if result.row.get("blame") == "machine"]
                headroom.end(began, bool(hit))
                disturbed += hit

    def _at_once(self, cells: Sequence[Cell], engine: str) -> list[CellResult]:
        """Cells that one sender serves, on idle pairs, written down. A broken pair costs them
        alone."""
        cell, wanted = cells[0], {cell.network.name: cell for cell in cells}
        listeners = [wanted.get(one.network.name, one) for one in served(cell)]
        rows = [describe(one, self._lab.name, engine) for one in listeners]
        try:
            paths = {name: self._asset_path(name) for name in needed_assets(cell)}
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


class VirtualRunner:
    """The whole of a matrix in virtual time: streaming and scoring."""

    def __init__(
        self,
        jobs: int | None,
        wanted: Scenario,
        store: RunStore,
        scratch: Path,
        references: dict[str, assets.Prepared],
        weights: Weights,
        observer: Observer,
    ) -> None:
        self.jobs = jobs or len(os.sched_getaffinity(0))
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

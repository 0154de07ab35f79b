"""The cells of a matrix in the virtual lab: in worker processes, each cell simulated, written down
and scored in one go.

What a cell's tables hold follows from the cell alone: neither the number of workers nor the order
of the cells shows in them. A worker that crashes (PESQ's reference code does on some input) costs
the measure that it died of, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from harness import codecs
from harness.assets import Prepared, resampled, until
from harness.cell import (
    CellResult,
    describe,
    hears_others,
    impaired_alike,
    longest_ns,
    tracks_of,
    without_streaming,
    written_up,
)
from harness.codecs.base import Codec, CodecFacts, Params, Pcm
from harness.errors import Blame, CellFailed, HarnessError, Unsupported, blamed_on
from harness.labs.virtual import ENGINE, NAME
from harness.plan import Cell
from harness.scenario import NetworkEntry
from harness.score import emodel
from harness.score.legacy import Legacy, legacy_rows
from harness.score.metrics import Score
from harness.score.network import network_scores
from harness.score.pool import TIMEOUT_S, ScoreTask, Worker, WorkerLost, Workers, one_by_one
from harness.score.quality import AudioTask, Measure, Tracks, reference_tracks, score_audio
from harness.sinks.task import Stream as Played
from harness.sinks.task import run_sink
from harness.store import RunStore
from harness.virtual.compute import Compute, compute
from harness.virtual.profile import load, profile_path
from harness.virtual.simulate import Stream, simulate, simulate_broadcast

_KEPT_CODECS = 16
_KEPT_REFERENCES = 32
_NO_SAMPLES = np.zeros(0, np.int16)


@dataclass(frozen=True)
class Shared:
    """What the cells of a matrix have in common; a worker process gets it once, when it starts."""

    directory: Path
    """Of the run."""
    references: Mapping[str, tuple[Prepared, Path]]
    """By item id: all but the samples, and the .npy file that holds them."""
    networks: Mapping[str, NetworkEntry]
    """By name; a recorded one is large."""
    assets: Mapping[str, Path | Unsupported]
    compute: str
    profile: Path
    measures: tuple[Measure, ...]
    e_model: bool
    """Whether its estimate is wanted beside the measures."""
    legacy: tuple[str, ...]
    """Older systems whose own figures are wanted."""


class Done(NamedTuple):
    """How a cell ended. ``audio`` and ``figures`` are of a cell that streamed: what is to be scored
    yet, and the scores that need no audio; ``legacy`` what older systems would have printed."""

    status: str
    reason: str | None
    blame: Blame | None = None
    audio: ScoreTask | None = None
    figures: tuple[Score, ...] = ()
    legacy: tuple[Legacy, ...] = ()


class VirtualMatrix(Workers):
    """Runs cells in ``jobs`` processes. Leaving the context by an exception, Ctrl-C included, ends
    them at once; cells that are written down stay."""

    def __init__(self, shared: Shared, jobs: int) -> None:
        super().__init__(jobs, "worker", _begin, shared)
        self._shared = shared
        self._store = RunStore.open(shared.directory)

    def run(self, cells: Sequence[Cell]) -> Iterator[tuple[Cell, Done]]:
        """Each cell as it ends."""
        ends = {self.submit_to_one(self._one, cell): cell for cell in cells}
        for future in as_completed(ends):
            yield ends.pop(future), future.result()

    def _one(self, worker: Worker, cell: Cell) -> Done:
        # The worker has the networks already; on its way to it a cell carries their names alone.
        sent = _with_networks(cell, lambda network: NetworkEntry.model_construct(name=network.name))
        timeout_s = cell.timeout_s + TIMEOUT_S
        try:
            return worker.call(run_cell, sent, timeout_s)
        except WorkerLost:
            pass  # which part of it was the culprit shows when they are done one by one
        try:
            done = worker.call(stream_cell, sent, timeout_s)
        except WorkerLost as lost:
            result = without_streaming(_row(cell, self._shared), CellFailed(str(lost)))
            self._store.write_cell(_identified(result.row, cell, self._shared), {}, {}, {})
            return Done("failed", str(lost), result.row["blame"])
        if done.audio is not None:
            scores = [*one_by_one(worker, done.audio), *done.figures]
            self._store.write_scores(cell.cell_id, scores, done.legacy)
        return done


@contextmanager
def virtual_matrix(
    directory: Path,
    scratch: Path,
    cells: Sequence[Cell],
    references: Mapping[str, Prepared],
    assets: Mapping[str, Path | Unsupported],
    compute: str,
    measures: tuple[Measure, ...],
    e_model: bool,
    legacy: tuple[str, ...],
    jobs: int,
) -> Iterator[VirtualMatrix]:
    """The matrix of ``cells`` for the run in ``directory``; references are laid out in
    ``scratch`` meanwhile."""
    with TemporaryDirectory(dir=scratch) as folder:
        files = {}
        for number, (item, reference) in enumerate(references.items()):
            path = Path(folder) / f"{number}.npy"
            np.save(path, reference.pcm)
            files[item] = (replace(reference, pcm=_NO_SAMPLES), path)
        networks = {
            network.name: network
            for cell in cells
            for network in (cell.network, *(branch.network for branch in cell.branches))
        }
        shared = Shared(
            directory=directory,
            references=files,
            networks=networks,
            assets=assets,
            compute=compute,
            profile=profile_path(),
            measures=measures,
            e_model=e_model,
            legacy=legacy,
        )
        with VirtualMatrix(shared, jobs) as matrix:
            yield matrix


def _row(cell: Cell, shared: Shared) -> dict[str, Any]:
    """What is known of a cell beforehand; no wall clock has a place in it."""
    return {**describe(cell, NAME, ENGINE), "compute": shared.compute, "started_utc": None}


def _identified(row: Mapping[str, Any], cell: Cell, shared: Shared) -> dict[str, Any]:
    """The row with the samples that the cell is about."""
    reference, _ = shared.references[cell.item.id]
    return {**row, "reference_sha256": reference.sha256}


def _with_networks(cell: Cell, get: Callable[[NetworkEntry], NetworkEntry]) -> Cell:
    branches = tuple(replace(one, network=get(one.network)) for one in cell.branches)
    return replace(cell, network=get(cell.network), branches=branches)


# -- in a worker -----------------------------------------------------------------------------------

_shared: Shared


def _begin(shared: Shared) -> None:
    global _shared
    _shared = shared


def run_cell(sent: Cell) -> Done:
    """Simulate, write down and score."""
    cell, result = _written(sent)
    if result.audio:
        task = AudioTask(
            *result.audio["reference"],
            result.audio["media"][0],
            result.audio["played"][0],
            cell.item.kind,
            result.row["weights"],
            json.loads(result.row["codec_facts"]),
            _reference_tracks(cell.item.id, len(result.audio["reference"][0])),
            cell.codec.codec,
            _shared.assets,
        )
        figures, legacy = _figures(cell, result)
        scores = [*score_audio(task, _shared.measures), *figures]
        _store().write_scores(cell.cell_id, scores, legacy)
    return _done(result)


def stream_cell(sent: Cell) -> Done:
    """Simulate and write down; scoring is the caller's."""
    cell, result = _written(sent)
    done = _done(result)
    if not result.audio:
        return done
    columns = ["audio_reference", "audio_media", "audio_played"]
    (row,) = next(_store().batches("cells", [cell.cell_id], columns)).to_pylist()
    reference, media, played = (_shared.directory / row[column] for column in columns)
    task = ScoreTask(
        cell.cell_id,
        reference,
        media,
        played,
        cell.item.kind,
        result.row["weights"],
        json.loads(result.row["codec_facts"]),
        _shared.measures,
        cell.codec.codec,
        _shared.assets,
    )
    figures, legacy = _figures(cell, result)
    return done._replace(audio=task, figures=tuple(figures), legacy=tuple(legacy))


def _written(sent: Cell) -> tuple[Cell, CellResult]:
    """The cell, simulated and on disk; its audio with the reference among it."""
    cell = _with_networks(sent, lambda network: _shared.networks[network.name])
    row = _row(cell, _shared)
    try:
        result = _simulated(cell, row)
    except HarnessError as error:
        result = without_streaming(row, error)
    row = _identified(result.row, cell, _shared)
    _store().write_cell(row, result.packets, result.frames, result.audio)
    return cell, result


def _done(result: CellResult) -> Done:
    return Done(*(result.row[key] for key in ("status", "reason", "blame")))


def _simulated(cell: Cell, row: dict[str, Any]) -> CellResult:
    """Raises CellFailed, Unsupported, BadInput."""
    codec, cost = _codec(cell.codec.codec, cell.codec.params)
    facts = codec.facts
    pcm = _pcm(cell.item.id, facts.sample_rate_hz)
    listeners = cell.listeners if hears_others(cell) else (cell,)
    mine = listeners.index(cell)
    met = impaired_alike(listeners, facts, pcm, _reference(cell.item.id).duration_ns)
    stream = Stream(
        codec=codec,
        pcm=met[mine].pcm,
        pair=met[mine].pair,
        receiver=cell.receiver.settings,
        transport=cell.transport.settings,
        stream_id=cell.stream_id,
        seed=cell.seed,
        compute=cost,
        stop_ns=longest_ns(cell, facts, met[mine]),
        sender=cell.transport.sender,
        assets=_paths(cell.receiver.settings.required_assets),
        sender_seed=cell.sender_seed,
    )
    with blamed_on(f"codec {cell.codec.codec} over {stream.transport.transport}"):
        if len(listeners) > 1:
            branches = [
                replace(stream, pair=one.pair, seed=listener.seed)
                for listener, one in zip(listeners, met, strict=True)
            ]
            observed = simulate_broadcast(branches, mine)
        else:
            observed = simulate(stream, _beside(cell, stream, facts))
    result = written_up(cell, row, facts, met[mine], observed)
    reference = _reference(cell.item.id)
    track = (until(reference, result.row["media_s"]), reference.rate_hz)
    return replace(result, audio={**result.audio, "reference": track})


def _beside(cell: Cell, stream: Stream, facts: CodecFacts) -> list[Stream]:
    """The tracks that share its link."""
    return [
        replace(
            stream,
            pcm=track.pcm(stream.pcm),
            stream_id=track.stream_id,
            seed=track.seed,
            sender_seed=track.seed,
            start_ns=track.start_ns,
        )
        for track in tracks_of(cell, facts, len(stream.pcm))
    ]


def _figures(cell: Cell, result: CellResult) -> tuple[list[Score], list[Legacy]]:
    """What needs no audio: scores, and what older systems would have printed."""
    scores = network_scores(result.packets, result.frames, result.row)
    decided_ns: list[int] = []
    if _shared.e_model:
        concealment = cell.receiver.settings.concealment
        scores += emodel.planning_scores(result.frames, result.row, concealment)
    if cell.receiver.sink is not None:
        played = Played(
            *result.audio["played"],
            result.frames,
            json.loads(result.row["codec_facts"]),
            *result.audio["reference"],
        )
        outcome = run_sink(cell.receiver.sink.settings, played, cell.seed, _shared.compute)
        _store().write_decisions(cell.cell_id, outcome.decisions)
        scores += outcome.scores
        decided_ns = outcome.decided_ns
    told = (result.packets, result.frames, result.row, scores, decided_ns)
    return scores, legacy_rows(_shared.legacy, *told)


@lru_cache(maxsize=_KEPT_CODECS)
def _made(kind: str, params: Params) -> tuple[Codec, Compute] | HarnessError:
    try:
        with blamed_on(f"codec {kind}"):
            needed = codecs.module(kind).required_assets(params)
            codec = codecs.create(kind, params, _paths(needed))
        return codec, compute(_shared.compute, kind, params, codec, load(_shared.profile))
    except HarnessError as error:
        return error


def _codec(kind: str, params: Params) -> tuple[Codec, Compute]:
    """A configured codec and its cost; loading weights once per worker is enough."""
    made = _made(kind, params)
    if isinstance(made, HarnessError):
        raise made
    return made


def _paths(names: Sequence[str]) -> dict[str, Path]:
    """Verified files of these weights. Raises Unsupported where one is not to be had."""
    paths = {}
    for name in names:
        found = _shared.assets[name]
        if isinstance(found, Unsupported):
            raise found
        paths[name] = found
    return paths


@lru_cache(maxsize=_KEPT_REFERENCES)
def _reference(item: str) -> Prepared:
    prepared, samples = _shared.references[item]
    return replace(prepared, pcm=np.load(samples))


@lru_cache(maxsize=_KEPT_REFERENCES)
def _reference_tracks(item: str, samples: int) -> Tracks:
    """Of the first so many samples of a reference."""
    reference = _reference(item)
    return reference_tracks(reference.pcm[:samples], reference.rate_hz)


@lru_cache(maxsize=_KEPT_REFERENCES)
def _pcm(item: str, rate_hz: int) -> Pcm:
    return resampled(_reference(item), rate_hz)


@lru_cache(maxsize=1)
def _store() -> RunStore:
    return RunStore.open(_shared.directory)

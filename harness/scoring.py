"""Scoring after streaming: the cells of the labs with sockets, on all cores; sinks one by one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import as_completed
from typing import Any

from harness.runners import Observer, Weights
from harness.scenario import Scenario
from harness.score import emodel
from harness.score.legacy import legacy_rows
from harness.score.network import network_scores
from harness.score.pool import Scorer, ScoreTask
from harness.score.quality import measures
from harness.sinks.task import Outcome as Decided
from harness.sinks.task import read, run_sink
from harness.store import RunStore


def score_cells(store: RunStore, wanted: Scenario, weights: Weights, observer: Observer) -> None:
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

"""Does the report claim what is not there, and find what is? Null runs and a planted difference.

The same codec under ten names in the virtual lab, each with losses of its own: nothing that the
verdict claims of them is true. 200 matrices of 12 utterances, PESQ-WB as played. (Under the same
losses all ten are equal to the last bit, and there is nothing to claim by mistake.) Then one of the
ten is made better by what :mod:`harness.stats.simulated`, shown a pilot of other cells, says that
12 utterances find in 80 % of the runs. Cells are simulated and scored as the lab does it, without
writing them down.

``make bench`` streams 80 cells of each utterance, and the matrices draw from them.
``python -m tests.bench.bench_claims --cells N`` streams N of each; with 2,100 of them, 2 to 3 hours
of one core, no two matrices share a cell, nor does the pilot with them. ``--save`` and ``--scores``
part the streaming from the counting.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

from harness import codecs
from harness.cell import packet_clock
from harness.media.settings import ReceiverSettings
from harness.network.fitting import fit
from harness.network.link import Link, LinkPair, MediaTimeLoss
from harness.network.trace import TAIL_NS, draw
from harness.report import tables
from harness.report.differences import differences
from harness.report.verdicts import Verdict, verdicts
from harness.score.quality import MEASURES, AudioTask, score_audio
from harness.stats.simulated import RUNS, Spread, share_found, spread_of
from harness.store import Tables, schema
from harness.store.tables import from_rows, to_pandas
from harness.transports.base import TransportSettings
from harness.units import NS_PER_MS, NS_PER_S
from harness.virtual.compute import Zero
from harness.virtual.simulate import Stream, simulate
from tests.labs.conftest import voice

MATRICES = 200
NAMES = tuple(f"name-{number}" for number in range(10))
SHOWN = [
    tables.BY_KEY[key] for key in ("pesq_wb_played", "pesq_wb", "delay_p95", "wire", "missing")
]
"""All that a verdict shows."""
PAIRS = list(itertools.combinations(NAMES, 2))
UTTERANCES = 12
EVENTS = 80
"""Cells of each utterance, where matrices share them."""
PILOT = 10
"""Matrices that a difference is promised from."""
SECONDS = 4.5
"""Enough for the 3.2 s of active speech that PESQ wants."""
RATE_HZ = 16_000
POWER = 0.8
LINK = Link(delay_ns=20 * NS_PER_MS, loss=MediaTimeLoss(0.1, 60 * NS_PER_MS))


class Task(NamedTuple):
    utterance: int
    event: int
    """Number of the losses that it meets."""

    @property
    def seed(self) -> int:
        return self.event * UTTERANCES + self.utterance


def measure() -> dict[str, str]:
    return figures(all_scores(EVENTS))


def all_scores(events: int) -> NDArray[np.float64]:
    """PESQ-WB of that many cells of each utterance, shape (utterances, events)."""
    tasks = [Task(*one) for one in itertools.product(range(UTTERANCES), range(events))]
    with multiprocessing.get_context("spawn").Pool(len(os.sched_getaffinity(0))) as pool:
        return np.reshape(pool.map(streamed, tasks, chunksize=20), (UTTERANCES, events))


def figures(scores: NDArray[np.float64]) -> dict[str, str]:
    pilot, matrices = in_parts(scores)
    false = sum(claims(verdict(one)) for one in matrices)
    against = sum(bool(differences(one, NAMES[0])["told_apart"].any()) for one in matrices)
    delta = promised(pilot)
    found = sum(told_apart(planted(one, delta)) for one in matrices)
    return {
        "matrices x names x utterances": f"{len(matrices)} x {len(NAMES)} x {UTTERANCES}",
        "PESQ-WB as played, mean and standard deviation": (
            f"{np.mean(scores):.2f}, {np.std(scores):.2f}"
        ),
        "verdict claims a difference (aim <= 5 %)": share(false, len(matrices)),
        "differences to the first claim one (aim <= 5 %)": share(against, len(matrices)),
        f"planted: {delta:.3f}, promised in {POWER:.0%} of the runs": share(found, len(matrices)),
    }


def streamed(task: Task) -> float:
    """PESQ-WB as played of G.711 over loss of the task's own."""
    track = np.tile(voice(SECONDS / 3, RATE_HZ, task.utterance), 3)  # without its long pauses
    pcm = np.round(track * 32_767).astype(np.int16)
    codec = codecs.create("g711", codecs.params_class("g711").model_validate({}), {})
    facts = codec.facts
    narrow = pcm[:: RATE_HZ // facts.sample_rate_hz]
    trace = draw(LinkPair(LINK, Link()), task.seed, int(SECONDS + 2) * NS_PER_S + TAIL_NS)
    seen = simulate(
        Stream(
            codec,
            narrow,
            fit(trace, packet_clock(facts, len(narrow))),
            ReceiverSettings(),
            TransportSettings(),
            1,
            task.seed,
            Zero(),
        )
    )
    audio = AudioTask(
        pcm,
        RATE_HZ,
        seen.media,
        seen.played,
        "speech",
        "none",
        {"sample_rate_hz": facts.sample_rate_hz, "delay_samples": facts.delay_samples},
    )
    [pesq] = score_audio(audio, [m for m in MEASURES if (m.mode, m.track) == ("wb", "played")])
    assert pesq["value"] is not None, pesq["reason"]
    return pesq["value"]


def in_parts(scores: NDArray[np.float64]) -> tuple[Spread, list[Tables]]:
    """The spread that a pilot shows, and 200 matrices; shape of ``scores``: (utterances, events).

    No two share a cell where there are enough; else the matrices draw from three quarters of the
    cells, and the pilot from the others.
    """
    runs = PILOT + MATRICES
    if scores.shape[1] >= runs * len(NAMES):
        parts = np.split(scores[:, : runs * len(NAMES)], runs, axis=1)
        return spread([as_run(one) for one in parts[:PILOT]]), list(map(as_run, parts[PILOT:]))
    pilot, rest = np.split(scores, [scores.shape[1] // 4], axis=1)
    return spread(list(drawn(pilot, PILOT))), list(drawn(rest, MATRICES))


def drawn(scores: NDArray[np.float64], matrices: int) -> Iterator[Tables]:
    """Runs with ten cells of each utterance, none twice in a run."""
    generator = np.random.default_rng(0)
    for _ in range(matrices):
        values = [generator.choice(row, len(NAMES), replace=False) for row in scores]
        yield as_run(np.stack(values))


def as_run(values: NDArray[np.float64]) -> Tables:
    """The tables of a run with these scores, shape (utterances, names)."""
    cells: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for (utterance, name), value in np.ndenumerate(values):
        cell_id = f"{name}-{utterance}"
        place = {"network": "n", "transport": "udp", "receiver": "r", "codec": NAMES[name]}
        block = {"utterance": f"u{utterance}", "block": f"b{utterance}", "repetition": 0}
        cells.append({"cell_id": cell_id, "status": "ok", **place, **block})
        key = {"metric": "pesq", "mode": "wb", "track": "played"}
        rows.append({"cell_id": cell_id, "value": float(value), **key})
    found = {"runs": [{"run_id": "claims"}], "cells": cells, "scores": rows}
    return Tables(**{of: to_pandas(from_rows(of, found.get(of, []))) for of in schema.TABLES})


def verdict(run: Tables) -> Verdict:
    (found,) = verdicts(run, tables.summarise(run, SHOWN), ["n"])
    return found


def claims(judged: Verdict) -> bool:
    """A verdict on what is alike says that something is worse than the best."""
    return bool(judged.beaten)


def spread(matrices: Sequence[Tables]) -> Spread:
    """Of the ten names, from all matrices as repetitions of one another."""
    rows = [
        tables.scored(run, tables.ranking(run)).assign(block=lambda t, n=n: t["block"] + f"-{n}")
        for n, run in enumerate(matrices)
    ]
    found = spread_of(pd.concat(rows, ignore_index=True))
    assert found is not None
    return found


def promised(of: Spread, runs: int = RUNS) -> float:
    """The difference that 12 utterances find with a probability of ``POWER``."""
    low, high = 0.0, 4.0
    for _ in range(10):
        middle = (low + high) / 2
        found = share_found(of, PAIRS, PAIRS[0], middle, UTTERANCES, 1, runs)
        low, high = (low, middle) if found >= POWER else (middle, high)
    return high


def planted(run: Tables, delta: float) -> Tables:
    """The same with the first name ``delta`` better."""
    better = set(run.cells.loc[run.cells["codec"] == NAMES[0], "cell_id"])
    scores = run.scores.assign(value=run.scores["value"])
    scores.loc[scores["cell_id"].isin(better), "value"] += delta
    return Tables(run.runs, run.cells, run.packets, run.frames, scores, run.legacy)


def told_apart(run: Tables) -> bool:
    """The verdict puts the first of the names before the second."""
    judged = verdict(run)
    return judged.best.name[2] == NAMES[0] and NAMES[1] in {one.name[2] for one in judged.beaten}


def share(count: int, of: int) -> str:
    """A share with its exact binomial interval (Clopper and Pearson 1934)."""
    low, high = binomtest(count, of).proportion_ci(0.95, "exact")
    return f"{count} of {of} = {count / of:.1%} [{low:.1%}, {high:.1%}]"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.bench_claims",
        description="False claims of null runs, and a planted difference.",
    )
    parser.add_argument(
        "--cells",
        type=int,
        default=EVENTS,
        help=f"of each utterance (default {EVENTS}); {(PILOT + MATRICES) * len(NAMES)} are enough"
        " that no two runs share one",
    )
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the scores (.npy)")
    parser.add_argument("--scores", type=Path, metavar="FILE", help="count these; stream nothing")
    asked = parser.parse_args()
    scores = np.load(asked.scores, allow_pickle=False) if asked.scores else all_scores(asked.cells)
    if asked.save:
        np.save(asked.save, scores)
    for figure, value in figures(scores).items():
        print(f"{figure:<58} {value}")


if __name__ == "__main__":
    main()

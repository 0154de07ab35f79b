"""How fast the virtual lab is: its own cost a frame, cells against the codec's and the metrics'
calls that they cannot do without, and a thousand cells with their memory.

Codec and metric calls are timed as they are made. Without scoring, a cell is what ``impaired``,
``simulate`` and ``written_up`` do, in one process, with a seed of its own each time
so that nothing drawn for one cell serves another. With scoring, the wall time of a whole run on
all cores is held against the calls that it makes, timed in as many processes at once, for cores
that are all busy are slower.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile

from harness import assets, codecs, scenario, store
from harness.cell import describe, impaired, longest_ns, written_up
from harness.codecs.base import Codec
from harness.plan import Cell, plan
from harness.run import Options, run
from harness.score import quality
from harness.units import NS_PER_S, samples_to_ns
from harness.virtual.compute import compute, warm_up
from harness.virtual.profile import load
from harness.virtual.simulate import Stream, simulate
from tests.bench.bench_matrix import _Silent
from tests.labs.conftest import voice

REPEATS = 5
CELLS = 1000
SECONDS = 9.0
"""Of voice; silence at both ends makes it 10 s."""
CODECS = """\
  - pcm
  - g711
  - opus
  - {codec: encodec, weights: random}
"""
NETWORKS = """\
  - clean
  - {name: lossy, forward: {delay: 20ms, loss: 5%}}
  - {name: jittery, forward: {delay: 60ms, jitter: 15ms, distribution: normal}}
  - {name: media-time, forward: {delay: 20ms, loss: {model: media-time, loss: 10%, burst: 80ms}}}
"""


class Stopwatch:
    """Time spent in the calls that it wraps; to ask for CPU time takes longer than some of them."""

    def __init__(self) -> None:
        self.spent_ns = 0

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            began_ns = time.perf_counter_ns()
            try:
                return call(*arguments, **named)
            finally:
                self.spent_ns += time.perf_counter_ns() - began_ns

        return timed


class Watched:
    """A codec, encoder or decoder whose calls are timed."""

    def __init__(self, inner: Any, watch: Stopwatch) -> None:
        self.facts = getattr(inner, "facts", None)
        for name in ("encode", "decode", "conceal", "recover"):
            if hasattr(inner, name):
                setattr(self, name, watch.around(getattr(inner, name)))
        self._inner, self._watch = inner, watch

    def encoder(self) -> Watched:
        return Watched(self._inner.encoder(), self._watch)

    def decoder(self) -> Watched:
        return Watched(self._inner.decoder(), self._watch)


def write(folder: Path, text: str) -> Path:
    """A scenario over the voice made in ``folder``."""
    path = folder / "bench.yaml"
    path.write_text(f"name: bench\ncontrols: false\ncorpus: [{{folder: audio}}]\n{text}")
    return path


def loaded(path: Path) -> tuple[scenario.Scenario, list[Cell], Any]:
    """A scenario, its cells and their references."""
    wanted = scenario.load(path)
    held = assets.AssetStore.default()
    items = assets.load_corpora(wanted.corpus, path.parent, held, lambda _: None).items
    return wanted, list(plan(wanted, items).cells), assets.prepare_all(items, held)


def made(cell: Cell) -> Codec:
    codec = codecs.create(cell.codec.codec, cell.codec.params, {})
    warm_up(codec)
    return codec


def streamed(cell: Cell, codec: Any, pcm: Any, cost: Any) -> Any:
    reference_ns = samples_to_ns(len(pcm), codec.facts.sample_rate_hz)
    met = impaired(cell, codec.facts, pcm, reference_ns)
    observed = simulate(
        Stream(
            codec=codec,
            pcm=met.pcm,
            pair=met.pair,
            receiver=cell.receiver.settings,
            transport=cell.transport.settings,
            stream_id=cell.stream_id,
            seed=cell.seed,
            compute=cost,
            stop_ns=longest_ns(cell, codec.facts, met),
        )
    )
    return written_up(cell, describe(cell, "virtual", "model"), codec.facts, met, observed)


def unscored(folder: Path) -> Iterator[tuple[str, str]]:
    """Per codec, over all networks: own cost a frame, real-time factor, cell over codec calls."""
    _, cells, references = loaded(
        write(folder, f"codecs:\n{CODECS}networks:\n{NETWORKS}transports: [udp]\n")
    )
    for name in sorted({cell.codec.name for cell in cells}):
        mine = [cell for cell in cells if cell.codec.name == name]
        inner = made(mine[0])
        cost = compute("profile", mine[0].codec.codec, mine[0].codec.params, inner, load())
        watch = Stopwatch()
        codec = Watched(inner, watch)
        pcm = assets.resampled(references[mine[0].item.id], inner.facts.sample_rate_hz)
        totals = []
        for round_number in range(REPEATS):
            watch.spent_ns = frames = 0
            began_ns = time.perf_counter_ns()
            for cell in mine:
                seeded = replace(cell, seed=cell.seed + round_number)
                frames += streamed(seeded, codec, pcm, cost).row["frames_total"]
            totals.append((time.perf_counter_ns() - began_ns, watch.spent_ns, frames))
        total_ns, codec_ns, frames = min(totals)
        own_us = (total_ns - codec_ns) / frames / 1000
        times_real = frames * inner.facts.frame_ns / total_ns
        heavy = mine[0].codec.codec == "encodec"  # after which Python finds every cache cold
        aim = "" if heavy else " (aim <= 60 us)"
        yield f"{name}: own cost a frame{aim}", f"{own_us:.1f} us"
        aim = " (aim >= 300)" if name == "pcm" else ""
        yield f"{name}: times real time on one core{aim}", f"{times_real:.0f}"
        if inner.facts.frame_samples and mine[0].codec.codec in ("opus", "encodec"):
            ratio = f"{total_ns / codec_ns:.2f}"
            yield f"{name}: cell / its codec calls (aim <= 1.2)", ratio


@contextmanager
def watched_memory() -> Iterator[list[int]]:
    """The largest resident memory, in bytes, of this process and its children together."""
    largest, stop = [0], threading.Event()

    def watch() -> None:
        me = psutil.Process()
        while not stop.wait(1.0):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            largest[0] = max(largest[0], total)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield largest
    finally:
        stop.set()
        thread.join()


def necessary_s(path: Path) -> float:
    """Time of the codec and metric calls of a scenario's average cell."""
    import pesq
    import pystoi

    scenario_read, cells, references = loaded(path)
    wanted = quality.measures(scenario_read.metrics)
    codec_watch, metric_watch = Stopwatch(), Stopwatch()
    before = pesq.pesq, pystoi.stoi
    codec_of: dict[str, Any] = {}
    try:
        for measured in (False, True):
            pesq.pesq = metric_watch.around(before[0]) if measured else before[0]
            pystoi.stoi = metric_watch.around(before[1]) if measured else before[1]
            codec_watch.spent_ns = 0
            for cell in cells:
                codec = codec_of.setdefault(cell.codec.name, Watched(made(cell), codec_watch))
                reference = references[cell.item.id]
                pcm = assets.resampled(reference, codec.facts.sample_rate_hz)
                cost = compute("zero", cell.codec.codec, cell.codec.params, codec, load())
                result = streamed(cell, codec, pcm, cost)
                tracks = (result.audio[name][0] for name in ("media", "played"))
                facts = {
                    "sample_rate_hz": codec.facts.sample_rate_hz,
                    "delay_samples": codec.facts.delay_samples,
                }
                task = quality.AudioTask(
                    reference.pcm, reference.rate_hz, *tracks, "speech", "none", facts
                )
                quality.score_audio(task, wanted)
    finally:
        pesq.pesq, pystoi.stoi = before
    return (codec_watch.spent_ns + metric_watch.spent_ns) / len(cells) / NS_PER_S


def scored(folder: Path) -> Iterator[tuple[str, str]]:
    """A run of a thousand cells, scored, against the calls that it cannot do without."""
    text = (
        "codecs: [pcm, g711, opus]\n"
        f"networks:\n{NETWORKS}transports: [udp]\nmetrics: [pesq-wb, stoi]\n"
    )
    path = write(folder, text)
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores, get_context("spawn")) as pool:
        needed_s = np.mean(list(pool.map(necessary_s, [path] * cores)))
    repetitions = -(-CELLS // len(loaded(path)[1]))
    write(folder, f"{text}repetitions: {repetitions}\n")
    with watched_memory() as largest:
        began = time.monotonic()
        outcome = run(Options(path, out=folder, lab="virtual", jobs=cores), _Silent())
        wall_s = time.monotonic() - began
    row = store.load(outcome.directory).runs.iloc[0]
    count = sum(outcome.statuses.values())
    calls_s = count * needed_s / cores
    yield (
        "cells of 10 s, PESQ-WB and STOI",
        ", ".join(f"{n} {status}" for status, n in outcome.statuses.items()),
    )
    yield (
        f"wall / (codec and metric calls / {cores} cores) (aim <= 1.15)",
        f"{row.stream_s:.0f} s / {calls_s:.0f} s = {row.stream_s / calls_s:.2f}",
    )
    yield f"times real time on {cores} cores (aim >= 50 on 2)", f"{row.audio_s / row.stream_s:.0f}"
    yield "whole run, report included (aim < 300 s on 2 cores)", f"{wall_s:.0f} s"
    yield "peak memory of all processes (aim < 2 GiB)", f"{largest[0] / 2**30:.2f} GiB"


def measure() -> dict[str, str]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "audio").mkdir()
        track = np.asarray(voice(SECONDS, 16_000, 1))
        soundfile.write(folder / "audio" / "buzz.wav", track, 16_000)
        return {**dict(unscored(folder)), **dict(scored(folder))}

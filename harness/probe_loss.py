"""How far one lost packet echoes, codec by codec: ``harness probe-loss``.

In the virtual lab each utterance is decoded once without loss, and once per chosen place with
exactly one packet lost: the one that carries that place's media, so that codecs with packets of 13
and of 60 ms lose the same syllable. What the loss did is :mod:`harness.score.damage`'s to say.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from harness import assets, codecs, scenario
from harness.cell import packet_clock
from harness.codecs.base import Codec, CodecFacts, Decoder, Pcm
from harness.endpoint.sender import frame_count
from harness.errors import BadInput, CellFailed, HarnessError, Unsupported
from harness.media.settings import ReceiverSettings
from harness.network.fitting import fit
from harness.network.link import Link
from harness.network.trace import Trace, Weather
from harness.records import Observed
from harness.report import write_report
from harness.report.propagation import CURVES, FACTS, SUMMARY, write_page
from harness.scenario import CodecEntry, Scenario, config_sha256
from harness.score.damage import (
    ACTIVE_DB,
    AUDIBLE_DB,
    BIN_S,
    Damage,
    damage,
    positions,
    speech_power,
    summarise,
)
from harness.score.pool import Worker, WorkerLost, Workers
from harness.store import RunStore, new_directory
from harness.store.provenance import run_facts
from harness.transports.base import TransportSettings
from harness.units import NS_PER_S
from harness.virtual.compute import Zero
from harness.virtual.simulate import Stream, simulate

HORIZON_S = 2.0
"""How long after the loss the sound is looked at."""
TIMEOUT_S = 900.0
_MARGIN_S = 0.2
_DEFAULT: dict[str, Any] = {
    "name": "probe-loss",
    "corpus": ["librispeech"],
    "codecs": [
        "pcm",
        "g711",
        "g722",
        {"codec": "opus", "name": "opus-24k", "bitrate": "24kbit"},
        {
            "codec": "opus",
            "name": "opus-24k-fec",
            "bitrate": "24kbit",
            "fec": True,
            "expected_loss": "10%",
        },
        {"codec": "aac", "name": "aac-64k", "bitrate": "64kbit"},
        {"codec": "encodec", "name": "encodec-6k", "bitrate": "6kbit"},
    ],
    "transports": ["udp"],
    "networks": ["clean"],
    "receivers": [{"name": "fixed-60", "jitter_buffer": {"mode": "fixed", "start": "60ms"}}],
}
"""What is probed where no scenario is given."""


@dataclass(frozen=True)
class Options:
    """What the command line says. ``codecs`` are names of entries (all if empty)."""

    scenario: Path | None = None
    codecs: tuple[str, ...] = ()
    utterances: int = 12
    positions: int = 4
    out: Path = Path("results")
    into: Path | None = None
    """A run that the tables are added to; its report is then drawn again."""
    jobs: int | None = None


class Observer(Protocol):
    """Who is told how far it is; the command line draws it."""

    def note(self, text: str) -> None: ...
    def phase(self, name: str, total: int) -> None: ...
    def step(self, text: str, *, trouble: bool = False) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """``skipped`` says by codec why it was not probed."""

    directory: Path
    page: Path
    summary: pd.DataFrame
    skipped: dict[str, str]


@dataclass(frozen=True)
class Task:
    """One codec on one utterance; ``places_ns`` are media times at which a packet is lost."""

    entry: CodecEntry
    weights: tuple[tuple[str, Path], ...]
    reference: assets.Prepared
    places_ns: tuple[int, ...]
    receiver: ReceiverSettings
    transport: TransportSettings
    concealing: tuple[tuple[str, Path], ...] = ()
    """Of the receiver's concealment."""


@dataclass(frozen=True)
class Loss:
    """One lost packet and what came of it."""

    weights: str
    position: int
    offset_ns: int
    damage: Damage


def probe_loss(options: Options, observer: Observer) -> Outcome:
    """Probe, write both tables and a page (or the run's report, with ``into``).

    Raises BadInput for what cannot be probed, AssetError, and the reason of the first codec where
    none runs here.
    """
    store = assets.AssetStore.default()
    wanted, base = _scenario(options.scenario, store)
    run = None if options.into is None else RunStore.open(options.into)
    corpus = assets.load_corpora(wanted.corpus, base, store, observer.note)
    speech = [item for item in corpus.items if item.kind == "speech"][: options.utterances]
    if corpus.warning:
        observer.note(corpus.warning)
    references = assets.prepare_all(speech, store)
    places = _places(references, options.positions, wanted.seed, observer)
    entries, skipped = _runnable(_chosen(wanted, options.codecs), store, options.scenario is None)
    receiver, transport = _settings(wanted, observer)
    concealing = _weights(receiver.required_assets, store)
    tasks = [
        Task(entry, weights, references[name], places[name], receiver, transport, concealing)
        for name in places
        for entry, weights in entries
    ]
    found: dict[tuple[str, str], list[Loss]] = {}
    observer.phase("probing", len(tasks))
    for task, answer in _answers(tasks, options.jobs or os.cpu_count() or 1):
        label = f"{task.entry.name}/{task.reference.item.id}"
        if isinstance(answer, str):
            skipped[task.entry.name] = answer
        else:
            found[task.entry.name, task.reference.item.id] = answer
        observer.step(label, trouble=isinstance(answer, str))
    probed = [entry for entry, _ in entries if entry.name not in skipped]
    if not probed:
        raise Unsupported("\n".join(f"{name}: {why}" for name, why in skipped.items()))
    curves, losses = _tables(probed, list(places), found)
    summary = summarise(losses)
    facts = {
        "config_sha256": config_sha256(wanted),
        "scenario": wanted.name,
        "seed": wanted.seed,
        "receiver": asdict(receiver),
        "transport": asdict(transport),
        "horizon_s": HORIZON_S,
        "audible_db": AUDIBLE_DB,
        "active_db": ACTIVE_DB,
        "corpus_warning": corpus.warning,
        "skipped": skipped,
        "items": {name: references[name].provenance() for name in places},
        **run_facts(),
    }
    stem = f"probe-loss-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    directory = new_directory(options.out, stem) if run is None else run.directory
    curves.to_parquet(directory / CURVES, compression="zstd", index=False)
    summary.to_parquet(directory / SUMMARY, index=False)
    (directory / FACTS).write_text(json.dumps(facts, indent=1), encoding="utf-8")
    page = write_page(directory)
    if run is not None:
        page = write_report(directory)
    return Outcome(directory, page, summary, skipped)


def probe(task: Task) -> list[Loss]:
    """One codec on one utterance, in this process: pure.

    Raises Unsupported, AssetError where the codec cannot be had, CellFailed where it breaks.
    """
    entry = task.entry
    codec = _codec(entry.codec, entry.params.model_dump_json(), task.weights)
    facts = codec.facts
    pcm = assets.resampled(task.reference, facts.sample_rate_hz)
    once = _Recorded(codec, pcm)
    whole = _decoded(task, once, pcm, None)
    power = speech_power(whole.media, facts.sample_rate_hz)
    if not power:
        raise CellFailed(f"{entry.name}: what it decodes is silent")
    found = []
    for position, place_ns in enumerate(task.places_ns):
        horizon = round(HORIZON_S * facts.sample_rate_hz)
        place = place_ns * facts.sample_rate_hz // NS_PER_S
        end = place + horizon + 2 * facts.frame_samples + facts.delay_samples
        hurt = _decoded(task, once, pcm[:end], place_ns)
        start = _lost_frame(hurt) * facts.frame_samples
        heard = slice(start, start + horizon)
        if not np.array_equal(whole.media[:start], hurt.media[:start]):
            raise CellFailed(f"{entry.name}: decodes differently before the loss")
        came = damage(whole.media[heard], hurt.media[heard], facts.sample_rate_hz, power)
        found.append(Loss(facts.weights, position, place_ns, came))
    return found


class _Recorded:
    """A codec whose payloads of one utterance are made already: no loss changes them."""

    def __init__(self, codec: Codec, pcm: Pcm) -> None:
        self._codec = codec
        encoder, size = codec.encoder(), codec.facts.frame_samples
        count = frame_count(len(pcm), codec.facts) + codec.facts.lookahead_frames
        padded = np.concatenate([pcm, np.zeros(max(0, count * size - len(pcm)), np.int16)])
        self._payloads = [encoder.encode(padded[n * size : (n + 1) * size]) for n in range(count)]

    @property
    def facts(self) -> CodecFacts:
        return self._codec.facts

    def encoder(self) -> _Replay:
        return _Replay(iter(self._payloads))

    def decoder(self) -> Decoder:
        return self._codec.decoder()


@dataclass(frozen=True)
class _Replay:
    payloads: Iterator[bytes | None]

    def encode(self, pcm: Pcm) -> bytes | None:  # noqa: ARG002
        return next(self.payloads)


def _decoded(task: Task, codec: Codec, pcm: Pcm, place_ns: int | None) -> Observed:
    """The stream over a link that loses the packet with the media at ``place_ns``, if any."""
    facts = codec.facts
    spells = () if place_ns is None else ((place_ns, place_ns + 1),)
    clock = packet_clock(facts, len(pcm))
    calm = Weather(((0, Link()),))
    audio_ns = len(pcm) * NS_PER_S // facts.sample_rate_hz
    pair = fit(Trace(replace(calm, spells=spells), calm, audio_ns), clock)
    stream = Stream(
        codec=codec,
        pcm=pcm,
        pair=pair,
        receiver=task.receiver,
        transport=task.transport,
        stream_id=1,
        seed=0,
        compute=Zero(),
        assets=dict(task.concealing),
    )
    return simulate(stream)


def _lost_frame(observed: Observed) -> int:
    """The one frame of which packets were lost. Raises CellFailed where it is not one."""
    sent, received = observed.sent_packets, observed.received_packets
    frames = np.unique(sent["frame"][~np.isin(sent["seq"], received["seq"])])
    if len(frames) != 1:
        raise CellFailed(f"expected packets of one frame to be lost, got {len(frames)} frames")
    return int(frames[0])


@lru_cache
def _codec(name: str, params: str, weights: tuple[tuple[str, Path], ...]) -> Codec:
    settings = codecs.params_class(name).model_validate_json(params)
    return codecs.create(name, settings, dict(weights))


# --- what is probed -------------------------------------------------------------------------------


def _scenario(path: Path | None, store: assets.AssetStore) -> tuple[Scenario, Path]:
    if path is None:
        return Scenario.model_validate(_DEFAULT), Path()
    return scenario.load(path, store.content), path.parent


def _chosen(wanted: Scenario, names: Sequence[str]) -> list[CodecEntry]:
    known = {entry.name: entry for entry in wanted.codecs}
    if unknown := [name for name in names if name not in known]:
        raise BadInput(
            f"--codec: expected names among {', '.join(known)}, got {', '.join(unknown)}"
        )
    return [entry for entry in wanted.codecs if not names or entry.name in names]


def _runnable(
    entries: Sequence[CodecEntry], store: assets.AssetStore, stand_in: bool
) -> tuple[list[tuple[CodecEntry, tuple[tuple[str, Path], ...]]], dict[str, str]]:
    """The entries with their weights, and why others cannot run. ``stand_in``: random weights take
    the place of real ones that are not to be had."""
    found, skipped = [], {}
    for entry in entries:
        needed = codecs.module(entry.codec).required_assets(entry.params)
        try:
            found.append((entry, _weights(needed, store)))
        except Unsupported as error:
            if stand_in:
                params = entry.params.model_copy(update={"weights": "random"})
                found.append((entry.model_copy(update={"params": params}), ()))
            else:
                skipped[entry.name] = str(error)
    return found, skipped


def _weights(names: Iterable[str], store: assets.AssetStore) -> tuple[tuple[str, Path], ...]:
    """Raises Unsupported where some are not to be had."""
    return tuple((name, store.weights(name)) for name in names)


def _places(
    references: dict[str, assets.Prepared], count: int, seed: int, observer: Observer
) -> dict[str, tuple[int, ...]]:
    found = {}
    for name, reference in references.items():
        last_s = reference.seconds - HORIZON_S - _MARGIN_S
        places = positions(reference.pcm, reference.rate_hz, count, f"{seed}/{name}", last_s)
        if places:
            found[name] = tuple(places)
        else:
            observer.note(f"{name}: no speech with {HORIZON_S:g} s after it; left out")
    if not found:
        raise BadInput(
            "expected a corpus with speech, of which some lies at least"
            f" {HORIZON_S + _MARGIN_S:g} s before the end of its item; got none"
        )
    return found


def _settings(wanted: Scenario, observer: Observer) -> tuple[ReceiverSettings, TransportSettings]:
    """The first receiver, with a fixed buffer so that nothing but the loss tells two decodings
    apart, and the first datagram transport."""
    first = wanted.receivers[0]
    if len(wanted.receivers) > 1 or first.settings.mode != "fixed":
        observer.note(f"receiver: {first.name}, with a fixed jitter buffer")
    datagrams = [one.settings for one in wanted.transports if one.transport == "udp"]
    return replace(first.settings, mode="fixed"), (datagrams or [TransportSettings()])[0]


# --- doing it -------------------------------------------------------------------------------------


def _answers(tasks: Sequence[Task], jobs: int) -> Iterator[tuple[Task, list[Loss] | str]]:
    """Each task with its losses, or with the reason why there are none, as they come."""
    with Workers(min(jobs, len(tasks)), "probe") as workers:
        waiting = {workers.submit_to_one(_probed, task): task for task in tasks}
        for future in as_completed(waiting):
            yield waiting[future], future.result()


def _probed(worker: Worker, task: Task) -> list[Loss] | str:
    try:
        return worker.call(probe, task, TIMEOUT_S)
    except (HarnessError, WorkerLost) as error:
        return str(error)


def _tables(
    entries: Sequence[CodecEntry],
    utterances: Sequence[str],
    found: dict[tuple[str, str], list[Loss]],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Damage over time (``probe_loss.parquet``), and one row per loss."""
    curves, losses = [], []
    for entry in entries:
        for utterance in utterances:
            for loss in found[entry.name, utterance]:
                row = {
                    "codec": entry.name,
                    "codec_kind": entry.codec,
                    "params": entry.params.model_dump_json(),
                    "weights": loss.weights,
                    "utterance": utterance,
                    "position": loss.position,
                    "offset_ms": loss.offset_ns / 1e6,
                }
                curve = loss.damage.curve_db
                t_ms = np.arange(len(curve)) * BIN_S * 1000
                curves.append(pd.DataFrame({**row, "t_ms": t_ms, "damage_db": curve}))
                times = ("depth_db", "recover_ms", "near_ms", "exact_ms")
                losses.append({**row, **{name: getattr(loss.damage, name) for name in times}})
    numbers = {name: np.float64 for name in ("depth_db", "recover_ms", "near_ms", "exact_ms")}
    return pd.concat(curves, ignore_index=True), pd.DataFrame(losses).astype(numbers)

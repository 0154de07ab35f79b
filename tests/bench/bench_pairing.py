"""What the same network in media time is worth: runs needed to tell two codecs 0.1 PESQ apart.

PCM in EnCodec's packets (13.3 ms, 24 kHz) against Opus in packets of 60 ms, at 10 % loss in bursts
of 80 ms, over the same utterances and with the same concealment by pitch (with Opus' own, which
does well on some bursts and badly on others, the ratio is some 15 % lower). The need is that of a
z test of two-sided level 5 % and power 80 % (Cohen 1988, 2.4): n = (1.96 + 0.84)^2 * variance /
0.1^2, the variance being that of the paired difference, or the sum of both codecs' own where each
run meets a network of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import zlib
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness import assets, codecs
from harness.assets import AssetStore, Prepared
from harness.cell import packet_clock
from harness.codecs.base import Codec, CodecFacts
from harness.codecs.pcm import PcmCodec
from harness.media.settings import ReceiverSettings
from harness.network.fitting import fit
from harness.network.link import Hits, Link, LinkPair, MediaTimeLoss
from harness.network.trace import TAIL_NS, draw
from harness.records import Outcome
from harness.scenario import CorpusEntry
from harness.score.quality import MEASURES, AudioTask, score_audio
from harness.stats.resample import drawn, tails
from harness.transports.base import TransportSettings
from harness.units import NS_PER_MS, NS_PER_S
from harness.virtual.compute import Zero
from harness.virtual.simulate import Stream, simulate

SEEDS = 8
DELTA = 0.1
Z = 1.960 + 0.842
SHORT, LONG = "PCM 13.3 ms", "Opus 60 ms"
GRID_NS = NS_PER_S // 600
"""Both packet intervals are multiples of it."""
References = Mapping[str, Prepared]


class Task(NamedTuple):
    utterance: str
    seed: int
    codec: str
    hits: Hits


class Result(NamedTuple):
    pesq: float
    lost: NDArray[np.bool_]
    """Per step of GRID_NS of media time."""


def measure() -> dict[str, str]:
    store = AssetStore.default()
    corpus = assets.load_corpora([CorpusEntry(corpus="librispeech")], Path(), store, print)
    references = {ref.item.id: ref for ref in assets.prepare_all(set(corpus.items), store).values()}
    tasks = [
        Task(*one) for one in product(references, range(SEEDS), (SHORT, LONG), ("media", "instant"))
    ]
    with multiprocessing.get_context("spawn").Pool(
        len(os.sched_getaffinity(0)), _remember, (references,)
    ) as pool:
        results = dict(zip(tasks, pool.map(_run, tasks, chunksize=4), strict=True))
    found = {
        "utterances x seeds": f"{len(references)} x {SEEDS}"
        + (f" ({corpus.warning})" if corpus.warning else "")
    }
    for hits in ("media", "instant"):
        short, long = (
            np.concatenate([r.lost for task, r in results.items() if task[2:] == (codec, hits)])
            for codec in (SHORT, LONG)
        )
        both = (short & long).sum()
        pesq = pd.DataFrame(
            [(*task[:3], r.pesq) for task, r in results.items() if task.hits == hits],
            columns=["utterance", "seed", "codec", "pesq"],
        ).pivot(index=["utterance", "seed"], columns="codec", values="pesq")
        alone, paired = _needs(pesq)
        low, high = _interval(pesq)
        shares = f"{short.mean():.1%}, {long.mean():.1%}"
        found |= {
            f"{hits}: media time lost to {SHORT}, to {LONG}": shares,
            f"{hits}: lost to {SHORT}, lost to {LONG} too": f"{both / short.sum():.1%}",
            f"{hits}: correlation of PESQ-WB": f"{pesq.corr().iloc[0, 1]:.2f}",
            f"{hits}: runs per codec for {DELTA} PESQ, independent": f"{alone:.0f}",
            f"{hits}: ... with the same network": f"{paired:.0f}",
            f"{hits}: ratio [95 %]": f"{alone / paired:.1f} [{low:.1f}, {high:.1f}]",
        }
    return found


def _needs(pesq: pd.DataFrame) -> tuple[float, float]:
    """Runs per codec with independent networks, and with the same."""
    factor = (Z / DELTA) ** 2
    return factor * pesq.var().sum(), factor * pesq[LONG].sub(pesq[SHORT]).var()


def _interval(pesq: pd.DataFrame) -> tuple[float, float]:
    rows = [pesq.loc[[name]] for name in pesq.index.unique("utterance")]
    ratios = []
    for picks in drawn(len(rows)):
        alone, paired = _needs(pd.concat([rows[pick] for pick in picks]))
        ratios.append(alone / paired)
    low, high = np.quantile(ratios, tails(len(rows)))
    return float(low), float(high)


_references: dict[str, Prepared] = {}


def _remember(references: References) -> None:
    _references.update(references)


def _codec(name: str) -> Codec:
    if name == SHORT:
        return PcmCodec(CodecFacts(24_000, 320, 0, 0, 384_000, "numpy"))
    params = codecs.params_class("opus").model_validate({"bitrate": 24_000, "frame": 60_000_000})
    return codecs.create("opus", params, {})


def _run(task: Task) -> Result:
    codec, reference = _codec(task.codec), _references[task.utterance]
    facts = codec.facts
    pcm = assets.resampled(reference, facts.sample_rate_hz)
    link = Link(delay_ns=20 * NS_PER_MS, loss=MediaTimeLoss(0.1, 80 * NS_PER_MS, task.hits))
    seconds = int(reference.seconds) + 1
    block = zlib.crc32(f"{task.utterance} {task.seed}".encode())
    trace = draw(LinkPair(link, Link()), block, seconds * NS_PER_S + TAIL_NS)
    clock = packet_clock(facts, len(pcm))
    settings = ReceiverSettings(mode="fixed", concealment="pitch")
    stream = Stream(
        codec, pcm, fit(trace, clock), settings, TransportSettings(), 1, task.seed, Zero()
    )
    seen = simulate(stream)
    audio = AudioTask(
        reference.pcm,
        reference.rate_hz,
        seen.media,
        seen.played,
        "speech",
        "none",
        {"sample_rate_hz": facts.sample_rate_hz, "delay_samples": facts.delay_samples},
    )
    [pesq] = score_audio(audio, [m for m in MEASURES if (m.mode, m.track) == ("wb", "media")])
    assert pesq["value"] is not None, pesq["reason"]
    lost = seen.link_log["outcome"] == Outcome.LOST
    edges_ns = np.arange(clock.frames + 1) * facts.frame_ns - facts.algorithmic_delay_ns
    edges_ns += facts.frame_ns  # of the media that each packet carries
    grid = np.arange(0, seconds * NS_PER_S, GRID_NS) + GRID_NS // 2
    of = np.searchsorted(edges_ns, grid, side="right") - 1
    inside = (of >= 0) & (of < len(lost))
    return Result(pesq["value"], inside & lost[np.clip(of, 0, len(lost) - 1)])

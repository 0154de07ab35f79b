"""``harness profile``: measure what every codec's calls cost on this machine.

Calls are made at the pace of a live stream, for a codec that sleeps between frames finds cold
caches and a slow clock: a frame of Opus takes 1.5 to 2 times as long as in a loop. The time of a
call is the CPU time of its thread, so that what else the machine does meanwhile does not count.
Frames are those of real speech; one in ten is concealed and, where the codec can, recovered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np

from harness import assets, codecs, scenario
from harness.codecs.base import Codec, Params, Pcm
from harness.errors import Unsupported
from harness.store.provenance import host_facts, versions
from harness.units import NS_PER_S
from harness.virtual.compute import warm_up
from harness.virtual.profile import LEVELS, ROLES, Profile, Record, Role, dump, load

P = ParamSpec("P")
R = TypeVar("R")
Resample = Callable[[int], Pcm]
"""The speech to code at a sampling rate."""
Weights = Callable[[str], Path]
"""The file of an asset. Raises Unsupported."""
Matters = Mapping[str, tuple[str, ...]]
_MS = 1_000_000
_LOST_EVERY = 10
_MEASURED_S = 3
_FRAMES = 100
"""At least, and 3 s of each codec's stream are measured."""

MATTERS: Matters = {
    "pcm": ("rate", "frame"),
    "g711": ("frame",),
    "g722": ("frame",),
    "opus": ("rate", "bitrate", "frame", "application", "complexity", "fec", "deep_plc", "dred"),
    "aac": ("rate", "bitrate"),
    "aac-blocks": ("rate", "bitrate", "block_samples"),
    "mp3": ("rate", "bitrate"),
    "flac": ("rate", "frame", "compression"),
    "amr-nb": ("bitrate",),
    "amr-wb": ("bitrate",),
    "sbc": ("rate", "bitrate"),
    "lc3": ("rate", "bitrate", "frame"),
    "speex": ("rate", "bitrate", "complexity"),
    "gsm": (),
    "codec2": ("bitrate",),
    "encodec": ("bitrate",),
    "encodec-chunks": ("bitrate", "chunk", "overlap", "lm"),
    "encodec-48k": ("bitrate", "chunk", "overlap"),
    "lyra": ("bitrate",),
}
"""Per codec, the parameters that its cost depends on."""


def usual() -> Iterator[tuple[str, dict[str, Any]]]:
    """The configurations that the shipped profile has: each codec along what matters most."""
    for frame_ms in (10, 20, 40, 60):
        yield "pcm", {"frame": frame_ms * _MS}
        yield "g711", {"frame": frame_ms * _MS}
        yield "g722", {"frame": frame_ms * _MS}
    for rate in (8_000, 24_000, 48_000):
        yield "pcm", {"rate": rate}
    for rate, bitrate in ((16_000, 32_000), (24_000, 48_000), (48_000, 64_000), (48_000, 128_000)):
        yield "aac", {"rate": rate, "bitrate": bitrate}
    yield "aac", {"rate": 12_000, "bitrate": 72_000}
    yield "aac-blocks", {}
    for rate, bitrate in ((48_000, 64_000), (16_000, 32_000)):
        yield "mp3", {"rate": rate, "bitrate": bitrate}
    for kind in ("flac", "amr-nb", "amr-wb", "sbc", "speex", "gsm", "codec2"):
        yield kind, {}
    for frame in (5 * _MS, 7_500_000, 10 * _MS):
        yield "lc3", {"frame": frame}
    yield "lc3", {"rate": 48_000, "bitrate": 96_000}
    for bitrate in (3_200, 6_000, 9_200):
        yield "lyra", {"bitrate": bitrate}
    for overlap in (0, 60, 600, 3_000):
        yield "encodec-chunks", {"bitrate": 12_000, "overlap": overlap, "weights": "random"}
    yield "encodec-48k", {"weights": "random"}
    yield "opus", {"deep_plc": True}
    yield "opus", {"dred": 1000 * _MS, "expected_loss": 0.3}
    for bitrate in (1_500, 3_000, 6_000, 12_000, 24_000):
        yield "encodec", {"bitrate": bitrate, "weights": "random"}
    for application, rates, frames_ms in (
        ("voip", (8_000, 16_000, 48_000), (10, 20, 60)),
        ("audio", (16_000, 48_000), (10, 20, 60)),
        ("lowdelay", (16_000, 48_000), (5, 10, 20)),
    ):
        for rate in rates:
            for frame_ms in frames_ms:
                for complexity in (0, 5, 10):
                    for fec in (False, True) if application != "lowdelay" else (False,):
                        yield (
                            "opus",
                            {
                                "application": application,
                                "rate": rate,
                                # With the least effort, FEC needs more than the default bitrate.
                                "bitrate": 32_000 if fec and not complexity else 24_000,
                                "frame": frame_ms * _MS,
                                "complexity": complexity,
                                "fec": fec,
                                "expected_loss": 0.1 if fec else 0.0,
                            },
                        )
    for rate, bitrate in ((16_000, 12_000), (16_000, 64_000), (48_000, 64_000), (48_000, 128_000)):
        yield "opus", {"rate": rate, "bitrate": bitrate}


def record(
    profile: Profile,
    configured: Iterable[tuple[str, Params]],
    speech: Resample,
    weights: Weights,
    note: Callable[[str], None],
) -> Profile:
    """``profile`` with these codecs measured anew. One that cannot run here is noted and left."""
    records = {_key(one.kind, one.params): one for one in profile.records}
    for kind, params in configured:
        try:
            assets = {name: weights(name) for name in codecs.module(kind).required_assets(params)}
            codec = codecs.create(kind, params, assets)
        except Unsupported as error:
            note(f"{kind}: {error}")
            continue
        dumped = params.model_dump()
        matters = {name: dumped[name] for name in MATTERS.get(kind, tuple(dumped))}
        note(f"{kind} {matters}")
        records[_key(kind, matters)] = Record(
            kind,
            matters,
            codec.facts.frame_ns,
            _measured(codec, speech(codec.facts.sample_rate_hz)),
        )
    return replace(profile, records=tuple(records.values()))


def _key(kind: str, params: Mapping[str, Any]) -> str:
    return f"{kind} {sorted(params.items())}"


def _measured(codec: Codec, pcm: Pcm) -> dict[Role, tuple[int, ...]]:
    """Quantiles of the time of each call."""
    facts = codec.facts
    warm_up(codec)
    encoder, decoder = codec.encoder(), codec.decoder()
    taken: dict[Role, list[int]] = {role: [] for role in ROLES}

    def timed(role: Role, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        began_ns = time.thread_time_ns()
        result = call(*args, **kwargs)
        taken[role].append(time.thread_time_ns() - began_ns)
        return result

    wanted = max(_FRAMES, _MEASURED_S * NS_PER_S // facts.frame_ns)
    count = min(wanted, len(pcm) // facts.frame_samples)
    half_s = facts.frame_ns / 2 / NS_PER_S
    lost = False
    for number, frame in enumerate(pcm[: count * facts.frame_samples].reshape(count, -1)):
        time.sleep(half_s)
        payload = timed("encode", encoder.encode, frame)
        time.sleep(half_s)
        if payload is None:
            continue
        if lost and timed("recover", decoder.recover, payload) is None:
            timed("conceal", decoder.conceal)
        lost = number % _LOST_EVERY == _LOST_EVERY - 1
        if not lost:
            timed("decode", decoder.decode, payload)
    if not taken["conceal"]:  # every lost frame was recovered
        for _ in range(max(1, count // _LOST_EVERY)):
            time.sleep(half_s)
            timed("conceal", decoder.conceal)
    return {role: _quantiles(times) for role, times in taken.items()}


def _quantiles(times_ns: list[int]) -> tuple[int, ...]:
    return tuple(round(ns) for ns in np.quantile(times_ns, LEVELS))


def record_here(files: Sequence[Path], out: Path, note: Callable[[str], None]) -> Profile:
    """Measure the usual configurations, or those of scenario ``files``, and write ``out``.

    What ``out`` already knew and was not measured stays; a new one has the overheads of the profile
    that is shipped.
    Raises BadInput for a scenario or profile that is none, AssetError where there is no speech.
    """
    store = assets.AssetStore.default()
    corpus = assets.load_corpora(
        (scenario.CorpusEntry(corpus="librispeech", limit=2),), Path(), store, note
    )
    speech = [assets.prepare(item, store) for item in corpus.items]

    def at(rate_hz: int) -> Pcm:
        silence = assets.SILENCE_NS * rate_hz // NS_PER_S
        return np.concatenate([assets.resampled(item, rate_hz)[silence:] for item in speech])

    configured = [
        (entry.codec, entry.params) for path in files for entry in scenario.load(path).codecs
    ] or [(kind, codecs.params_class(kind)(**params)) for kind, params in usual()]
    known = load(out) if out.exists() else Profile({}, load().overheads, ())
    here = {
        "recorded": datetime.now(UTC).date().isoformat(),
        **{name: host_facts()[name] for name in ("cpu", "kernel", "machine")},
        "versions": {
            name: version
            for name, version in versions().items()
            if name in ("python", "numpy", "av", "torch", "encodec")
        },
        "speech": [item.id for item in corpus.items],
        "overheads": "PCM over UDP at 20 ms, medians between two network namespaces",
    }
    made = replace(record(known, configured, at, store.weights, note), provenance=here)
    out.write_text(dump(made), encoding="utf-8")
    return made

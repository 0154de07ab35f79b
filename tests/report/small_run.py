"""A small run on disk, written through the store: invented streams, real tables."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from harness.codecs.base import CodecFacts
from harness.network.link import Change, GilbertElliott, Link, LinkPair, MediaTimeLoss, Rate
from harness.network.link_json import link_to_json
from harness.network.trace import semantics
from harness.score.network import network_scores
from harness.score.quality import MEASURES
from harness.store import RunStore, Tables, schema
from harness.store.tables import from_rows, to_pandas
from harness.units import NS_PER_MS, NS_PER_S

NOW = datetime(2030, 1, 2, 10, 15, tzinfo=UTC)
SECONDS = 3.0
NETWORKS = {
    "clean": Link(),
    "lossy": Link(
        delay_ns=15 * NS_PER_MS, jitter_ns=10 * NS_PER_MS, loss=GilbertElliott(p=0.04, r=0.5)
    ),
    "narrow": Link(delay_ns=400 * NS_PER_MS, rate=Rate(240_000, 3_000, latency_ns=10**9)),
    "handover": Link(
        delay_ns=30 * NS_PER_MS,
        loss=MediaTimeLoss(0.05, 80 * NS_PER_MS),
        changes=(
            Change(1 * NS_PER_S, Link(delay_ns=90 * NS_PER_MS, rate=Rate(64_000, 2_000, 10**9))),
            Change(2 * NS_PER_S, Link(delay_ns=30 * NS_PER_MS)),
        ),
    ),
}
QUALITY = {"pcm": 4.64, "opus": 4.1, "encodec": 2.9, "g722": 3.2}
FRAILTY = {"pcm": 12, "opus": 12, "encodec": 12, "g722": 3}
"""PESQ that losing everything would cost."""
FACTS = {
    "pcm": CodecFacts(16_000, 320, 0, 0, 256_000, "numpy 2"),
    "opus": CodecFacts(
        48_000, 960, 0, 312, 24_000, "libopus 1.5", conceals=True, recovery_frames=1
    ),
    "encodec": CodecFacts(24_000, 320, 0, 0, 6_000, "encodec 0.1.1", weights="random"),
    "g722": CodecFacts(16_000, 320, 0, 22, 64_000, "libav 60"),
}


def link_of(network: str) -> Link:
    """A named one, or a point of the sweep ``NAME@loss=5%``."""
    name, _, loss = network.partition("@loss=")
    if not loss:
        return NETWORKS[name]
    share = float(loss.rstrip("%")) / 100
    return Link(
        delay_ns=40 * NS_PER_MS, loss=MediaTimeLoss(share, 80 * NS_PER_MS) if share else None
    )


def swept(name: str, shares: Sequence[float] = (0, 5, 10, 15, 20)) -> tuple[str, ...]:
    """The networks of a sweep over loss (%)."""
    return tuple(f"{name}@loss={share:g}%" for share in shares)


@dataclass
class SmallRun:
    """What to write; every name can be replaced by a stranger one."""

    codecs: Sequence[str] = ("pcm", "opus", "encodec")
    transports: Sequence[str] = ("udp", "tcp")
    networks: Sequence[str] = ("clean", "lossy", "narrow")
    utterances: Sequence[str] = ("anna", "bert")
    music: Sequence[str] = ("tune",)
    repetitions: int = 1
    scenario: str = "small"
    scored: bool = True
    troubled: bool = True
    """One configuration is unsupported, one cell failed, one was invalid."""
    all_failed: bool = False
    audio: bool = True
    added: tuple[str, str] | None = None
    """A codec and a network that are controls which the scenario did not ask for."""
    virtual: bool = False
    noise: float = 0.02
    """Standard deviation of PESQ between repetitions."""
    run: Any = None
    """Columns of ``runs`` to replace."""

    def write(self, root: Path) -> Path:
        """The directory of the run, under ``root``."""
        store = RunStore.create(root, self.scenario, NOW)
        controls = dict(zip(("codec", "network"), self.added or (None, None), strict=True))
        items = {name: _item(name) for name in (*self.utterances, *self.music)}
        store.write_run(
            store.run_row()
            | _run_row()
            | {"items": json.dumps(items)}
            | {"added_controls": json.dumps(controls)}
            | (_VIRTUAL if self.virtual else {})
            | (self.run or {})
        )
        number = 0
        for network in self.networks:
            for utterance in (*self.utterances, *self.music):
                for repetition in range(self.repetitions):
                    for codec in self.codecs:
                        for transport in self.transports:
                            place = (codec, transport, network, utterance, repetition)
                            self._write_cell(store, number, *place)
                            number += 1
        if self.scored:
            _score(store, self.noise)
        store.compact()
        return store.directory

    def _write_cell(
        self,
        store: RunStore,
        number: int,
        codec: str,
        transport: str,
        network: str,
        utterance: str,
        repetition: int,
    ) -> None:
        facts, link = FACTS[codec], link_of(network)
        pair = LinkPair(link, link)
        cell_id = f"{number:016x}"
        block = f"{network}-{utterance}-{repetition}"
        loss = network.partition("@loss=")[2]
        point = {"loss": {"x": float(loss.rstrip("%")), "unit": "%"}} if loss else None
        row = {
            "cell_id": cell_id,
            "block": block,
            "codec": codec,
            "codec_kind": codec,
            "codec_params": "{}",
            "weights": facts.weights,
            "transport": transport,
            "network": network,
            "receiver": "adaptive",
            "utterance": utterance,
            "speaker": utterance,
            "kind": "music" if utterance in self.music else "speech",
            "repetition": repetition,
            "seed": 7,
            "control": "network" if link.is_clean else "codec" if codec == "pcm" else None,
            "sweep": json.dumps(point) if point else None,
            "lab": "virtual" if self.virtual else "netns",
            "link": "model" if self.virtual else "relay",
            "compute": "profile" if self.virtual else None,
            "link_asked": json.dumps(link_to_json(pair)),
            "impairment": semantics(pair),
            "started_utc": None if self.virtual else NOW.isoformat(),
        }
        trouble = self._trouble(codec, transport, network, utterance)
        if trouble and trouble[0] != "invalid":
            store.write_cell(
                row | dict(zip(("status", "reason"), trouble, strict=True)), {}, {}, {}
            )
            return
        packets, frames = _stream(facts, link, transport, number)
        lost = float((packets["fate"] == "lost").mean())
        row |= {
            "codec_facts": json.dumps(asdict(facts)),
            "status": trouble[0] if trouble else "ok",
            "reason": trouble[1] if trouble else None,
            "wall_s": None if self.virtual else SECONDS + 1,
            "trace_sha256": hashlib.sha256(block.encode()).hexdigest(),
            "media_s": SECONDS,
            "t0_ns": 10**12,
            "proof": json.dumps(_proof(link, lost, bad=bool(trouble))),
            "proof_ok": not trouble,
            "bitrate_nominal_bps": float(facts.nominal_bitrate_bps),
            "bitrate_payload_bps": 8 * float(packets["size_bytes"].sum()) / SECONDS,
            "bitrate_wire_bps": 8 * float((packets["size_bytes"] + 54).sum()) / SECONDS,
            "worst_lateness_ms": 25.0 if number == 1 else 0.4,
            "receiver_worst_lateness_ms": 12.5 if number == 1 else 0.3,
            "relay_worst_lateness_ms": 0.2,
            "late_sends": 2 if number == 1 else 0,
            "packets_sent": len(packets["seq"]),
            "frames_total": len(packets["seq"]),
        }
        audio = _audio(facts, frames, utterance) if self.audio else {}
        store.write_cell(row, packets, frames, audio)

    def _trouble(
        self, codec: str, transport: str, network: str, utterance: str
    ) -> tuple[str, str] | None:
        if self.all_failed:
            return "failed", "the agent died (connection closed)"
        if not self.troubled:
            return None
        if (codec, transport) == ("encodec", "tcp"):
            return "unsupported", "encodec over tcp: <b>not here</b>"
        if (codec, transport, network, utterance) == ("pcm", "udp", "lossy", self.utterances[0]):
            return "invalid", "link forward: loss asked 0.07, measured 0.2 share (tolerance 0.05)"
        if (codec, transport, network) == ("opus", "udp", "narrow"):
            return "failed", "no answer from the agent within 30 s"
        return None


def run_of(cells: list[dict], scores: list[dict]) -> Tables:
    """Tables in memory; ``cells`` and ``scores`` name only what matters."""
    plain = {
        "transport": "udp",
        "receiver": "fixed",
        "network": "n",
        "status": "ok",
        "kind": "speech",
        "repetition": 0,
    }
    rows = {
        "runs": [{"run_id": "r"}],
        "cells": [plain | {"cell_id": str(i)} | cell for i, cell in enumerate(cells)],
        "packets": [],
        "frames": [],
        "scores": [{"metric": "pesq", "mode": "wb", "track": "media"} | score for score in scores],
    }
    return Tables(
        **{name: to_pandas(from_rows(name, rows.get(name, []))) for name in schema.TABLES}
    )


def _score(store: RunStore, noise: float) -> None:
    """Network figures as they are, and a quality that falls with loss."""
    run = store.tables()
    packets, frames = (dict(iter(t.groupby("cell_id"))) for t in (run.packets, run.frames))
    for number, cell in enumerate(run.cells.to_dict("records")):
        mine = cell["cell_id"]
        if mine in packets:
            lost = float((packets[mine]["fate"] == "lost").mean())
            network = network_scores(packets[mine], frames[mine], cell)
            store.write_scores(mine, [*_quality_scores(cell, lost, number, noise), *network])


def _stream(
    facts: CodecFacts, link: Link, transport: str, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Packets and frames of one cell, one packet a frame."""
    generator = np.random.default_rng(seed)
    count = int(SECONDS * NS_PER_S / facts.frame_ns)
    k = np.arange(count)
    media = k * facts.frame_ns
    lost = np.zeros(count, bool)
    if link.loss is not None and transport == "udp":
        starts = link.loss.share / 2 if isinstance(link.loss, MediaTimeLoss) else 0.04
        lost = np.convolve(generator.random(count) < starts, [1, 1, 0], "same") > 0
    jitter = generator.uniform(-1, 1, count) * link.jitter_ns
    transit = np.maximum(50_000, link.delay_ns + jitter).astype(np.int64)
    late = ~lost & (transit > link.delay_ns + 0.97 * max(1, link.jitter_ns))
    late &= link.jitter_ns > 0
    missing = lost | late
    size = max(20, facts.nominal_bitrate_bps * facts.frame_ns // (8 * NS_PER_S))
    fate = np.where(lost, "lost", np.where(late, "late", "played"))
    lookahead = facts.delay_samples * NS_PER_S // facts.sample_rate_hz
    capture = media - lookahead
    device, decode = 10 * NS_PER_MS, 90_000
    depth = 60 * NS_PER_MS + link.delay_ns + link.jitter_ns
    sent = media + facts.frame_ns + 150_000
    pull = media + facts.frame_ns + depth
    play = pull + device
    packets = {
        "seq": k,
        "frame": k,
        "fragment": np.zeros(count, int),
        "fragments": np.ones(count, int),
        "media_ns": media,
        "size_bytes": np.full(count, size),
        "send_ns": sent,
        "transit_ns": np.ma.MaskedArray(transit, mask=lost),
        "copies": (~lost).astype(int),
        "fate": fate,
        "purpose": np.full(count, "media"),
    }

    def heard(values: Any) -> Any:
        return np.ma.MaskedArray(values, mask=missing)

    frames = {
        "frame": k,
        "media_ns": media,
        "kind": np.where(missing, "concealed", "decoded"),
        "capture_ns": capture,
        "fill_ns": np.full(count, facts.frame_ns),
        "lookahead_ns": np.full(count, lookahead),
        "encode_ns": np.full(count, 120_000),
        "send_ns": np.full(count, 30_000),
        "network_ns": heard(transit),
        "buffer_ns": heard(pull - sent - transit),
        "decode_ns": np.full(count, decode),
        "playout_ns": play - pull - decode,
        "mouth_to_ear_ns": heard(play - capture),
        "encode_cpu_ns": np.full(count, 100_000),
        "decoder_ns": np.full(count, decode),
        "payload_bytes": np.full(count, size),
        "play_ns": play,
        "played_start": k * facts.frame_samples,
        "played_samples": np.full(count, facts.frame_samples),
        "buffer_frames": np.full(count, 3),
        "target_bps": np.full(count, facts.nominal_bitrate_bps),
    }
    return packets, frames


def _audio(facts: CodecFacts, frames: dict[str, Any], utterance: str) -> dict[str, Any]:
    def tone(rate_hz: int) -> np.ndarray:
        t = np.arange(int(SECONDS * rate_hz)) / rate_hz
        swell = np.sin(2 * np.pi * (0.7 + 0.1 * len(utterance)) * t) ** 2
        return (6000 * swell * np.sin(2 * np.pi * 220 * t)).astype(np.int16)

    media = tone(facts.sample_rate_hz)
    for start in np.flatnonzero(frames["kind"] == "concealed") * facts.frame_samples:
        media[start : start + facts.frame_samples] = 0
    return {
        "reference": (tone(16_000), 16_000),
        "media": (media, facts.sample_rate_hz),
        "played": (media, facts.sample_rate_hz),
    }


def _quality_scores(
    row: dict[str, Any], lost: float, seed: int, noise: float
) -> list[dict[str, Any]]:
    chance = noise * np.random.default_rng(seed + 1).normal()
    codec = row["codec"]
    value = float(np.clip(QUALITY[codec] - FRAILTY[codec] * lost + chance, 1.02, 4.64))
    reason = None
    if row["kind"] == "music":
        reason = "PESQ is defined for speech"
    elif row["weights"] == "random":
        reason = "random weights: the codec was never trained, its sound means nothing"
    return [
        {
            "metric": measure.metric,
            "mode": measure.mode,
            "track": measure.track,
            "value": None if reason else value if measure.metric == "pesq" else value / 4.7,
            "reason": reason,
            "unit": "MOS-LQO" if measure.metric == "pesq" else "",
        }
        for measure in MEASURES
    ]


def _proof(link: Link, lost: float, bad: bool) -> list[dict[str, Any]]:
    delay_ms = link.delay_ns / NS_PER_MS
    figures: list[dict[str, Any]] = [
        {
            "direction": "forward",
            "figure": "delay",
            "asked": delay_ms,
            "measured": delay_ms + 0.1,
            "tolerance": 1.0,
            "unit": "ms",
            "ok": True,
            "note": "median",
        },
        {
            "direction": "forward",
            "figure": "rate",
            "asked": 240_000,
            "measured": None,
            "tolerance": None,
            "unit": "bit/s",
            "ok": None,
            "note": "not exercised: the traffic never filled the link",
        },
    ]
    if link.loss is not None:
        measured = 0.2 if bad else lost
        figures.append(
            {
                "direction": "forward",
                "figure": "loss",
                "asked": 0.074,
                "measured": measured,
                "tolerance": 0.06,
                "unit": "share",
                "ok": not bad,
                "note": "",
            }
        )
    return figures


def _item(name: str) -> dict[str, Any]:
    return {
        "id": name,
        "corpus": "invented",
        "licence": "CC BY 4.0",
        "attribution": f"{name}, invented for a test",
        "source": f"https://example.org/{name}.flac",
        "prepared_seconds": SECONDS,
        "steps": [{"step": "level", "after_dbov": -26.0}],
        "warnings": [],
    }


_VIRTUAL = {
    "lab": "virtual",
    "lab_why": "auto: no Docker engine answers, nor network namespaces",
    "link": "model",
    "link_why": "the virtual lab's own",
}


def _run_row() -> dict[str, Any]:
    return {
        "scenario_yaml": "name: small\n",
        "config_sha256": "feed",
        "finished_utc": NOW.isoformat(),
        "wall_s": 60.0,
        "stream_s": 40.0,
        "audio_s": 100.0,
        "jobs": 2,
        "lab": "netns",
        "lab_why": "asked for",
        "link": "relay",
        "link_why": "auto: no netem here",
        "host": json.dumps({"kernel": "6.1", "cores": 2, "governor": None}),
        "engine": json.dumps({}),
        "versions": json.dumps({"python": "3.11", "pesq": "0.0.4"}),
        "git_sha": "0123abc",
        "git_dirty": False,
    }

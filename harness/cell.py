"""One cell: set the link, prepare both ends, stream on one clock, collect, judge.

Every figure in the result is what agents and link reported; nothing is repaired. A cell whose link
did not do what was asked, whose sender fell behind its schedule or whose clocks disagree is
``invalid``.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from harness.codecs.base import CodecFacts, Pcm
from harness.errors import HarnessError, Unsupported
from harness.labs.base import Pair
from harness.media.fates import join
from harness.network import link_to_json
from harness.network.link import Link
from harness.network.proof import ProofFigure, prove
from harness.plan import Cell
from harness.records import Columns
from harness.transports import is_reliable
from harness.units import NS_PER_MS, NS_PER_S, monotonic_ns, samples_to_ns

LEAD_NS = 100 * NS_PER_MS
"""From the last preparation to sample 0: both agents must have their orders by then."""
SLACK_NS = 3 * NS_PER_S
"""How long a stalled stream may still arrive after the last frame was due (one TCP time-out)."""
BASE_SHARE = 0.08
"""Of a core: sockets, playout clock and link agent of any cell, whatever its codec."""
LATE_SHARE = 0.01
"""A sender is behind its schedule when more than this share of frames left over a frame late."""


_DOUBTS = {
    "log_drops": "missing from its log",
    "unexplained": "came out that never went in",
    "refused": "refused by an interface",
    "in_flight": "still inside after the longest delay",
}
"""Counters of a link that must be zero, and what it means when they are not."""


class CpuBudget:
    """A weighted semaphore: cells that together want more CPU than there is wait for each other.

    The share of a core that a cell needs is measured when its codec is warmed up, so that eight
    PCM cells run side by side where one EnCodec cell would fill the machine.
    """

    def __init__(self, cores: float) -> None:
        self._free = self._capacity = cores
        self._changed = threading.Condition()

    @contextmanager
    def claim(self, share: float) -> Iterator[None]:
        share = min(share, self._capacity)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= share - 1e-9)
            self._free -= share
        try:
            yield
        finally:
            with self._changed:
                self._free += share
                self._changed.notify_all()


@dataclass(frozen=True)
class CellResult:
    """What is written down of one cell; ``packets`` to ``audio`` are empty if it never streamed."""

    row: dict[str, Any]
    packets: Columns
    frames: Columns
    audio: dict[str, tuple[Pcm, int]]


def describe(cell: Cell, lab: str, engine: str) -> dict[str, Any]:
    """The columns of a cell that are known before it runs."""
    return {
        "cell_id": cell.cell_id,
        "block": cell.block,
        "codec": cell.codec.name,
        "codec_kind": cell.codec.codec,
        "codec_params": cell.codec.params.model_dump_json(),
        "weights": getattr(cell.codec.params, "weights", "none"),
        "transport": cell.transport.name,
        "network": cell.network.name,
        "receiver": cell.receiver.name,
        "utterance": cell.item.id,
        "speaker": cell.item.speaker,
        "kind": cell.item.kind,
        "repetition": cell.repetition,
        "seed": cell.seed,
        "control": cell.control,
        "sweep": _sweep(cell),
        "lab": lab,
        "link": engine,
        "link_asked": json.dumps(link_to_json(cell.network.pair)),
        "started_utc": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }


def without_streaming(row: dict[str, Any], error: HarnessError) -> CellResult:
    """The result of a cell that ended with ``error`` before its records could be collected."""
    status = "unsupported" if isinstance(error, Unsupported) else "failed"
    return CellResult({**row, "status": status, "reason": str(error)}, {}, {}, {})


def facts_of(cell: Cell, pair: Pair, assets: Mapping[str, str]) -> CodecFacts:
    """What the cell's codec is, asked of the receiver agent, where its library is installed."""
    answer, _ = pair.receiver.call(
        "describe", {"codec": _codec_job(cell), "assets": dict(assets)}, timeout_s=cell.timeout_s
    )
    return CodecFacts(**answer["facts"])


def stream(
    cell: Cell,
    pair: Pair,
    row: Mapping[str, Any],
    facts: CodecFacts,
    pcm: Pcm,
    assets: Mapping[str, str],
    budget: CpuBudget,
) -> CellResult:
    """Run one cell on a pair. Raises CellFailed, Unsupported; the pair is then to be closed.

    ``row`` is what :func:`describe` gave; its ``link`` is the engine.
    ``pcm`` is the reference at the codec's sampling rate, int16 mono, shape (samples,).
    """
    began = monotonic_ns()
    network, settings = cell.network.pair, cell.receiver.settings
    applied, _ = pair.link.call(
        "apply", {"link": link_to_json(network), "engine": row["link"], "seed": cell.seed}
    )
    job = {
        "cell_id": cell.cell_id,
        "stream_id": cell.stream_id,
        "codec": _codec_job(cell),
        "assets": dict(assets),
        "transport": asdict(cell.transport.settings),
        "receiver": asdict(settings),
        "input_samples": len(pcm),
        "host": pair.receiver_host,
        "seed": cell.seed,
    }
    ready, _ = pair.receiver.call("prepare_receiver", {"job": job}, timeout_s=cell.timeout_s)
    prepared, _ = pair.sender.call(
        "prepare_sender",
        {"job": job, "port": ready["port"]},
        {"pcm": pcm},
        timeout_s=cell.timeout_s,
    )
    media_ns = samples_to_ns(len(pcm), facts.sample_rate_hz)
    share = (prepared["frame_cost_ns"] + ready["frame_cost_ns"]) / facts.frame_ns
    with budget.claim(share + BASE_SHARE):
        pair.link.call("start")
        t0_ns = monotonic_ns() + LEAD_NS
        longest_ns = (
            media_ns
            + facts.algorithmic_delay_ns
            + settings.max_ns
            + settings.device_ns
            + _longest_delay_ns(network.forward)
            + _longest_delay_ns(network.reverse)
            + SLACK_NS
        )
        order = {"t0_ns": t0_ns, "stop_ns": t0_ns + longest_ns}
        pair.receiver.ask("run", order)
        pair.sender.ask("run", order)
        sent, sent_columns = pair.sender.answer(cell.timeout_s)
        received, received_columns = pair.receiver.answer(cell.timeout_s)
        for end in (pair.sender, pair.receiver):
            end.call("close")  # what is still on its way is reset, and the link runs empty
        counted, link_log = pair.link.call("collect", timeout_s=cell.timeout_s)
    packets, frames = join(
        sent_packets=_part(sent_columns, "packets"),
        sent_frames=_part(sent_columns, "frames"),
        received_packets=_part(received_columns, "packets"),
        played_frames=_part(received_columns, "frames"),
        link_log=link_log,
        facts=facts,
        t0_ns=t0_ns,
        reliable=is_reliable(cell.transport.settings.transport),
    )
    figures = prove(network, link_log)
    verdict = _verdict(figures, counted, sent, prepared["frames"], pair)
    media_s = media_ns / NS_PER_S
    forward = link_log["direction"] == 0
    streamed = {
        "codec_facts": json.dumps(asdict(facts)),
        "weights": facts.weights,
        "status": "invalid" if verdict else "ok",
        "reason": "; ".join(verdict) or None,
        "wall_s": (monotonic_ns() - began) / NS_PER_S,
        "media_s": media_s,
        "t0_ns": t0_ns,
        "link_readback": json.dumps(applied["readback"]),
        "proof": json.dumps([asdict(figure) for figure in figures]),
        "proof_ok": all(figure.ok is not False for figure in figures),
        "bitrate_nominal_bps": float(facts.nominal_bitrate_bps),
        "bitrate_payload_bps": 8 * float(sent_columns["frames.payload_bytes"].sum()) / media_s,
        "bitrate_wire_bps": 8 * float(link_log["size_bytes"][forward].sum()) / media_s,
        "worst_lateness_ms": sent["worst_lateness_ns"] / NS_PER_MS,
        "late_sends": sent["late_frames"],
        "packets_sent": len(sent_columns["packets.seq"]),
        "frames_total": prepared["frames"],
        "agent_facts": json.dumps(
            {
                "sender": pair.facts["sender"] | sent,
                "receiver": pair.facts["receiver"] | received,
                "link": pair.facts["link"] | counted,
            }
        ),
    }
    rate = facts.sample_rate_hz
    audio = {
        "media": (received_columns["media"].astype(np.int16), rate),
        "played": (received_columns["played"].astype(np.int16), rate),
    }
    return CellResult({**row, **streamed}, packets, frames, audio)


def _sweep(cell: Cell) -> str | None:
    points = {point.name: {"x": point.x, "unit": point.unit} for point in cell.sweep}
    return json.dumps(points) if points else None


def _codec_job(cell: Cell) -> dict[str, Any]:
    return {"codec": cell.codec.codec, "params": json.loads(cell.codec.params.model_dump_json())}


def _part(columns: Columns, prefix: str) -> Columns:
    start = prefix + "."
    return {k.removeprefix(start): v for k, v in columns.items() if k.startswith(start)}


def _longest_delay_ns(link: Link) -> int:
    """Beyond this a delivered packet is an accident: delay, four jitters, a full queue."""
    queue = link.rate.queue_limit_bytes() * 8 * NS_PER_S // link.rate.rate_bps if link.rate else 0
    return link.delay_ns + 4 * link.jitter_ns + queue


def _verdict(
    figures: list[ProofFigure],
    counted: Mapping[str, Any],
    sent: Mapping[str, Any],
    frames: int,
    pair: Pair,
) -> list[str]:
    """Why the cell is invalid; empty when it is not."""
    reasons = [
        f"link {f.direction}: {f.figure} asked {f.asked}, measured {f.measured} {f.unit}"
        f" (tolerance {f.tolerance})"
        for f in figures
        if f.ok is False
    ]
    reasons += [
        f"the link's own account does not close: {counted['counters'][doubt]} packets {meaning}"
        for doubt, meaning in _DOUBTS.items()
        if counted["counters"].get(doubt)
    ]
    if sent["late_frames"] > LATE_SHARE * frames:
        reasons.append(
            f"the sender fell behind: {sent['late_frames']} of {frames} frames left more than a"
            f" frame late (worst {sent['worst_lateness_ns'] / NS_PER_MS:.1f} ms);"
            " use fewer --jobs"
        )
    clocks = {
        (facts["boot_id"], facts["time_ns"]) for role, facts in pair.facts.items() if role != "link"
    }
    if len(clocks) > 1:
        reasons.append("sender and receiver do not share a clock (boot_id or time namespace)")
    return reasons

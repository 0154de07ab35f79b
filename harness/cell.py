"""One cell: set the link, prepare both ends, stream on one clock, collect, judge.

Every figure in the result is what agents and link reported; nothing is repaired. A cell whose link
did not do what was asked, whose sender, receiver or relay fell behind its schedule, or whose clocks
disagree, is ``invalid``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import numpy as np

from harness.codecs.base import CodecFacts, Pcm
from harness.control import Channel
from harness.endpoint.sender import frame_count
from harness.errors import Blame, HarnessError, Unsupported
from harness.labs.base import Pair
from harness.labs.capacity import Capacity
from harness.lateness import Lateness
from harness.media.fates import join
from harness.media.packet import wire_sizes
from harness.media.tracks import Track, track_figures, tracks_beside
from harness.network import link_to_json
from harness.network.buckets import has_fluid_rate, longest_head_start_ns, with_buckets
from harness.network.fitting import PacketClock, fit
from harness.network.link import LinkPair, longest_delay_ns
from harness.network.proof import ProofFigure, prove
from harness.network.trace import TAIL_NS, Trace, draw, placed, playable_ns, semantics
from harness.plan import Cell
from harness.records import Columns, Observed, TrackRecords
from harness.transports import TRANSPORTS
from harness.units import NS_PER_MS, NS_PER_S, monotonic_ns, samples_to_ns

LEAD_NS = 300 * NS_PER_MS
"""From the last preparation to sample 0: the link must be set anew (netem takes up to 100 ms), and
both agents must have their orders by then."""
SLACK_NS = 3 * NS_PER_S
"""How long a stalled stream may still arrive after the last frame was due (one TCP time-out)."""
BASE_SHARE = 0.08
"""Of a core: sockets, playout clock and link agent of any cell, whatever its codec."""

_DOUBTS = {
    "log_drops": "missing from its log",
    "unexplained": "came out that never went in",
    "refused": "refused by an interface",
    "in_flight": "still inside after the longest delay",
}
"""Counters of a link that must be zero, and what it means when they are not."""


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
        "impairment": semantics(cell.network.pair),
        "started_utc": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }


def without_streaming(row: dict[str, Any], error: HarnessError) -> CellResult:
    """The result of a cell that ended with ``error`` before its records could be collected."""
    status = "unsupported" if isinstance(error, Unsupported) else "failed"
    ending = {"status": status, "reason": str(error), "blame": error.blame}
    return CellResult({**row, **ending}, {}, {}, {})


def facts_of(cell: Cell, pair: Pair, assets: Mapping[str, str]) -> CodecFacts:
    """What the cell's codec is, asked of the receiver agent, where its library is installed."""
    answer, _ = pair.receiver.call(
        "describe", {"codec": _codec_job(cell), "assets": dict(assets)}, timeout_s=cell.timeout_s
    )
    return CodecFacts(**answer["facts"])


@dataclass(frozen=True)
class Impaired:
    """What a cell meets: the trace of its block, and its links fitted to the codec's packets."""

    trace: Trace
    pair: LinkPair
    pcm: Pcm
    """The reference, cut where a recorded trace ends the audio; int16, shape (samples,)."""
    recorded_ns: Mapping[str, tuple[int, int]]
    """By direction: from where to where its recording was met, counted on where it loops."""
    head_start_ns: int | None = None
    """Where the engine has buckets in place of a fluid queue: by how much sooner a packet may
    leave."""


def impaired(cell: Cell, facts: CodecFacts, pcm: Pcm, reference_ns: int) -> Impaired:
    """Draw the block's trace and fit it to the codec. ``pcm`` is the reference at the codec's rate;
    ``reference_ns`` its duration at its own, which does not differ from codec to codec.

    Raises BadInput where a recorded trace is shorter than the audio and may not be.
    """
    pair = placed(cell.network.pair, cell.seed, reference_ns)
    playable = playable_ns(pair, reference_ns)
    if playable < reference_ns:
        pcm = pcm[: playable * facts.sample_rate_hz // NS_PER_S]
    trace = draw(pair, cell.seed, playable + TAIL_NS)
    recorded_ns = {
        direction: (replay.offset_ns, replay.offset_ns + playable)
        for direction, replay in (
            ("forward", pair.forward.replay),
            ("reverse", pair.reverse.replay),
        )
        if replay is not None
    }
    return Impaired(trace, fit(trace, packet_clock(facts, len(pcm))), pcm, recorded_ns)


def on_engine(met: Impaired, engine: str) -> Impaired:
    """What of it an engine has. Raises Unsupported where it would hide a part of a recording."""
    if engine != "netem" or not has_fluid_rate(met.pair):
        return met
    pair = with_buckets(met.pair)
    return replace(met, pair=pair, head_start_ns=longest_head_start_ns(pair))


def impaired_alike(
    cells: Sequence[Cell], facts: CodecFacts, pcm: Pcm, reference_ns: int
) -> list[Impaired]:
    """What each receiver of one sender meets: the same audio, over its own link.

    Raises what :func:`impaired` raises, and Unsupported where recordings end the audio for some
    of them earlier than for others.
    """
    met = [impaired(cell, facts, pcm, reference_ns) for cell in cells]
    if len({len(one.pcm) for one in met}) > 1:
        raise Unsupported(
            f"broadcast: {cells[0].network.broadcast} has recordings that end at different times;"
            " write end: loop beside the shorter traces"
        )
    return met


def packet_clock(facts: CodecFacts, samples: int) -> PacketClock:
    """When the packets of so much input are due."""
    return PacketClock(
        frame_samples=facts.frame_samples,
        sample_rate_hz=facts.sample_rate_hz,
        lookahead_frames=facts.lookahead_frames,
        delay_samples=facts.delay_samples,
        frames=frame_count(samples, facts),
    )


def tracks_of(cell: Cell, facts: CodecFacts, samples: int) -> list[Track]:
    """The streams beside the measured one, for a reference of so many samples."""
    return tracks_beside(cell.transport.tracks, cell.stream_id, cell.seed, samples, facts)


def served(cell: Cell) -> tuple[Cell, ...]:
    """What its sender serves at once in a lab with sockets: all receivers of its broadcast, where
    the stream is one of datagrams; else the cell alone."""
    at_once = TRANSPORTS[cell.transport.settings.transport].bare and cell.transport.tracks == 1
    return cell.listeners if at_once else (cell,)


def together(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Cells to be streamed at once, as one sender serves them; the others by themselves."""
    found: dict[tuple[object, ...], list[Cell]] = {}
    for cell in cells:
        key: tuple[object, ...] = (cell.cell_id,)
        if len(served(cell)) > 1:
            entries = (cell.codec, cell.transport, cell.receiver)
            names = (entry.name for entry in entries)
            key = (cell.network.broadcast, *names, cell.item.id, cell.repetition)
        found.setdefault(key, []).append(cell)
    return list(found.values())


def hears_others(cell: Cell) -> bool:
    """Whether its sender acts on what other receivers of its broadcast say.

    Raises Unsupported where it should, and they cannot be served at once.
    """
    if not cell.branches or not cell.transport.sender.needs_feedback:
        return False
    if len(served(cell)) == 1:
        raise Unsupported("nack and adapt in a broadcast need datagrams, and one track")
    return True


def longest_ns(cell: Cell, facts: CodecFacts, met: Impaired) -> int:
    """From t0 to when nobody waits for the stream any longer."""
    settings = cell.receiver.settings
    return (
        samples_to_ns(len(met.pcm), facts.sample_rate_hz)
        + facts.algorithmic_delay_ns
        + settings.max_ns
        + settings.device_ns
        + longest_delay_ns(met.pair.forward)
        + longest_delay_ns(met.pair.reverse)
        + SLACK_NS
    )


Told = tuple[dict[str, Any], Columns]
"""An agent's figures and records."""


@dataclass(frozen=True)
class Leg:
    """One receiver of a stream: its cell, and the pair whose link leads to it."""

    cell: Cell
    pair: Pair
    row: Mapping[str, Any]
    """What :func:`describe` gave; its ``link`` is the engine."""


def stream(
    legs: Sequence[Leg],
    facts: CodecFacts,
    pcm: Pcm,
    reference_ns: int,
    assets: Mapping[str, str],
    cpu: Capacity,
) -> list[CellResult]:
    """Run the cells that one sender serves (see :func:`served`), each on a pair; the sender is that
    of the first, with sockets in the network namespaces of the others.

    ``cpu`` is in cores: cells that together want more of them than there are wait for each other.
    Raises Unsupported, BadInput (the pairs are then to be reset), CellFailed (to be closed).
    ``pcm`` is the reference at the codec's sampling rate, int16 mono, shape (samples,), and
    ``reference_ns`` its duration (see :func:`impaired`).
    """
    began = monotonic_ns()
    cell, pairs = legs[0].cell, [leg.pair for leg in legs]
    hears_others(cell)  # or says why not
    met = [
        on_engine(one, str(leg.row["link"]))
        for leg, one in zip(
            legs, impaired_alike([leg.cell for leg in legs], facts, pcm, reference_ns), strict=True
        )
    ]
    tracks = tracks_of(cell, facts, len(met[0].pcm))
    links, receivers = [pair.link for pair in pairs], [pair.receiver for pair in pairs]
    applied = _each(
        links,
        "apply",
        [
            {"link": link_to_json(one.pair), "engine": leg.row["link"], "seed": leg.cell.seed}
            for leg, one in zip(legs, met, strict=True)
        ],
    )
    job = {
        "cell_id": cell.cell_id,
        "stream_id": cell.stream_id,
        "codec": _codec_job(cell),
        "assets": dict(assets),
        "transport": asdict(cell.transport.settings),
        "receiver": asdict(cell.receiver.settings),
        "sender": asdict(cell.transport.sender),
        "input_samples": len(met[0].pcm),
        "seed": cell.seed,
        "tracks": [asdict(track) for track in tracks],
    }
    jobs = [{"job": {**job, "host": pair.receiver_host}} for pair in pairs]
    ready = _each(receivers, "prepare_receiver", jobs, cell.timeout_s)
    prepared = _prepared_sender(legs, jobs, ready, met[0].pcm)
    cost_ns = prepared["frame_cost_ns"] + sum(one["frame_cost_ns"] for one in ready)
    with cpu.claim(cost_ns / facts.frame_ns + BASE_SHARE * len(legs)):
        _each(links, "start")  # returns when what the ends said to each other is through
        t0_ns = monotonic_ns() + LEAD_NS
        _each(links, "start", [{"t0_ns": t0_ns}] * len(legs))
        longest = max(longest_ns(leg.cell, facts, one) for leg, one in zip(legs, met, strict=True))
        order = {"t0_ns": t0_ns, "stop_ns": t0_ns + longest}
        for end in (*receivers, pairs[0].sender):
            end.ask("run", order)
        sent = _told(pairs[0], "sender", cell.timeout_s)
        received = [_told(pair, "receiver", cell.timeout_s) for pair in pairs]
        for pair in pairs:
            for end in (pair.sender, pair.receiver):
                end.call("close")  # what is still on its way is reset, and the link runs empty
        for link in links:
            link.ask("collect")
        collected = [_told(pair, "link", cell.timeout_s) for pair in pairs]
    wall_s = (monotonic_ns() - began) / NS_PER_S
    results = []
    for number, (leg, one) in enumerate(zip(legs, met, strict=True)):
        ends = (_sent_to(number, sent), received[number], collected[number])
        observed = _observed(t0_ns, tracks, *ends, applied[number]["readback"])
        result = written_up(leg.cell, leg.row, facts, one, observed)
        results.append(replace(result, row={**result.row, "wall_s": wall_s}))
    return results


def _told(pair: Pair, role: Literal["sender", "receiver", "link"], timeout_s: float) -> Told:
    """What an agent answers, with what it said of itself."""
    channel: Channel = getattr(pair, role)
    figures, columns = channel.answer(timeout_s)
    return pair.facts[role] | figures, columns


def _sent_to(receiver: int, sent: Told) -> Told:
    """What a sender tells of one of its receivers."""
    figures, columns = sent
    if "to" not in figures:
        return sent
    packets = _part(columns, f"to{receiver}.packets")
    own = {f"packets.{name}": column for name, column in packets.items()}
    return figures | figures["to"][receiver], columns | own


def _observed(
    t0_ns: int,
    tracks: Sequence[Track],
    sender: Told,
    receiver: Told,
    link: Told,
    readback: dict[str, Any],
) -> Observed:
    """What the three agents tell, put together."""
    (sent, sent_columns), (received, received_columns) = sender, receiver
    return Observed(
        t0_ns=t0_ns,
        sent_packets=_part(sent_columns, "packets"),
        sent_frames=_part(sent_columns, "frames"),
        received_packets=_part(received_columns, "packets"),
        played_frames=_part(received_columns, "frames"),
        link_log=link[1],
        media=received_columns["media"].astype(np.int16),
        played=received_columns["played"].astype(np.int16),
        sender=_of_first(sent),
        receiver=_of_first(received),
        link=link[0],
        readback=readback,
        tracks=tuple(
            TrackRecords(
                t0_ns=t0_ns + track.start_ns,
                sent_packets=_part(sent_columns, f"track{number}.packets"),
                sent_frames=_part(sent_columns, f"track{number}.frames"),
                received_packets=_part(received_columns, f"track{number}.packets"),
                played_frames=_part(received_columns, f"track{number}.frames"),
                sender=sent["tracks"][number - 1],
                receiver=received["tracks"][number - 1],
            )
            for number, track in enumerate(tracks, start=1)
        ),
    )


def _of_first(figures: dict[str, Any]) -> dict[str, Any]:
    """Without those of other tracks and of other receivers."""
    return {name: value for name, value in figures.items() if name not in ("tracks", "to")}


def _each(
    channels: Sequence[Channel],
    op: str,
    arguments: Sequence[dict[str, Any]] | None = None,
    timeout_s: float = 30.0,
) -> list[dict[str, Any]]:
    """The same of several agents at a time."""
    for channel, asked in zip(channels, arguments or [{}] * len(channels), strict=True):
        channel.ask(op, asked)
    return [channel.answer(timeout_s)[0] for channel in channels]


def _prepared_sender(
    legs: Sequence[Leg],
    jobs: Sequence[dict[str, Any]],
    ready: Sequence[dict[str, Any]],
    pcm: Pcm,
) -> dict[str, Any]:
    """The first pair's sender, with a way to every receiver."""
    first, *others = zip(legs, jobs, ready, strict=True)
    with ExitStack() as borrowed:
        files = []
        for leg, job, at in others:
            asked = {name: job["job"][name] for name in ("host", "transport")}
            lent, _ = leg.pair.sender.call("lend", {**asked, "port": at["port"]})
            files += lent["files"]
            borrowed.callback(os.close, files[-1])
        leg, job, at = first
        ports = {"port": at["port"], "track_ports": at["track_ports"]}
        prepared, _ = leg.pair.sender.call(
            "prepare_sender",
            {**job, **ports, "files": files},
            {"pcm": pcm},
            timeout_s=leg.cell.timeout_s,
        )
    return prepared


def written_up(
    cell: Cell, row: Mapping[str, Any], facts: CodecFacts, met: Impaired, observed: Observed
) -> CellResult:
    """Join the records of a cell, hold the link against what was asked, and judge. Pure."""
    carrier = TRANSPORTS[cell.transport.settings.transport]
    streams: list[Observed | TrackRecords] = [observed, *observed.tracks]
    joined = [
        join(
            sent_packets=stream.sent_packets,
            sent_frames=stream.sent_frames,
            received_packets=stream.received_packets,
            played_frames=stream.played_frames,
            link_log=observed.link_log if carrier.bare else None,
            facts=facts,
            t0_ns=stream.t0_ns,
            reliable=carrier.reliable,
        )
        for stream in streams
    ]
    packets, frames = joined[0]
    counters = observed.link["counters"]
    clock, changes = counters.get("t0_ns"), counters.get("changes")
    figures = prove(met.pair, observed.link_log, clock, changes, row["link"])
    if met.head_start_ns is not None:
        figures.append(_bucket_figure(met.head_start_ns))
    frames_total = frame_count(len(met.pcm), facts)
    late = lateness_of(observed)
    verdict = _verdict(figures, observed, late)
    media_s = len(met.pcm) / facts.sample_rate_hz
    payload_bytes = int(observed.sent_frames["payload_bytes"].sum())
    wire_bytes = _wire_bytes(observed)
    streamed = {
        "codec_facts": json.dumps(asdict(facts)),
        "weights": facts.weights,
        "status": "invalid" if verdict else "ok",
        "reason": "; ".join(doubt.reason for doubt in verdict) or None,
        "blame": _blame(verdict, row.get("compute")),
        "media_s": media_s,
        "t0_ns": observed.t0_ns,
        "trace_sha256": met.trace.sha256,
        "recorded_part": json.dumps(
            {way: [at_ns / NS_PER_S for at_ns in part] for way, part in met.recorded_ns.items()}
        )
        if met.recorded_ns
        else None,
        "link_readback": json.dumps(observed.readback),
        "proof": json.dumps([asdict(figure) for figure in figures]),
        "proof_ok": all(figure.ok is not False for figure in figures),
        "bitrate_nominal_bps": float(facts.nominal_bitrate_bps),
        "bitrate_payload_bps": 8 * payload_bytes / media_s,
        "bitrate_wire_bps": 8 * wire_bytes / media_s,
        **_lateness_columns(late),
        "device_underruns": observed.receiver["device_underruns"],
        "late_sends": observed.sender["late_frames"],
        "packets_sent": len(observed.sent_packets["seq"]),
        "tracks": json.dumps([track_figures(*one, media_s) for one in joined])
        if observed.tracks
        else None,
        "frames_total": frames_total,
        "agent_facts": json.dumps(
            {
                "sender": observed.sender,
                "receiver": observed.receiver,
                "link": observed.link,
            }
        ),
    }
    rate = facts.sample_rate_hz
    audio = {"media": (observed.media, rate), "played": (observed.played, rate)}
    return CellResult({**row, **streamed}, packets, frames, audio)


def _bucket_figure(head_start_ns: int) -> ProofFigure:
    """Not judged: the log was held against the buckets that the engine was given."""
    note = (
        "the recorded rate is a fluid queue; this engine has tbf's bucket in its place, so that a"
        " packet may leave so much sooner after a pause"
    )
    ms = head_start_ns / NS_PER_MS
    return ProofFigure("forward", "bucket", 0.0, ms, None, "ms", None, note)


def _sweep(cell: Cell) -> str | None:
    points = {point.name: {"x": point.x, "unit": point.unit} for point in cell.sweep}
    return json.dumps(points) if points else None


def _codec_job(cell: Cell) -> dict[str, Any]:
    return {"codec": cell.codec.codec, "params": json.loads(cell.codec.params.model_dump_json())}


def _part(columns: Columns, prefix: str) -> Columns:
    start = prefix + "."
    return {k.removeprefix(start): v for k, v in columns.items() if k.startswith(start)}


def _wire_bytes(observed: Observed) -> int:
    """Of the frames on the wire that carried the stream: all that went forward, if it was alone."""
    if observed.tracks:
        taken = observed.sent_packets["send_ns"].astype(np.int64) >= 0
        sizes = observed.sent_packets["size_bytes"][taken].tolist()
        return sum(size for packet in sizes for size in wire_sizes(packet))
    forward = observed.link_log["direction"] == 0
    return int(observed.link_log["size_bytes"][forward].sum())


class Doubt(NamedTuple):
    """A reason not to believe a cell, and whose fault it is."""

    reason: str
    blame: Blame


def _blame(doubts: Sequence[Doubt], compute: str | None) -> Blame | None:
    """Whose fault it is that a cell is invalid: the machine's if it had any part in it. In virtual
    time it has none, unless the cost of calls is ``measured`` on it."""
    if not doubts:
        return None
    disturbable = compute in (None, "measured")
    by_machine = disturbable and any(doubt.blame == "machine" for doubt in doubts)
    return "machine" if by_machine else "asked"


_ACTORS = {
    "sender": ("the sender", ""),
    "receiver": ("the receiver", "receiver_"),
    "read": ("the receiver's reading of packets", "read_"),
    "relay": ("the relay", "relay_"),
}
"""Who works in real time: in words, and the prefix of the columns of ``cells``."""


def lateness_of(observed: Observed) -> dict[str, Lateness]:
    """How well each thread that works in real time kept its schedule: ``sender`` (encoding and
    sending), ``receiver`` (pulls and decoding), ``read`` (packets, where the kernel stamps them),
    ``relay`` (where the link is one). One thread does it for all tracks."""
    told = {
        "sender": observed.sender.get("lateness"),
        "receiver": observed.receiver.get("lateness"),
        "read": observed.receiver.get("read_lateness"),
        "relay": observed.link["counters"].get("lateness"),
    }
    return {who: Lateness(**figures) for who, figures in told.items() if figures is not None}


def _lateness_columns(late: Mapping[str, Lateness]) -> dict[str, float]:
    columns = {}
    for who, lateness in late.items():
        _, prefix = _ACTORS[who]
        columns[f"{prefix}worst_lateness_ms"] = lateness.worst_ns / NS_PER_MS
        columns[f"{prefix}p99_lateness_ms"] = lateness.p99_ns / NS_PER_MS
    return columns


def _verdict(
    figures: list[ProofFigure], observed: Observed, late: Mapping[str, Lateness]
) -> list[Doubt]:
    """Why the cell is invalid; empty when it is not."""
    doubts = [
        Doubt(
            f"link {f.direction}: {f.figure} asked {f.asked}, measured {f.measured} {f.unit}"
            f" (tolerance {f.tolerance})",
            f.blame,
        )
        for f in figures
        if f.ok is False
    ]
    counters = observed.link["counters"]
    doubts += [
        Doubt(
            f"the link's own account does not close: {counters[counter]} packets {meaning}",
            "machine",
        )
        for counter, meaning in _DOUBTS.items()
        if counters.get(counter)
    ]
    doubts += [
        Doubt(problem, "machine")
        for who, lateness in late.items()
        for problem in lateness.problems(_ACTORS[who][0])
    ]
    clocks = {
        (end["boot_id"], end["time_ns"])
        for end in (observed.sender, observed.receiver)
        if "boot_id" in end
    }
    if len(clocks) > 1:
        text = "sender and receiver do not share a clock (boot_id or time namespace)"
        doubts.append(Doubt(text, "asked"))
    return doubts

"""The tables of a run: every column with its type, unit and meaning. The single source of truth.

``SCHEMA_VERSION`` history:

* 1 - first version.
* 2 - runs: baseline, added_controls; cells: control, sweep, impairment, trace_sha256, compute; lab
  virtual and engine model, whose cells have null in started_utc and wall_s.
* 3 - packets: purpose, fate spare; frames: target_bps; table legacy.
* 4 - runs: sessions, corpus, rank_by; cells: blame, reference_sha256, recorded_part, lateness of
  receiver and relay, device_underruns; frames: decoder_ns; scores: plain, spread; table attempts.

Types: ``str``, ``int`` (int64, nullable), ``float``, ``bool``, ``json`` (a string holding JSON).
A missing value is null and has a reason somewhere; it is never 0, -1 or NaN-as-a-number.
"""

from __future__ import annotations

from typing import NamedTuple

SCHEMA_VERSION = 4


class Column(NamedTuple):
    type: str
    unit: str
    meaning: str
    since: int = 1
    """Schema version that it came with; in older tables it is null."""


RUNS = {
    "run_id": Column("str", "", "unique name of the run"),
    "scenario": Column("str", "", "name of the scenario"),
    "scenario_yaml": Column("str", "", "the scenario file as run"),
    "config_sha256": Column("str", "", "hash of the canonical scenario"),
    "schema_version": Column("int", "", "of these tables"),
    "started_utc": Column("str", "", "ISO 8601"),
    "finished_utc": Column("str", "", "ISO 8601; null while running"),
    "wall_s": Column("float", "s", "wall time of the matrix, set-up and scoring included"),
    "stream_s": Column("float", "s", "wall time of the streaming phase alone"),
    "audio_s": Column("float", "s", "sum of the media streamed"),
    "jobs": Column("int", "", "cells side by side"),
    "lab": Column("str", "", "docker, netns or virtual"),
    "lab_why": Column("str", "", "why that lab"),
    "link": Column("str", "", "netem, relay or model"),
    "link_why": Column("str", "", "why that engine"),
    "baseline": Column("str", "", "codec entry that differences are taken against", since=2),
    "rank_by": Column("str", "", "metric that the report ranks by; null: its default", since=4),
    "added_controls": Column(
        "json", "", "{codec, network}: names of the controls that the scenario lacked", since=2
    ),
    "corpus_warning": Column("str", "", "null, or why quality figures are for plumbing only"),
    "host": Column("json", "", "kernel, CPU, cores, memory, boot_id, time namespace, governor"),
    "engine": Column("json", "", "Docker engine version, image id, base image and how it was made"),
    "versions": Column("json", "", "Python and package versions, libopus, ..."),
    "git_sha": Column("str", "", "of the harness; null outside a checkout"),
    "git_dirty": Column("bool", "", "uncommitted changes"),
    "items": Column("json", "", "per corpus item: licence, attribution, sha256, preparation steps"),
    "corpus": Column("json", "", "ids of all items of the corpus, selected or not", since=4),
    "sessions": Column(
        "json",
        "",
        "per process that wrote the run, first to last: started_utc, host, engine, versions,"
        " git_sha, git_dirty, jobs; the columns of these names are those of the first",
        since=4,
    ),
}

CELLS = {
    "cell_id": Column("str", "", "hash of the cell's canonical configuration"),
    "block": Column("str", "", "cells that share utterance, repetition and network"),
    "codec": Column("str", "", "name of the codec entry in the scenario"),
    "codec_kind": Column("str", "", "pcm, g711, opus, ..."),
    "codec_params": Column("json", "", "all parameters, defaults included"),
    "codec_facts": Column("json", "", "CodecFacts as configured; null if it never started"),
    "weights": Column("str", "", "none, real or random"),
    "transport": Column("str", "", "name of the transport entry"),
    "network": Column("str", "", "name of the network entry"),
    "receiver": Column("str", "", "name of the receiver entry"),
    "utterance": Column("str", "", "corpus item id"),
    "speaker": Column("str", "", "null where unknown"),
    "kind": Column("str", "", "speech or music"),
    "repetition": Column("int", "", "0-based"),
    "seed": Column("int", "", "of the link, the same for all codecs of a block"),
    "control": Column(
        "str", "", "codec or network where the cell is a control; else null", since=2
    ),
    "sweep": Column(
        "json", "", "{name: {x, unit}} of the sweeps that it is a point of; else null", since=2
    ),
    "lab": Column("str", "", "docker, netns or virtual"),
    "link": Column("str", "", "netem, relay or model"),
    "compute": Column("str", "", "virtual lab: measured, profile or zero; else null", since=2),
    "status": Column("str", "", "ok, invalid, failed or unsupported"),
    "reason": Column("str", "", "null when ok"),
    "blame": Column(
        "str", "", "machine where another try may end well, asked where not; null when ok", since=4
    ),
    "started_utc": Column("str", "", "ISO 8601"),
    "wall_s": Column("float", "s", "wall time of the cell"),
    "media_s": Column("float", "s", "duration of the item"),
    "reference_sha256": Column("str", "", "of the item's prepared samples, whole", since=4),
    "t0_ns": Column("int", "ns", "CLOCK_MONOTONIC instant of capture of sample 0"),
    "link_asked": Column("json", "", "LinkPair as asked"),
    "impairment": Column(
        "str", "", "per-packet, media-time, scheduled, recorded; joined by +", since=2
    ),
    "trace_sha256": Column(
        "str", "", "of the impairment trace, the same for a whole block", since=2
    ),
    "recorded_part": Column(
        "json",
        "s",
        "by direction, [from, to] in its recording, counted on where that begins again; null where"
        " nothing is recorded",
        since=4,
    ),
    "link_readback": Column("json", "", "what the kernel reported (netem) or the engine built"),
    "proof": Column(
        "json", "", "list of {direction, figure, asked, measured, tolerance, unit, ok}"
    ),
    "proof_ok": Column("bool", "", "all proof figures within tolerance"),
    "bitrate_nominal_bps": Column("float", "bit/s", "what the codec is set to"),
    "bitrate_payload_bps": Column("float", "bit/s", "codec payloads over media time"),
    "bitrate_wire_bps": Column("float", "bit/s", "frames on the wire, forward, over media time"),
    "worst_lateness_ms": Column("float", "ms", "sender: largest lag behind its schedule"),
    "p99_lateness_ms": Column("float", "ms", "sender: lag of all but 1 % of its frames", since=4),
    "receiver_worst_lateness_ms": Column(
        "float", "ms", "receiver: largest lag of pulling and decoding a frame", since=4
    ),
    "receiver_p99_lateness_ms": Column("float", "ms", "of all but 1 % of its pulls", since=4),
    "read_worst_lateness_ms": Column(
        "float",
        "ms",
        "receiver: from a packet's arrival to its being read; null without kernel stamps",
        since=4,
    ),
    "read_p99_lateness_ms": Column("float", "ms", "of all but 1 % of its packets", since=4),
    "relay_worst_lateness_ms": Column(
        "float", "ms", "relay: largest lag of a packet that leaves; null for other links", since=4
    ),
    "relay_p99_lateness_ms": Column("float", "ms", "of all but 1 % of its packets", since=4),
    "device_underruns": Column(
        "int", "", "frames that were decoded after the device wanted them", since=4
    ),
    "late_sends": Column("int", "", "frames encoded more than a frame behind schedule"),
    "packets_sent": Column("int", "", "media packets given to the socket"),
    "frames_total": Column("int", "", "media frames"),
    "tracks": Column(
        "json",
        "",
        "by stream that shared the link, the one of these tables first: packets_sent, _received,"
        " _lost, _late; payload_bps, goodput_bps; in_time; mouth_to_ear_p50_ms;"
        " concealment_ratio; null where there was one stream",
        since=3,
    ),
    "agent_facts": Column(
        "json", "", "boot_id, time namespace, priority, cpuset of both endpoints"
    ),
    "audio_reference": Column("str", "", "path of the reference, relative to the run directory"),
    "audio_media": Column("str", "", "path of the track on the media timeline"),
    "audio_played": Column("str", "", "path of the track as played"),
}

PACKETS = {
    "cell_id": Column("str", "", ""),
    "seq": Column("int", "", "packet sequence number"),
    "frame": Column("int", "", "media frame k"),
    "fragment": Column("int", "", "index within the frame"),
    "fragments": Column("int", "", "packets of the frame"),
    "media_ns": Column("int", "ns", "media time of the frame's start on the decoder timeline"),
    "size_bytes": Column("int", "B", "given to the socket"),
    "send_ns": Column("int", "ns", "relative to t0"),
    "transit_ns": Column("int", "ns", "first receive minus send; null if it never arrived"),
    "copies": Column("int", "", "times received"),
    "fate": Column(
        "str", "", "played, reordered, late, lost, queue, undecodable, incomplete, spare"
    ),
    "purpose": Column("str", "", "media, parity, retransmission, report", since=3),
}

FRAMES = {
    "cell_id": Column("str", "", ""),
    "frame": Column("int", "", "media frame k; null for inserted time"),
    "media_ns": Column("int", "ns", "start on the decoder timeline"),
    "kind": Column("str", "", "decoded, fec, concealed, silence, stretched"),
    "capture_ns": Column("int", "ns", "relative to t0: its first sample is captured"),
    "fill_ns": Column("int", "ns", "waiting for the frame's own samples"),
    "lookahead_ns": Column("int", "ns", "codec look-ahead and filter delay"),
    "encode_ns": Column("int", "ns", "schedule to payload (waiting for the CPU included)"),
    "send_ns": Column("int", "ns", "payload to last fragment in the socket"),
    "network_ns": Column("int", "ns", "socket to complete at the receiver; null if not received"),
    "buffer_ns": Column("int", "ns", "wait in the jitter buffer; null if not received"),
    "decode_ns": Column("int", "ns", "pull to PCM"),
    "playout_ns": Column("int", "ns", "PCM to first sample out of the device"),
    "mouth_to_ear_ns": Column("int", "ns", "sum of the above: play minus capture (ITU-T G.114)"),
    "encode_cpu_ns": Column("int", "ns", "the encode call alone"),
    "decoder_ns": Column("int", "ns", "the decoder's calls alone", since=4),
    "payload_bytes": Column("int", "B", "codec payload"),
    "play_ns": Column("int", "ns", "relative to t0"),
    "played_start": Column("int", "samples", "index into the played track"),
    "played_samples": Column("int", "samples", "length as played"),
    "buffer_frames": Column("int", "", "jitter-buffer depth at the pull"),
    "target_bps": Column("int", "bit/s", "what the encoder was set to", since=3),
}

SCORES = {
    "cell_id": Column("str", "", ""),
    "metric": Column("str", "", "key of harness.score.metrics.METRICS"),
    "mode": Column("str", "", "wb, nb, classic, extended, p50 ...; '' where there is one only"),
    "track": Column("str", "", "media, played, or '' for network figures"),
    "value": Column("float", "", "null with a reason"),
    "unit": Column("str", "", ""),
    "reason": Column("str", "", "why value is null"),
    "package": Column("str", "", "what computed it"),
    "version": Column("str", "", "of that package"),
    "alignment": Column("str", "", "calibrated, gcc-phat, envelope; '' for network figures"),
    "lag_ms": Column("float", "ms", "residual lag found after calibration"),
    "confidence": Column("float", "", "peak to second peak of the alignment check"),
    "plain": Column(
        "float", "", "PESQ-WB of the tracks as they are, as published figures are", since=4
    ),
    "spread": Column(
        "float",
        "",
        "largest less smallest PESQ-WB behind 0 to 13 ms of silence; value is their median where"
        " this is above 0.1",
        since=4,
    ),
    "reference_sha256": Column("str", "", "of the reference samples scored"),
    "degraded_sha256": Column("str", "", "of the degraded samples scored"),
}

LEGACY = {
    "cell_id": Column("str", "", "", since=3),
    "system": Column("str", "", "key of harness.score.legacy.SYSTEMS", since=3),
    "estimator": Column("str", "", "latency, loss, bandwidth, bitrate, send_time", since=3),
    "value": Column("float", "", "what the old program would have printed; null: reason", since=3),
    "unit": Column("str", "", "of value and truth", since=3),
    "reason": Column("str", "", "why value is null", since=3),
    "note": Column("str", "", "what it left out or put in on the way; null if nothing", since=3),
    "truth": Column("float", "", "what happened, as we measure it; null: truth_reason", since=3),
    "truth_metric": Column("str", "", "key of harness.score.metrics.METRICS", since=3),
    "truth_mode": Column("str", "", "of that metric", since=3),
    "truth_reason": Column("str", "", "why truth is null", since=3),
}

ATTEMPTS = {
    "cell_id": Column("str", "", "", since=4),
    "attempt": Column("int", "", "1-based; the cell's tables are those of its last", since=4),
    "session": Column("int", "", "1-based, index into sessions of runs", since=4),
    "status": Column("str", "", "as in cells", since=4),
    "reason": Column("str", "", "as in cells", since=4),
    "blame": Column("str", "", "as in cells", since=4),
    "ended_utc": Column("str", "", "ISO 8601", since=4),
}

TABLES = {
    "runs": RUNS,
    "cells": CELLS,
    "packets": PACKETS,
    "frames": FRAMES,
    "scores": SCORES,
    "legacy": LEGACY,
    "attempts": ATTEMPTS,
}

LATENCY_PARTS = (
    "fill_ns",
    "lookahead_ns",
    "encode_ns",
    "send_ns",
    "network_ns",
    "buffer_ns",
    "decode_ns",
    "playout_ns",
)
"""The columns of ``frames`` that sum to ``mouth_to_ear_ns``, in order of happening."""

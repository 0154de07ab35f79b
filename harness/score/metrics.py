"""What is measured of a cell: every metric with its unit, bounds, direction, validity and source.

A score is a value, or null with the reason why there is none; there is no third thing. Scores of
audio are about one *track*: ``media`` (every frame at its place on the sender's media timeline:
codec and concealment) or ``played`` (as heard, with what the jitter buffer inserted or stretched).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypedDict

from harness import __version__

Better = Literal["higher", "lower", "neither"]
SPEECH = ("speech",)
ANY = ("speech", "music")


@dataclass(frozen=True)
class Metric:
    """One metric, whose ``modes`` are its variants (``("",)`` where there is one only)."""

    name: str
    unit: str
    better: Better
    source: str
    bounds: tuple[float | None, float | None] = (0.0, None)
    modes: tuple[str, ...] = ("",)
    kinds: tuple[str, ...] = ANY
    """Of reference audio that the metric is defined for."""
    rates_hz: Mapping[str, int] = field(default_factory=dict)
    """By mode, the sampling rate at which audio is compared."""


class Score(TypedDict):
    """A row of ``scores`` without ``cell_id``."""

    metric: str
    mode: str
    track: str
    value: float | None
    unit: str
    reason: str | None
    package: str
    version: str
    alignment: str
    lag_ms: float | None
    confidence: float | None
    reference_sha256: str | None
    degraded_sha256: str | None


PERCENTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}
FATES = ("late", "lost", "queue", "undecodable", "incomplete")
"""Of packets that were not played, whatever the cause."""
LATENCY = {
    "fill": "fill_ns",
    "lookahead": "lookahead_ns",
    "encode": "encode_ns",
    "send": "send_ns",
    "network": "network_ns",
    "buffer": "buffer_ns",
    "decode": "decode_ns",
    "playout": "playout_ns",
}
"""Modes of ``latency_part`` and their columns of ``frames``."""

_SHARE = (0.0, 1.0)
METRICS: dict[str, Metric] = {
    "pesq": Metric(
        "PESQ",
        "MOS-LQO",
        "higher",
        "ITU-T P.862.1 (nb, at most 4.549), P.862.2 without Corrigendum 2 (wb, at most 4.644)",
        bounds=(1.0, 4.65),
        modes=("wb", "nb"),
        kinds=SPEECH,
        rates_hz={"wb": 16_000, "nb": 8_000},
    ),
    "stoi": Metric(
        "STOI",
        "",
        "higher",
        "Taal et al. 2011 (classic), Jensen and Taal 2016 (extended)",
        bounds=(-1.0, 1.0),
        modes=("classic", "extended"),
        kinds=SPEECH,
        rates_hz={"classic": 16_000, "extended": 16_000},
    ),
    "mouth_to_ear": Metric(
        "mouth-to-ear delay", "ms", "lower", "ITU-T G.114", modes=tuple(PERCENTILES)
    ),
    "latency_part": Metric(
        "part of the mouth-to-ear delay, median",
        "ms",
        "lower",
        "ITU-T G.114",
        bounds=(None, None),
        modes=tuple(LATENCY),
    ),
    "transit": Metric(
        "one-way delay, socket to socket", "ms", "lower", "RFC 7679", modes=tuple(PERCENTILES)
    ),
    "jitter_rfc3550": Metric(
        "interarrival jitter", "ms", "lower", "RFC 3550, 6.4.1 and A.8", modes=("mean", "end")
    ),
    "pdv": Metric(
        "packet delay variation: delay above the smallest",
        "ms",
        "lower",
        "RFC 5481, 4.2",
        modes=("p50", "p95", "p99"),
    ),
    "ipdv": Metric(
        "inter-packet delay variation, magnitude",
        "ms",
        "lower",
        "RFC 3393; RFC 5481, 4.1",
        modes=("p50", "p95", "p99"),
    ),
    "loss": Metric(
        "share of packets by fate", "share", "lower", "RFC 7680", bounds=_SHARE, modes=FATES
    ),
    "loss_total": Metric("share of packets not played", "share", "lower", "RFC 7680", _SHARE),
    "share_late_or_lost": Metric(
        "share of packets that a delay figure cannot speak of: late, lost or dropped by a queue",
        "share",
        "lower",
        "RFC 7680",
        _SHARE,
    ),
    "burst_density": Metric(
        "share of packets missing within bursts", "share", "lower", "RFC 3611, 4.7.2", _SHARE
    ),
    "gap_density": Metric(
        "share of packets missing between bursts", "share", "lower", "RFC 3611, 4.7.2", _SHARE
    ),
    "burst_duration": Metric("mean duration of a burst", "ms", "lower", "RFC 3611, 4.7.2"),
    "gap_duration": Metric("mean duration between bursts", "ms", "higher", "RFC 3611, 4.7.2"),
    "mean_loss_run": Metric(
        "mean number of packets missing in a row", "packets", "lower", "ITU-T G.1020", (1.0, None)
    ),
    "burst_ratio": Metric("BurstR", "", "lower", "ITU-T G.107, 3.5 (BurstR)"),
    "concealment_ratio": Metric(
        "share of media frames that were made up", "share", "lower", "W3C webrtc-stats", _SHARE
    ),
    "fec_ratio": Metric(
        "share of media frames recovered from redundancy",
        "share",
        "neither",
        "W3C webrtc-stats",
        _SHARE,
    ),
    "stretch_ratio": Metric(
        "duration as played over duration of the media", "", "neither", "this project"
    ),
    "bitrate": Metric(
        "bitrate",
        "bit/s",
        "neither",
        "this project: set, codec payloads, frames on the wire",
        modes=("nominal", "payload", "wire"),
    ),
    "real_time_factor": Metric(
        "mean processing time of a frame over its duration",
        "",
        "lower",
        "this project",
        modes=("encode", "decode"),
    ),
}


def score(
    metric: str,
    value: float | None,
    *,
    mode: str = "",
    track: str = "",
    reason: str | None = None,
    package: str = "harness",
    version: str = __version__,
) -> Score:
    """A score of a known metric: either a value or a reason. Raises KeyError, ValueError."""
    if (value is None) != (reason is not None):
        raise ValueError(f"{metric} {mode}: a score is a value, or null with a reason")
    return Score(
        metric=metric,
        mode=mode,
        track=track,
        value=value,
        unit=METRICS[metric].unit,
        reason=reason,
        package=package,
        version=version,
        alignment="",
        lag_ms=None,
        confidence=None,
        reference_sha256=None,
        degraded_sha256=None,
    )

"""What is measured of a cell: every metric with its unit, bounds, direction, validity and source.

A score is a value, or null with the reason why there is none; there is no third thing. Scores of
audio are about one *track*: ``media`` (every frame at its place on the sender's media timeline:
codec and concealment) or ``played`` (as heard, with what the jitter buffer inserted or stretched).

A score is stored with the decimals that mean something (``Metric.decimals``): vector units of
another kind of CPU round the sums in it otherwise, by far less than that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypedDict

from harness import __version__
from harness.assets.level import MIN_ACTIVE_SPEECH_S

Better = Literal["higher", "lower", "neither"]
SPEECH = ("speech",)
MUSIC = ("music",)
ANY = ("speech", "music")


class NoScore(Exception):
    """Raised by a measure for what it cannot score; the text is the reason."""


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
    mode_kinds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The same of modes that are for fewer."""
    rates_hz: Mapping[str, int] = field(default_factory=dict)
    """By mode, the sampling rate at which audio is compared."""
    min_active_s: float = 0.0
    """Active speech (ITU-T P.56) that a reference needs."""
    waveform: bool = False
    """Means something only for codecs that follow the waveform, which neural and parametric ones
    do not: they make up one that sounds alike."""
    decimals: int = 6
    """Of a stored score."""

    def allows(self, value: float) -> bool:
        """Whether it is a finite number within the bounds."""
        low, high = self.bounds
        above = low is None or value >= low
        below = high is None or value <= high
        return math.isfinite(value) and above and below

    def kinds_of(self, mode: str) -> tuple[str, ...]:
        """Of reference audio that a mode is defined for."""
        return self.mode_kinds.get(mode, self.kinds)


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
    plain: float | None
    spread: float | None
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
_MOS = (0.0, 5.0)
"""What learned estimators return is near 1 to 5, and now and then below."""
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
        min_active_s=MIN_ACTIVE_SPEECH_S,
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
    "plcmos": Metric(
        "PLCMOS v2",
        "MOS",
        "higher",
        "Diener et al. 2023; listens to the degraded speech alone",
        bounds=_MOS,
        kinds=SPEECH,
        rates_hz={"": 16_000},
    ),
    "dnsmos": Metric(
        "DNSMOS",
        "MOS",
        "higher",
        "Reddy et al. 2022 (P.835: sig, bak, ovrl), Reddy et al. 2021 (P.808); listens to the"
        " degraded speech alone",
        bounds=_MOS,
        modes=("sig", "bak", "ovrl", "p808"),
        kinds=SPEECH,
        rates_hz=dict.fromkeys(("sig", "bak", "ovrl", "p808"), 16_000),
    ),
    "visqol": Metric(
        "ViSQOL v3",
        "MOS-LQO",
        "higher",
        "Chinen et al. 2020",
        bounds=(1.0, 5.0),
        modes=("speech", "audio"),
        mode_kinds={"speech": SPEECH, "audio": MUSIC},
        rates_hz={"speech": 16_000, "audio": 48_000},
    ),
    "lsd": Metric(
        "log-spectral distance",
        "dB",
        "lower",
        "Gray and Markel 1976; clipped below the peak as by Cohen 2004: speech 50 dB, up to 8 kHz"
        " (wb), music 80 dB, up to 24 kHz (fb)",
        modes=("wb", "fb"),
        mode_kinds={"wb": SPEECH, "fb": MUSIC},
        rates_hz={"wb": 16_000, "fb": 48_000},
    ),
    "si_sdr": Metric(
        "scale-invariant signal-to-distortion ratio",
        "dB",
        "higher",
        "Le Roux et al. 2019; speech up to 8 kHz (wb), music up to 24 kHz (fb)",
        bounds=(-100.0, 100.0),
        modes=("wb", "fb"),
        mode_kinds={"wb": SPEECH, "fb": MUSIC},
        rates_hz={"wb": 16_000, "fb": 48_000},
        waveform=True,
    ),
    "e_model_r": Metric(
        "transmission rating R of the E-model: a planning estimate from delay, loss and BurstR",
        "R",
        "higher",
        "ITU-T G.107; Ie and Bpl of ITU-T G.113, Appendix I",
        bounds=(0.0, 100.0),
        kinds=SPEECH,
    ),
    "e_model": Metric(
        "MOS of that R",
        "MOS-CQE",
        "higher",
        "ITU-T G.107, Annex B",
        bounds=(1.0, 4.5),
        kinds=SPEECH,
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
    "fairness": Metric(
        "Jain's index over streams that share a link: of the payload played in time, of the share"
        " of frames played in time",
        "",
        "higher",
        "Jain, Chiu and Hawe 1984",
        _SHARE,
        ("goodput", "in_time"),
    ),
    "task_accuracy": Metric(
        "share of a sink's decisions on windows that agree with those on the clean reference: of"
        " those that a client was given, of all that were due",
        "share",
        "higher",
        "this project",
        bounds=_SHARE,
        modes=("given", "due"),
    ),
    "time_to_decision": Metric(
        "from the capture of a window's last sample to the sink's decision",
        "ms",
        "lower",
        "this project",
        bounds=(None, None),
        modes=("p50", "p95"),
    ),
    "sink_windows": Metric(
        "windows of a sink: due; classified; silent; without an answer; of several clients' audio;"
        " answered to a client whose audio is not in them",
        "windows",
        "neither",
        "this project",
        modes=("due", "classified", "silent", "missing", "mixed", "misdirected"),
    ),
    "sink_chunks": Metric(
        "chunks of a sink: taken; dropped by a full buffer; most that waited in one",
        "chunks",
        "neither",
        "this project",
        modes=("taken", "dropped", "deepest"),
    ),
    "sink_inference": Metric(
        "time of one call of a sink's classifier",
        "ms",
        "lower",
        "this project",
        modes=("p50", "p95"),
    ),
    "sink_busy": Metric(
        "share of time that a sink's classifier is busy", "share", "lower", "this project", _SHARE
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
    """A score of a known metric: either a value or a reason. Raises KeyError, ValueError.

    The value is rounded to the metric's decimals; one that is out of bounds becomes a reason.
    """
    known = METRICS[metric]
    if (value is None) != (reason is not None):
        raise ValueError(f"{metric} {mode}: a score is a value, or null with a reason")
    if value is not None and not known.allows(value):
        value, reason = None, f"{package} returned {value:g}, which is out of bounds"
    return Score(
        metric=metric,
        mode=mode,
        track=track,
        value=None if value is None else round(float(value), known.decimals),
        unit=known.unit,
        reason=reason,
        package=package,
        version=version,
        alignment="",
        lag_ms=None,
        confidence=None,
        plain=None,
        spread=None,
        reference_sha256=None,
        degraded_sha256=None,
    )

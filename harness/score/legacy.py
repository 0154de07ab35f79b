"""What five older systems would have printed of a cell, computed from the same run as the truth.

Each measures something else than what it says: a sleep for a latency, a drawn number for a loss.
Their estimators are done over here as they were, from a cell's packets, frames and what its sender
counted, and each stands beside the figure of ours that says what happened. Where a run lacks what
an estimator looks at, or where a system has none, there is null with a reason; nothing is made up
but what a system itself makes up, and that is drawn from the cell's seed.

What a sender may count for them stands in ``agent_facts.sender``, in order of sending: by message
``ack_rtt_ns`` (from send to the application's acknowledgement; null if there was none) and
``send_call_ns`` (length of the blocking send call).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.score.metrics import METRICS, NoScore, Score
from harness.score.network import Table
from harness.units import NS_PER_MS, NS_PER_S

ACK_TIMEOUT_NS = NS_PER_S
"""Of the WebSocket client: an acknowledgement that takes longer enters no statistics."""
SLEPT_MS = 50.0
"""``sleep(0.05)``, whose length the AAC system shows as the latency."""
DRAWN_LOSS = 0.01
"""The AAC system counts a block as lost where ``random() < 0.01``."""


class Legacy(TypedDict):
    """A row of ``legacy`` without ``cell_id``."""

    system: str
    estimator: str
    value: float | None
    unit: str
    reason: str | None
    note: str | None
    truth: float | None
    truth_metric: str
    truth_mode: str
    truth_reason: str | None


class Printed(NamedTuple):
    """A figure as printed; ``note`` says what was left out or put in on the way."""

    value: float
    note: str | None = None


@dataclass(frozen=True)
class Stream:
    """What an estimator may look at: a cell that streamed, as the tables have it."""

    packets: Table
    frames: Table
    cell: Mapping[str, Any]

    def counted(self, name: str, what: str) -> list[float | None]:
        """A list of the sender's. Raises NoScore where it counted none."""
        facts = json.loads(self.cell["agent_facts"] or "{}").get("sender", {})
        values: list[float | None] = facts.get(name) or []
        if not values:
            raise NoScore(f"this transport does not count {what} ({name})")
        return values


@dataclass(frozen=True)
class Estimator:
    """One figure of a system. ``truth`` is the metric and mode beside it, times ``scale`` in
    ``unit``."""

    name: str
    unit: str
    meaning: str
    truth: tuple[str, str]
    scale: float
    compute: Callable[[Stream], Printed]


@dataclass(frozen=True)
class System:
    """An older system: what it is, where it is published, what it prints."""

    title: str
    source: str
    estimators: tuple[Estimator, ...]


def legacy_rows(
    systems: Iterable[str],
    packets: Table,
    frames: Table,
    cell: Mapping[str, Any],
    scores: Sequence[Score],
) -> list[Legacy]:
    """Rows of ``legacy`` for one cell that streamed: all estimators of ``systems`` (keys of
    ``SYSTEMS``). Arguments as of :func:`harness.score.network.network_scores`, and what that made.
    """
    stream = Stream(packets, frames, cell)
    known = {(score["metric"], score["mode"]): score for score in scores}
    return [
        _row(system, estimator, stream, known[estimator.truth])
        for system in systems
        for estimator in SYSTEMS[system].estimators
    ]


def _row(system: str, estimator: Estimator, stream: Stream, truth: Score) -> Legacy:
    value, reason, note = None, None, None
    try:
        value, note = estimator.compute(stream)
    except NoScore as missing:
        reason = str(missing)
    happened = truth["value"]
    return Legacy(
        system=system,
        estimator=estimator.name,
        value=value,
        unit=estimator.unit,
        reason=reason,
        note=note,
        truth=None if happened is None else happened * estimator.scale,
        truth_metric=truth["metric"],
        truth_mode=truth["mode"],
        truth_reason=truth["reason"],
    )


def _nothing(reason: str) -> Callable[[Stream], Printed]:
    def compute(_: Stream) -> Printed:
        raise NoScore(reason)

    return compute


def _acknowledged(stream: Stream) -> Printed:
    counted = stream.counted("ack_rtt_ns", "acknowledgements by the application")
    rtt_ns = np.array([np.nan if ns is None else ns for ns in counted], np.float64)
    encode_ns = _numbers(stream.frames, "encode_cpu_ns")
    encode_ns = encode_ns[~np.isnan(encode_ns)]
    if not len(encode_ns):
        raise NoScore("no frame was encoded")
    if len(encode_ns) != len(rtt_ns):
        encode_ns = np.full(len(rtt_ns), encode_ns.mean())
    kept = rtt_ns <= ACK_TIMEOUT_NS
    dropped = f"{len(rtt_ns) - int(kept.sum())} of {len(rtt_ns)} dropped: over 1 s, or no answer"
    if not kept.any():
        raise NoScore(dropped)
    latency_ms = float((rtt_ns + encode_ns)[kept].mean()) / NS_PER_MS
    return Printed(latency_ms, None if kept.all() else dropped)


def _blocking(stream: Stream) -> Printed:
    called = stream.counted("send_call_ns", "the time in its send calls")
    return Printed(float(np.mean([ns for ns in called if ns is not None])) / NS_PER_MS)


def _nominal(stream: Stream) -> Printed:
    return Printed(float(stream.cell["bitrate_nominal_bps"]) / 1000)


def _drawn(stream: Stream) -> Printed:
    blocks = len(np.unique(_numbers(stream.packets, "frame")))
    if not blocks:
        raise NoScore("no block was sent")
    draws = np.random.default_rng(int(stream.cell["seed"])).random(blocks)
    return Printed(100 * float((draws < DRAWN_LOSS).mean()), f"{blocks} draws; no packet looked at")


def _cumulative(stream: Stream) -> Printed:
    send_ns = _numbers(stream.packets, "send_ns")
    elapsed_s = float(np.nanmax(send_ns, initial=0.0)) / NS_PER_S
    if elapsed_s <= 0:
        raise NoScore("no packet was sent")
    return Printed(8 * float(np.sum(_numbers(stream.packets, "size_bytes"))) / elapsed_s / 1000)


def _next_reply(stream: Stream) -> Printed:
    counted = stream.counted("ack_rtt_ns", "replies")
    send_ns = _numbers(stream.packets, "send_ns")
    send_ns = np.sort(send_ns[np.asarray(stream.packets["purpose"], str) == "media"])
    if len(counted) != len(send_ns):
        raise NoScore(f"expected a reply or null per packet, got {len(counted)} of {len(send_ns)}")
    rtt_ns = np.array([np.nan if ns is None else ns for ns in counted], np.float64)
    replies_ns = (send_ns + rtt_ns)[~np.isnan(rtt_ns)]
    if not len(replies_ns):
        raise NoScore("no reply came")
    latest = np.searchsorted(send_ns, replies_ns, side="right") - 1
    mistaken = int((latest != np.flatnonzero(~np.isnan(rtt_ns))).sum())
    latency_ms = float((replies_ns - send_ns[latest]).mean()) / NS_PER_MS
    note = f"{mistaken} of {len(replies_ns)} replies were taken for another chunk's"
    return Printed(latency_ms, note if mistaken else None)


def _numbers(table: Table, column: str) -> NDArray[np.float64]:
    """A column, with NaN for null."""
    values = table[column]
    if isinstance(values, pd.Series):
        return values.to_numpy(np.float64, na_value=np.nan)
    return np.ma.filled(np.ma.asarray(values).astype(np.float64), np.nan)


_DELAY = ("mouth_to_ear", "p50")
_MISSING = ("share_late_or_lost", "")
_WIRE = ("bitrate", "wire")

SYSTEMS: Mapping[str, System] = {
    "websocket-wavtokenizer": System(
        "WebSocket and WavTokenizer under tbf",
        "alexandreacff/Audio_Codecs_Streaming",
        (
            Estimator(
                *("latency", "ms"),
                "mean of the application's acknowledgement round trip plus the encode call; what"
                " took over 1 s is dropped. No capture, decoding or playing in it, and the way"
                " back in it",
                *(_DELAY, 1.0),
                _acknowledged,
            ),
            Estimator(
                *("loss", "%"),
                "never measured",
                *(_MISSING, 100.0),
                _nothing("this system never measures loss"),
            ),
        ),
    ),
    "tcp-esc": System(
        "ESC over TCP",
        "a fork of yzGuu830/efficient-speech-codec",
        (
            Estimator(
                *("send_time", "ms"),
                "mean time until sendall returned: how long the kernel took to take the bytes, not"
                " the network to carry them",
                *(("latency_part", "network"), 1.0),
                _blocking,
            ),
            Estimator(
                *("latency", "ms"),
                "never measured",
                *(_DELAY, 1.0),
                _nothing("this system never measures a delay"),
            ),
            Estimator(
                *("bitrate", "kbit/s"),
                "of the codes as a file: the codec's nominal rate, without serialisation, framing"
                " and headers",
                *(_WIRE, 1e-3),
                _nominal,
            ),
        ),
    ),
    "udp-aac-blocks": System(
        "AAC blocks over UDP with a GUI",
        "RealTime-Audio-Streaming",
        (
            Estimator(
                *("latency", "ms"),
                "measured length of sleep(0.05): 50 ms by construction, whatever the network does",
                *(_DELAY, 1.0),
                lambda _: Printed(SLEPT_MS, "without what the scheduler added to the sleep"),
            ),
            Estimator(
                *("loss", "%"),
                "share of the blocks for which random() < 0.01",
                *(_MISSING, 100.0),
                _drawn,
            ),
            Estimator(
                *("bandwidth", "kbit/s"),
                "bytes given to the socket so far over the time since the start",
                *(_WIRE, 1e-3),
                _cumulative,
            ),
        ),
    ),
    "udp-encodec-fragments": System(
        "EnCodec fragments over UDP",
        "encodec-udp-stream",
        (
            Estimator(
                *("bitrate", "kbit/s"),
                "the bandwidth that the codec is set to; headers of chunks and fragments are not in"
                " it",
                *(_WIRE, 1e-3),
                _nominal,
            ),
            Estimator(
                *("latency", "ms"),
                "never measured",
                *(_DELAY, 1.0),
                _nothing("this system has no metric"),
            ),
            Estimator(
                *("loss", "%"),
                "never measured; a chunk is gone with any of its fragments",
                *(("concealment_ratio", ""), 100.0),
                _nothing("this system has no metric"),
            ),
        ),
    ),
    "websocket-classifier": System(
        "Browser microphone, WebSocket, streaming classifier",
        "audio_stream_classification",
        (
            Estimator(
                *("latency", "ms"),
                "mean time from the last chunk sent to the next reply; replies carry no id, so one"
                " that took longer than a chunk is taken for a later chunk's",
                *(_DELAY, 1.0),
                _next_reply,
            ),
            Estimator(
                *("loss", "%"),
                "never measured: a full buffer drops the oldest in silence",
                *(_MISSING, 100.0),
                _nothing("this system never measures loss"),
            ),
        ),
    ),
}


def truth_label(metric: str, mode: str) -> str:
    """The figure that stands for what happened, in words."""
    name = METRICS[metric].name
    return f"{name}, {mode}" if mode else name

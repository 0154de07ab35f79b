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
    decided_ns: Sequence[int] = ()

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
    decided_ns: Sequence[int] = (),
) -> list[Legacy]:
    """Rows of ``legacy`` for one cell that streamed: all estimators of ``systems`` (keys of
    ``SYSTEMS``). Arguments as of :func:`harness.score.network.network_scores`; ``scores`` are what
    that made, with those of a sink, if one listened, and ``decided_ns`` its decisions for the
    stream's client, relative to t0.
    """
    stream = Stream(packets, frames, cell, decided_ns)
    known = {(score["metric"], score["mode"]): score for score in scores}
    return [
        _row(system, estimator, stream, known.get(estimator.truth))
        for system in systems
        for estimator in SYSTEMS[system].estimators
    ]


def _row(system: str, estimator: Estimator, stream: Stream, truth: Score | None) -> Legacy:
    value, reason, note = None, None, None
    try:
        value, note = estimator.compute(stream)
    except NoScore as missing:
        reason = str(missing)
    happened = truth["value"] if truth else None
    metric, mode = estimator.truth
    return Legacy(
        system=system,
        estimator=estimator.name,
        value=value,
        unit=estimator.unit,
        reason=reason,
        note=note,
        truth=None if happened is None else happened * estimator.scale,
        truth_metric=metric,
        truth_mode=mode,
        truth_reason=truth["reason"] if truth else "no classifier listened to this cell",
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
    send_ns = np.sort(_numbers(stream.packets, "send_ns"))
    replies_ns = np.array(stream.decided_ns, np.float64)
    if not len(replies_ns):
        raise NoScore("no reply came: no classifier listened to this cell, or it decided nothing")
    latest = np.searchsorted(send_ns, replies_ns, side="right") - 1
    since_ns = (replies_ns - send_ns[np.maximum(latest, 0)])[latest >= 0]
    after = int((replies_ns > send_ns[-1]).sum())
    note = f"{after} of {len(replies_ns)} replies came when all was sent" if after else None
    return Printed(float(since_ns.mean()) / NS_PER_MS, note)


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
                "mean time from the last chunk sent to the next reply (without the reply's own way"
                " back); replies carry no id, so one that took longer than a chunk is taken for a"
                " later chunk's",
                *(("time_to_decision", "p50"), 1.0),
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

"""The network figures of one cell, from its packets and frames alone.

Times are those of the tables: a packet's transit runs from the send call to the receive call, a
frame's delays are as :mod:`harness.media.fates` makes them. Delay percentiles are over what did
arrive (frames: over what was decoded), so ``share_late_or_lost`` belongs beside them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.score import figures
from harness.score.metrics import FATES, LATENCY, METRICS, PERCENTILES, Score, score
from harness.units import NS_PER_MS, NS_PER_S

_MADE_UP = ("concealed", "silence")


Table = pd.DataFrame | Mapping[str, NDArray[Any]]
"""Rows as the store gives them back, or columns as they are handed to it."""


def network_scores(packets: Table, frames: Table, cell: Mapping[str, Any]) -> list[Score]:
    """All scores that are not of audio, for one cell that streamed.

    ``packets`` and ``frames`` are the cell's rows of these tables (in order of sending, of
    playing), ``cell`` its row of ``cells``. Packets count that carry media the first time: what
    protects them is seen in the frames and in the bitrate on the wire.
    """
    packets = _media(packets)
    return [
        *_delays(packets, frames),
        *_losses(packets, cell),
        *_frames(frames, cell),
        *(
            _known("bitrate", _number(cell.get(f"bitrate_{mode}_bps")), "not recorded", mode)
            for mode in METRICS["bitrate"].modes
        ),
        *_fairness(cell),
    ]


def _fairness(cell: Mapping[str, Any]) -> Iterable[Score]:
    """Of a cell whose stream was not alone."""
    if not isinstance(cell.get("tracks"), str):
        return
    tracks = json.loads(cell["tracks"])
    for mode, key in (("goodput", "goodput_bps"), ("in_time", "in_time")):
        index = figures.jains_index([track[key] for track in tracks])
        yield _known("fairness", index, "no stream had a frame played in time", mode)


def _media(packets: Table) -> Table:
    media = np.asarray(packets["purpose"], str) == "media"
    if isinstance(packets, pd.DataFrame):
        return cast(pd.DataFrame, packets.loc[media])
    return {name: column[media] for name, column in packets.items()}


def _delays(packets: Table, frames: Table) -> Iterable[Score]:
    heard = ~np.isnan(numbers(frames, "mouth_to_ear_ns"))
    yield from _percentiles("mouth_to_ear", mouth_to_ear_ms(frames), "frame was decoded")
    for mode, column in LATENCY.items():
        part_ms = _known_numbers(frames, column, heard) / NS_PER_MS
        too_few = _too_few(part_ms, 0.5, "frame was decoded")
        yield _known("latency_part", figures.percentile(part_ms, 0.5), too_few, mode)

    sent_ms = numbers(packets, "send_ns") / NS_PER_MS
    transit_ms = numbers(packets, "transit_ns") / NS_PER_MS
    arrived = ~np.isnan(transit_ms)
    none = "packet arrived"
    yield from _percentiles("transit", transit_ms[arrived], none)
    yield from _percentiles("pdv", figures.pdv(transit_ms[arrived]), none)
    yield from _percentiles("ipdv", np.abs(figures.ipdv(transit_ms)), "two packets in a row came")
    in_order = np.argsort((sent_ms + transit_ms)[arrived], kind="stable")
    jitter = figures.interarrival_jitter(transit_ms[arrived][in_order])
    few = "fewer than two packets arrived"
    yield _known("jitter_rfc3550", float(jitter.mean()) if len(jitter) else None, few, "mean")
    yield _known("jitter_rfc3550", float(jitter[-1]) if len(jitter) else None, few, "end")


def _losses(packets: Table, cell: Mapping[str, Any]) -> Iterable[Score]:
    fate = np.asarray(packets["fate"], str)
    of = {name: fate == name for name in FATES}
    missing = np.logical_or.reduce(list(of.values()))
    nothing = "no packet was sent"

    def share(of: NDArray[np.bool_]) -> float | None:
        return float(of.mean()) if len(of) else None

    for name in FATES:
        yield _known("loss", share(of[name]), nothing, name)
    yield _known("loss_total", share(missing), nothing)
    yield _known("share_late_or_lost", share(of["late"] | of["lost"] | of["queue"]), nothing)

    found = figures.bursts(missing)
    media_s = _number(cell.get("media_s"))
    packet_ms = 1000 * media_s / len(fate) if media_s is not None and len(fate) else None

    def duration(count: float | None) -> float | None:
        return None if count is None or packet_ms is None else count * packet_ms

    no_burst, no_gap = "no burst of losses", "no gap between bursts"
    yield _known("burst_density", found.burst_density, no_burst)
    yield _known("gap_density", found.gap_density, no_gap)
    yield _known("burst_duration", duration(found.mean_burst_packets), no_burst)
    yield _known("gap_duration", duration(found.mean_gap_packets), no_gap)
    yield _known("mean_loss_run", figures.mean_loss_run(missing), "no packet is missing")
    yield _known("burst_ratio", figures.burst_ratio(missing), "no packet, or every one, is missing")


def _frames(frames: Table, cell: Mapping[str, Any]) -> Iterable[Score]:
    facts = json.loads(cell["codec_facts"])
    frame_ns = facts["frame_samples"] * NS_PER_S / facts["sample_rate_hz"]
    kind = np.asarray(frames["kind"], str)
    media = ~np.isnan(numbers(frames, "frame"))
    total = int(media.sum())
    made_up = np.isin(kind, _MADE_UP)
    nothing = "no media frame was played"

    def share(of: NDArray[np.bool_]) -> float | None:
        return float(of[media].mean()) if total else None

    yield _known("concealment_ratio", share(made_up), nothing)
    yield _known("fec_ratio", share(kind == "fec"), nothing)
    played = float(np.sum(numbers(frames, "played_samples")))
    stretch = played / (total * facts["frame_samples"]) if total else None
    yield _known("stretch_ratio", stretch, nothing)
    for mode, column, of, none in (
        ("encode", "encode_cpu_ns", media, "no frame was encoded"),
        ("decode", "decoder_ns", media & ~made_up, "no frame was decoded"),
    ):
        spent_ns = _known_numbers(frames, column, of)
        factor = float(spent_ns.mean()) / frame_ns if len(spent_ns) else None
        yield _known("real_time_factor", factor, none, mode)


def mouth_to_ear_ms(frames: Table) -> NDArray[np.float64]:
    """Of the frames that were decoded, in order of playing."""
    delays_ms = numbers(frames, "mouth_to_ear_ns") / NS_PER_MS
    return delays_ms[~np.isnan(delays_ms)]


def made_up_frames(frames: Table) -> NDArray[np.bool_]:
    """One per media frame, in order of playing: whether the decoder had to do without it."""
    kinds = np.asarray(frames["kind"], str)[~np.isnan(numbers(frames, "frame"))]
    return np.isin(kinds, _MADE_UP)


def _percentiles(metric: str, values: NDArray[np.float64], what: str) -> Iterable[Score]:
    modes = METRICS[metric].modes
    quantiles = [PERCENTILES[mode] for mode in modes]
    for mode, quantile, found in zip(
        modes, quantiles, figures.percentiles(values, quantiles), strict=True
    ):
        yield _known(metric, found, _too_few(values, quantile, what), mode)


def _too_few(values: NDArray[np.float64], quantile: float, what: str) -> str:
    needed = figures.samples_needed(quantile)
    return f"needs {needed} samples, got {len(values)}" if len(values) else f"no {what}"


def _known(metric: str, value: float | None, otherwise: str, mode: str = "") -> Score:
    return score(metric, value, mode=mode, reason=otherwise if value is None else None)


def numbers(table: Table, column: str) -> NDArray[np.float64]:
    """A column, with NaN for null."""
    values = table[column]
    if isinstance(values, pd.Series):
        return values.to_numpy(np.float64, na_value=np.nan)
    return np.ma.filled(np.ma.asarray(values).astype(np.float64), np.nan)


def _known_numbers(table: Table, column: str, of: NDArray[np.bool_]) -> NDArray[np.float64]:
    """A column in the rows ``of``, without those that are null."""
    values = numbers(table, column)[of]
    return values[~np.isnan(values)]


def _number(value: Any) -> float | None:
    return None if value is None or pd.isna(value) else float(value)

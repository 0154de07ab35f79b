"""What one lost packet does to the decoded sound, and for how long. Pure and seeded.

Two decodings of one stream are compared, with and without the loss, on the media timeline, from
the first sample of the lost packet on. *Damage* in a bin of 5 ms is the energy of their difference
over the energy of the undamaged one around there (100 ms about the bin's middle, as the ear cares
for what is louder near by), in dB. Pauses count as no quieter than ``ACTIVE_DB`` below speech, or
the last bit of a silence would seem damage.

* *Depth* is the damage of the worst 20 ms: as long for a codec with long packets as for one with
  short ones. 0 dB is what a hole in the sound gives.
* *Recovered* it is after the last bin with more than ``AUDIBLE_DB``: a thousandth of the signal's
  power. On the scale of speech with signal-correlated noise (ITU-T P.810) that is Q = 30 dB, about
  as much as G.711's own quantisation leaves.
* *Exact* it is after the last sample that differs at all; ``near``, by more than one step of 16
  bits, for a codec that computes in floating point may differ in rounding long after.

A codec of random weights makes no sound that a level of damage could be heard in: its depth and
recovery are null, when it is exact again is real.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.stats import estimate, interval

BIN_S = 0.005
AUDIBLE_DB = -30.0
ACTIVE_DB = 25.0
"""Speech is what is at most so far below the loudest 20 ms."""
FLOOR_DB = -80.0
"""Less damage than this, or none at all, is written as this."""
_FRAME_S = 0.02
_STAYS_S = 0.25
"""What differs later than this before the end has not come back."""
_AROUND_BINS = 20
_WORST_BINS = 4

Samples = NDArray[np.int16]


@dataclass(frozen=True)
class Damage:
    """Of one lost packet; times in ms from the lost packet's first sample on.

    A time is None where the sound did not come back as long as it was looked at.
    """

    curve_db: NDArray[np.float64]
    """Per bin of 5 ms."""
    depth_db: float
    recover_ms: float | None
    near_ms: float | None
    exact_ms: float | None


def positions(audio: Samples, rate_hz: int, count: int, seed: str, last_s: float) -> list[int]:
    """Media times (ns) in active speech, at most ``last_s``, ascending and spread.

    One is drawn from each of ``count`` equal parts of the active frames (fewer where there is less
    speech), so that equal arguments give equal places for every codec. ``audio`` is the reference.
    """
    size = round(_FRAME_S * rate_hz)
    frames = audio[: len(audio) // size * size].reshape(-1, size)
    active = _active(np.square(frames, dtype=np.float64).sum(axis=1))
    speech = np.flatnonzero(active & (np.arange(len(active)) + 1 <= last_s / _FRAME_S))
    generator = random.Random(seed)
    chosen = [
        int(part[generator.randrange(len(part))]) + generator.random()
        for part in np.array_split(speech, count)
        if len(part)
    ]
    return [int(frame * size * 1_000_000_000 / rate_hz) for frame in chosen]


def speech_power(audio: Samples, rate_hz: int) -> float:
    """Mean square of the active frames of a decoded track; 0 for silence."""
    size = round(_FRAME_S * rate_hz)
    frames = audio[: len(audio) // size * size].reshape(-1, size)
    power = np.square(frames, dtype=np.float64).mean(axis=1)
    return float(power[_active(power)].mean()) if power.any() else 0.0


def damage(clean: Samples, hurt: Samples, rate_hz: int, power: float) -> Damage:
    """Of equally long decodings that both start at the lost packet's first sample.

    ``power`` is that of the speech (:func:`speech_power`), above 0. Raises ValueError where lengths
    differ or there is too little to say when the sound came back.
    """
    if len(clean) != len(hurt):
        raise ValueError(f"expected decodings of equal length, got {len(clean)} and {len(hurt)}")
    if len(clean) < 2 * _STAYS_S * rate_hz:
        least_ms = 2000 * _STAYS_S
        raise ValueError(f"expected {least_ms:g} ms, got {1000 * len(clean) / rate_hz:.1f} ms")
    bins = int(len(clean) / (BIN_S * rate_hz))
    edges = np.rint(np.arange(bins + 1) * BIN_S * rate_hz).astype(int)
    error = hurt.astype(np.float64) - clean
    lost = _energy(error, edges)
    lengths = np.diff(edges)
    around = _moving(_energy(clean.astype(np.float64), edges), _AROUND_BINS)
    around /= _moving(lengths.astype(np.float64), _AROUND_BINS)
    reference = np.maximum(around, power * 10 ** (-ACTIVE_DB / 10)) * lengths
    curve = _db(lost, reference)
    window = np.ones(_WORST_BINS)
    worst = _db(np.convolve(lost, window, "valid"), np.convolve(reference, window, "valid"))
    heard = np.flatnonzero(curve > AUDIBLE_DB)
    recovered = 1000 * BIN_S * (int(heard[-1]) + 1 if len(heard) else 0)
    return Damage(
        curve_db=curve,
        depth_db=float(worst.max()),
        recover_ms=recovered if recovered <= (bins * BIN_S - _STAYS_S) * 1000 else None,
        near_ms=_last_ms(np.abs(error) > 1, rate_hz),
        exact_ms=_last_ms(error != 0, rate_hz),
    )


def summarise(losses: pd.DataFrame) -> pd.DataFrame:
    """One row per codec, in order of appearance: ``probe_loss_summary.parquet``.

    ``losses`` has one row per lost packet: ``codec, codec_kind, weights, utterance, depth_db,
    recover_ms, near_ms, exact_ms`` (NaN where it did not come back). Means are over utterances,
    with 95 % intervals (:func:`harness.stats.estimate`; NaN below ``MIN_CLUSTERS``
    utterances); one that never recovered makes the mean null. ``near_ms`` and ``exact_ms`` are
    medians, null where half of the losses or more left a trace to the end.
    """
    rows = []
    for codec, mine in losses.groupby("codec", sort=False):
        first = mine.iloc[0]
        row = {"codec": codec, "codec_kind": first.codec_kind, "weights": first.weights}
        for figure in ("depth_db", "recover_ms"):
            meaningless = first.weights == "random" or mine[figure].isna().any()
            found = (
                None if meaningless else estimate(mine[figure].tolist(), mine.utterance.tolist())
            )
            for part, value in (
                ("mean", found and found.mean),
                ("low", found and found.low),
                ("high", found and found.high),
            ):
                row[f"{figure}_{part}"] = np.nan if value is None else value
        for figure in ("near_ms", "exact_ms"):
            median = float(mine[figure].fillna(np.inf).median())
            row[figure] = median if np.isfinite(median) else np.nan
        row["unrecovered"] = int(mine["recover_ms"].isna().sum())
        rows.append({**row, "positions": len(mine), "utterances": mine.utterance.nunique()})
    return pd.DataFrame(rows)


def mean_curves(curves: pd.DataFrame) -> pd.DataFrame:
    """Mean damage over time of each codec: ``codec, t_ms, mean, low, high`` (dB).

    ``curves`` is ``probe_loss.parquet``. Mean over utterances of means over their positions, with
    95 % intervals bin by bin (:func:`harness.stats.interval`), NaN below ``MIN_CLUSTERS``
    utterances.
    """
    parts = []
    for codec, mine in curves.groupby("codec", sort=False):
        table = mine.pivot_table(index="utterance", columns="t_ms", values="damage_db")
        mean, low, high = interval(table.to_numpy(np.float64).T)
        found = {"t_ms": table.columns, "mean": mean, "low": low, "high": high}
        parts.append(pd.DataFrame({"codec": codec, **found}))
    return pd.concat(parts, ignore_index=True)


def _active(energy: NDArray[np.float64]) -> NDArray[np.bool_]:
    least = energy.max(initial=0.0) * 10 ** (-ACTIVE_DB / 10)
    found: NDArray[np.bool_] = (energy > 0) & (energy >= least)
    return found


def _energy(signal: NDArray[np.float64], edges: NDArray[np.int_]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.add.reduceat(np.square(signal[: edges[-1]]), edges[:-1])
    return found


def _moving(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Sums over ``width + 1`` values about each one, fewer at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    found: NDArray[np.float64] = (
        sums[np.minimum(at + width // 2 + 1, len(values))] - sums[np.maximum(at - width // 2, 0)]
    )
    return found


def _db(energy: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        level = 10 * np.log10(energy / reference)
    found: NDArray[np.float64] = np.fmax(level, FLOOR_DB)
    return found


def _last_ms(differs: NDArray[np.bool_], rate_hz: int) -> float | None:
    """Time after the last sample that differs; None where that is too near the end to say."""
    at = np.flatnonzero(differs)
    if not len(at):
        return 0.0
    end = int(at[-1]) + 1
    return None if end > len(differs) - _STAYS_S * rate_hz else 1000 * end / rate_hz

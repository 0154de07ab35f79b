"""The E-model (ITU-T G.107): a planning estimate of a conversation from delay, loss and BurstR.

Narrow band, with every parameter that is not measured at its default (G.107, Table 2), so that

    R = 93.2 - Idd(Ta) - Ie,eff

Equipment impairment Ie and packet-loss robustness Bpl are published for few codecs, packet sizes
and ways of concealment (ITU-T G.113, Appendix I); for others there is no estimate, and none is made
up. Wide-band codecs have a scale of their own (G.107.1) that cannot be compared with this one.

What is lost is what the decoder had to do without: packets lost or too late, less what redundancy
or retransmission brought back in time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from harness.score import figures
from harness.score.metrics import METRICS, NoScore, Score, score
from harness.score.network import Table, made_up_frames, mouth_to_ear_ms

NAME = "e-model"
"""What a scenario calls it."""
R_DEFAULT = 93.2
LONGEST_MS, MOST_LOSS = 500.0, 20.0
"""Of Ta and Ppl (%) that the model is for (G.107, Table 2)."""
MOST_BURSTY, LITTLE_LOSS = 2.0, 2.0
"""Of BurstR, and Ppl (%) below which it may be more (G.107, Annex A)."""


@dataclass(frozen=True)
class Impairment:
    """Published of one codec; ``bpl`` is by way of concealment, for packets of ``packet_ms``."""

    ie: float
    packet_ms: float | None = None
    bpl: Mapping[str, float] | None = None


G711 = Impairment(0, 10, {"zero": 4.3, "pitch": 25.1})
"""``pitch`` conceals in the manner of G.711 Appendix I, for which the figure is published."""
GSM_EFR = Impairment(5, 20, {"codec": 10.0})
GSM_FR = Impairment(20)


def impairment(codec_kind: str, bitrate_bps: float) -> Impairment | None:
    """What G.113, Appendix I (Tables I.1 and I.4) has of a codec; None where it has nothing.

    AMR at 12.2 kbit/s is GSM-EFR (3GPP TS 26.071, 4).
    """
    if codec_kind == "g711":
        return G711
    if codec_kind == "gsm":
        return GSM_FR
    return GSM_EFR if codec_kind == "amr-nb" and bitrate_bps == 12_200 else None


def delay_impairment(ta_ms: float) -> float:
    """Idd of the absolute one-way delay Ta (G.107, 7.4)."""
    if ta_ms <= 100:
        return 0.0
    x = math.log2(ta_ms / 100)
    return 25 * (math.pow(1 + x**6, 1 / 6) - 3 * math.pow(1 + (x / 3) ** 6, 1 / 6) + 2)


def effective_impairment(ie: float, bpl: float, loss_percent: float, burst_ratio: float) -> float:
    """Ie,eff under packet loss (G.107, 7.5)."""
    return ie + (95 - ie) * loss_percent / (loss_percent / burst_ratio + bpl)


def mos(r: float) -> float:
    """MOS-CQE of a rating R (G.107, Annex B)."""
    if r <= 0:
        return 1.0
    if r >= 100:
        return 4.5
    # Between 0 and 6.5 the cubic dips below 1, where the scale begins.
    return max(1.0, 1 + 0.035 * r + r * (r - 60) * (100 - r) * 7e-6)


def rating(
    codec: Impairment, ta_ms: float, missing: ArrayLike, packet_ms: float, concealment: str
) -> float:
    """R of one stream; ``missing`` is one boolean per packet, in order.

    Raises NoScore beyond what the model is for, and where nothing is published of how the codec
    takes loss.
    """
    lost = np.asarray(missing, bool)
    percent = 100 * float(lost.mean())
    if ta_ms > LONGEST_MS:
        raise NoScore(f"the E-model is for delays up to {LONGEST_MS:.0f} ms, got {ta_ms:.0f} ms")
    if percent == 0:
        return R_DEFAULT - delay_impairment(ta_ms) - codec.ie
    if percent > MOST_LOSS:
        raise NoScore(f"the E-model is for losses up to {MOST_LOSS:.0f} %, got {percent:.1f} %")
    if codec.bpl is None or codec.packet_ms is None:
        raise NoScore("ITU-T G.113 publishes an Ie of this codec, but no Bpl: nothing under loss")
    if packet_ms != codec.packet_ms or concealment not in codec.bpl:
        raise NoScore(
            f"ITU-T G.113 publishes Bpl of this codec for packets of {codec.packet_ms:g} ms and"
            f" concealment {' or '.join(codec.bpl)}, got {packet_ms:g} ms and {concealment}"
        )
    # Fewer losses in a row than chance has are chance themselves: the model begins at 1.
    bursty = max(1.0, figures.burst_ratio(lost) or 1.0)
    if bursty > MOST_BURSTY and percent >= LITTLE_LOSS:
        raise NoScore(
            f"the E-model is for BurstR up to {MOST_BURSTY:g} from {LITTLE_LOSS:g} % of loss on,"
            f" got {bursty:.1f} at {percent:.1f} %"
        )
    impaired = effective_impairment(codec.ie, codec.bpl[concealment], percent, bursty)
    return max(0.0, R_DEFAULT - delay_impairment(ta_ms) - impaired)


def planning_scores(frames: Table, cell: Mapping[str, Any], concealment: str) -> list[Score]:
    """R and its MOS for one cell that streamed: its rows of ``frames`` in order of playing, its row
    of ``cells``, and what its receiver conceals with. Ta is the median mouth-to-ear delay."""
    try:
        r = _of_cell(frames, cell, concealment)
    except NoScore as reason:
        return [score(metric, None, reason=str(reason)) for metric in ("e_model_r", "e_model")]
    return [score("e_model_r", r), score("e_model", mos(r))]


def _of_cell(frames: Table, cell: Mapping[str, Any], concealment: str) -> float:
    kinds = METRICS["e_model"].kinds
    if cell["kind"] not in kinds:
        raise NoScore(f"the E-model is defined for {' and '.join(kinds)}")
    facts = json.loads(cell["codec_facts"])
    codec = impairment(cell["codec_kind"], facts["nominal_bitrate_bps"])
    if codec is None:
        raise NoScore(
            "ITU-T G.113, Appendix I, publishes no Ie of this codec on the narrow-band scale"
        )
    ta_ms = figures.percentile(mouth_to_ear_ms(frames), 0.5)
    if ta_ms is None:
        raise NoScore("too few frames were decoded for a delay")
    packet_ms = 1000 * facts["frame_samples"] / facts["sample_rate_hz"]
    return rating(codec, ta_ms, made_up_frames(frames), packet_ms, concealment)

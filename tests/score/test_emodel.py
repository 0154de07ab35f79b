"""The E-model against published figures, and where it has nothing to say."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from harness.score import emodel
from harness.score.emodel import G711, GSM_EFR, GSM_FR, planning_scores, rating
from harness.score.metrics import NoScore

NOTHING_LOST = np.zeros(1000, bool)


def spaced(count: int, of: int = 1000, run: int = 1) -> np.ndarray:
    """``count`` losses in runs, evenly spread."""
    lost = np.zeros(of, bool)
    for start in np.linspace(0, of - run, count // run).astype(int):
        lost[start : start + run] = True
    return lost


@pytest.mark.parametrize(
    ("ta_ms", "r", "mos"),
    [(50, 93.2, 4.41), (100, 93.2, 4.41), (200, 90.2, 4.34), (300, 78.4, 3.96), (400, 69.1, 3.56)],
)
def test_delay_alone(ta_ms: float, r: float, mos: float) -> None:
    found = rating(G711, ta_ms, NOTHING_LOST, 20, "codec")
    assert found == pytest.approx(r, abs=0.05)
    assert emodel.mos(found) == pytest.approx(mos, abs=0.005)


def test_loss_by_the_formula() -> None:
    # G.729A + VAD, 2 % random: 11 + 84 * 2 / 21; Gilbert loss of 2 % with BurstR 2.
    assert emodel.effective_impairment(11, 19, 2, 1) == pytest.approx(19.0)
    assert emodel.effective_impairment(0, 4.3, 2, 2) == pytest.approx(35.85, abs=0.01)


def test_concealment_and_codec_tell() -> None:
    lost = spaced(10)  # 1 %
    plain, concealed = (rating(G711, 80, lost, 10, how) for how in ("zero", "pitch"))
    assert plain == pytest.approx(93.2 - 95 / 5.3)
    assert concealed == pytest.approx(93.2 - 95 / 26.1)
    assert rating(GSM_EFR, 80, lost, 20, "codec") == pytest.approx(93.2 - 5 - 90 / 11)
    assert rating(GSM_FR, 80, NOTHING_LOST, 20, "codec") == pytest.approx(73.2)


def test_bursts_cost_more_than_as_many_single_losses() -> None:
    single, double = spaced(10), spaced(10, run=2)
    assert rating(G711, 80, double, 10, "pitch") < rating(G711, 80, single, 10, "pitch")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"ta_ms": 501}, "delays up to 500 ms, got 501"),
        ({"missing": spaced(210)}, "losses up to 20 %, got 21.0 %"),
        ({"missing": spaced(60, run=3)}, r"BurstR up to 2 from 2 % of loss on, got 2.8 at 6.0 %"),
        ({"packet_ms": 20}, "packets of 10 ms and concealment zero or pitch, got 20 ms and pitch"),
        ({"concealment": "codec"}, "got 10 ms and codec"),
        ({"codec": GSM_FR}, "no Bpl"),
    ],
)
def test_beyond_what_is_published_there_is_no_estimate(
    changed: dict[str, Any], reason: str
) -> None:
    fine: dict[str, Any] = {
        "codec": G711,
        "ta_ms": 100.0,
        "missing": spaced(10),
        "packet_ms": 10.0,
        "concealment": "pitch",
    }
    rating(**fine)
    with pytest.raises(NoScore, match=reason):
        rating(**(fine | changed))


def test_the_scale_ends_where_the_standard_says() -> None:
    assert (emodel.mos(-3), emodel.mos(0), emodel.mos(100), emodel.mos(120)) == (1, 1, 4.5, 4.5)
    assert emodel.mos(3) == 1  # the cubic alone is 0.996 there
    climb = [emodel.mos(r) for r in np.arange(0, 101, 0.5)]
    assert climb == sorted(climb)


def cell(codec_kind: str, kind: str = "speech", bitrate: int = 64_000) -> dict[str, Any]:
    facts = {"sample_rate_hz": 8000, "frame_samples": 80, "nominal_bitrate_bps": bitrate}
    return {"codec_kind": codec_kind, "kind": kind, "codec_facts": json.dumps(facts)}


def played(lost: np.ndarray, mouth_to_ear_ms: float) -> dict[str, np.ndarray]:
    """A cell's frames, with a moment of silence that the jitter buffer inserted."""
    kinds = np.where(lost, "concealed", "decoded")
    delays = np.ma.masked_array(np.full(len(lost), mouth_to_ear_ms * 1e6), mask=lost)
    masked = np.ma.masked_array([0.0], mask=[True])
    return {
        "frame": np.ma.concatenate([np.ma.arange(len(lost)), masked]),
        "kind": np.append(kinds, "silence"),
        "mouth_to_ear_ns": np.ma.concatenate([delays, masked]),
    }


def test_a_cell_has_a_rating_and_its_mos() -> None:
    r, mos = planning_scores(played(spaced(10), 200), cell("g711"), "pitch")
    assert (r["metric"], mos["metric"], mos["unit"]) == ("e_model_r", "e_model", "MOS-CQE")
    assert r["value"] == pytest.approx(93.2 - 3.04 - 95 / 26.1, abs=0.01)
    assert mos["value"] == pytest.approx(emodel.mos(r["value"] or 0), abs=1e-6)


@pytest.mark.parametrize(
    ("row", "frames", "reason"),
    [
        (cell("opus", bitrate=24_000), played(NOTHING_LOST, 100), "publishes no Ie"),
        (cell("g722"), played(NOTHING_LOST, 100), "publishes no Ie"),
        (cell("amr-nb", bitrate=4_750), played(NOTHING_LOST, 100), "publishes no Ie"),
        (cell("g711", kind="music"), played(NOTHING_LOST, 100), "defined for speech"),
        (cell("g711"), played(~NOTHING_LOST, 100), "too few frames"),
    ],
)
def test_a_cell_without_an_estimate_says_why(
    row: dict[str, Any], frames: dict[str, np.ndarray], reason: str
) -> None:
    scores = planning_scores(frames, row, "pitch")
    assert [one["value"] for one in scores] == [None, None]
    assert all(reason in str(one["reason"]) for one in scores)


def test_the_best_mode_of_amr_is_gsm_efr() -> None:
    r, _ = planning_scores(played(NOTHING_LOST, 100), cell("amr-nb", bitrate=12_200), "codec")
    assert r["value"] == pytest.approx(88.2)

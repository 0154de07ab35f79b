"""Legs that are alike agree, legs that are not differ, and too little data says neither."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.stats.agreement import (
    AGREES,
    CANNOT_TELL,
    DIFFERS,
    compare,
    fates,
    judged,
    minimum_effect_p,
    values,
)

SCORES = {
    "delay_p50": ("transit", "p50", "", 40.0),
    "loss": ("loss_total", "", "", 0.05),
    "pesq_wb": ("pesq", "wb", "media", 3.2),
}


def leg(
    utterances: int = 8, shift: dict[str, float] | None = None, noise: float = 0.0, seed: int = 1
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cells and scores: two codecs, two repetitions; ``shift`` is added, ``noise`` is relative."""
    generator = np.random.default_rng(seed)
    cells, scores = [], []
    for utterance in range(utterances):
        for codec in ("opus", "pcm"):
            for repetition in range(2):
                cell_id = f"{codec}-{utterance}-{repetition}"
                cells.append(
                    {
                        "cell_id": cell_id,
                        "utterance": f"u{utterance}",
                        "network": "bursts",
                        "transport": "udp",
                        "receiver": "fixed",
                        "codec": codec,
                        "status": "ok",
                        "impairment": "media-time",
                    }
                )
                for figure, (metric, mode, track, value) in SCORES.items():
                    moved = value + utterance * value / 100 + (shift or {}).get(figure, 0.0)
                    scores.append(
                        {
                            "cell_id": cell_id,
                            "metric": metric,
                            "mode": mode,
                            "track": track,
                            "value": moved + generator.normal(0, noise) * value,
                        }
                    )
    return pd.DataFrame(cells), pd.DataFrame(scores)


def verdicts(reference: pd.DataFrame, other: pd.DataFrame) -> dict[tuple[str, str], str]:
    table = judged(compare(reference, other))
    return {(row.codec, row.figure): row.verdict for row in table.itertuples()}


def test_a_leg_agrees_with_itself_and_proves_it() -> None:
    mine = values(*leg())
    table = judged(compare(mine, mine))
    assert len(table) == 6
    assert (table["verdict"] == AGREES).all()
    assert table["proven"].all()
    assert (table["difference"] == 0).all()
    assert (table["pairs"] == 16).all()
    assert (table["utterances"] == 8).all()
    assert table["figure"].tolist() == ["delay_p50", "loss", "pesq_wb"] * 2


def test_a_figure_differs_beyond_its_resolution_only() -> None:
    reference = values(*leg())
    shift = {"delay_p50": 2.5, "loss": 0.004, "pesq_wb": -0.06}
    table = judged(compare(reference, values(*leg(shift=shift)))).set_index(["codec", "figure"])
    pcm = table.loc["pcm"]
    assert pcm["verdict"].to_dict() == {"delay_p50": DIFFERS, "loss": AGREES, "pesq_wb": DIFFERS}
    assert pcm["difference"].to_dict() == pytest.approx(
        {"delay_p50": 2.5, "loss": 0.4, "pesq_wb": -0.06}
    )
    assert pcm.loc["loss", "reference"] == pytest.approx(5 * 1.035), "shares are per cent"
    assert not pcm.loc["delay_p50", "proven"]


def test_noise_is_no_difference_and_proves_nothing() -> None:
    """40 ms give or take 30 %: means differ by more than 2 ms, and that says nothing."""
    table = judged(compare(values(*leg()), values(*leg(noise=0.3, seed=7))))
    delays = table[table["figure"] == "delay_p50"]
    assert (delays["verdict"] != DIFFERS).all()
    assert not delays["proven"].any()


def test_chance_seldom_differs_where_legs_are_alike() -> None:
    """Corrected for all figures: one leg in twenty at most is called different by mistake."""
    reference = values(*leg())
    called = [
        DIFFERS in verdicts(reference, values(*leg(noise=0.1, seed=seed))).values()
        for seed in range(60)
    ]
    assert sum(called) <= 3


def test_few_utterances_claim_nothing() -> None:
    reference = values(*leg(5))
    found = verdicts(reference, values(*leg(5, {"delay_p50": 30.0, "pesq_wb": 0.01})))
    assert found["pcm", "delay_p50"] == CANNOT_TELL
    assert found["pcm", "pesq_wb"] == AGREES
    table = judged(compare(reference, reference))
    assert not table["proven"].any()
    assert table["p_family"].isna().all()


def test_cells_that_are_not_ok_or_have_no_value_are_left_out() -> None:
    cells, scores = leg()
    cells.loc[cells["cell_id"] == "pcm-0-0", "status"] = "invalid"
    scores.loc[(scores["cell_id"] == "pcm-1-0") & (scores["metric"] == "pesq"), "value"] = np.nan
    table = compare(values(*leg()), values(cells, scores)).set_index(["codec", "figure"])
    assert table.loc[("pcm", "delay_p50"), "pairs"] == 15
    assert table.loc[("pcm", "pesq_wb"), "pairs"] == 14
    assert table.loc[("opus", "pesq_wb"), "pairs"] == 16


def test_the_minimum_effect_is_at_the_edge_when_the_mean_is() -> None:
    differences = np.array([1.9, 2.1, 2.0, 2.2, 1.8, 2.0])
    assert minimum_effect_p(differences, 2.0) == 1
    assert minimum_effect_p(-differences, 1.5) == pytest.approx(
        minimum_effect_p(differences, 1.5) or 0
    )
    assert minimum_effect_p(differences, 1.5) == 2**-5  # all six are beyond it
    assert minimum_effect_p(np.full(6, 3.0), 2.0) == 2**-5
    assert minimum_effect_p(differences[:5], 0.0) is None


def lost(**packets: list[int]) -> pd.DataFrame:
    rows = [(cell_id, seq) for cell_id, seqs in packets.items() for seq in seqs]
    return pd.DataFrame(rows, columns=["cell_id", "seq"])


def test_lost_packets_are_told_apart_one_by_one() -> None:
    def cells(*status: str) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "cell_id": ["a", "b", "c", "d"],
                "status": status,
                "network": ["n", "n", "n", "m"],
                "impairment": ["media-time", "media-time", "media-time", None],
            }
        )

    both = (cells("ok", "ok", "ok", "ok"), cells("ok", "ok", "failed", "ok"))
    found = fates(both, (lost(a=[1, 2], b=[3], c=[1]), lost(a=[1, 2], b=[3, 4], c=[9])))
    assert found.set_index("network").loc["n"].to_dict() == {
        "impairment": "media-time",
        "cells": 2,
        "lossy": 2,
        "identical": 1,
        "packets": 4,
        "shared": 3,
    }
    assert found.set_index("network").loc["m", ["cells", "lossy", "identical"]].tolist() == [
        1,
        0,
        0,
    ]
    none = fates(both, (lost(), lost()))
    assert none["lossy"].sum() == 0

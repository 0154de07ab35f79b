"""Do two ways of running the same cells tell the same? Pure.

A *leg* is one run of a scenario in some lab on some link engine; cells have the same id in all.
Figures of cells that are ``ok`` in both legs are compared in pairs, per network, transport,
receiver and codec: mean difference over utterances with its interval.

Every figure has a *resolution*, a difference that no conclusion would hang on. A figure

* ``differs`` where the difference is larger than the resolution beyond chance: a test of a minimum
  effect (Murphy and Myors 1999) on the utterances' mean differences, all comparisons made being one
  family (:func:`harness.stats.difference.family_p`);
* else ``agrees`` where the difference is within the resolution, or its interval includes 0;
* else one ``cannot tell``. Below ``MIN_CLUSTERS`` utterances there is no interval and no test.

That an interval includes 0 says little where it is wide, so ``proven`` marks the agreements whose
whole interval lies within the resolution (an equivalence test, Schuirmann 1987).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.stats.difference import SIGNIFICANT, family_p, sign_flip_p
from harness.stats.estimate import MIN_CLUSTERS, estimate

CONFIGURATION = ["network", "transport", "receiver", "codec"]
AGREES, DIFFERS, CANNOT_TELL = "agrees", "differs", "cannot tell"


class Figure(NamedTuple):
    """A score times ``scale``, in ``unit``; ``resolution`` is in that unit, too."""

    key: str
    label: str
    metric: str
    mode: str
    track: str
    unit: str
    scale: float
    digits: int
    resolution: float


FIGURES = (
    Figure("delay_p50", "delay p50", "transit", "p50", "", "ms", 1, 2, 2),
    Figure("delay_p95", "delay p95", "transit", "p95", "", "ms", 1, 2, 2),
    Figure("delay_p99", "delay p99", "transit", "p99", "", "ms", 1, 2, 2),
    Figure("pdv_p95", "PDV p95", "pdv", "p95", "", "ms", 1, 2, 2),
    Figure("loss", "loss", "loss_total", "", "", "%", 100, 2, 0.5),
    Figure("burst", "mean burst", "mean_loss_run", "", "", "packets", 1, 2, 0.1),
    Figure("late", "late", "loss", "late", "", "%", 100, 2, 0.5),
    Figure("mouth_to_ear_p50", "mouth to ear p50", "mouth_to_ear", "p50", "", "ms", 1, 2, 2),
    Figure("mouth_to_ear_p95", "mouth to ear p95", "mouth_to_ear", "p95", "", "ms", 1, 2, 2),
    Figure("pesq_wb", "PESQ-WB", "pesq", "wb", "media", "", 1, 3, 0.05),
    Figure("stoi", "STOI", "stoi", "classic", "media", "", 1, 4, 0.005),
)
"""What is compared. Delays are resolved to 2 ms: a tenth of the usual packet, and less than a
shared machine's scheduling adds at times; PESQ to half of the 0.1 that codecs are told apart by."""


def values(cells: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """The figures of a leg's ``ok`` cells: ``cell_id, utterance``, configuration, ``figure,
    value``; one row each. Takes the tables of a run; missing values are left out."""
    ok = cells.loc[cells["status"] == "ok", ["cell_id", "utterance", *CONFIGURATION]]
    keys = pd.DataFrame(
        [(one.metric, one.mode, one.track, one.key, one.scale) for one in FIGURES],
        columns=["metric", "mode", "track", "figure", "scale"],
    )
    found = scores.merge(keys, on=["metric", "mode", "track"]).merge(ok, on="cell_id")
    found = found.dropna(subset=["value"])
    found["value"] = found["value"].astype(np.float64) * found["scale"]
    return found[["cell_id", "utterance", *CONFIGURATION, "figure", "value"]]


def compare(reference: pd.DataFrame, leg: pd.DataFrame) -> pd.DataFrame:
    """One row per configuration and figure that both have (of :func:`values`).

    Columns: configuration, ``figure, reference, leg`` (means), ``difference, low, high`` (leg minus
    reference; NaN bounds below ``MIN_CLUSTERS`` utterances), ``p`` (of this comparison alone, NaN
    likewise), ``pairs, utterances, by_utterance`` (mean differences by utterance, a dict).
    """
    pairs = reference.merge(leg[["cell_id", "figure", "value"]], on=["cell_id", "figure"])
    pairs["difference"] = pairs["value_y"] - pairs["value_x"]
    resolution = {one.key: one.resolution for one in FIGURES}
    order = {one.key: number for number, one in enumerate(FIGURES)}
    rows = []
    for names, mine in pairs.groupby([*CONFIGURATION, "figure"]):
        found = estimate(mine["difference"].tolist(), mine["utterance"].tolist())
        assert found is not None
        means = mine.groupby("utterance")["difference"].mean()
        p = minimum_effect_p(means.to_numpy(np.float64), resolution[str(names[-1])])
        rows.append(
            {
                **dict(zip([*CONFIGURATION, "figure"], names, strict=True)),
                "reference": mine["value_x"].mean(),
                "leg": mine["value_y"].mean(),
                "difference": found.mean,
                "low": np.nan if found.low is None else found.low,
                "high": np.nan if found.high is None else found.high,
                "p": np.nan if p is None else p,
                "pairs": found.cells,
                "utterances": found.clusters,
                "by_utterance": means.to_dict(),
            }
        )
    columns = ["reference", "leg", "difference", "low", "high", "p", "pairs", "utterances"]
    columns.append("by_utterance")
    table = pd.DataFrame(rows, columns=[*CONFIGURATION, "figure", *columns])
    return table.sort_values(
        [*CONFIGURATION, "figure"],
        key=lambda column: column.map(order) if column.name == "figure" else column,
        kind="stable",
        ignore_index=True,
    )


def judged(comparisons: pd.DataFrame) -> pd.DataFrame:
    """With the columns ``p_family, verdict, proven``: of all comparisons made, of all legs; without
    ``by_utterance``."""
    table = comparisons.reset_index(drop=True)
    resolution = table["figure"].map({one.key: one.resolution for one in FIGURES})
    table["p_family"] = _family(table, resolution)
    table = table.drop(columns="by_utterance")
    within = table["difference"].abs() <= resolution
    includes_0 = (table["low"] <= 0) & (table["high"] >= 0)
    table["verdict"] = np.select(
        [table["p_family"] <= SIGNIFICANT, within | includes_0], [DIFFERS, AGREES], CANNOT_TELL
    )
    inside = (table["low"] >= -resolution) & (table["high"] <= resolution)
    table["proven"] = (table["verdict"] == AGREES) & inside
    return table


def minimum_effect_p(differences: NDArray[np.float64], least: float) -> float | None:
    """Two-sided p-value that the mean of ``differences``, one per utterance, is at most ``least``
    in size: sign flips about ``least``. None below ``MIN_CLUSTERS``."""
    if abs(float(differences.mean())) <= least and len(differences) >= MIN_CLUSTERS:
        return 1.0
    return sign_flip_p(_beyond(pd.Series(differences), least).to_numpy(np.float64))


def _family(table: pd.DataFrame, resolution: pd.Series) -> pd.Series:
    """The p-values of :func:`minimum_effect_p` as one family; NaN where there is none."""
    found = pd.Series(np.nan, index=table.index, dtype=np.float64)
    tested = table.index[table["p"].notna()]
    if len(tested):
        means = {row: pd.Series(table.at[row, "by_utterance"], dtype=np.float64) for row in tested}
        beyond = pd.DataFrame({row: _beyond(means[row], resolution[row]) for row in tested})
        found.loc[tested] = family_p(beyond.sort_index().to_numpy(np.float64))
    within = table["difference"].abs() <= resolution
    return found.mask(within & found.notna(), 1.0)


def _beyond(differences: pd.Series, least: float) -> pd.Series:
    """How far each utterance's difference is beyond ``least``, on the side of their mean."""
    return differences - float(np.sign(differences.mean())) * least


def fates(
    cells: tuple[pd.DataFrame, pd.DataFrame], lost: tuple[pd.DataFrame, pd.DataFrame]
) -> pd.DataFrame:
    """Did the same packets get lost? Of the reference and of one leg: ``cells`` of both runs, and
    ``lost``: ``cell_id, seq`` of the packets with that fate (none on a transport that sends again).

    One row per network and kind of impairment, of cells ``ok`` in both legs: ``network, impairment,
    cells, lossy`` (cells in which either leg lost a packet), ``identical`` (of these, those that
    lost the very same), ``packets`` (lost in either leg) and ``shared`` (lost in both).
    """
    ok = [one[one["status"] == "ok"] for one in cells]
    both = ok[0][ok[0]["cell_id"].isin(ok[1]["cell_id"])]
    of_both = [one[one["cell_id"].isin(both["cell_id"])][["cell_id", "seq"]] for one in lost]
    union = of_both[0].merge(of_both[1], how="outer", on=["cell_id", "seq"], indicator=True)
    union["shared"] = union["_merge"] == "both"
    by_cell = union.groupby("cell_id")["shared"].agg(packets="size", shared="sum")
    table = both[["cell_id", "network", "impairment"]].merge(
        by_cell, how="left", left_on="cell_id", right_index=True
    )
    table["impairment"] = table["impairment"].fillna("")
    table[["packets", "shared"]] = table[["packets", "shared"]].fillna(0).astype(np.int64)
    table["lossy"] = table["packets"] > 0
    table["identical"] = table["lossy"] & (table["packets"] == table["shared"])
    return table.groupby(["network", "impairment"], as_index=False).agg(
        cells=("cell_id", "size"),
        lossy=("lossy", "sum"),
        identical=("identical", "sum"),
        packets=("packets", "sum"),
        shared=("shared", "sum"),
    )

"""``python -m tests.bench.agreement RUN RUN``: do two runs of one scenario tell the same?

Cells are paired by id (lab and engine are no part of it). Per configuration and figure: both means,
and the paired difference with its 95 % interval, bootstrapped over utterances. A figure differs
when its difference is above what it resolves, and is no chance after correction for all figures
compared (sign flips, Holm: as in the report).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness import store
from harness.score.stats import estimate, holm, sign_flip_p

FIGURES = {
    ("pesq", "wb", "media"): 0.05,
    ("stoi", "classic", "media"): 0.005,
    ("mouth_to_ear", "p50", ""): 2.0,
    ("mouth_to_ear", "p95", ""): 2.0,
    ("loss_total", "", ""): 0.005,
    ("pdv", "p95", ""): 2.0,
}
"""What is compared, and the difference below which it is the same (ms, or the figure's unit)."""
CONFIGURATION = ["codec", "transport", "network"]


def main(first: Path, second: Path) -> int:
    runs = [store.load(path) for path in (first, second)]
    for name, tables in zip("AB", runs, strict=True):
        row = tables.runs.iloc[0]
        counts = tables.cells.status.value_counts().to_dict()
        print(f"{name}: {row.run_id}: {row.lab}, {row.link}, {row.host[:60]}..., {counts}")
    ids = [set(tables.cells.cell_id) for tables in runs]
    print(f"the same cells: {ids[0] == ids[1]} ({len(ids[0])})")
    scored = [_scored(tables) for tables in runs]
    both = scored[0].join(scored[1].rename(columns={"value_a": "value_b"}), how="inner")
    groups = {
        " ".join(map(str, key)): rows
        for key, rows in both.reset_index().groupby([*CONFIGURATION, "metric", "mode", "track"])
    }
    chances = {name: sign_flip_p(_by_utterance(rows)) for name, rows in groups.items()}
    corrected = holm({name: p for name, p in chances.items() if p is not None})
    fewest = min(rows.utterance.nunique() for rows in groups.values())
    if 2 / 2**fewest * len(groups) > 0.05:
        print(f"{fewest} utterances are too few to tell {len(groups)} figures apart: see intervals")
    apart = 0
    for name, rows in groups.items():
        resolves = FIGURES[tuple(rows[["metric", "mode", "track"]].iloc[0])]
        difference = estimate(list(rows.value_b - rows.value_a), list(rows.utterance))
        assert difference is not None
        p = corrected.get(name)
        differs = p is not None and p <= 0.05 and abs(difference.mean) > resolves
        apart += differs
        interval = (
            "too few utterances"
            if difference.low is None or difference.high is None
            else f"[{difference.low:+.3f}, {difference.high:+.3f}]"
        )
        print(
            f"{name:<46} A {rows.value_a.mean():9.3f}  B {rows.value_b.mean():9.3f}"
            f"  B-A {difference.mean:+8.3f} {interval:<20} {'DIFFERS' if differs else 'agrees'}"
        )
    print(f"{apart} figures differ")
    return int(apart > 0)


def _by_utterance(rows: pd.DataFrame) -> NDArray[np.float64]:
    differences = (rows.value_b - rows.value_a).groupby(rows.utterance).mean()
    return differences.to_numpy(np.float64)


def _scored(tables: store.Tables) -> pd.DataFrame:
    """Values of ok cells, by cell and figure."""
    ok = tables.cells[tables.cells.status == "ok"][["cell_id", "utterance", *CONFIGURATION]]
    scores = tables.scores.merge(ok, on="cell_id")
    wanted = pd.MultiIndex.from_frame(scores[["metric", "mode", "track"]]).isin(list(FIGURES))
    keys = ["cell_id", "utterance", *CONFIGURATION, "metric", "mode", "track"]
    known = scores[wanted & scores.value.notna()]
    return known.set_index(keys)[["value"]].rename(columns={"value": "value_a"})


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))

"""Which cells are points of which curve, and what of a sweep is shown elsewhere."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pytest

from harness.report import figures
from harness.report.sweeps import curves_of, sweep_panels, without
from harness.report.tables import BY_KEY, condensed
from harness.store import Tables
from tests.report.small_run import run_of

UTTERANCES = [f"u{i}" for i in range(7)]


def run(*entries: tuple[dict[str, object], float]) -> Tables:
    """One cell per entry and utterance with this PESQ-WB; entries named ``NAME@SWEEP=X`` are
    points of their sweeps."""
    cells, scores = [], []
    for (columns, quality), utterance in itertools.product(entries, UTTERANCES):
        points = {}
        for name in (columns.get("codec"), columns.get("network"), columns.get("receiver")):
            for mark in str(name).split("@")[1:]:
                sweep, _, x = mark.partition("=")
                points[sweep] = {"x": float(x), "unit": "%"}
        scores.append({"cell_id": str(len(cells)), "value": quality})
        cells.append(
            {
                "utterance": utterance,
                "block": f"{columns.get('network')}-{utterance}",
                "sweep": json.dumps(points) if points else None,
            }
            | columns
        )
    return run_of(cells, scores)


def over_loss(codec: str, *qualities: float, **columns: object) -> list[tuple[dict, float]]:
    return [
        ({"codec": codec, "network": f"n@loss={10 * i}"} | columns, quality)
        for i, quality in enumerate(qualities)
    ]


def test_a_swept_network_has_a_curve_per_codec() -> None:
    tables = run(
        *over_loss("a", 4, 3, 2),
        *over_loss("b", 3.5, 3.3, 3.1),
        *over_loss("pcm", 4.6, 4, 3),
        ({"codec": "a", "network": "clean"}, 4.2),
    )
    tables.runs["added_controls"] = '{"codec": "pcm", "network": null}'
    (panel,) = sweep_panels(tables)["loss"]
    assert [(line.name, line.control, line.level) for line in panel.lines] == [
        ("a", False, False),
        ("b", False, False),
        ("pcm", True, False),
    ]
    assert panel.asked == ["a", "b"]
    result = curves_of(tables, panel, BY_KEY["pesq_wb"])
    assert result.x.tolist() == [0, 10, 20]
    assert result.curves[0].mean.tolist() == [4, 3, 2]
    (crossing,) = result.crossings(panel.asked)
    assert (crossing.line, crossing.verb, crossing.other) == ("a", "falls under", "b")
    assert crossing.x == pytest.approx(10 - 10 * 0.3 / 0.8)


def test_transports_and_other_networks_have_panels_of_their_own() -> None:
    tables = run(
        *(
            entry
            for network, transport in (("n", "udp"), ("n", "tcp"), ("m", "udp"))
            for codec in "ab"
            for entry in [
                ({"codec": codec, "network": f"{network}@loss={x}", "transport": transport}, 3.0)
                for x in (0, 5)
            ]
        )
    )
    assert [panel.title for panel in sweep_panels(tables)["loss"]] == [
        "m · udp",
        "n · tcp",
        "n · udp",
    ]


def test_other_codecs_stand_beside_a_swept_one_at_every_point() -> None:
    tables = run(
        *(({"codec": f"opus@rate={x}", "network": "n"}, x / 10) for x in (10, 20, 40)),
        ({"codec": "encodec", "network": "n"}, 2.5),
        ({"codec": "encodec", "network": "elsewhere"}, 1.0),
    )
    (panel,) = sweep_panels(tables)["rate"]
    assert [(line.name, line.level) for line in panel.lines] == [("encodec", True), ("opus", False)]
    result = curves_of(tables, panel, BY_KEY["pesq_wb"])
    assert result.curves[0].mean.tolist() == [2.5, 2.5, 2.5]
    (crossing,) = result.crossings(panel.asked)
    assert (crossing.line, crossing.verb, crossing.x) == ("opus", "rises above", 25)


def test_a_swept_receiver_has_other_receivers_beside_it() -> None:
    tables = run(
        *(({"codec": "a", "network": "n", "receiver": f"fixed@depth={x}"}, 2.0) for x in (20, 40)),
        ({"codec": "a", "network": "n", "receiver": "adaptive"}, 3.0),
    )
    (panel,) = sweep_panels(tables)["depth"]
    assert {line.name: line.level for line in panel.lines} == {"adaptive": True, "fixed": False}


def test_one_codec_is_compared_over_its_networks() -> None:
    tables = run(
        *over_loss("a", 4, 3, 2),
        *(({"codec": "a", "network": f"m@loss={x}"}, 3.0) for x in (0, 10, 20)),
    )
    (panel,) = sweep_panels(tables)["loss"]
    assert [line.name for line in panel.lines] == ["m", "n"]


def test_two_sweeps_of_one_entry_hold_each_other_fast() -> None:
    tables = run(
        *(
            ({"codec": codec, "network": f"n@loss={x}@jitter={y}"}, 3.0)
            for codec in "ab"
            for x in (0, 10)
            for y in (1, 2, 3)
        )
    )
    panels = sweep_panels(tables)
    assert [panel.title for panel in panels["jitter"]] == ["n@loss=0", "n@loss=10"]
    assert len(panels["loss"]) == 3
    assert without("n@loss=0@jitter=1", "loss") == "n@jitter=1"
    assert without("n@losses=0", "loss") == "n@losses=0"


def test_elsewhere_a_sweep_is_its_ends_and_its_middle() -> None:
    tables = run(*over_loss("a", 5, 4, 3, 2, 1), ({"codec": "a", "network": "clean"}, 4.0))
    kept = tables.cells[condensed(tables.cells)]
    assert sorted(kept["network"].unique()) == ["clean", "n@loss=0", "n@loss=20", "n@loss=40"]


def test_cells_that_are_not_ok_are_no_points() -> None:
    tables = run(*over_loss("a", 4, 3, 2), *over_loss("b", 4, 3, 2))
    tables.cells.loc[tables.cells["network"] == "n@loss=10", "status"] = "failed"
    (panel,) = sweep_panels(tables)["loss"]
    assert sorted(panel.cells["x"].unique()) == [0, 20]
    tables.cells["status"] = "failed"
    assert sweep_panels(tables) == {}


def test_labels_at_the_ends_of_curves_are_apart_and_in_order() -> None:
    axes_of: list[dict[str, float]] = []

    def draw(axes: object) -> None:
        tables = run(*(e for c in "abcd" for e in over_loss(c, 4, 1.01 if c == "a" else 1)))
        (panel,) = sweep_panels(tables)["loss"]
        result = curves_of(tables, panel, BY_KEY["pesq_wb"])
        strokes = {line.name: figures.Stroke("#000000") for line in panel.lines}
        figures.curves_over_sweep(axes, result, strokes, [], BY_KEY["pesq_wb"], "loss")  # type: ignore[arg-type]
        axes_of.append({t.get_text(): t.get_position()[1] for t in axes.texts})  # type: ignore[attr-defined]

    figures.svg("x", draw, (5, 3), "x")
    places = pd.Series(axes_of[0]).sort_values()
    assert (np.diff(places) >= 0.06).all()
    assert places.index[-1] == "a"
    assert places.iloc[0] >= 0

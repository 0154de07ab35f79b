"""Tracks and broadcasts in whole runs of the virtual lab: what stands in the tables afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile

from harness import store
from tests.labs.conftest import voice
from tests.virtual.test_matrix import virtual

SCENARIO = """\
name: shared
seed: 3
controls: false
metrics: []
compute: zero
corpus: [{folder: audio, kind: speech}]
codecs: [{codec: opus, bitrate: 32kbit, frame: 60ms}]
transports:
  - {transport: udp, name: one, adapt: {every: 100ms, lowest: 6kbit}}
  - {transport: udp, name: three, tracks: 3}
networks:
  - {name: near, broadcast: hall, both: {delay: 10ms}}
  - name: narrow
    broadcast: hall
    both: {delay: 10ms}
    forward: {delay: 20ms, rate: {rate: 60kbit, limit: 1514B}}
receivers:
  - {name: deep, jitter_buffer: {mode: fixed, start: 400ms, max: 1s}}
"""


@pytest.fixture(scope="module")
def whole(scenario: Path, tmp_path_factory: pytest.TempPathFactory) -> store.Tables:
    """The tables of all four cells."""
    outcome, observer = virtual(scenario, tmp_path_factory.mktemp("whole"), jobs=2)
    assert outcome.statuses == {"ok": 4}, observer.steps
    return store.load(outcome.directory)


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    (folder / "audio").mkdir()
    soundfile.write(folder / "audio" / "buzz.wav", voice(4, 16_000, 1), 16_000)
    path = folder / "shared.yaml"
    path.write_text(SCENARIO)
    return path


def test_tracks_and_their_fairness_are_in_the_tables(whole: store.Tables) -> None:
    cells = whole.cells.set_index(["transport", "network"])
    fairness = whole.scores[whole.scores.metric == "fairness"].set_index(["cell_id", "mode"])
    assert cells.tracks["one"].isna().all()
    assert set(fairness.index.get_level_values("cell_id")) == set(cells.cell_id["three"])
    near, narrow = (json.loads(cells.tracks["three", name]) for name in ("near", "narrow"))
    assert [track["in_time"] for track in near] == [1, 1, 1]
    assert sum(track["packets_lost"] for track in narrow) > 10
    shares = [track["in_time"] for track in narrow]
    index = sum(shares) ** 2 / (3 * sum(share**2 for share in shares))
    found = fairness.value[cells.cell_id["three", "narrow"], "in_time"]
    assert found == pytest.approx(index)
    assert index < 0.9999
    # The stream of the tables is the first of them.
    ours = whole.packets[whole.packets.cell_id == cells.cell_id["three", "narrow"]]
    assert narrow[0]["packets_sent"] == len(ours)
    assert narrow[0]["packets_lost"] == (ours.fate == "queue").sum()


def test_a_receiver_run_alone_hears_what_it_hears_among_the_others(
    scenario: Path, whole: store.Tables, tmp_path: Path
) -> None:
    alone = store.load(virtual(scenario, tmp_path, jobs=1, only="*/one/near/*")[0].directory)
    (cell,) = alone.cells.cell_id
    columns = ["frame", "play_ns", "target_bps"]
    ours = whole.frames[whole.frames.cell_id == cell][columns].reset_index(drop=True)
    assert ours.equals(alone.frames[columns].reset_index(drop=True))
    rates = whole.frames.merge(whole.cells[["cell_id", "network", "transport"]], on="cell_id")
    rates = rates[rates.transport == "one"].pivot(
        index="frame", columns="network", values="target_bps"
    )
    assert rates["near"].equals(rates["narrow"].rename("near")), "one sender"
    assert rates["near"].nunique() > 3

"""A sink in a whole run: from the scenario file to scores, decisions and the report."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from harness.errors import ScenarioError, Unsupported
from harness.report import tables as report_tables
from harness.run import Options, run
from harness.scenario import load, loads
from harness.sinks.classifiers import silero_vad
from harness.sinks.task import METRIC_NAMES
from harness.store import load as load_run
from harness.store.digests import digests

PREDECESSORS = Path(__file__).parents[2] / "scenarios" / "predecessors"
SCENARIO = """
name: sink
corpus: [{folder: audio, kind: music}]
codecs: [{codec: pcm, frame: 64ms, framing: wav}]
transports: [udp]
networks: [clean]
controls: false
metrics: [lsd]
receivers: [{sink: {clients: 2, CLASSIFIER}}]
"""


class Quiet:
    def note(self, text: str) -> None: ...
    def phase(self, name: str, total: int) -> None: ...
    def step(self, text: str, *, trouble: bool = False) -> None: ...


def run_one(folder: Path, sink: str) -> Path:
    (folder / "audio").mkdir(exist_ok=True)
    pcm = np.random.default_rng(1).normal(0, 3000, 3 * 16_000).astype(np.int16)
    soundfile.write(folder / "audio" / "noise.wav", pcm, 16_000)
    path = folder / "sink.yaml"
    path.write_text(SCENARIO.replace("CLASSIFIER", sink), encoding="utf-8")
    return run(Options(path, folder / "results", "virtual"), Quiet()).directory


def test_a_run_has_the_figures_and_every_decision(tmp_path: Path) -> None:
    try:
        silero_vad.create()
    except Unsupported as error:
        pytest.skip(str(error))
    directory = run_one(tmp_path, "batch: 3, wait: 10ms")
    tables = load_run(directory)
    cell = tables.cells.iloc[0]
    assert cell["receiver"] == "fixed-60ms-silero-vad"
    scores = tables.scores.set_index(["metric", "mode"])["value"]
    assert set(METRIC_NAMES) <= set(tables.scores["metric"])
    assert scores["task_accuracy", "due"] == 1, "nothing is lost, PCM is exact"
    # Window, jitter buffer and device; the batch waits 10 ms; then the model.
    assert scores["time_to_decision", "p50"] == pytest.approx(64 + 70 + 10 + 0.5, abs=2)
    with (directory / "decisions" / f"{cell['cell_id']}.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == scores["sink_windows", "due"]
    assert {row["given_to"] for row in rows} == {"0", "1"}
    assert all(row["label"] == row["clean"] for row in rows)
    shown = {figure.key for figure in report_tables.figures_of(tables)}
    assert {"task", "decision_p50", "undecided"} <= shown
    again = run_one(tmp_path, "batch: 3, wait: 10ms")
    assert digests(again) == digests(directory), "byte for byte the same"


def test_a_classifier_without_its_weights_is_the_reason_for_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HARNESS_WAV2VEC2_GENDER", raising=False)
    tables = load_run(run_one(tmp_path, "classifier: wav2vec2-gender"))
    assert tables.cells["status"].tolist() == ["ok"]
    mine = tables.scores[tables.scores["metric"].isin(METRIC_NAMES)]
    assert mine["value"].isna().all()
    assert mine["reason"].str.contains("hf download").all()


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("overlap: 30%", "overlap: expected whole chunks of a window of 2"),
        ("window: 1, overlap: 1.0", "overlap: expected whole chunks"),
        ("chunk: 0.03ms", "chunk: expected whole samples at 16 kHz"),
        ("ring: 1", "ring: expected at least 2, got 1"),
        ("shared: true, ring: 2", "ring: expected at least 3, got 2"),
        ("shared: true, batch: 4", 'batch: expected nothing beside "shared"'),
        ("classifer: silero-vad", 'did you mean "classifier"'),
    ],
)
def test_mistakes_are_told(tmp_path: Path, written: str, told: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        loads(SCENARIO.replace("CLASSIFIER", written), "sink.yaml", tmp_path)
    assert told in str(caught.value)


def test_the_shipped_scenario_has_both_arms() -> None:
    shipped = load(PREDECESSORS / "websocket-classifier.yaml")
    arms = {entry.name: entry.sink.settings for entry in shipped.receivers if entry.sink}
    assert [name for name, sink in arms.items() if sink.shared] == ["old", "old-3", "old-3-heavy"]
    old = arms["old"]
    assert (old.chunk_samples, old.window_chunks, old.hop_chunks) == (1024, 2, 1)
    assert (old.ring_chunks, old.gate_rms, old.takes) == (100, 0.01, "arrival")

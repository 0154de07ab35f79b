"""Metrics that a scenario names, through whole runs: what needs nothing, what lacks its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from harness import store
from harness.assets.store import ENV_CACHE
from harness.run import Options, run
from tests.labs.conftest import voice
from tests.virtual.test_matrix import Silent

SCENARIO = """\
name: asked
controls: false
compute: zero
metrics: [plcmos, lsd, si-sdr, e-model]
corpus:
  - {folder: audio, kind: speech}
codecs:
  - {codec: g711, name: g711, frame: 10ms}
transports: [udp]
networks:
  - {name: lossy, forward: {delay: 20ms, loss: 4%}}
receivers:
  - {name: pitch, concealment: pitch}
"""


@pytest.mark.parametrize("lab", ["virtual", pytest.param("netns", marks=pytest.mark.netns)])
def test_a_scenario_gets_the_metrics_that_it_names(
    lab: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No licence was accepted: PLCMOS says what to do, and the others do without it."""
    monkeypatch.setenv(ENV_CACHE, str(tmp_path / "cache"))
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "buzz.wav", voice(4, 16_000, 1), 16_000)
    path = tmp_path / "asked.yaml"
    path.write_text(SCENARIO)
    outcome = run(Options(path, tmp_path / "out", lab), Silent())
    assert outcome.statuses == {"ok": 1}
    scores = store.load(outcome.directory).scores.set_index(["metric", "mode"])
    for key in (("lsd", "wb"), ("si_sdr", "wb"), ("e_model_r", ""), ("e_model", "")):
        assert scores.loc[key, "value"] > 0, scores.loc[key]
    assert "harness assets fetch plcmos-v2" in scores.loc[("plcmos", ""), "reason"]
    assert {"pesq", "stoi"}.isdisjoint(scores.index.get_level_values("metric"))
    report = (outcome.directory / "report.html").read_text("utf-8")
    assert "E-model MOS" in report

"""All cells of a block meet one trace, at whatever rate their codec runs."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import soundfile

from harness.run import Options, run
from harness.store import load
from tests.labs.conftest import voice

SCENARIO = """\
name: one-trace
controls: false
metrics: [stoi]
compute: zero
repetitions: 2
corpus: [{folder: audio, silence: 0s}]
codecs: [pcm, {codec: g711}, {codec: opus, rate: 48kHz, frame: 10ms}]
transports: [udp]
networks:
  - name: drawn
    forward:
      delay: 20ms
      jitter: 5ms
      coherence: 200ms
      distribution: normal
      loss: {model: media-time, loss: 10%, burst: 60ms}
  - name: recorded
    forward: {delay: 20ms, trace: {format: loss, file: lost.txt, interval: 20ms}}
"""
SAMPLES = 64_015
"""Of 16 kHz: 4000.9 ms, and 4001.0 at 8 kHz."""


class Silent:
    def note(self, text: str) -> None: ...
    def phase(self, name: str, total: int) -> None: ...
    def step(self, text: str, *, trouble: bool = False) -> None: ...


def test_one_duration_one_hash(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    samples = voice(5, 16_000, 1)[:SAMPLES]
    soundfile.write(tmp_path / "audio" / "item.wav", samples, 16_000)
    drawn = random.Random(1)
    entries = (int(drawn.random() < 0.1) for _ in range(5000))
    (tmp_path / "lost.txt").write_text("".join(f"{lost}\n" for lost in entries))
    path = tmp_path / "s.yaml"
    path.write_text(SCENARIO)
    tables = load(run(Options(path, tmp_path, "virtual", jobs=1), Silent()).directory)
    cells = tables.cells
    assert set(cells["status"]) == {"ok"}
    blocks = cells.groupby("block")
    assert (blocks["trace_sha256"].nunique() == 1).all()
    assert cells.groupby("network")["trace_sha256"].nunique().tolist() == [2, 2]

    recorded = cells[cells["network"] == "recorded"]
    assert cells[cells["network"] == "drawn"]["recorded_part"].isna().all()
    parts = recorded.groupby("repetition")["recorded_part"].unique()
    begins = [json.loads(part)["forward"][0] for (part,) in parts]
    assert begins[0] != begins[1]
    for (part,) in parts:
        begin, end = json.loads(part)["forward"]
        assert end - begin == pytest.approx(SAMPLES / 16_000)
        assert end <= 100
    lost = tables.packets.merge(recorded[["cell_id", "codec"]]).query("fate == 'lost'")
    per_codec = lost.groupby("codec").size()
    assert per_codec["pcm"] == per_codec["g711"] > 20

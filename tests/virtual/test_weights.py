"""Weights on their way from the asset store to codecs and receivers, in whole runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from harness import store
from harness.assets import AssetStore
from harness.codecs.lyra import Params, required_assets
from harness.run import Options, run
from tests.conftest import real_weights
from tests.labs.conftest import voice

SCENARIO = """\
name: weights
compute: zero
controls: false
metrics: []
corpus: [{folder: audio, kind: speech}]
codecs: [pcm, g711, lyra]
transports: [udp]
networks: [{name: lossy, forward: {loss: 20%}}]
receivers: [{name: network, concealment: tplcnet}]
"""


class Silent:
    def note(self, text: str) -> None: ...
    def phase(self, name: str, total: int) -> None: ...
    def step(self, text: str, *, trouble: bool = False) -> None: ...


@pytest.fixture
def accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The store of a user who has a mirror and has accepted what is needed."""
    pytest.importorskip("ai_edge_litert", reason="needs pip install ai-edge-litert")
    found = {name: real_weights(name) for name in ("tplcnet", *required_assets(Params()))}
    (mirror,) = {path.parent for path in found.values()}
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HARNESS_MIRROR", str(mirror))
    for name in found:
        AssetStore.default().accept(name)


@pytest.mark.usefixtures("accepted")
def test_codec_and_receiver_get_theirs(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "buzz.wav", voice(3, 16_000, 1), 16_000)
    path = tmp_path / "weights.yaml"
    path.write_text(SCENARIO)
    outcome = run(Options(path, out=tmp_path, lab="virtual", jobs=1), Silent())
    found = store.load(outcome.directory).cells.set_index("codec")
    assert found["status"].to_dict() == {"pcm": "ok", "g711": "unsupported", "lyra": "ok"}
    assert "expected a codec at 16kHz" in found.loc["g711", "reason"]
    assert found.loc["lyra", "weights"] == "real"

"""One rule says which items have a PESQ: preparation, ``check``, ``plan``, scores and report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from harness import run
from harness.assets import AssetStore, ItemRef, prepare
from harness.assets.level import MIN_ACTIVE_SPEECH_S, active_speech_s
from harness.score.align import to_float
from harness.score.quality import MEASURES, score_audio
from tests.score.signals import task

RATE_HZ = 16_000
SCENARIO = """\
name: short
corpus: [{folder: items}]
codecs: [pcm]
transports: [udp]
networks: [clean]
"""


def bursts(seconds: float) -> np.ndarray:
    """Half a second of a voice-like buzz, 0.3 s of pause: P.56 takes 0.2 s of each for speech."""
    time = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    tones = sum(np.sin(2 * np.pi * 150 * k * time + k * k) / k for k in range(1, 20))
    return 0.1 * tones * (time % 0.8 < 0.5)


def item(folder: Path, name: str, seconds: float) -> ItemRef:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.wav"
    soundfile.write(path, bursts(seconds), RATE_HZ)
    return ItemRef(name, "mine", "speech", str(path))


@pytest.mark.parametrize("seconds", [2.4, 3.2, 4.0, 4.8, 5.6])
def test_preparation_and_pesq_judge_by_the_same_rule(seconds: float, tmp_path: Path) -> None:
    prepared = prepare(item(tmp_path, "a", seconds), AssetStore(tmp_path / "cache"))
    scores = score_audio(task(prepared.pcm), [m for m in MEASURES if m.metric == "pesq"])
    warned = [text for text in prepared.warnings if "it has no PESQ" in text]
    assert prepared.lacks_speech == bool(warned)
    for score in scores:
        assert (score["value"] is None) == prepared.lacks_speech, score["reason"]
        if prepared.lacks_speech:
            assert prepared.active_s is not None
            assert score["reason"] == (
                f"PESQ needs 3.2 s of active speech, got {prepared.active_s:.1f} s"
            )


def test_both_sides_of_the_rule_were_tried() -> None:
    found = [active_speech_s(bursts(seconds), RATE_HZ) for seconds in (2.4, 5.6)]
    assert found[0] < MIN_ACTIVE_SPEECH_S < found[1]


def test_integers_and_floats_are_the_same_speech() -> None:
    pcm = (bursts(4.0) * 20_000).astype(np.int16)
    assert active_speech_s(pcm, RATE_HZ) == active_speech_s(to_float(pcm), RATE_HZ) > 0
    assert active_speech_s(pcm * 0, RATE_HZ) == 0


@pytest.mark.parametrize("command", ["check", "plan"])
def test_it_is_said_before_the_run(command: str, tmp_path: Path) -> None:
    for name, seconds in (("short", 2.4), ("shorter", 1.8), ("long", 9.0)):
        item(tmp_path / "items", name, seconds)
    file = tmp_path / "s.yaml"
    file.write_text(SCENARIO)
    notes: list[str] = []
    if command == "check":
        run.check(file, notes.append)
    else:
        run.planned(file, None, notes.append)
    assert notes[-1] == (
        "2 of 3 items have no PESQ, since they have less than 3.2 s of active speech"
        " (ITU-T P.862.3): short, shorter"
    )
    file.write_text(f"{SCENARIO}metrics: [stoi]\n")
    notes.clear()
    run.check(file, notes.append)
    assert not [text for text in notes if "items have no PESQ" in text]

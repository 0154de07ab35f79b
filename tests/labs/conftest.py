"""A small real scenario on audio made here: nothing is fetched, every agent and link is real."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

SCENARIO = """\
name: tiny
seed: 3
corpus:
  - {folder: audio, kind: speech}
codecs:
  - pcm
  - {codec: opus, bitrate: 24kbit, fec: true, expected_loss: 10%}
transports: [udp, tcp]
networks:
  - clean
  - name: lossy
    forward: {delay: 20ms, loss: 5%}
"""


def voice(seconds: float, rate_hz: int, seed: int) -> np.ndarray:
    """A buzz through moving formants, in syllables: enough like speech for P.862 to find it."""
    generator = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate_hz)) / rate_hz
    pitch = 120 + 20 * np.sin(2 * np.pi * 0.4 * time + seed)
    phase = 2 * np.pi * np.cumsum(pitch) / rate_hz
    sound = sum(
        np.sin(k * phase) * np.exp(-(((k * pitch - formant) / 250) ** 2))
        for k in range(1, 28)
        for formant in (500 + 250 * np.sin(3 * time), 1500 + 500 * np.sin(2 * time + 1))
    )
    syllables = np.clip(np.sin(2 * np.pi * 2.2 * time) + 0.4, 0, 1)
    pauses = np.where((time % 3.0) < 2.4, 1.0, 0.0)
    track = sound * syllables * pauses + 0.001 * generator.standard_normal(len(time))
    return (0.3 * track / np.abs(track).max()).astype(np.float32)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of a scenario of 8 cells over one item of 8.5 s."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "audio").mkdir()
    soundfile.write(folder / "audio" / "buzz.wav", voice(8.5, 16_000, 1), 16_000)
    path = folder / "tiny.yaml"
    path.write_text(SCENARIO)
    return path

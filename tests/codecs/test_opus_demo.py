"""Our Opus against Xiph's own ``opus_demo``: the same bytes, the same samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from codec_settings import make
from codec_signals import payloads, whole_frames
from opus_demo import OpusDemo, opus_demo

from harness.assets import Prepared
from harness.codecs.base import Codec, Pcm
from harness.codecs.opus import OpusCodec

pytestmark = pytest.mark.slow

SECONDS = 6

SETTINGS: list[dict[str, Any]] = [
    {},
    {"vbr": False},
    {"complexity": 0},
    {"complexity": 2},
    {"complexity": 6},
    {"rate": "48kHz", "bitrate": "64kbit", "application": "audio", "complexity": 8},
    {"rate": "48kHz", "bitrate": "64kbit", "application": "audio", "vbr_constraint": False},
    {"complexity": 5, "bitrate": "9kbit"},
    {"rate": "8kHz", "bitrate": "12kbit", "frame": "60ms"},
    {"rate": "12kHz", "bitrate": "14kbit"},
    {"rate": "24kHz", "bitrate": "32kbit", "frame": "10ms", "application": "audio"},
    {"rate": "48kHz", "bitrate": "40kbit", "frame": "40ms", "complexity": 3},
    {"rate": "48kHz", "bitrate": "96kbit", "application": "audio", "vbr": False},
    {"rate": "48kHz", "bitrate": "64kbit", "application": "lowdelay", "frame": "5ms"},
    {"rate": "24kHz", "bitrate": "64kbit", "application": "lowdelay", "frame": "2.5ms"},
    {"fec": True, "expected_loss": "10%"},
    {"fec": True, "expected_loss": "25%", "rate": "48kHz", "bitrate": "32kbit", "frame": "40ms"},
    {"dred": "1s", "expected_loss": "20%"},
    {"dred": "500ms", "expected_loss": "10%", "fec": True, "rate": "48kHz", "bitrate": "64kbit"},
]

DECODED: list[dict[str, Any]] = [
    {},
    {"rate": "48kHz", "bitrate": "64kbit", "application": "audio", "frame": "10ms"},
    {"rate": "8kHz", "bitrate": "12kbit", "frame": "60ms"},
    {"fec": True, "expected_loss": "20%"},
    {"fec": True, "expected_loss": "20%", "rate": "48kHz", "bitrate": "32kbit", "frame": "40ms"},
    {"deep_plc": True},
    {"deep_plc": True, "rate": "8kHz", "bitrate": "12kbit"},
    {"deep_plc": True, "fec": True, "expected_loss": "20%"},
    {"dred": "1s", "expected_loss": "20%"},
    {"dred": "200ms", "expected_loss": "20%"},
    {"dred": "1s", "expected_loss": "20%", "bitrate": "48kbit", "frame": "10ms"},
    {"dred": "1s", "expected_loss": "20%", "bitrate": "48kbit", "frame": "40ms"},
    {"dred": "1s", "expected_loss": "20%", "bitrate": "48kbit", "fec": True},
    {"dred": "1s", "expected_loss": "20%", "bitrate": "64kbit", "rate": "48kHz"},
]

LOSSES = ("single", "bursts", "gaps", "heavy")


def _id(written: dict[str, Any]) -> str:
    return "-".join(f"{key}={value}" for key, value in written.items()) or "defaults"


@pytest.fixture(scope="module")
def demo() -> OpusDemo:
    return opus_demo()


def _coded(codec: Codec, pcm: Pcm) -> list[bytes]:
    return [payload or b"" for payload in payloads(codec, pcm)]


def _lost(kind: str, count: int, frame_s: float) -> set[int]:
    """Which of ``count`` frames are lost; the first and the last come."""
    rng = np.random.default_rng(5)
    if kind in ("single", "heavy"):
        drawn = rng.random(count) < (0.1 if kind == "single" else 0.4)
    else:
        length = max(1, round((0.08 if kind == "bursts" else 0.6) / frame_s))
        starts = np.flatnonzero(rng.random(count) < 0.1 / length)
        drawn = np.zeros(count, bool)
        for start in starts:
            drawn[start : start + length] = True
    return set(np.flatnonzero(drawn).tolist()) - {0, count - 1}


def _heard(codec: Codec, coded: Sequence[bytes], lost: set[int]) -> tuple[Pcm, int]:
    """What a receiver plays that sees far ahead, and how many frames it recovered."""
    decoder = codec.decoder()
    heard, recovered = [], 0
    for index, payload in enumerate(coded):
        if index not in lost:
            heard.append(decoder.decode(payload))
            continue
        back = next(n for n in range(1, len(coded)) if index + n not in lost)
        audio = None
        if back <= codec.facts.recovery_frames:
            audio = decoder.recover(coded[index + back], back)
        recovered += audio is not None
        heard.append(decoder.conceal() if audio is None else audio)
    return np.concatenate(heard), recovered


@pytest.mark.parametrize("written", SETTINGS, ids=_id)
def test_every_payload_is_opus_demos(
    written: dict[str, Any], demo: OpusDemo, speech: list[Prepared]
) -> None:
    codec = make("opus", **written)
    assert isinstance(codec, OpusCodec)
    for prepared in speech:
        pcm = whole_frames(prepared, codec, SECONDS)
        ours, theirs = _coded(codec, pcm), demo.encode(pcm, codec.params)
        same = [a == b for a, b in zip(ours, theirs, strict=True)]
        assert all(same), f"{same.count(False)} of {len(same)} differ, {same.index(False)} first"


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("written", DECODED, ids=_id)
def test_every_sample_is_opus_demos(
    written: dict[str, Any], kind: str, demo: OpusDemo, speech: list[Prepared]
) -> None:
    codec = make("opus", **written)
    assert isinstance(codec, OpusCodec)
    deep = codec.params.deep_plc or codec.params.dred
    coded = _coded(codec, whole_frames(speech[0], codec, SECONDS))
    lost = _lost(kind, len(coded), codec.params.frame / 1e9)
    theirs = demo.decode(coded, lost, codec.params, 5 if deep else 0)
    ours, recovered = _heard(codec, coded, lost)
    assert len(lost) > 3
    assert bool(recovered) == bool(codec.params.fec or codec.params.dred)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("asked", "planted"),
    [
        ({"complexity": 8}, {"complexity": 7}),
        ({"bitrate": "64kbit"}, {"bitrate": "64.4kbit"}),
        ({"vbr_constraint": True}, {"vbr_constraint": False}),
        (
            {"fec": True, "expected_loss": "10%"},
            {"fec": True, "expected_loss": "11%"},
        ),
    ],
)
def test_a_setting_that_did_not_reach_libopus_would_be_seen(
    asked: dict[str, Any], planted: dict[str, Any], demo: OpusDemo, speech: list[Prepared]
) -> None:
    coded_by_both_layers = {"rate": "48kHz", "application": "audio", "bitrate": "64kbit"}
    codec = make("opus", **{**coded_by_both_layers, **asked})
    assert isinstance(codec, OpusCodec)
    pcm = whole_frames(speech[0], codec, SECONDS)
    ours = _coded(make("opus", **{**coded_by_both_layers, **planted}), pcm)
    assert ours != demo.encode(pcm, codec.params)

"""tPLCnet with its real weights; skipped where neither cache, mirror nor network has them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from pesq import pesq
from pystoi import stoi

from harness.assets.store import ENV_MIRROR
from harness.codecs.base import Pcm
from harness.errors import AssetError, Unsupported
from harness.media.neural_plc import NeuralConcealment
from harness.media.playout import ReceiverCore
from harness.media.settings import ReceiverSettings
from tests.conftest import real_weights

from .simulation import (
    FACTS,
    MS,
    STREAM,
    T0,
    Clock,
    Heard,
    ScriptedDecoder,
    arrivals,
    listen,
    send,
    voiced,
)

TPLCNET = ReceiverSettings(concealment="tplcnet")
RATE_HZ, SIZE, BLOCK = 16_000, 320, 160


@pytest.fixture(scope="module")
def weights() -> Path:
    pytest.importorskip("ai_edge_litert", reason="needs pip install ai-edge-litert")
    return real_weights("tplcnet")


def heard_with(weights: Path, pcm: Pcm, lost: list[bool], settings: ReceiverSettings) -> Heard:
    """A listener of PCM whose frames are lost as told."""
    sent = send(pcm)
    came = arrivals(sent, lambda i: None if lost[i % len(lost)] else 10 * MS)
    return listen(came, sent.frames, settings, assets={"tplcnet": weights})


def after(signal: Pcm, frames: int, weights: Path) -> NeuralConcealment:
    """A concealment that has heard so many frames of a signal."""
    made = NeuralConcealment(RATE_HZ, SIZE, weights)
    for start in range(0, frames * SIZE, SIZE):
        made.heard(signal[start : start + SIZE])
    return made


def likeness(one: Pcm, other: Pcm) -> float:
    return float(np.corrcoef(one, other)[0, 1])


def test_a_call_of_the_plc_challenge_scores_what_it_should(weights: Path) -> None:
    """Item 2307 with its own trace, 6.6 % of the packets lost; published program: 3.32, 0.945."""
    folder = Path(os.environ.get(ENV_MIRROR, ""))
    audio = folder / "plc" / "tplcnet" / "2307_clean.flac"
    trace = folder / "traces" / "loss" / "plc_challenge_2307_is_lost.txt"
    if ENV_MIRROR not in os.environ or not (audio.exists() and trace.exists()):
        pytest.skip(f"needs {ENV_MIRROR}, a folder with {audio.name} and {trace.name}")
    clean, _ = soundfile.read(audio, dtype="int16")
    lost = [line == "1" for line in trace.read_text().split()]
    clean = clean[: len(lost) * SIZE]
    found = {}
    for kind in ("zero", "tplcnet"):
        heard = heard_with(weights, clean, lost, replace(TPLCNET, concealment=kind))
        media = heard.core.media()[: len(clean)]
        intelligible = float(stoi(clean / 32768, media / 32768, RATE_HZ))
        found[kind] = (pesq(RATE_HZ, clean, media, "wb"), intelligible)
    assert found["zero"] == (pytest.approx(2.78, abs=0.02), pytest.approx(0.927, abs=0.002))
    assert found["tplcnet"] == (pytest.approx(3.33, abs=0.05), pytest.approx(0.949, abs=0.005))


def test_good_frames_pass_as_they_are_but_for_10_ms_after_a_gap(weights: Path) -> None:
    signal = voiced(SIZE * 12)
    lost = [number == 5 for number in range(12)]
    media = heard_with(weights, signal, lost, TPLCNET).core.media()
    good = np.ones(len(signal), bool)
    good[5 * SIZE : 6 * SIZE + BLOCK] = False
    np.testing.assert_array_equal(media[good], signal[good])
    assert (media[6 * SIZE : 6 * SIZE + BLOCK] != signal[6 * SIZE : 6 * SIZE + BLOCK]).any()


def test_it_goes_on_with_the_voice(weights: Path) -> None:
    signal = voiced(SIZE * 20)
    made = after(signal, 10, weights)
    audio = np.concatenate([made.conceal()[0] for _ in range(2)])
    assert likeness(audio, signal[10 * SIZE : 12 * SIZE]) > 0.8


def test_the_good_frame_after_the_gap_is_of_use(weights: Path) -> None:
    """A change of pitch within the gap cannot be foretold."""
    signal = np.concatenate((voiced(SIZE * 10, pitch_hz=110), voiced(SIZE * 10, pitch_hz=150)))
    missing, following = signal[10 * SIZE : 11 * SIZE], signal[11 * SIZE : 12 * SIZE]
    blind, _ = after(signal, 10, weights).conceal()
    knowing, _ = after(signal, 10, weights).conceal(following)
    np.testing.assert_array_equal(blind[:BLOCK], knowing[:BLOCK])
    assert likeness(knowing[BLOCK:], missing[BLOCK:]) > likeness(blind[BLOCK:], missing[BLOCK:])


def test_a_frame_decoded_ahead_is_decoded_once_and_in_its_place(weights: Path) -> None:
    heard = heard_with(weights, voiced(SIZE * 9), [False, True, True], TPLCNET)
    assert heard.decoder.calls == ["decode", "conceal", "conceal"] * 3
    assert heard.frames["frame"].tolist() == list(range(9))


def test_a_frame_decoded_ahead_that_the_codec_refuses_is_made_up(weights: Path) -> None:
    sent = send(voiced(SIZE * 6))
    came = arrivals(sent, lambda i: None if i == 1 else 10 * MS)
    decoder = ScriptedDecoder(FACTS, refused=(1,))  # the second payload to come: frame 2
    heard = listen(came, 6, TPLCNET, decoder=decoder, assets={"tplcnet": weights})
    assert decoder.calls[:5] == ["decode", "conceal", "decode", "conceal", "decode"]
    assert heard.verdicts() == ["USED", "UNDECODABLE", "USED", "USED", "USED"]


def test_a_frame_decoded_ahead_and_then_given_up_is_not_told_of_again(weights: Path) -> None:
    signal, decoder = voiced(SIZE * 20), ScriptedDecoder(FACTS)
    settings = replace(TPLCNET, start_ns=0, max_ns=60 * MS)
    clock = Clock()
    core = ReceiverCore(settings, FACTS, decoder, STREAM, 20, clock, assets={"tplcnet": weights})
    packets = [packet for _, packet in send(signal).packets]
    core.on_packet(packets[0], T0)
    core.on_packet(packets[2], T0)
    core.pull()
    core.pull()
    assert decoder.calls == ["decode", "conceal", "decode"]
    for packet in packets[3:]:
        core.on_packet(packet, T0 + 30 * MS)
    while not core.finished:
        core.pull()
    assert len(decoder.calls) == 20


@pytest.mark.parametrize(("rate_hz", "samples"), [(8_000, 160), (48_000, 960), (16_000, 40)])
def test_other_rates_and_frames_are_unsupported(weights: Path, rate_hz: int, samples: int) -> None:
    with pytest.raises(Unsupported, match=r"at 16kHz with frames of whole 10ms, got .* pitch"):
        NeuralConcealment(rate_hz, samples, weights)


def test_weights_of_something_else_are_named(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="needs pip install ai-edge-litert")
    path = tmp_path / "other.tflite"
    path.write_bytes(b"no model")
    with pytest.raises(AssetError, match=r"tplcnet: expected a TFLite model in .*other\.tflite"):
        NeuralConcealment(RATE_HZ, SIZE, path)

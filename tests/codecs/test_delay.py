"""The delay that codecs declare, against the delay that they have."""

from __future__ import annotations

import numpy as np
import pytest
from codec_settings import every_setting, make
from codec_signals import frames, lag, noise_bursts, payloads, round_trip

from harness.codec_table import tolerance_samples
from harness.codecs.base import Codec


@every_setting()
def test_look_ahead_is_the_number_of_calls_without_a_payload(codec: Codec) -> None:
    coded = payloads(codec, noise_bursts(codec.facts.sample_rate_hz, 0.6))
    assert [p is None for p in coded[: codec.facts.lookahead_frames]] == [
        True
    ] * codec.facts.lookahead_frames
    assert all(coded[codec.facts.lookahead_frames :])


@every_setting(parametric=False)
def test_output_lags_by_the_declared_delay(codec: Codec) -> None:
    pcm = noise_bursts(codec.facts.sample_rate_hz, 3)
    measured = lag(round_trip(codec, pcm), pcm)
    assert abs(measured - codec.facts.delay_samples) <= tolerance_samples(codec.facts)


def test_encodec_answers_a_change_in_the_frame_that_holds_it() -> None:
    """Random weights give no waveform to correlate, so the delay shows as cause and effect.

    That sample n of the output then stands for sample n of the input is a property of the model,
    whose offline output the streaming one equals sample by sample (``test_encodec.py``).
    """
    codec = make("encodec", weights="random", bitrate="24kbit")
    size, changed = codec.facts.frame_samples, 20
    calm = noise_bursts(codec.facts.sample_rate_hz, 0.6)
    differing = []
    for first_changed in (changed * size, (changed + 1) * size - 1):
        other = calm.copy()
        other[first_changed:] = 20_000
        before, after = (np.array(frames(round_trip(codec, pcm), codec)) for pcm in (calm, other))
        differing.append(int(np.flatnonzero((before != after).any(1))[0]))
    assert differing[0] == changed
    # One sample at the end of a frame may be too little to change its codes.
    assert differing[1] in (changed, changed + 1)


@pytest.mark.parametrize(
    ("name", "written", "expected_ms"),
    [
        ("pcm", {}, 20),
        ("g711", {}, 20),
        ("g722", {}, 21.375),
        ("aac", {}, 64),
        ("aac", {"rate": "16kHz", "bitrate": "32kbit"}, 192),
        ("aac-blocks", {}, 1450.667),
        ("aac-blocks", {"priming": "trim"}, 1365.333),
        ("mp3", {}, 143.021),
        ("mp3", {"reservoir": False}, 71.021),
        ("flac", {}, 20),
        ("amr-nb", {}, 25),
        ("sbc", {}, 12.5625),
        ("opus", {}, 26.5),
        ("opus", {"application": "audio"}, 26.5),
        ("opus", {"application": "lowdelay"}, 22.5),
        ("lc3", {}, 12.5),
        ("lc3", {"frame": "7.5ms"}, 11.5),
        ("lc3", {"frame": "5ms"}, 7.5),
        ("lc3", {"frame": "2.5ms", "bitrate": "64kbit"}, 5),
        ("speex", {}, 33.9375),
        ("speex", {"rate": "8kHz", "bitrate": "15kbit"}, 30),
        ("gsm", {}, 20),
        ("amr-wb", {}, 25.9375),
        ("codec2", {}, 40),
        ("codec2", {"bitrate": "1.2kbit"}, 60),
        ("codec2", {"bitrate": "700bit"}, 70),
        ("encodec", {"weights": "random"}, 13.333),
        ("lyra", {}, 20),
    ],
)
def test_algorithmic_delay(name: str, written: dict[str, str], expected_ms: float) -> None:
    """Fill and look-ahead together, as codecs are usually quoted."""
    facts = make(name, **written).facts
    assert facts.algorithmic_delay_ns / 1e6 == pytest.approx(expected_ms, abs=0.001)

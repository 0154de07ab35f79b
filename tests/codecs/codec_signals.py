"""Test signals made by code, and what is measured on them. All int16 mono, fixed seeds."""

from __future__ import annotations

import numpy as np

from harness.assets import Prepared, resampled
from harness.codec_table import coded as round_trip
from harness.codec_table import lag, noise_bursts
from harness.codecs.base import Codec, Pcm

__all__ = [
    "frames",
    "lag",
    "noise_bursts",
    "payloads",
    "round_trip",
    "snr_db",
    "speech_like",
    "whole_frames",
]


def speech_like(rate_hz: int, seconds: float, seed: int = 1) -> Pcm:
    """Voiced syllables (harmonics of a wandering pitch, falling 6 dB/octave) and noise between."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(rate_hz * seconds)) / rate_hz
    knots = np.arange(0, seconds + 0.1, 0.1)
    pitch_hz = np.interp(time, knots, rng.uniform(90, 220, len(knots)))
    phase = 2 * np.pi * np.cumsum(pitch_hz) / rate_hz
    harmonics = range(1, min(30, int(0.45 * rate_hz / 220)) + 1)
    voiced = sum(np.sin(h * phase + rng.uniform(0, 2 * np.pi)) / h for h in harmonics)
    noise = np.convolve(rng.standard_normal(len(time)), np.hanning(5) / 2, "same")
    loud = np.interp(time, knots, rng.uniform(0.05, 1, len(knots)))
    mixture = np.interp(time, knots, rng.uniform(0, 1, len(knots)) > 0.3)
    signal = loud * (mixture * voiced + 0.3 * (1 - mixture) * noise)
    return np.rint(6000 * signal / np.sqrt(np.mean(signal**2)) / 3).astype(np.int16)


def frames(pcm: Pcm, codec: Codec) -> list[Pcm]:
    """Cut into the codec's frames; the incomplete last one is dropped."""
    size = codec.facts.frame_samples
    return [pcm[start : start + size] for start in range(0, len(pcm) - size + 1, size)]


def whole_frames(prepared: Prepared, codec: Codec, seconds: float) -> Pcm:
    """The beginning of an utterance at the codec's rate, a whole number of its frames."""
    size, rate_hz = codec.facts.frame_samples, codec.facts.sample_rate_hz
    pcm = resampled(prepared, rate_hz)[: round(seconds * rate_hz)]
    return pcm[: len(pcm) // size * size]


def payloads(codec: Codec, pcm: Pcm) -> list[bytes | None]:
    encoder = codec.encoder()
    return [encoder.encode(frame) for frame in frames(pcm, codec)]


def snr_db(output: Pcm, reference: Pcm, delay: int) -> float:
    """Signal to noise ratio over the samples that both have, ``output`` being ``delay`` late."""
    late = output[delay:].astype(np.float64)
    asked = reference[: len(late)].astype(np.float64)
    noise = np.mean((late[: len(asked)] - asked) ** 2)
    return float(10 * np.log10(np.mean(asked**2) / noise)) if noise else float("inf")

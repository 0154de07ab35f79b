"""Test signals made by code, and what is measured on them. All int16 mono, fixed seeds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.codecs.base import Codec, Pcm


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


def noise_bursts(rate_hz: int, seconds: float, seed: int = 1) -> Pcm:
    """Noise whose level jumps every 10 ms: a sharp peak of its correlation with itself."""
    rng = np.random.default_rng(seed)
    length = int(rate_hz * seconds)
    noise = np.convolve(rng.standard_normal(length), np.hanning(9) / 4, "same")
    level = np.repeat(rng.random(length // (rate_hz // 100) + 1), rate_hz // 100)[:length]
    return np.rint(6000 * noise * level).astype(np.int16)


def frames(pcm: Pcm, codec: Codec) -> list[Pcm]:
    """Cut into the codec's frames; the incomplete last one is dropped."""
    size = codec.facts.frame_samples
    return [pcm[start : start + size] for start in range(0, len(pcm) - size + 1, size)]


def payloads(codec: Codec, pcm: Pcm) -> list[bytes | None]:
    encoder = codec.encoder()
    return [encoder.encode(frame) for frame in frames(pcm, codec)]


def round_trip(codec: Codec, pcm: Pcm) -> Pcm:
    """The decoder's output timeline."""
    decoder = codec.decoder()
    return np.concatenate([decoder.decode(p) for p in payloads(codec, pcm) if p is not None])


def lag(output: NDArray[np.generic], reference: NDArray[np.generic]) -> int:
    """How many samples ``output`` lies behind ``reference``: the peak of their correlation."""
    size = 1 << (len(output) + len(reference)).bit_length()
    spectra = [np.fft.rfft(signal.astype(np.float64), size) for signal in (output, reference)]
    best = int(np.argmax(np.abs(np.fft.irfft(spectra[0] * spectra[1].conj(), size))))
    return best if best < size // 2 else best - size


def snr_db(output: Pcm, reference: Pcm, delay: int) -> float:
    """Signal to noise ratio over the samples that both have, ``output`` being ``delay`` late."""
    late = output[delay:].astype(np.float64)
    asked = reference[: len(late)].astype(np.float64)
    noise = np.mean((late[: len(asked)] - asked) ** 2)
    return float(10 * np.log10(np.mean(asked**2) / noise)) if noise else float("inf")

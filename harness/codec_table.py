"""``harness codecs``: every codec, what it is, and whether it runs here; its delay measured too.

A codec is taken at its default settings. Its delay is measured by coding a signal and finding how
far the output lies behind the input: by the waveform where the codec keeps one, by the loudness
where it is a vocoder. Random weights keep neither; there the delay is by construction, which
``tests/codecs`` hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import codecs
from harness.codecs.base import About, Codec, CodecFacts, Params, Pcm
from harness.errors import HarnessError
from harness.units import NS_PER_S

Weights = Callable[[str], Path]
"""The file of an asset. Raises Unsupported."""
_SECONDS = 3
_VOCODER_SECONDS = 12
_VOCODERS = frozenset({"codec2"})
"""Their output keeps the loudness of the input, and no waveform."""
TOLERANCES = {"libopus": 2, "libspeex": 2, "opencore-amr": 1, "libcodec2": 10}
"""Samples, by library; all others: 0. SILK and Speex keep the spectrum rather than the waveform,
AMR's post-filter tilts it, and a vocoder's envelope is made of a model every 10 to 40 ms."""


@dataclass(frozen=True)
class Row:
    """One codec at its default settings; ``facts`` and ``delay_samples`` are None where it does
    not run here, for the reason in ``missing``."""

    name: str
    about: About
    facts: CodecFacts | None
    delay_samples: int | None
    """Measured, to be held against ``facts.delay_samples``; None where nothing can be measured."""
    missing: str = ""

    @property
    def delay_holds(self) -> bool | None:
        """Whether the declared delay is the measured one, within TOLERANCES; None: not measured."""
        if self.facts is None or self.delay_samples is None:
            return None
        off = abs(self.delay_samples - self.facts.delay_samples)
        return off <= tolerance_samples(self.facts)

    def as_dict(self) -> dict[str, Any]:
        """For machines; delays are algorithmic ones (fill and look-ahead), in ms."""
        about, facts = self.about, self.facts
        row: dict[str, Any] = {
            "codec": self.name,
            "title": about.title,
            "tier": about.tier,
            "bitrates": about.bitrates,
            "causal": about.causal,
            "code_licence": about.code_licence,
            "weights_licence": about.weights_licence,
            "available": facts is not None and facts.weights != "random",
            "missing": self.missing,
        }
        if facts is None:
            return row
        measured_ms = None
        if self.delay_samples is not None:
            later = self.delay_samples - facts.delay_samples
            measured_ms = facts.algorithmic_delay_ns / 1e6 + 1000 * later / facts.sample_rate_hz
        return row | {
            "rate_hz": facts.sample_rate_hz,
            "frame_ms": facts.frame_ns / 1e6,
            "delay_ms": facts.algorithmic_delay_ns / 1e6,
            "measured_delay_ms": measured_ms,
            "delay_holds": self.delay_holds,
            "bitrate_bps": facts.nominal_bitrate_bps,
            "bitrate_range_bps": facts.bitrate_range_bps,
            "conceals": facts.conceals,
            "weights": facts.weights,
            "library": facts.library,
        }


def tolerance_samples(facts: CodecFacts) -> int:
    """How far the measured delay may be off the declared one."""
    return next((TOLERANCES[name] for name in TOLERANCES if name in facts.library), 0)


def rows(weights: Weights) -> Iterator[Row]:
    """Each codec in the order of the table, made and measured."""
    for name in codecs.names():
        module = codecs.module(name)
        params = module.Params()
        missing = ""
        codec = None
        for candidate in (params, _with_random_weights(module.Params)):
            if candidate is None:
                continue
            try:
                assets = {need: weights(need) for need in module.required_assets(candidate)}
                codec = module.create(candidate, assets)
                break
            except HarnessError as error:
                missing = missing or str(error)
        if codec is None:
            yield Row(name, module.ABOUT, None, None, missing)
        else:
            yield Row(name, module.ABOUT, codec.facts, measured_delay(name, codec), missing)


def _with_random_weights(params: type[Params]) -> Params | None:
    return (
        params.model_validate({"weights": "random"}) if "weights" in params.model_fields else None
    )


def measured_delay(name: str, codec: Codec) -> int | None:
    """How many samples the decoder's output lies behind the encoder's input; None for random
    weights."""
    facts = codec.facts
    if facts.weights == "random":
        return None
    if name in _VOCODERS:
        tones = [swelling_tone(facts.sample_rate_hz, _VOCODER_SECONDS, seed) for seed in range(2)]
        lags = [lag(loudness(coded(codec, tone)), loudness(tone)) for tone in tones]
        return round(float(np.mean(lags)))
    # At least a dozen frames: a block coder's are long.
    seconds = max(_SECONDS, 12 * facts.frame_ns / NS_PER_S)
    pcm = noise_bursts(facts.sample_rate_hz, seconds)
    return lag(coded(codec, pcm), pcm)


def coded(codec: Codec, pcm: Pcm) -> Pcm:
    """The decoder's output timeline for the whole frames of ``pcm``."""
    encoder, decoder, size = codec.encoder(), codec.decoder(), codec.facts.frame_samples
    payloads = [
        encoder.encode(pcm[start : start + size]) for start in range(0, len(pcm) - size + 1, size)
    ]
    return np.concatenate([decoder.decode(payload) for payload in payloads if payload is not None])


def noise_bursts(rate_hz: int, seconds: float, seed: int = 1) -> Pcm:
    """Noise whose level jumps every 10 ms: a sharp peak of its correlation with itself."""
    rng = np.random.default_rng(seed)
    length = int(rate_hz * seconds)
    noise = np.convolve(rng.standard_normal(length), np.hanning(9) / 4, "same")
    level = np.repeat(rng.random(length // (rate_hz // 100) + 1), rate_hz // 100)[:length]
    return np.rint(6000 * noise * level).astype(np.int16)


def swelling_tone(rate_hz: int, seconds: int, seed: int) -> Pcm:
    """Harmonics of 125 Hz whose loudness wanders slowly enough for models 40 ms apart."""
    rng = np.random.default_rng(seed)
    length, kernel = rate_hz * seconds, np.hanning(rate_hz // 5)
    wander = np.convolve(rng.standard_normal(length), kernel / np.linalg.norm(kernel), "same")
    phase = 2 * np.pi * 125 * np.arange(length) / rate_hz
    harmonics = np.sum([np.sin(h * phase + h * h) / h for h in range(1, 25)], axis=0)
    tone: NDArray[np.float64] = np.exp(wander) * harmonics
    scaled: NDArray[np.float64] = np.clip(3_000 * tone / np.std(tone), -32_768, 32_767)
    return np.rint(scaled).astype(np.int16)


def loudness(pcm: Pcm) -> NDArray[np.float64]:
    """Logarithm of the power over 16 ms at 8 kHz, its mean taken off."""
    power = np.convolve(pcm.astype(float) ** 2, np.hanning(128) / 64, "same")
    level = np.log(power + 1_000)
    without_mean: NDArray[np.float64] = level - level.mean()
    return without_mean


def lag(output: NDArray[Any], reference: NDArray[Any]) -> int:
    """How many samples ``output`` lies behind ``reference``: the peak of their correlation."""
    size = 1 << (len(output) + len(reference)).bit_length()
    spectra = [np.fft.rfft(signal.astype(np.float64), size) for signal in (output, reference)]
    best = int(np.argmax(np.abs(np.fft.irfft(spectra[0] * spectra[1].conj(), size))))
    return best if best < size // 2 else best - size

"""Generic concealment: audio made up from what was heard before, for any codec.

Three simple kinds: ``zero`` (silence), ``repeat`` (the last frame again), ``pitch`` (the last pitch
period again and again, in the spirit of ITU-T G.711 Appendix I). The latter two play at full level
for 10 ms, then lose 20 % of it every 10 ms, and are silent after 60 ms (G.711 Appendix I); after
them the first good frame is faded in. A fourth, ``tplcnet``, is in ``neural_plc``. Audio is mono
int16, shape (samples,).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.codecs.base import CodecFacts, Pcm
from harness.media import neural_plc
from harness.media.settings import ReceiverSettings
from harness.media.stretch import LONGEST_PERIOD_S, cross_fade, period_range, pitch_period

Method = Literal["zero", "repeat", "pitch"]
_HOLD_S = 0.010
_FADE_S = 0.050
_RECOVERY_S = 0.005


class GenericConcealment(Protocol):
    """Makes up frames for one stream, and fades the next good one in."""

    @property
    def looks_ahead(self) -> bool:
        """Whether it does better with the good frame that follows a gap."""
        ...

    def conceal(self, following: Pcm | None = None) -> tuple[Pcm, bool]:
        """The next frame, and whether it is nothing but silence. ``following``, only for one that
        looks ahead: the good frame after it, where that is known already."""
        ...

    def heard(self, audio: Pcm) -> Pcm:
        """Take what was decoded (or concealed by the codec); returns it with its start faded in
        if the frame before was made up here."""
        ...


def generic_concealment(
    settings: ReceiverSettings, facts: CodecFacts, assets: Mapping[str, Path]
) -> GenericConcealment:
    """What the settings ask for; ``pitch`` where the codec is to conceal, in case it does not.

    ``assets`` maps each of the settings' ``required_assets`` to a verified file. Raises
    Unsupported where the kind does not fit the codec, AssetError for weights that are no such.
    """
    rate_hz, frame_samples = facts.sample_rate_hz, facts.frame_samples
    match settings.concealment:
        case "tplcnet":
            return neural_plc.NeuralConcealment(rate_hz, frame_samples, assets["tplcnet"])
        case "codec":
            return Concealment("pitch", rate_hz, frame_samples)
        case method:
            return Concealment(method, rate_hz, frame_samples)


class Concealment:
    """The simple kinds, for frames of ``frame_samples``."""

    looks_ahead = False

    def __init__(self, method: Method, rate_hz: int, frame_samples: int) -> None:
        self._method = method
        self._rate_hz = rate_hz
        self._frame_samples = frame_samples
        self._kept = max(2 * round(LONGEST_PERIOD_S * rate_hz), frame_samples)
        self._heard = deque([np.zeros(self._kept, np.int16)])
        self._heard_samples = self._kept
        self._cycle = np.zeros(0, np.int16)
        self._made_up = 0  # samples since the last good one

    def conceal(self, following: Pcm | None = None) -> tuple[Pcm, bool]:  # noqa: ARG002
        """The next frame, and whether it is nothing but silence."""
        if self._method == "zero":
            return np.zeros(self._frame_samples, np.int16), True
        if self._made_up == 0:
            self._cycle = self._loop()
        audio = self._continued(self._frame_samples)
        self._made_up += self._frame_samples
        return audio, not audio.any()

    def heard(self, audio: Pcm) -> Pcm:
        """Take what was decoded (or concealed by the codec); returns it with its start faded in
        if the frame before was made up here."""
        if self._made_up:
            overlap = min(round(_RECOVERY_S * self._rate_hz), len(audio))
            faded = cross_fade(self._continued(overlap), audio[:overlap])
            audio = np.concatenate((faded, audio[overlap:]))
            self._made_up = 0
        self._heard.append(audio)
        self._heard_samples += len(audio)
        while self._heard_samples - len(self._heard[0]) >= self._kept:
            self._heard_samples -= len(self._heard.popleft())
        return audio

    def _loop(self) -> Pcm:
        """What to repeat: the last frame, or the last period closed to a seamless loop."""
        heard = np.concatenate(self._heard)[-self._kept :]
        if self._method == "repeat":
            return heard[-self._frame_samples :]
        lowest, highest = period_range(self._rate_hz, self._kept // 2)
        period, _ = pitch_period(heard, lowest, highest)
        # The loop's end fades into what came just before its start: Appendix I's quarter period.
        overlap = period // 4
        body, before = heard[-period:], heard[-period - overlap : -period]
        return np.concatenate((body[:-overlap], cross_fade(body[-overlap:], before)))

    def _continued(self, samples: int) -> Pcm:
        start = self._made_up
        gain = _fading(self._rate_hz)[start : start + samples]
        audio = np.zeros(samples, np.int16)
        cycle = self._cycle[np.arange(start, start + len(gain)) % len(self._cycle)]
        audio[: len(gain)] = np.rint(cycle * gain)
        return audio


@lru_cache
def _fading(rate_hz: int) -> NDArray[np.float64]:
    """Gain of each sample made up in a row, as long as it is not 0."""
    seconds = np.arange(1, math.ceil((_HOLD_S + _FADE_S) * rate_hz) + 1) / rate_hz
    gain: NDArray[np.float64] = np.clip(1 - (seconds - _HOLD_S) / _FADE_S, 0, 1)
    return gain

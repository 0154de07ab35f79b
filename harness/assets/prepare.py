"""From an audio file to a reference: mono, levelled, cut, between silences, every step recorded.

References are as ITU-T P.862.3 and P.800 want them: at most 20 s, half a second of silence at both
ends (or what the scenario says), -26 dBov active speech level (P.56; music: long-term RMS). Same
file, same samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from harness.assets.items import ItemRef
from harness.assets.level import (
    MIN_ACTIVE_SPEECH_S,
    Samples,
    active,
    active_speech_s,
    envelope,
    rms_dbov,
    speech_level,
)
from harness.assets.manifest import asset_of
from harness.assets.store import AssetStore, file_sha256
from harness.errors import AssetError
from harness.units import NS_PER_S, samples_to_ns

Pcm = NDArray[np.int16]

TARGET_DBOV = -26.0
PEAK_LIMIT_DBOV = -1.0
LONGEST_S = 20.0
SHORTEST_S = 8.0
_FADE_S = 0.005
_PAUSE_SEARCH_S = 4.0
_FULL_SCALE = 32768


@dataclass(frozen=True)
class Prepared:
    """A reference. ``pcm``: int16 mono, shape (samples,), at the file's own sampling rate."""

    item: ItemRef
    pcm: Pcm
    rate_hz: int
    file_sha256: str
    sha256: str
    """Of the samples, little-endian."""
    active_s: float | None
    """Active speech (P.56); None for music."""
    level_dbov: float
    """Active speech level; for music RMS. Of what lies between the silences."""
    steps: tuple[dict[str, Any], ...]
    """What was done, in order, with figures."""
    warnings: tuple[str, ...]
    """Why scores of this item deserve less trust."""

    @property
    def seconds(self) -> float:
        return len(self.pcm) / self.rate_hz

    @property
    def duration_ns(self) -> int:
        return samples_to_ns(len(self.pcm), self.rate_hz)

    @property
    def active_ratio(self) -> float | None:
        """Share of the time with speech, silences at the ends included; None for music."""
        return None if self.active_s is None else round(self.active_s / self.seconds, 4)

    @property
    def lacks_speech(self) -> bool:
        """Whether it has less active speech than PESQ needs."""
        return self.active_s is not None and self.active_s < MIN_ACTIVE_SPEECH_S

    def provenance(self) -> dict[str, Any]:
        """All but the samples, for the ``items`` column of ``runs``."""
        return {
            **asdict(self.item),
            "file_sha256": self.file_sha256,
            "samples_sha256": self.sha256,
            "rate_hz": self.rate_hz,
            "prepared_seconds": self.seconds,
            "active_s": self.active_s,
            "active_ratio": self.active_ratio,
            "level_dbov": self.level_dbov,
            "steps": list(self.steps),
            "warnings": list(self.warnings),
        }


def prepare_all(items: Iterable[ItemRef], store: AssetStore) -> dict[str, Prepared]:
    """By item id. Raises AssetError that names every file that cannot be used."""
    prepared, broken = {}, []
    for item in sorted(items, key=lambda item: item.id):
        try:
            prepared[item.id] = prepare(item, store)
        except AssetError as error:
            broken.append(str(error))
    if broken:
        raise AssetError("\n".join(broken))
    return prepared


def without_pesq(references: Collection[Prepared]) -> str | None:
    """How many items have no PESQ for want of speech, and which; None if all have enough."""
    lacking = sorted(one.item.id for one in references if one.lacks_speech)
    if not lacking:
        return None
    return (
        f"{len(lacking)} of {len(references)} items have no PESQ, since they have less than"
        f" {MIN_ACTIVE_SPEECH_S} s of active speech (ITU-T P.862.3): {', '.join(lacking)}"
    )


def prepare(item: ItemRef, store: AssetStore) -> Prepared:
    """Raises AssetError, naming the file, where it is missing, damaged, empty or silent."""
    path = store.fetch(asset_of(item)) if "://" in item.source else Path(item.source)
    samples, rate_hz, digest, decoded = _decode(path)
    steps = [decoded]

    offset = float(np.mean(samples))
    samples = samples - offset
    steps.append({"step": "remove DC", "offset": round(offset, 6)})

    silence_s = item.silence_ns / NS_PER_S
    room_s = LONGEST_S - 2 * silence_s
    if len(samples) > room_s * rate_hz:
        end, in_pause = _cut(samples, rate_hz, int(room_s * rate_hz))
        samples = samples[:end]
        steps.append({"step": "cut", "kept_s": round(end / rate_hz, 3), "in_pause": in_pause})

    gain_db, levelled = _gain(samples, rate_hz, item, path)
    samples = samples * 10 ** (gain_db / 20)
    steps.append(levelled)

    samples = _faded(samples, int(_FADE_S * rate_hz))
    silence = np.zeros(int(silence_s * rate_hz))
    samples = np.concatenate([silence, samples, silence])
    steps.append({"step": "fade", "seconds": _FADE_S})
    steps.append({"step": "silence at both ends", "seconds": silence_s})

    pcm = _to_int16(samples)
    active_s = active_speech_s(pcm, rate_hz) if item.kind == "speech" else None
    return Prepared(
        item=item,
        pcm=pcm,
        rate_hz=rate_hz,
        file_sha256=digest,
        sha256=samples_sha256(pcm),
        active_s=active_s,
        level_dbov=levelled["after_dbov"],
        steps=tuple(steps),
        warnings=tuple(_warnings(len(pcm) / rate_hz, active_s)),
    )


def resampled(prepared: Prepared, rate_hz: int) -> Pcm:
    """The reference at another rate (soxr, very high quality), int16, shape (samples,)."""
    if rate_hz == prepared.rate_hz:
        return prepared.pcm
    samples = prepared.pcm.astype(np.float64) / _FULL_SCALE
    return _to_int16(soxr.resample(samples, prepared.rate_hz, rate_hz, quality="VHQ"))


def until(prepared: Prepared, seconds: float) -> Pcm:
    """The reference up to there, int16, shape (samples,); all of it where it ends within 1 ms of
    that (a duration is rounded at every sampling rate)."""
    if prepared.seconds <= seconds + 0.001:
        return prepared.pcm
    return prepared.pcm[: round(seconds * prepared.rate_hz)]


def samples_sha256(pcm: Pcm) -> str:
    """Hex digest of the samples as little-endian int16, whatever this machine's order."""
    return hashlib.sha256(pcm.astype("<i2").tobytes()).hexdigest()


def _decode(path: Path) -> tuple[Samples, int, str, dict[str, Any]]:
    try:
        digest = file_sha256(path)
        with soundfile.SoundFile(path) as file:
            rate_hz, channels, total = file.samplerate, file.channels, file.frames
            # A cut needs no more than this, however long the file.
            frames = file.read(int(LONGEST_S * rate_hz), dtype="float64", always_2d=True)
            described = {"format": file.format, "subtype": file.subtype}
    except (OSError, soundfile.SoundFileError) as error:
        raise AssetError(f"{path}: cannot read this audio file: {error}") from error
    if len(frames) == 0 or len(frames) < min(total, int(LONGEST_S * rate_hz)):
        raise AssetError(f"{path}: the audio is cut short ({len(frames)} of {total} samples)")
    if not np.isfinite(frames).all():
        raise AssetError(f"{path}: the audio holds values that are not numbers")
    step = {"step": "decode", **described, "rate_hz": rate_hz, "seconds": total / rate_hz}
    downmix = "mean of channels" if channels > 1 else None
    return frames.mean(axis=1), rate_hz, digest, {**step, "channels": channels, "downmix": downmix}


def _cut(samples: Samples, rate_hz: int, longest: int) -> tuple[int, bool]:
    """Where to end: in the middle of the last pause before ``longest``, else there."""
    level = speech_level(samples[:longest], rate_hz)
    if level is not None:
        first = longest - int(_PAUSE_SEARCH_S * rate_hz)
        smooth = envelope(samples[:longest], rate_hz)
        pauses = np.flatnonzero(~active(smooth, level.threshold, rate_hz)[first:])
        if len(pauses):
            runs = np.split(pauses, np.flatnonzero(np.diff(pauses) > 1) + 1)
            return first + int(runs[-1][len(runs[-1]) // 2]), True
    return longest, False


def _gain(
    samples: Samples, rate_hz: int, item: ItemRef, path: Path
) -> tuple[float, dict[str, Any]]:
    if item.kind == "speech":
        speech = speech_level(samples, rate_hz)
        method, level = "P.56 active speech level", speech.level_dbov if speech else None
    else:
        method, level = "RMS", rms_dbov(samples) if np.any(samples) else None
    if level is None:
        raise AssetError(f"{path}: no {item.kind} in it: it is silent or nearly so")
    peak_dbov = 20 * float(np.log10(np.abs(samples).max()))
    wanted = TARGET_DBOV - level
    gain_db = min(wanted, PEAK_LIMIT_DBOV - peak_dbov)
    return gain_db, {
        "step": "level",
        "method": method,
        "before_dbov": round(level, 3),
        "gain_db": round(gain_db, 3),
        "after_dbov": round(level + gain_db, 3),
        "limited_by_peak": gain_db < wanted,
    }


def _faded(samples: Samples, length: int) -> Samples:
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(length) + 0.5) / length)
    out = samples.copy()
    edge = min(length, len(out))
    out[:edge] *= ramp[:edge]
    out[len(out) - edge :] *= ramp[:edge][::-1]
    return out


def _to_int16(samples: Samples) -> Pcm:
    scaled = np.rint(samples * _FULL_SCALE)
    return np.clip(scaled, -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)


def _warnings(seconds: float, active_s: float | None) -> Iterable[str]:
    if active_s is None:
        return
    if seconds < SHORTEST_S:
        yield f"{seconds:.1f} s long, less than the {SHORTEST_S:g} s that PESQ is meant for"
    if active_s < MIN_ACTIVE_SPEECH_S:
        yield (
            f"{active_s:.1f} s of active speech, less than the {MIN_ACTIVE_SPEECH_S} s that PESQ"
            " needs: it has no PESQ"
        )

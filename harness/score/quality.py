"""What the listener heard, against what was said: the scores of one cell's tracks.

Pure: arrays in, scores out. Nothing here raises for what audio can be; a metric that does not
apply, or cannot be computed, is null with its reason. Both tracks are scored as they are, with the
padding that the item was prepared with: silence moves PESQ, so nothing is ever trimmed.

Aim and conventions: (reference, degraded) in that order, float32 in -1...1. The media track is cut
to the length of the reference; the played track has a time base of its own and keeps its length,
and PESQ, which aligns utterances itself, is the only metric for it.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness import __version__
from harness.assets.level import active_speech_s
from harness.errors import Unsupported
from harness.score import dnsmos, plcmos, spectral, visqol
from harness.score.align import (
    Alignment,
    Audio,
    Spectra,
    check,
    fitted,
    resampled,
    to_float,
    without_delay,
)
from harness.score.metrics import METRICS, NoScore, Score, score
from harness.score.p862 import Opinions, pesq_nb, pesq_wb
from harness.threads import one_thread

CHECK_HZ = 16_000
PARAMETRIC = ("codec2",)
"""Codecs, by their kind, that send parameters of a voice and no waveform; of neural ones, their
weights tell."""


@dataclass(frozen=True)
class AudioTask:
    """The audio of one cell. Tracks are mono, int16 (or float in -1...1), at the codec's rate.

    ``facts`` are those of ``CodecFacts``: ``sample_rate_hz`` and ``delay_samples`` are used.
    """

    reference: NDArray[Any]
    reference_hz: int
    media: NDArray[Any]
    played: NDArray[Any]
    kind: str
    weights: str
    facts: Mapping[str, Any]
    reference_tracks: Tracks | None = None
    """What was made of the reference before, to be used again: the same for every task with that
    reference."""
    codec_kind: str = ""
    assets: Mapping[str, Path | Unsupported] = field(default_factory=dict)
    """What measures need, by name: where it is, or why it is not here."""


@dataclass(frozen=True)
class Measure:
    """One call of one metric. ``compute`` takes (reference, degraded, rate, path of each asset) and
    returns a number, or several opinions, or raises NoScore; it is a module's function, so that
    another process can find it."""

    metric: str
    mode: str
    track: Literal["media", "played"]
    package: str
    compute: Callable[..., float | Opinions]
    note: str = ""
    """What the version of the package does not tell."""
    assets: tuple[str, ...] = ()
    """Names in the weights manifest that it needs."""

    @property
    def rate_hz(self) -> int:
        return METRICS[self.metric].rates_hz[self.mode]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of reference audio that it is defined for."""
        return METRICS[self.metric].kinds_of(self.mode)

    @property
    def name(self) -> str:
        """What a scenario calls it: ``pesq-wb``, ``estoi``, ``pesq-nb-played``, ``dnsmos``, ..."""
        name = _NAMES.get((self.metric, self.mode)) or _NAMES[self.metric, ""]
        return f"{name}-played" if self.track == "played" else name


def stoi_classic(reference: Audio, degraded: Audio, rate_hz: int) -> float:
    """STOI (Taal et al. 2011)."""
    return _stoi(reference, degraded, rate_hz, extended=False)


def stoi_extended(reference: Audio, degraded: Audio, rate_hz: int) -> float:
    """ESTOI (Jensen and Taal 2016)."""
    return _stoi(reference, degraded, rate_hz, extended=True)


def of_plcmos(_: Audio, degraded: Audio, rate_hz: int, model: Path) -> float:
    """PLCMOS v2 (Diener et al. 2023)."""
    assert rate_hz == plcmos.RATE_HZ
    return plcmos.plcmos(degraded, model)


def of_p835(_: Audio, degraded: Audio, rate_hz: int, model: Path, mode: str) -> float:
    """DNSMOS P.835 (Reddy et al. 2022)."""
    assert rate_hz == dnsmos.RATE_HZ
    return dnsmos.p835(degraded, model, mode)


def of_p808(_: Audio, degraded: Audio, rate_hz: int, model: Path) -> float:
    """DNSMOS P.808 (Reddy et al. 2021)."""
    assert rate_hz == dnsmos.RATE_HZ
    return dnsmos.p808(degraded, model)


def of_si_sdr(reference: Audio, degraded: Audio, _: int) -> float:
    """SI-SDR (Le Roux et al. 2019) in dB."""
    return spectral.si_sdr(reference, degraded)


_NAMES = {
    ("pesq", "wb"): "pesq-wb",
    ("pesq", "nb"): "pesq-nb",
    ("stoi", "classic"): "stoi",
    ("stoi", "extended"): "estoi",
    ("plcmos", ""): "plcmos",
    ("dnsmos", ""): "dnsmos",
    ("visqol", ""): "visqol",
    ("lsd", ""): "lsd",
    ("si_sdr", ""): "si-sdr",
}
"""Of single modes, or of all of a metric."""
_P862_2 = " (P.862.2 without Corrigendum 2)"
MEASURES = (
    Measure("pesq", "wb", "media", "pesq", pesq_wb, _P862_2),
    Measure("pesq", "nb", "media", "pesq", pesq_nb),
    Measure("stoi", "classic", "media", "pystoi", stoi_classic),
    Measure("stoi", "extended", "media", "pystoi", stoi_extended),
    Measure("pesq", "wb", "played", "pesq", pesq_wb, _P862_2),
    Measure("pesq", "nb", "played", "pesq", pesq_nb),
)
"""What is scored unless a scenario says otherwise."""
OPTIONAL = (
    Measure(
        "plcmos", "", "media", "onnxruntime", of_plcmos, " (plcmos_v2, seed 23)", ("plcmos-v2",)
    ),
    *(
        Measure(
            "dnsmos",
            mode,
            "media",
            "onnxruntime",
            partial(of_p835, mode=mode),
            " (sig_bak_ovr)",
            ("dnsmos-p835",),
        )
        for mode in ("sig", "bak", "ovrl")
    ),
    Measure("dnsmos", "p808", "media", "onnxruntime", of_p808, " (model_v8)", ("dnsmos-p808",)),
    Measure("visqol", "speech", "media", "visqol-python", partial(visqol.visqol, mode="speech")),
    Measure("visqol", "audio", "media", "visqol-python", partial(visqol.visqol, mode="audio")),
    Measure("lsd", "wb", "media", "harness", spectral.lsd),
    Measure(
        "lsd",
        "fb",
        "media",
        "harness",
        partial(spectral.lsd, range_db=spectral.MUSIC_RANGE_DB),
    ),
    Measure("si_sdr", "wb", "media", "harness", of_si_sdr),
    Measure("si_sdr", "fb", "media", "harness", of_si_sdr),
)
"""What a scenario may ask for beside them."""


def measures(names: Collection[str]) -> tuple[Measure, ...]:
    """Those of the names, in the order of MEASURES and OPTIONAL."""
    return tuple(measure for measure in (*MEASURES, *OPTIONAL) if measure.name in names)


def score_audio(task: AudioTask, wanted: Sequence[Measure] = MEASURES) -> list[Score]:
    """One score per measure wanted, in their order; computed with one thread."""
    signals = _Signals(task)
    with one_thread():
        return [_measured(measure, task, signals) for measure in wanted]


def unscored(measure: Measure, reason: str) -> Score:
    """The score of a measure that gave none."""
    return _score(measure, None, reason)


class Tracks:
    """One signal at whatever rate it is asked for, each made once."""

    def __init__(self, make: Callable[[int], Audio]) -> None:
        self._make = make
        self._made: dict[int, Audio] = {}
        self._digests: dict[int, str] = {}
        self._active_s: dict[int, float] = {}
        self.spectra: Spectra = {}

    def at(self, rate_hz: int) -> Audio:
        if rate_hz not in self._made:
            self._made[rate_hz] = self._make(rate_hz)
        return self._made[rate_hz]

    def sha256(self, rate_hz: int) -> str:
        """Of the samples that :meth:`at` gives."""
        if rate_hz not in self._digests:
            self._digests[rate_hz] = hashlib.sha256(self.at(rate_hz).tobytes()).hexdigest()
        return self._digests[rate_hz]

    def active_s(self, rate_hz: int) -> float:
        """Of active speech in the samples that :meth:`at` gives."""
        if rate_hz not in self._active_s:
            self._active_s[rate_hz] = active_speech_s(self.at(rate_hz), rate_hz)
        return self._active_s[rate_hz]


def reference_tracks(samples: NDArray[Any], rate_hz: int) -> Tracks:
    """Of a reference, for :attr:`AudioTask.reference_tracks`."""
    return Tracks(lambda to_hz: resampled(to_float(samples), rate_hz, to_hz))


class _Signals:
    """The signals of a task, without the codec's delay."""

    def __init__(self, task: AudioTask) -> None:
        self.reference = task.reference_tracks or reference_tracks(
            task.reference, task.reference_hz
        )
        rate_hz = int(task.facts["sample_rate_hz"])
        delay = int(task.facts["delay_samples"])

        def heard(track: NDArray[Any], to_hz: int) -> Audio:
            return resampled(without_delay(to_float(track), delay), rate_hz, to_hz)

        def media(to_hz: int) -> Audio:
            return fitted(heard(task.media, to_hz), len(self.reference.at(to_hz)))

        self._degraded = {
            "media": Tracks(media),
            "played": Tracks(lambda to_hz: heard(task.played, to_hz)),
        }

    def degraded(self, track: str) -> Tracks:
        return self._degraded[track]

    @cached_property
    def alignment(self) -> Alignment:
        """Of the media track."""
        reference, media = self.reference, self._degraded["media"]
        return check(reference.at(CHECK_HZ), media.at(CHECK_HZ), CHECK_HZ, reference.spectra)


def _measured(measure: Measure, task: AudioTask, signals: _Signals) -> Score:
    try:
        reference, degraded = _scorable(measure, task, signals)
        paths = [_path(name, task) for name in measure.assets]
        given = measure.compute(reference, degraded, measure.rate_hz, *paths)
        alignment = signals.alignment if measure.track == "media" else Alignment("calibrated")
    except NoScore as reason:
        return unscored(measure, str(reason))
    except Exception as error:  # the boundary: whatever a package raises costs its metric alone
        return unscored(measure, f"{type(error).__name__}: {error}")
    several = given if isinstance(given, Opinions) else Opinions((float(given),))
    found = _score(measure, several.value, None)
    if found["value"] is None:
        return found
    if len(several.scores) > 1:
        found["plain"], found["spread"] = round(several.plain, 6), round(several.spread, 6)
    found["alignment"] = alignment.method
    found["lag_ms"] = alignment.lag_ms
    found["confidence"] = alignment.confidence
    found["reference_sha256"] = signals.reference.sha256(measure.rate_hz)
    found["degraded_sha256"] = signals.degraded(measure.track).sha256(measure.rate_hz)
    return found


def _scorable(measure: Measure, task: AudioTask, signals: _Signals) -> tuple[Audio, Audio]:
    """The two tracks that a measure compares. Raises NoScore where it does not apply."""
    metric = METRICS[measure.metric]
    if task.kind not in measure.kinds:
        called = f"{metric.name} {measure.mode}" if metric.mode_kinds else metric.name
        raise NoScore(f"{called} is defined for {' and '.join(measure.kinds)}")
    if task.weights == "random":
        raise NoScore("random weights: the codec was never trained, its sound means nothing")
    if metric.waveform and (task.weights != "none" or task.codec_kind in PARAMETRIC):
        raise NoScore(f"{metric.name} is for codecs that follow the waveform; this one does not")
    reference = signals.reference.at(measure.rate_hz)
    degraded = signals.degraded(measure.track).at(measure.rate_hz)
    for name, audio in (("reference", reference), (measure.track, degraded)):
        if not len(audio):
            raise NoScore(f"the {name} track is empty")
        if not np.isfinite(audio).all():
            raise NoScore(f"the {name} track holds NaN or infinity")
        if not audio.any():
            raise NoScore(f"the {name} track is silent")
    active_s = signals.reference.active_s(task.reference_hz) if metric.min_active_s else 0.0
    if active_s < metric.min_active_s:
        raise NoScore(
            f"{metric.name} needs {metric.min_active_s} s of active speech, got {active_s:.1f} s"
        )
    return reference, degraded


def _path(name: str, task: AudioTask) -> Path:
    """Raises NoScore where it is not here."""
    found = task.assets.get(name, Unsupported(f"{name}: nobody looked for these weights"))
    if isinstance(found, Unsupported):
        raise NoScore(str(found)) from found
    return found


def _stoi(reference: Audio, degraded: Audio, rate_hz: int, *, extended: bool) -> float:
    import pystoi

    state = np.random.get_state()
    np.random.seed(0)  # ESTOI dithers by 1e-16 from the global generator
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # "too short" is a warning and 1e-5
            return float(pystoi.stoi(reference, degraded, rate_hz, extended=extended))
    except RuntimeWarning as warning:
        raise NoScore(f"STOI: {warning}") from warning
    finally:
        np.random.set_state(state)


def _score(measure: Measure, value: float | None, reason: str | None) -> Score:
    return score(
        measure.metric,
        value,
        mode=measure.mode,
        track=measure.track,
        reason=reason,
        package=measure.package,
        version=_version(measure.package) + measure.note,
    )


@cache
def _version(package: str) -> str:
    if package == "harness":
        return __version__
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"

"""PESQ (ITU-T P.862.1 and P.862.2), with further opinions where one is an accident.

PESQ compensates the frequency response of what it compares: by Bark band, it multiplies the
reference by the ratio of the two tracks' mean powers, from 1/100 to 100. The reference code
averages over those frames only that exceed the threshold of hearing by 20 dB in the band. In a band
in which hardly a frame does, below 100 Hz as a rule, one frame decides whether the ratio is near 1
or at its limit, for the whole track. Which frames there are follows from the grid of 16 ms that
begins with the file: a few milliseconds of silence before *both* tracks move the score by up to
1 MOS, although no listener hears a difference.

So a pair is scored twice: as it is, and behind silence of another phase of that grid. Where the
two are more than :data:`UNSTEADY` apart, three more phases are asked, and the score is the median.
PESQ-NB, which filters those bands away, gets one opinion: of 36 pairs 2 moved by more than 0.1 (by
0.19 at most), where 9 did in wideband (by 0.81).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from harness.score.align import Audio
from harness.score.metrics import NoScore

MAX_PESQ_S = 35.0
"""Speech of 30 s (ITU-T P.862.3) and its padding. Beyond 50 utterances the reference code writes
past its arrays, which only sometimes crashes it."""
SECOND_S = 0.010
FURTHER_S = (0.003, 0.006, 0.013)
"""Silences before both tracks; with none, five phases spread over the 16 ms."""
UNSTEADY = 0.1
"""MOS that opinions differ by at most: what codecs are told apart by."""


@dataclass(frozen=True)
class Opinions:
    """Scores of one pair of tracks, the first of them without silence before it."""

    scores: tuple[float, ...]

    @property
    def plain(self) -> float:
        """What the reference code gives for the tracks as they are, as published figures are."""
        return self.scores[0]

    @property
    def spread(self) -> float:
        return max(self.scores) - min(self.scores)

    @property
    def value(self) -> float:
        """The plain score where it is steady, else the median."""
        return self.plain if self.spread <= UNSTEADY else statistics.median(self.scores)


def pesq_wb(reference: Audio, degraded: Audio, rate_hz: int) -> Opinions:
    """MOS-LQO of ITU-T P.862.2 (without Corrigendum 2), at 16 kHz. Raises NoScore."""
    return opinions(partial(plain_pesq, rate_hz=rate_hz, mode="wb"), reference, degraded, rate_hz)


def pesq_nb(reference: Audio, degraded: Audio, rate_hz: int) -> float:
    """MOS-LQO of ITU-T P.862.1, at 8 kHz. Raises NoScore."""
    return plain_pesq(reference, degraded, rate_hz, "nb")


def opinions(
    score: Callable[[Audio, Audio], float], reference: Audio, degraded: Audio, rate_hz: int
) -> Opinions:
    """What ``score`` gives for the two tracks, and for both behind equally much silence."""

    def behind(silence_s: float) -> float:
        silence = np.zeros(round(silence_s * rate_hz), np.float32)
        return score(np.concatenate((silence, reference)), np.concatenate((silence, degraded)))

    two = score(reference, degraded), behind(SECOND_S)
    if abs(two[0] - two[1]) <= UNSTEADY:
        return Opinions(two)
    return Opinions((*two, *map(behind, FURTHER_S)))


def plain_pesq(reference: Audio, degraded: Audio, rate_hz: int, mode: str) -> float:
    """What the package ``pesq`` gives; mode ``wb`` or ``nb``. Raises NoScore."""
    import pesq

    if len(reference) > MAX_PESQ_S * rate_hz:
        seconds = len(reference) / rate_hz
        raise NoScore(f"PESQ takes at most {MAX_PESQ_S:.0f} s (50 utterances), got {seconds:.1f} s")
    try:
        return float(pesq.pesq(rate_hz, reference, degraded, mode))
    except pesq.PesqError as error:
        raw = error.args[0] if error.args else ""
        text = raw.decode() if isinstance(raw, bytes) else str(raw)
        raise NoScore(f"PESQ: {text or type(error).__name__}") from error

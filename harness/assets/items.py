"""One piece of reference audio, as the plan and the results know it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.units import NS_PER_MS

SILENCE_NS = 500 * NS_PER_MS
"""At both ends of a reference, as ITU-T P.862.3 wants it, unless a scenario says otherwise."""


@dataclass(frozen=True)
class ItemRef:
    """``source`` is a URL (then ``sha256`` is known) or an absolute path; ``silence_ns`` is what is
    put before and after the file's samples."""

    id: str
    corpus: str
    kind: Literal["speech", "music"]
    source: str
    sha256: str | None = None
    size_bytes: int | None = None
    seconds: float | None = None
    speaker: str | None = None
    sex: str | None = None
    language: str | None = None
    licence: str | None = None
    attribution: str | None = None
    silence_ns: int = SILENCE_NS

"""Several streams side by side over one link: what tells them apart, and how each of them fared.

Track 0 is the one that a cell's tables are about. The others are streams of the same codec at the
same settings, sent by the same process: each has its own packets and its own listener, other audio
(the same item, begun elsewhere) and its own phase within a frame, for packets of independent calls
do not leave at the same instant. What they took of the link, and what came through, is in
:func:`track_figures`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.codecs.base import CodecFacts, Pcm
from harness.records import Columns
from harness.units import NS_PER_MS

_STEP = 0x9E3779B1
"""Odd, so that stream ids of one cell differ modulo 2**32."""
_MISSING = {"lost": ("lost", "queue", "undecodable", "incomplete"), "late": ("late",)}
_IN_TIME = ("decoded", "fec", "stretched")


@dataclass(frozen=True)
class Track:
    """One of the streams beside the first."""

    stream_id: int
    seed: int
    start_ns: int
    """From t0 to the capture of its first sample: less than a frame."""
    rotation_samples: int
    """Where in the item its audio begins."""

    def pcm(self, pcm: Pcm) -> Pcm:
        """The item from there on, and then what was before it; shape (samples,)."""
        return np.roll(pcm, -self.rotation_samples)


def tracks_beside(
    count: int, stream_id: int, seed: int, samples: int, facts: CodecFacts
) -> list[Track]:
    """The streams beside the first, ``count - 1`` of them; they hang on the arguments alone."""
    draws = np.random.default_rng([seed, count])
    return [
        Track(
            (stream_id + number * _STEP) % 2**32,
            int(draws.integers(2**53)),
            int(draws.integers(facts.frame_ns)),
            int(draws.integers(max(samples, 1))),
        )
        for number in range(1, count)
    ]


def track_figures(packets: Columns, frames: Columns, media_s: float) -> dict[str, Any]:
    """One stream in figures, from its ``packets`` and ``frames`` (see ``fates.py``).

    ``payload_bps`` is what its encoder made, ``goodput_bps`` the payload of frames that were played
    in time, both over the item's duration; ``in_time`` is the share of media frames. Packets are
    those that carry media the first time; ``packets_lost`` came too damaged, in part or not at all.
    """
    media = packets["purpose"] == "media"
    fates = packets["fate"][media]
    played = ~np.ma.getmaskarray(frames["frame"])
    kinds = frames["kind"][played]
    in_time = np.isin(kinds, _IN_TIME)
    payload_bytes = np.ma.filled(frames["payload_bytes"][played], 0)
    heard_ns = np.ma.compressed(frames["mouth_to_ear_ns"][played]).astype(np.int64)
    return {
        "packets_sent": int(media.sum()),
        "packets_received": int((packets["copies"][media] > 0).sum()),
        **{f"packets_{name}": int(np.isin(fates, of).sum()) for name, of in _MISSING.items()},
        "payload_bps": 8 * int(payload_bytes.sum()) / media_s,
        "goodput_bps": 8 * int(payload_bytes[in_time].sum()) / media_s,
        "in_time": float(in_time.mean()) if len(kinds) else 0.0,
        "mouth_to_ear_p50_ms": float(np.median(heard_ns)) / NS_PER_MS if len(heard_ns) else None,
        "concealment_ratio": float(1 - in_time.mean()) if len(kinds) else None,
    }

"""A trace, laid onto the clock of the link for one codec's packets.

On the link's clock (t0 = capture of input sample 0) packet k is due at T_k = (k + 1 + L) * F / fs.
Its fate holds from a quarter of a frame before T_k to a quarter before T_(k+1), so that encoding
time and an engine's lateness move no packet into its neighbour's fate.

A packet meets the media time of its last sample (the middle of that sample, so that no rounding of
a duration moves it across an edge). Where a recording tells of packets as long as the codec's own,
each of its entries is thereby met by exactly one packet, whatever the delay of the codec's filters;
loss and delay of a packet are those of the same entry. Only spells with ``hits: media`` take every
packet that has any media in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from harness.network.link import Bernoulli, Change, Link, LinkPair
from harness.network.trace import Trace, Weather
from harness.units import NS_PER_S, samples_to_ns

LOST = Bernoulli(1.0)
_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PacketClock:
    """When a codec's packets are due, and which media they carry: see ``codecs/base.py``."""

    frame_samples: int
    sample_rate_hz: int
    lookahead_frames: int
    delay_samples: int
    frames: int
    """Packets (media frames) of the stream, K."""

    def sample_ns(self, half_samples: _Ints) -> _Ints:
        """Media time of positions in half samples of the codec's own timeline."""
        return np.asarray(
            (half_samples - 2 * self.delay_samples) * NS_PER_S // (2 * self.sample_rate_hz)
        )

    def from_ns(self, packets: _Ints) -> _Ints:
        """The instant on the link's clock from which on these packets' fates hold."""
        due = packets + 1 + self.lookahead_frames
        return np.asarray(
            (4 * due - 1) * self.frame_samples * NS_PER_S // (4 * self.sample_rate_hz)
        )


@lru_cache(maxsize=16)
def fit(trace: Trace, clock: PacketClock) -> LinkPair:
    """The links as an engine runs them under one codec's packets (``is_fitted``).

    ACKs carry no media: on the way back, media time is the link's time.
    """
    forward, reverse = trace.forward, trace.reverse
    return LinkPair(
        _on_the_link(forward, _windows(forward, clock), _deviations(forward, clock)),
        _on_the_link(reverse, list(reverse.spells), dict(reverse.deviations)),
    )


def _windows(weather: Weather, clock: PacketClock) -> list[tuple[int, int]]:
    """Spells of loss on the link's clock that take exactly the packets that are to be lost."""
    if not weather.spells:
        return []
    size = clock.frame_samples
    k = np.arange(clock.frames, dtype=np.int64)
    begins, ends = np.array(weather.spells, np.int64).T
    if weather.hits == "media":
        start_ns, end_ns = clock.sample_ns(2 * k * size), clock.sample_ns(2 * (k + 1) * size)
        spell = np.searchsorted(ends, start_ns, side="right")
        lost = (spell < len(ends)) & (begins[np.minimum(spell, len(ends) - 1)] < end_ns)
    else:
        met_ns = _met_ns(clock)
        spell = np.searchsorted(begins, met_ns, side="right") - 1
        lost = (spell >= 0) & (ends[np.maximum(spell, 0)] > met_ns)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], lost.astype(np.int8), [0]])))
    at_ns = clock.from_ns(edges).tolist()
    return list(zip(at_ns[::2], at_ns[1::2], strict=True))


def _met_ns(clock: PacketClock) -> _Ints:
    """Media time of each packet's last sample."""
    k = np.arange(clock.frames, dtype=np.int64)
    return clock.sample_ns(2 * (k + 1) * clock.frame_samples - 1)


def _deviations(weather: Weather, clock: PacketClock) -> dict[int, int]:
    """What is added to the delay from an instant of the link's clock on."""
    if not weather.deviations:
        return {}
    at_ns, deviation_ns = np.array(weather.deviations, np.int64).T
    if weather.of_packets:
        step = np.maximum(np.searchsorted(at_ns, _met_ns(clock), side="right") - 1, 0)
        changed = np.flatnonzero(np.diff(step, prepend=-1))
        found = zip(clock.from_ns(changed), deviation_ns[step[changed]], strict=True)
        return {int(at): int(ns) for at, ns in found}
    offset = clock.delay_samples + clock.lookahead_frames * clock.frame_samples
    middle_ns = samples_to_ns(2 * offset + clock.frame_samples, 2 * clock.sample_rate_hz)
    return {max(at_ns + middle_ns, 0): ns for at_ns, ns in weather.deviations}


def _on_the_link(
    weather: Weather, windows: list[tuple[int, int]], deviations: Mapping[int, int]
) -> Link:
    """Everything laid onto one clock. Where a window is open all is lost."""
    segments = dict(weather.segments)
    opens = {at_ns: True for at_ns, _ in windows} | {at_ns: False for _, at_ns in windows}
    base, lost = weather.segments[0][1], False
    deviation_ns = next(iter(deviations.values()), 0)  # until the first media is on its way
    laid: list[tuple[int, Link]] = []
    made: dict[tuple[int, int, bool], Link] = {}
    for at_ns in sorted({0, *segments, *deviations, *opens}):
        base = segments.get(at_ns, base)
        deviation_ns = deviations.get(at_ns, deviation_ns)
        lost = opens.get(at_ns, lost)
        key = (id(base), deviation_ns, lost)
        if key not in made:
            delay_ns = max(0, base.delay_ns + deviation_ns)
            made[key] = replace(base, delay_ns=delay_ns, loss=LOST if lost else base.loss)
        if not laid or laid[-1][1] is not made[key]:
            laid.append((at_ns, made[key]))
    changes = tuple(Change(at_ns, link) for at_ns, link in laid[1:])
    return replace(laid[0][1], changes=changes)

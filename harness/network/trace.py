"""Impairment traces: what a link does, drawn once for a whole block, whatever the codec.

*Media time* counts from input sample 0. Two codecs whose packets carry 13 and 60 ms of audio meet
the same loss spells and the same delays at the same media time; what they make of them is the
codecs' own. :func:`placed` chooses where in a recording a block begins, :func:`draw` makes the
trace from the description and the block's seed alone, and ``fitting.py`` lays it, for one codec's
packets, onto the clock of the link (t0 = capture of sample 0).

Loss in media time is a two-state Markov process in continuous time (Gilbert 1960, Elliott 1963;
in continuous time: Hohlfeld, Geib and Hasslinger, ITC 2008): spells of loss of mean ``burst_ns``,
and between them good ones of mean burst * (1 - share) / share, stationary from the start. Its
jumps are points of Poisson processes that do not depend on ``share``, of which a larger share only
takes more: a sweep over the share adds losses and moves none.

A packet is lost where the state touches any of the media that it carries (``hits: media``), or
where the state holds at its last sample (``hits: instant``). By the first rule every codec meets
every spell, and a codec with long packets loses more around each; by the second the share of lost
packets is that of the description at any packet length, but a spell may fall between two packets.

Delay deviations with a coherence time tau are a Gauss-Markov (Ornstein-Uhlenbeck) process with
correlation exp(-t / tau), mapped to the asked distribution by its quantiles.
"""

from __future__ import annotations

import hashlib
import math
import random
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from harness.errors import BadInput
from harness.network.distributions import SCALE, SIZE, table
from harness.network.link import (
    Bernoulli,
    Deliveries,
    Hits,
    Link,
    LinkPair,
    Loss,
    MediaTimeLoss,
    Rate,
    Recording,
    Replay,
)
from harness.units import NS_PER_MS, NS_PER_S, format_duration

TAIL_NS = 10 * NS_PER_S
"""How much longer than the audio a trace is: what was sent last is still on its way."""
_FINEST_NS, _COARSEST_NS = 5 * NS_PER_MS, 20 * NS_PER_MS
_STEPS_PER_COHERENCE = 10
_FULL_FRAME_BYTES = 1500 + 14


@dataclass(frozen=True)
class Weather:
    """One direction of a trace; see the module's docstring.

    ``segments`` are static links on the clock of the link. ``spells`` are the spells of loss,
    [start, end), ``deviations`` (instant, what is added to the delay from then on) in media time;
    with ``of_packets`` a deviation is a recorded packet's, and met as its loss is.
    """

    segments: tuple[tuple[int, Link], ...]
    spells: tuple[tuple[int, int], ...] = ()
    hits: Hits = "media"
    deviations: tuple[tuple[int, int], ...] = ()
    of_packets: bool = False


@dataclass(frozen=True)
class Trace:
    """Both directions, for ``duration_ns`` from t0 on."""

    forward: Weather
    reverse: Weather
    duration_ns: int

    @cached_property
    def sha256(self) -> str:
        """Of all that was drawn: equal for all cells of a block."""
        return hashlib.sha256(repr((self.forward, self.reverse)).encode()).hexdigest()


def semantics(pair: LinkPair) -> str:
    """How the impairments of a pair come about: ``per-packet`` (each packet draws its own, as with
    netem), ``media-time``, ``scheduled``, ``recorded``, joined by ``+``."""
    found = set()
    for whole in (pair.forward, pair.reverse):
        if whole.changes:
            found.add("scheduled")
        if whole.replay:
            found.add("recorded")
            if _draws_per_packet(whole.replay.recording):
                found.add("per-packet")
        for _, link in whole.segments():
            if link.coherence_ns or isinstance(link.loss, MediaTimeLoss):
                found.add("media-time")
            drawn = (link.loss and not isinstance(link.loss, MediaTimeLoss)) or link.reorder
            if (
                drawn
                or link.duplicate
                or link.corrupt
                or (link.jitter_ns and not link.coherence_ns)
            ):
                found.add("per-packet")
    order = ("per-packet", "media-time", "scheduled", "recorded")
    return "+".join(kind for kind in order if kind in found) or "per-packet"


def _draws_per_packet(recording: Recording) -> bool:
    """A share of loss between none and all is drawn by each packet."""
    return recording.loss is not None and not set(recording.loss) <= {0.0, 1.0}


def placed(pair: LinkPair, seed: int, audio_ns: int) -> LinkPair:
    """The pair with a place for each recording that is ``spread``: uniform over where it can begin,
    which is anywhere in one that loops, and else where the audio fits into what is left.

    Both directions begin at the same share of the way, so that two recordings of one journey stay
    together; one of packets begins with a packet.
    """
    share = random.Random(f"{seed}/place").random()

    def begun(link: Link) -> Link:
        replay = link.replay
        if replay is None or not replay.spread:
            return link
        recording = replay.recording
        room_ns = recording.duration_ns
        if replay.end != "loop":
            room_ns = max(0, room_ns - audio_ns)
        offset_ns = int(share * room_ns)
        offset_ns -= offset_ns % (recording.interval_ns or 1)
        return replace(link, replay=replace(replay, offset_ns=offset_ns, spread=False))

    return LinkPair(begun(pair.forward), begun(pair.reverse))


def playable_ns(pair: LinkPair, audio_ns: int) -> int:
    """How much of the audio the recordings of a pair are for: all, or up to where one stops.

    Raises BadInput where a recording is shorter and says ``error``.
    """
    for link in (pair.forward, pair.reverse):
        replay = link.replay
        if replay is None or replay.end == "loop":
            continue
        left_ns = replay.recording.duration_ns - replay.offset_ns
        if left_ns < audio_ns and replay.end == "error":
            raise BadInput(
                f"the recorded trace has {format_duration(left_ns)} left after its offset, the"
                f" audio takes {format_duration(audio_ns)}; write end: loop or end: stop, or take"
                " a longer trace"
            )
        audio_ns = min(audio_ns, left_ns)
    return audio_ns


@lru_cache(maxsize=16)
def draw(pair: LinkPair, seed: int, duration_ns: int) -> Trace:
    """The trace of a block, of a pair whose recordings are :func:`placed`: equal arguments give
    equal traces, and nothing else enters."""
    forward = _drawn(pair.forward, f"{seed}/0", duration_ns)
    return Trace(forward, _drawn(pair.reverse, f"{seed}/1", duration_ns), duration_ns)


# --- drawing --------------------------------------------------------------------------------------


def _drawn(link: Link, seed: str, duration_ns: int) -> Weather:
    if link.replay is not None:
        return _replayed(replace(link, replay=None), link.replay, seed, duration_ns)
    segments = link.segments()
    ends = [*(at_ns for at_ns, _ in segments[1:]), max(duration_ns, segments[-1][0] + 1)]
    static: list[tuple[int, Link]] = []
    spells: list[tuple[int, int]] = []
    deviations = [(0, 0)]
    hits: Hits = "media"
    for (start_ns, part), end_ns in zip(segments, ends, strict=True):
        loss, jitter_ns = part.loss, part.jitter_ns
        if isinstance(loss, MediaTimeLoss):
            hits, loss = loss.hits, None
            spells += _within(_spells(part.loss, seed, duration_ns), start_ns, end_ns)
        if part.coherence_ns:
            jitter_ns = 0
            deviations += _deviations(part, seed, start_ns, end_ns)
        elif deviations[-1][1]:
            deviations.append((start_ns, 0))
        static.append((start_ns, replace(part, loss=loss, jitter_ns=jitter_ns, coherence_ns=0)))
    return Weather(tuple(static), tuple(spells), hits, _compact(deviations))


def _spells(loss: Loss | None, seed: str, duration_ns: int) -> list[tuple[int, int]]:
    """[start, end) of the loss state, in order.

    It begins with a point of one Poisson process and ends with the next point of another, of rate
    1 / burst. The first has the rate share / (1 - share) / burst: all points of strips of rate
    1 / burst, and that part of the last strip whose marks are below the rest.
    """
    assert isinstance(loss, MediaTimeLoss)
    if not loss.share:
        return []
    wanted = loss.share / (1 - loss.share)
    jumps = [(at, False) for at, _ in _points(f"{seed}/loss/ends", loss.burst_ns, duration_ns)]
    for strip in range(math.ceil(wanted)):
        points = _points(f"{seed}/loss/begins/{strip}", loss.burst_ns, duration_ns)
        jumps += [(at, True) for at, mark in points if mark < wanted - strip]
    begins_lost = random.Random(f"{seed}/loss/start").random() < loss.share
    start_ns = 0 if begins_lost else None
    spells = []
    for at_ns, bad in sorted(jumps):
        if bad and start_ns is None:
            start_ns = at_ns
        elif not bad and start_ns is not None:
            spells.append((start_ns, at_ns))
            start_ns = None
    if start_ns is not None:
        spells.append((start_ns, duration_ns))
    return [(start, end) for start, end in spells if end > start]


def _points(seed: str, mean_ns: int, duration_ns: int) -> Iterator[tuple[int, float]]:
    """A Poisson process with marks uniform in [0, 1)."""
    generator = random.Random(seed)
    at_ns = generator.expovariate(1.0) * mean_ns
    while at_ns < duration_ns:
        yield int(at_ns), generator.random()
        at_ns += generator.expovariate(1.0) * mean_ns


def _deviations(link: Link, seed: str, start_ns: int, end_ns: int) -> list[tuple[int, int]]:
    """The deviations of a coherent link from ``start_ns`` to ``end_ns``, on a grid of its own."""
    step_ns = min(max(link.coherence_ns // _STEPS_PER_COHERENCE, _FINEST_NS), _COARSEST_NS)
    entries = table(link.distribution)
    normals = _gauss_markov(f"{seed}/delay", link.coherence_ns, step_ns, end_ns)
    first = start_ns // step_ns
    found = []
    for n, z in enumerate(normals[first:], first):
        u = 0.5 * math.erfc(-z / math.sqrt(2))
        if entries is None:
            deviation_ns = round(link.jitter_ns * (2 * u - 1))
        else:
            deviation_ns = link.jitter_ns * int(entries[min(int(u * SIZE), SIZE - 1)]) // SCALE
        found.append((max(n * step_ns, start_ns), deviation_ns))
    return found


def _gauss_markov(seed: str, coherence_ns: int, step_ns: int, end_ns: int) -> list[float]:
    """Standard normal, correlation exp(-t / coherence), at 0, step, ... before ``end_ns``."""
    generator = random.Random(seed)
    kept = math.exp(-step_ns / coherence_ns)
    fresh = math.sqrt(1 - kept * kept)
    values = [generator.gauss(0.0, 1.0)]
    for _ in range((end_ns - 1) // step_ns):
        values.append(kept * values[-1] + fresh * generator.gauss(0.0, 1.0))
    return values


def _within(spells: list[tuple[int, int]], start_ns: int, end_ns: int) -> Iterator[tuple[int, int]]:
    for start, end in spells:
        if start < end_ns and end > start_ns:
            yield max(start, start_ns), min(end, end_ns)


def _compact(steps: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Without steps that change nothing; of several at one instant the last."""
    found: list[tuple[int, int]] = []
    for at_ns, value in steps:
        if found and found[-1][0] == at_ns:
            found.pop()
        if not found or found[-1][1] != value:
            found.append((at_ns, value))
    return () if found == [(0, 0)] else tuple(found)


# --- recordings -----------------------------------------------------------------------------------


def _replayed(link: Link, replay: Replay, seed: str, duration_ns: int) -> Weather:
    recording = replay.recording
    steps = list(_unrolled(recording, replay.offset_ns, duration_ns))
    if link.coherence_ns or isinstance(link.loss, MediaTimeLoss):
        drawn = _drawn(link, seed, duration_ns)
        base, spells, deviations = drawn.segments[0][1], drawn.spells, drawn.deviations
        hits = drawn.hits
    else:
        base, spells, deviations, hits = link, (), (), replay.hits
    if recording.deliveries_ns is not None:
        base = replace(base, rate=_deliveries(recording, replay, duration_ns))
    in_media_time = recording.of_packets and not deviations
    if recording.loss is not None and not _draws_per_packet(recording):
        hits, spells = replay.hits, _joined_spells(recording.loss, steps, duration_ns)
        fractions = None
    else:
        fractions = recording.loss
    if recording.delay_ns is not None and in_media_time:
        deviations = _compact([(at_ns, recording.delay_ns[n]) for at_ns, n in steps])
    segments: list[tuple[int, Link]] = []
    for at_ns, n in steps:
        part = base
        if fractions is not None:
            part = replace(part, loss=Bernoulli(fractions[n]) if fractions[n] else None)
        if recording.delay_ns is not None and not in_media_time:
            part = replace(part, delay_ns=part.delay_ns + recording.delay_ns[n])
        if recording.rate_bps is not None:
            part = replace(part, rate=_rate(recording, replay, n))
        if not segments or segments[-1][1] != part:
            segments.append((at_ns, part))
    return Weather(tuple(segments), spells, hits, deviations, of_packets=in_media_time)


def _unrolled(recording: Recording, offset_ns: int, duration_ns: int) -> Iterator[tuple[int, int]]:
    """(instant, index of the step that holds from then on) from 0 on, again and again."""
    begins_ns = -offset_ns
    while begins_ns < duration_ns:
        first = max(bisect_right(recording.at_ns, -begins_ns) - 1, 0)
        for n in range(first, len(recording.at_ns)):
            at_ns = begins_ns + recording.at_ns[n]
            if at_ns >= duration_ns:
                return
            yield max(at_ns, 0), n
        begins_ns += recording.duration_ns


def _joined_spells(
    loss: tuple[float, ...], steps: list[tuple[int, int]], duration_ns: int
) -> tuple[tuple[int, int], ...]:
    ends = [*(at_ns for at_ns, _ in steps[1:]), duration_ns]
    spells: list[tuple[int, int]] = []
    for (start_ns, n), end_ns in zip(steps, ends, strict=True):
        if not loss[n] or end_ns <= start_ns:
            continue
        if spells and spells[-1][1] == start_ns:
            spells[-1] = (spells[-1][0], end_ns)
        else:
            spells.append((start_ns, end_ns))
    return tuple(spells)


def _rate(recording: Recording, replay: Replay, n: int) -> Rate:
    """A recorded rate is a fluid queue: a bucket of one full frame would be worth a second of a dip
    to 12 kbit/s, which then nobody met. The queue before it has a fixed size: its longest wait at
    the usual rate, and room for one full frame."""
    assert recording.rate_bps is not None
    limit_bytes = replay.queue_bytes
    if limit_bytes is None:
        assert replay.queue_ns is not None
        limit_bytes = int(_usual_bps(recording) * replay.queue_ns / 8 / NS_PER_S)
    return Rate(recording.rate_bps[n], 0, limit_bytes=max(limit_bytes, _FULL_FRAME_BYTES))


@lru_cache(maxsize=64)
def _usual_bps(recording: Recording) -> float:
    """The median over the time with any rate: means hang on glitches of what measured it."""
    assert recording.rate_bps is not None
    rates = np.array(recording.rate_bps)
    lengths = np.diff([*recording.at_ns, recording.duration_ns]) * (rates > 0)
    order = np.argsort(rates)
    until = np.cumsum(lengths[order])
    return float(rates[order][np.searchsorted(until, until[-1] / 2)])


def _deliveries(recording: Recording, replay: Replay, duration_ns: int) -> Deliveries:
    assert recording.deliveries_ns is not None
    assert replay.queue_bytes is not None
    found: list[int] = []
    begins_ns = -replay.offset_ns
    while begins_ns < duration_ns:
        first = bisect_left(recording.deliveries_ns, max(-begins_ns, 0))
        last = bisect_left(recording.deliveries_ns, duration_ns - begins_ns)
        found += [begins_ns + at_ns for at_ns in recording.deliveries_ns[first:last]]
        begins_ns += recording.duration_ns
    return Deliveries(tuple(found), replay.queue_bytes)

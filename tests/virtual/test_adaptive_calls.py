"""What an adaptive buffer makes of calls of real speech: no harm on a clean link, and no more delay
for the same share of late frames than its first version had, which shrank in speech too."""

from __future__ import annotations

import os
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from pesq import pesq

from harness.assets import AssetStore, ItemRef, manifest, prepare, resampled
from harness.codecs.base import Pcm
from harness.media.settings import ReceiverSettings
from harness.network.link import Link, LinkPair
from harness.records import Observed, Verdict
from harness.transports.base import TransportSettings
from harness.virtual.compute import Zero
from harness.virtual.simulate import Stream, simulate
from tests.virtual.streams import MS, codec

pytestmark = pytest.mark.skipif(
    "HARNESS_MIRROR" not in os.environ, reason="needs HARNESS_MIRROR, a folder with librispeech"
)
ITEMS = manifest.corpora()["librispeech"].items
ADAPTIVE = ReceiverSettings("adaptive", 60 * MS, 400 * MS)
CODEC = codec("pcm")


@cache
def speech(item: ItemRef) -> Pcm:
    return resampled(prepare(item, AssetStore.default()), 16_000)


def call(item: ItemRef, link: Link, seed: int = 1) -> Observed:
    stream = Stream(
        codec=CODEC,
        pcm=speech(item),
        pair=LinkPair(link, Link()),
        receiver=ADAPTIVE,
        transport=TransportSettings(),
        stream_id=9,
        seed=seed,
        compute=Zero(),
    )
    return simulate(stream)


@pytest.mark.parametrize("item", ITEMS, ids=[item.id for item in ITEMS])
def test_a_clean_call_sounds_as_if_nothing_had_been_done_to_it(item: ItemRef) -> None:
    observed = call(item, Link(delay_ns=20 * MS))
    reference, played = speech(item).astype(np.float32), observed.played.astype(np.float32)
    assert pesq(16_000, reference, played, "wb") >= 4.5
    assert depths(observed)[-1] <= 35, "and yet its delay has come down from 60 ms"


@pytest.mark.parametrize(
    ("link", "late", "depth_ms"),
    [
        (Link(delay_ns=60 * MS, jitter_ns=20 * MS, distribution="normal"), 0.0204, 85.0),
        (Link(delay_ns=15 * MS, jitter_ns=10 * MS), 0.0, 24.0),
    ],
    ids=["jittery", "wifi"],
)
def test_jitter_costs_no_more_delay_at_the_same_share_of_late_frames(
    link: Link, late: float, depth_ms: float
) -> None:
    """The first version: 2.04 % late at 82.7 ms, or 1.8 % at 84.6 ms with a higher quantile; and
    none late at 24.0 ms."""
    observed = [call(item, link, seed) for item in ITEMS for seed in (1, 2, 3)]
    verdicts = np.concatenate([one.received_packets["verdict"] for one in observed])
    assert (verdicts == Verdict.LATE).mean() <= late
    assert np.concatenate([depths(one) for one in observed]).mean() <= depth_ms


def depths(observed: Observed) -> NDArray[np.float64]:
    """From the sending of each decoded frame to its being played, less 20 ms of link, in ms."""
    frames = observed.played_frames
    heard = frames["complete_ns"] >= 0
    sent_ns = (frames["frame"].astype(np.int64) + 1) * 20 * MS
    return ((frames["pull_ns"] - sent_ns)[heard] - 20 * MS) / MS

"""A recording of packets is met by every codec alike: one packet for each that was recorded."""

from __future__ import annotations

import numpy as np
from codec_settings import every_setting

from harness.cell import packet_clock
from harness.codecs.base import Codec
from harness.network.fitting import LOST, fit
from harness.network.link import Link, LinkPair, Recording, Replay
from harness.network.trace import draw
from harness.units import NS_PER_S

ENTRIES = 400


@every_setting()
def test_one_packet_is_lost_for_each_that_was(codec: Codec) -> None:
    facts = codec.facts
    interval_ns = facts.frame_ns
    entries = (np.arange(ENTRIES) % 10 == 7).astype(float)
    recording = Recording(
        "loss",
        "0" * 64,
        ENTRIES * interval_ns,
        tuple(n * interval_ns for n in range(ENTRIES)),
        loss=tuple(entries.tolist()),
        interval_ns=interval_ns,
    )
    clock = packet_clock(facts, (ENTRIES - 1) * facts.frame_samples)
    pair = LinkPair(Link(replay=Replay(recording, end="loop")), Link())
    link = fit(draw(pair, 1, recording.duration_ns), clock).forward
    k = np.arange(clock.frames)
    due_ns = (k + 1 + facts.lookahead_frames) * facts.frame_samples * NS_PER_S
    due_ns = due_ns // facts.sample_rate_hz
    segments = link.segments()
    part = np.searchsorted([at_ns for at_ns, _ in segments], due_ns, side="right") - 1
    lost = np.array([segments[n][1].loss == LOST for n in part])
    behind = facts.delay_samples // facts.frame_samples
    whole = ENTRIES - 10
    assert lost[behind : whole + behind].tolist() == (entries[:whole] == 1).tolist()

"""Two real agents that carry several streams at once over the loopback interface."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from harness.codecs.base import CodecFacts
from harness.control import Channel
from harness.media.fates import join
from harness.media.tracks import track_figures, tracks_beside
from harness.units import NS_PER_MS, NS_PER_S, monotonic_ns
from tests.endpoint.test_endpoint_agent import SPEECH, job, pair, part

__all__ = ["pair"]


@pytest.mark.parametrize("transport", ["udp", "rtp"])
def test_tracks_are_paced_and_played_side_by_side(pair: dict[str, Channel], transport: str) -> None:
    wanted = job(transport, "opus", sender={"nack_retries": 1})
    described, _ = pair["receiver"].call("describe", wanted)
    facts = CodecFacts(**described["facts"])
    tracks = tracks_beside(3, wanted["stream_id"], 5, len(SPEECH), facts)
    wanted |= {"tracks": [asdict(track) for track in tracks]}
    ready, _ = pair["receiver"].call("prepare_receiver", {"job": wanted})
    assert len({ready["port"], *ready["track_ports"]}) == 3
    ports = {"port": ready["port"], "track_ports": ready["track_ports"]}
    pair["sender"].call("prepare_sender", {"job": wanted, **ports}, {"pcm": SPEECH})
    t0_ns = monotonic_ns() + 50 * NS_PER_MS
    for end in ("receiver", "sender"):
        pair[end].ask("run", {"t0_ns": t0_ns, "stop_ns": t0_ns + 5 * NS_PER_S})
    sent, sent_columns = pair["sender"].answer(20)
    received, received_columns = pair["receiver"].answer(20)
    assert len(sent["tracks"]) == len(received["tracks"]) == 2
    for number, start_ns in enumerate((0, *(track.start_ns for track in tracks))):
        name = f"track{number}." if number else ""
        packets, frames = join(
            part(sent_columns, f"{name}packets"),
            part(sent_columns, f"{name}frames"),
            part(received_columns, f"{name}packets"),
            part(received_columns, f"{name}frames"),
            None,
            facts,
            t0_ns + start_ns,
        )
        figures = track_figures(packets, frames, 0.5)
        assert figures["packets_sent"] == figures["packets_received"] == len(packets["seq"]) > 20
        assert figures["in_time"] == 1
        assert 200 < figures["mouth_to_ear_p50_ms"] < 400
        assert np.all(np.diff(packets["send_ns"]) > 0)

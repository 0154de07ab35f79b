"""What a scenario may say of streams as older systems run them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.codecs import create
from harness.errors import ScenarioError, Unsupported
from harness.scenario import load, loads
from harness.transports.base import TransportSettings

PREDECESSORS = Path(__file__).parents[2] / "scenarios" / "predecessors"
TEXT = """\
name: s
corpus: [librispeech]
codecs: [pcm]
networks: [clean]
transports:
  - {transport: %s}
"""


def entry(written: str) -> tuple[str, TransportSettings]:
    (made,) = loads(TEXT % written, "s.yaml", Path("/nowhere")).transports
    return made.name, made.settings


def mistakes(written: str) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        loads(TEXT % written, "s.yaml", Path("/nowhere"))
    return [line.split("$.transports[0]")[-1] for line in caught.value.mistakes]


def test_streams_are_named_by_what_bounds_them() -> None:
    assert entry("websocket, wire: bare, in_flight: 1") == (
        "websocket-bare-in-flight1",
        TransportSettings("websocket", wire="bare", in_flight=1),
    )
    assert entry("tcp, queue: {messages: 3, when_full: drop-oldest}, receive_queue: 20") == (
        "tcp-queue3-drop-oldest-receive-queue20",
        TransportSettings("tcp", queue=3, when_full="drop-oldest", receive_queue=20),
    )


def test_what_has_no_meaning_is_refused_with_its_place() -> None:
    assert mistakes("udp, in_flight: 1, queue: 5") == [
        '.in_flight: expected "in_flight" beside tcp or websocket only',
        '.queue: expected "queue" beside tcp or websocket only',
    ]
    assert mistakes("tcp, wire: bare, repeat: 1, queue: {messages: 2, when_full: drop-newest}") == [
        ".queue.when_full: expected block beside wire: bare, which has no gaps",
        ".repeat: expected none beside wire: bare, which tells payloads by their order",
    ]
    assert mistakes("tcp, receive_queue: {messages: 2, when_full: drop-oldest}") == [
        ".receive_queue.when_full: expected block or drop-newest: the oldest is what is decoded"
        " next"
    ]
    assert mistakes("tcp, in_flight: 0")


@pytest.mark.parametrize(
    ("scenario", "codec", "message_bytes", "kbps"),
    [
        ("websocket-wavtokenizer", "wavtokenizer75-old", 224, 17.9),
        ("websocket-wavtokenizer", "pcm-old", 64_064, 512.5),
        ("tcp-esc", "base6-old", 7_562, 67.2),
    ],
)
def test_older_systems_messages_have_their_known_sizes(
    scenario: str, codec: str, message_bytes: int, kbps: float
) -> None:
    chosen = {c.name: c for c in load(PREDECESSORS / f"{scenario}.yaml").codecs}[codec]
    try:
        made = create(chosen.codec, chosen.params, {})
    except Unsupported as missing:
        pytest.skip(str(missing))
    noise = np.random.default_rng(1).normal(0, 3000, made.facts.frame_samples).astype(np.int16)
    message = made.encoder().encode(noise)
    assert message is not None
    assert len(message) == message_bytes
    frames_per_s = made.facts.sample_rate_hz / made.facts.frame_samples
    assert 8 * message_bytes * frames_per_s / 1000 == pytest.approx(kbps, abs=0.05)
    assert len(made.decoder().decode(message)) == made.facts.frame_samples


def test_a_highest_rate_of_0_is_no_way_to_ask_for_the_codecs_own() -> None:
    text = "rtp, adapt: {mode: loss-delay, highest: 0bit}"
    (told,) = mistakes(text)
    assert told.startswith(".adapt.highest: ")
    assert entry(text.replace("0bit", "8kbit"))[0]

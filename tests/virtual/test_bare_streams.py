"""Streams without a header of ours in virtual time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.errors import Unsupported
from harness.network.link import Link
from harness.transports.base import TransportSettings
from tests.virtual.streams import codec, streamed

MS = 1_000_000
HEADER = 20


@pytest.mark.parametrize("name", ["tcp", "websocket"])
def test_a_bare_stream_plays_the_same_with_twenty_bytes_a_packet_less(name: Any) -> None:
    link = Link(delay_ns=10 * MS)
    ours, bare = (
        streamed(link, reverse=link, transport=TransportSettings(name, wire=wire))
        for wire in ("harness", "bare")
    )
    np.testing.assert_array_equal(bare.media, ours.media)
    sizes = [
        observed.link_log["size_bytes"][observed.link_log["direction"] == 0].sum()
        for observed in (ours, bare)
    ]
    assert sizes[0] - sizes[1] == HEADER * 10
    assert set(bare.sent_packets["size_bytes"]) == {640}


def test_a_long_chunk_is_one_message_on_a_stream() -> None:
    observed = streamed(
        Link(), frames=3, of=codec(frame="500ms"), transport=TransportSettings("tcp", wire="bare")
    )
    assert list(observed.sent_packets["size_bytes"]) == [16_000] * 3
    assert list(observed.received_packets["frame"]) == [0, 1, 2]


@pytest.mark.parametrize("bound", ["in_flight", "queue", "receive_queue"])
def test_what_is_not_modelled_is_refused(bound: str) -> None:
    with pytest.raises(Unsupported, match=r"not modelled in virtual time.*--lab netns"):
        streamed(transport=TransportSettings("tcp", **{bound: 1}))  # type: ignore[arg-type]

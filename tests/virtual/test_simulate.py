"""A stream in virtual time, instant by instant."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.errors import CellFailed, Unsupported
from harness.media.fates import join
from harness.media.settings import ReceiverSettings
from harness.network.link import Bernoulli, Change, Link, LossTrace, Rate
from harness.records import Columns, Kind, Observed, Outcome
from harness.transports.base import TransportSettings
from harness.virtual.profile import Overheads
from tests.virtual.streams import MS, Fixed, codec, streamed


def tables(
    observed: Observed, *, reliable: bool = False, kind: str = "pcm"
) -> tuple[Columns, Columns]:
    return join(
        observed.sent_packets,
        observed.sent_frames,
        observed.received_packets,
        observed.played_frames,
        observed.link_log,
        codec(kind).facts,
        observed.t0_ns,
        reliable,
    )


def test_a_frame_takes_its_fill_the_link_the_buffer_and_the_device() -> None:
    observed = streamed(Link(delay_ns=30 * MS), frames=3)
    packets, frames = tables(observed)
    assert list(packets["send_ns"]) == [20 * MS, 40 * MS, 60 * MS]
    assert list(packets["transit_ns"]) == [30 * MS] * 3
    assert list(frames["buffer_ns"]) == [60 * MS] * 3
    assert list(frames["play_ns"]) == [120 * MS, 140 * MS, 160 * MS]
    assert list(frames["mouth_to_ear_ns"]) == [120 * MS] * 3
    assert list(observed.link_log["in_ns"]) == [20 * MS, 40 * MS, 60 * MS]
    assert list(observed.link_log["size_bytes"]) == [640 + 20 + 28 + 14] * 3


def test_an_encoder_slower_than_its_frames_falls_behind_and_catches_up() -> None:
    slow = streamed(compute=Fixed({"encode": 30 * MS}), frames=4)
    assert list(slow.sent_frames["encode_start_ns"]) == [20 * MS, 50 * MS, 80 * MS, 110 * MS]
    assert list(slow.sent_frames["encode_end_ns"]) == [50 * MS, 80 * MS, 110 * MS, 140 * MS]
    assert slow.sender["lateness"]["worst_ns"] == 30 * MS
    assert slow.sender["late_frames"] == 1, "only the last one starts over a frame late"

    caught_up = streamed(compute=Fixed({"encode": [90 * MS, 0, 0, 0, 0, 0]}), frames=6)
    sent = list(caught_up.sent_packets["send_ns"])
    assert sent == [110 * MS] * 5 + [120 * MS], "the schedule does not move"


def test_packets_that_come_while_a_frame_is_decoded_are_stamped_as_they_come() -> None:
    observed = streamed(compute=Fixed({"decode": 25 * MS}), frames=4)
    assert list(observed.received_packets["recv_ns"]) == [20 * MS, 40 * MS, 60 * MS, 80 * MS]
    played = observed.played_frames
    assert list(played["pull_ns"]) == [80 * MS, 100 * MS, 120 * MS, 140 * MS]
    assert list(played["decode_start_ns"]) == [80 * MS, 105 * MS, 130 * MS, 155 * MS]
    assert list(played["play_ns"]) == [105 * MS, 130 * MS, 155 * MS, 180 * MS]
    assert observed.receiver["device_underruns"] == 4


def test_a_process_takes_its_time_to_wake_to_send_and_to_receive() -> None:
    overheads = Overheads(wake_ns=3, send_ns=100, receive_ns=7)
    observed = streamed(Link(delay_ns=MS), frames=2, compute=Fixed({}, overheads))
    assert list(observed.sent_frames["encode_start_ns"]) == [20 * MS + 3, 40 * MS + 3]
    assert list(observed.sent_packets["send_ns"]) == [20 * MS + 3, 40 * MS + 3]
    assert list(observed.link_log["in_ns"]) == [20 * MS + 103, 40 * MS + 103]
    assert list(observed.received_packets["recv_ns"]) == [21 * MS + 110, 41 * MS + 110]
    assert list(observed.played_frames["decode_start_ns"]) == [81 * MS + 113, 101 * MS + 113]


JUMBO = TransportSettings(mtu_bytes=64_000)
FRAGMENTS = [1480 + 34] * 3 + [5760 + 20 + 8 - 3 * 1480 + 34]
"""Of a datagram of 60 ms of PCM at 48 kHz."""


def jumbo(forward: Link | None = None, frames: int = 3) -> Observed:
    long = codec(rate=48_000, frame=60 * MS)
    return streamed(forward, frames, transport=JUMBO, of=long)


def test_a_datagram_larger_than_the_link_travels_in_ip_fragments() -> None:
    observed = jumbo()
    assert list(observed.link_log["size_bytes"]) == FRAGMENTS * 3
    assert observed.sender["ip_fragments"] == 12
    packets, frames = tables(observed)
    assert set(packets["fate"]) == {"played"}
    assert list(frames["kind"]) == ["decoded"] * 3
    assert streamed(frames=3).sender["ip_fragments"] == 0, "one frame on the wire is no fragment"


def test_one_lost_fragment_loses_the_datagram_for_its_own_reason() -> None:
    packets, _ = tables(jumbo(Link(loss=LossTrace((0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0)))))
    assert list(packets["fate"]) == ["played", "lost", "played"]
    packets, _ = tables(
        jumbo(Link(rate=Rate(1_000_000, burst_bytes=1_600, limit_bytes=3_000)), frames=1)
    )
    assert list(packets["fate"]) == ["queue"]


def test_fragments_are_put_together_whatever_their_order_and_their_copies_dropped() -> None:
    observed = jumbo(Link(delay_ns=30 * MS, jitter_ns=25 * MS))
    assert set(tables(observed)[0]["fate"]) == {"played"}
    assert list(observed.link_log["size_bytes"]) == FRAGMENTS * 3, "in order of entering"
    left = observed.link_log["out_ns"].reshape(3, 4)
    assert (np.diff(left) < 0).any(), "out of order"
    np.testing.assert_array_equal(observed.received_packets["recv_ns"], left.max(axis=1))
    twice = jumbo(Link(duplicate=1.0))
    assert list(tables(twice)[0]["copies"]) == [1, 1, 1], "the kernel drops what it has already"


def test_lost_packets_are_lost_and_made_up() -> None:
    observed = streamed(Link(loss=LossTrace((0, 0, 1, 0, 0))), frames=10)
    packets, frames = tables(observed)
    lost = [k in (2, 7) for k in range(10)]
    assert list(packets["fate"] == "lost") == lost
    assert list(frames["kind"] == "concealed") == lost


def test_both_copies_of_a_packet_arrive() -> None:
    packets, _ = tables(streamed(Link(duplicate=1.0), frames=5))
    assert list(packets["copies"]) == [2] * 5
    assert set(packets["fate"]) == {"played"}


def test_the_checksum_drops_what_is_damaged_but_for_the_senders_own_address() -> None:
    observed = streamed(Link(corrupt=1.0), frames=400, of=codec("g711", frame=5 * MS))
    packets, _ = tables(observed, kind="g711")
    assert set(observed.link_log["outcome"]) == {Outcome.CORRUPTED}
    survived = packets["fate"] == "played"
    assert set(packets["fate"][~survived]) == {"undecodable"}
    # 6 of 40 + 20 + 28 + 14 bytes; four standard deviations of 400 draws.
    assert abs(survived.mean() - 6 / 102) < 4 * np.sqrt(6 * 96 / 102**2 / 400)


def test_a_packet_larger_than_the_mtu_travels_in_pieces() -> None:
    observed = streamed(transport=TransportSettings(mtu_bytes=300), frames=2)
    assert list(observed.sent_packets["fragments"]) == [3] * 6
    assert observed.link_log["size_bytes"].max() == 300 + 14
    packets, frames = tables(observed)
    assert set(packets["fate"]) == {"played"}
    assert list(frames["kind"]) == ["decoded"] * 2


def test_a_narrow_link_holds_packets_up_one_behind_the_other() -> None:
    narrow = Rate(702 * 8 * 50 // 2, 702, limit_bytes=7020)  # one packet takes two frames
    observed = streamed(Link(rate=narrow), frames=5)
    assert list(observed.link_log["out_ns"]) == [20 * MS, 60 * MS, 100 * MS, 140 * MS, 180 * MS]


def test_a_change_of_the_link_counts_from_sample_0() -> None:
    later = Link(changes=(Change(50 * MS, Link(delay_ns=5 * MS)),))
    assert list(tables(streamed(later, frames=4))[0]["transit_ns"]) == [0, 0, 5 * MS, 5 * MS]


def test_nobody_waits_beyond_the_stop() -> None:
    observed = streamed(Link(delay_ns=10 * MS), frames=10, stop_ns=150 * MS)
    assert list(observed.sent_packets["frame"]) == list(range(7))
    kinds = [Kind(kind) for kind in observed.played_frames["kind"]]
    assert kinds == [Kind.DECODED] * 3 + [Kind.SILENCE] * 7
    assert observed.received_packets["recv_ns"].max() <= 150 * MS


@pytest.mark.parametrize("mode", ["fixed", "adaptive"])
@pytest.mark.parametrize("stop_ns", [None, 500 * MS])
def test_a_stream_of_which_nothing_comes_is_silence(mode: str, stop_ns: int | None) -> None:
    limit = {} if stop_ns is None else {"stop_ns": stop_ns}
    observed = streamed(
        Link(loss=Bernoulli(1.0)), frames=5, receiver=ReceiverSettings(mode=mode), **limit
    )
    packets, frames = tables(observed)
    assert set(packets["fate"]) == {"lost"}
    assert list(frames["kind"]) == ["silence"] * 5
    assert not observed.media.any()


@pytest.mark.parametrize("transport", ["tcp", "websocket"])
def test_a_stream_transport_delivers_all_in_order_and_later_where_the_link_loses(
    transport: str,
) -> None:
    settings = TransportSettings(transport)
    clean = streamed(Link(delay_ns=30 * MS), frames=50, transport=settings)
    packets, _ = tables(clean, reliable=True)
    assert packets["transit_ns"].min() >= 30 * MS
    assert packets["transit_ns"].max() < 31 * MS
    lossy = streamed(
        Link(delay_ns=30 * MS, loss=LossTrace((0,) * 9 + (1,))), 50, transport=settings
    )
    packets, _ = tables(lossy, reliable=True)
    assert packets["transit_ns"].count() == 50, "each came once, in the end"
    assert list(lossy.received_packets["seq"]) == list(range(50))
    late_ns = packets["transit_ns"] - 30 * MS
    assert late_ns.max() > 30 * MS, "a retransmission takes another round trip at least"
    assert set(lossy.link_log["direction"]) == {0, 1}
    assert lossy.sender["retransmissions"] >= 5


def test_tcp_on_a_network_beyond_its_model_is_unsupported() -> None:
    narrow = Link(rate=Rate(64_000, 1600, limit_bytes=16_000))
    with pytest.raises(Unsupported, match="not validated"):
        streamed(narrow, transport=TransportSettings("tcp"))


def test_a_broken_decoder_is_named() -> None:
    class Broken:
        facts = codec().facts
        encoder = codec().encoder

        def decoder(self) -> Any:
            return self

        def decode(self, _: bytes) -> Any:
            raise MemoryError("no")

        conceal = recover = decode

    with pytest.raises(CellFailed, match="decoder crashed: MemoryError: no"):
        streamed(of=Broken())

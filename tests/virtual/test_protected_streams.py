"""Protection and feedback, instant by instant: what is lost, what comes back, and when."""

from __future__ import annotations

import numpy as np
import pytest

from harness.errors import Unsupported
from harness.media.settings import ReceiverSettings, SenderSettings
from harness.network.link import Link, LossTrace, Rate
from harness.records import Kind, Observed
from harness.transports.base import TransportSettings
from tests.virtual.streams import MS, codec, streamed
from tests.virtual.test_simulate import tables

DEEP = ReceiverSettings(start_ns=400 * MS)


def kinds(observed: Observed) -> list[str]:
    return [Kind(kind).name for kind in observed.played_frames["kind"]]


def lose(*packets: int, of: int = 1000) -> Link:
    return Link(delay_ns=10 * MS, loss=LossTrace(tuple(int(k in packets) for k in range(of))))


def unharmed(frames: int = 10) -> np.ndarray:
    return streamed(Link(delay_ns=10 * MS), frames).media


def test_repetition_restores_a_frame_when_the_next_one_that_carries_it_comes() -> None:
    observed = streamed(lose(4), receiver=DEEP, sender=SenderSettings(repeat=1, repeat_distance=2))
    assert kinds(observed) == ["DECODED"] * 4 + ["FEC"] + ["DECODED"] * 5
    np.testing.assert_array_equal(observed.media, unharmed())
    assert observed.played_frames["complete_ns"][4] == (6 + 1) * 20 * MS + 10 * MS
    assert observed.sent_packets["size_bytes"][5] == 20 + 1 + 2 + 640 + 640
    assert observed.sent_frames["payload_bytes"][5] == 640


def test_parity_restores_a_frame_when_it_comes_and_is_spare_else() -> None:
    fec = SenderSettings(fec="xor", fec_data=4, fec_parity=1)
    # Packets 0-3, parity; 4-7, parity; 8, 9, parity: the third of the first group is lost.
    observed = streamed(lose(2), receiver=DEEP, sender=fec)
    assert kinds(observed) == ["DECODED"] * 2 + ["FEC"] + ["DECODED"] * 7
    np.testing.assert_array_equal(observed.media, unharmed())
    packets, frames = tables(observed)
    assert list(packets["purpose"]).count("parity") == 3
    assert list(packets["fate"][packets["purpose"] == "parity"]) == ["played", "spare", "spare"]
    assert packets["fate"][packets["frame"] == 2][0] == "lost"
    assert frames["network_ns"][2] == 20 * MS + 10 * MS, "one frame later, with the parity"


def test_parity_larger_than_a_packet_is_put_together_again() -> None:
    fec = SenderSettings(fec="reed-solomon", fec_data=2, fec_parity=1)
    narrow = TransportSettings(mtu_bytes=400)
    observed = streamed(lose(1), frames=4, receiver=DEEP, sender=fec, transport=narrow)
    assert kinds(observed) == ["FEC"] + ["DECODED"] * 3
    np.testing.assert_array_equal(observed.media, unharmed(4))


def test_a_burst_that_parity_cannot_mend_is_mended_once_it_is_interleaved() -> None:
    fec = SenderSettings(fec="xor", fec_data=4, fec_parity=1)
    both = SenderSettings(fec="xor", fec_data=4, fec_parity=1, interleave=4)
    plain = streamed(lose(20, 21), frames=40, receiver=DEEP, sender=fec)
    assert kinds(plain).count("FEC") == 0
    assert set(kinds(plain)) > {"DECODED"}
    mended = streamed(lose(20, 21), frames=40, receiver=DEEP, sender=both)
    burst = mended.sent_packets["frame"][[20, 21]]
    assert abs(int(burst[0]) - int(burst[1])) >= 3
    assert {kinds(mended)[frame] for frame in burst} == {"FEC"}
    # Parity leaves with a group's last frame, so that it may come before those that still wait.
    assert set(kinds(mended)) == {"DECODED", "FEC"}
    np.testing.assert_array_equal(mended.media, unharmed(40))


def test_interleaving_waits_and_sends_all_that_waited() -> None:
    observed = streamed(Link(), frames=10, receiver=DEEP, sender=SenderSettings(interleave=2))
    sent = dict(zip(observed.sent_packets["frame"], observed.sent_packets["send_ns"], strict=True))
    ready = dict(zip(observed.sent_frames["frame"], observed.sent_frames["ready_ns"], strict=True))
    waits = [(sent[k] - ready[k]) // (20 * MS) for k in range(10)]
    assert waits == [0, 2] * 5
    np.testing.assert_array_equal(observed.media, unharmed())


def test_a_packet_that_is_asked_for_comes_a_round_trip_later() -> None:
    nack = SenderSettings(nack_retries=1)
    observed = streamed(lose(3), receiver=DEEP, sender=nack, reverse=Link(delay_ns=15 * MS))
    assert kinds(observed) == ["DECODED"] * 10
    np.testing.assert_array_equal(observed.media, unharmed())
    # The gap shows when frame 4 comes, at 110 ms; the request takes 15 ms, its answer 10.
    assert observed.played_frames["complete_ns"][3] == (110 + 15 + 10) * MS
    packets, _ = tables(observed)
    again = packets["purpose"] == "retransmission"
    assert list(packets["fate"][again]) == ["played"]
    assert packets["fate"][packets["frame"] == 3][0] == "lost"
    assert observed.sender["nacks"] == observed.sender["retransmissions"] == 1
    assert (observed.link_log["direction"] == 1).sum() == 1


def test_an_answer_that_would_come_too_late_is_not_asked_for() -> None:
    nack = SenderSettings(nack_retries=3, nack_wait_ns=70 * MS)
    observed = streamed(lose(3), receiver=ReceiverSettings(start_ns=60 * MS), sender=nack)
    assert observed.sender["nacks"] == 0
    assert kinds(observed).count("CONCEALED") + kinds(observed).count("SILENCE") == 1


def test_a_request_that_is_lost_is_made_again() -> None:
    nack = SenderSettings(nack_retries=2, nack_every_ns=50 * MS)
    reverse = Link(loss=LossTrace((1, *[0] * 50)))
    observed = streamed(lose(3), receiver=DEEP, sender=nack, reverse=reverse)
    assert observed.played_frames["complete_ns"][3] == (110 + 50 + 10) * MS
    assert observed.sender["nacks"] == 1


def test_a_rate_that_the_link_does_not_carry_is_given_up() -> None:
    narrow = Link(rate=Rate(30_000, 1600, limit_bytes=4_000))
    opus = codec("opus", bitrate=64_000)
    wanted = ReceiverSettings(start_ns=400 * MS, max_ns=1000 * MS)
    fixed = streamed(narrow, 400, of=opus, receiver=wanted)
    follows = SenderSettings(adapt="loss-delay", report_every_ns=100 * MS)
    adapted = streamed(narrow, 400, of=opus, receiver=wanted, sender=follows)
    target = adapted.sent_frames["target_bps"]
    assert target[0] == 64_000
    assert target[200:].max() < 30_000
    lost = {name: len(o.sent_packets["seq"]) - len(o.received_packets["seq"])
            for name, o in (("fixed", fixed), ("adapted", adapted))}  # fmt: skip
    assert lost["fixed"] > 100
    assert lost["adapted"] < lost["fixed"] / 3
    assert adapted.sender["reports"] > 50


def test_what_cannot_be_done_says_so() -> None:
    with pytest.raises(Unsupported, match="one rate"):
        streamed(sender=SenderSettings(adapt="loss-delay"))
    with pytest.raises(Unsupported, match="datagrams"):
        streamed(transport=TransportSettings("tcp"), sender=SenderSettings(nack_retries=1))


def test_fragments_are_paced() -> None:
    transport = TransportSettings(mtu_bytes=300, gap_ns=MS)
    observed = streamed(Link(), frames=3, transport=transport)
    sent = observed.sent_packets
    assert list(sent["fragments"]) == [3] * 9
    assert list(sent["send_ns"]) == [20 * (k + 1) * MS + n * MS for k in range(3) for n in range(3)]
    assert list(observed.sent_frames["sent_ns"]) == [22 * MS, 42 * MS, 62 * MS]


def test_a_stream_that_is_answered_is_the_same_every_time() -> None:
    settings = SenderSettings(nack_retries=2, fec="reed-solomon", fec_data=3, fec_parity=2)
    first, second = (
        streamed(lose(2, 3, 9, 17), frames=30, receiver=DEEP, sender=settings) for _ in range(2)
    )
    for table in ("sent_packets", "received_packets", "played_frames", "link_log"):
        one, other = getattr(first, table), getattr(second, table)
        assert all(np.array_equal(one[name], other[name]) for name in one)

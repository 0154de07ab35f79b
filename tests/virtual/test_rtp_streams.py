"""RTP in virtual time: what is on the wire, what reports say, what a request brings back."""

from __future__ import annotations

import numpy as np
import pytest

from harness.errors import Unsupported
from harness.media.settings import ReceiverSettings, SenderSettings
from harness.network.link import Link, LossTrace, Rate
from harness.records import Observed, Outcome
from harness.transports.base import TransportSettings
from tests.virtual.streams import MS, codec, streamed
from tests.virtual.test_simulate import tables

RTP = TransportSettings("rtp")
SECOND = 1000 * MS
RTCP = SenderSettings(reports=True, report_every_ns=SECOND)
HEADERS = 12 + 28 + 14
REPORT = 48 + 28 + 14


def rtp(forward: Link, frames: int = 10, **changes: object) -> Observed:
    given = {"sender": RTCP, "reverse": Link(delay_ns=10 * MS), "transport": RTP, **changes}
    return streamed(forward, frames, **given)  # type: ignore[arg-type]


def sizes(observed: Observed, direction: int) -> list[int]:
    log = observed.link_log
    return [int(size) for size in log["size_bytes"][log["direction"] == direction]]


def test_each_frame_is_one_packet_of_12_octets_more_and_both_ends_report() -> None:
    observed = rtp(Link(delay_ns=10 * MS), frames=120)
    forward = sizes(observed, 0)
    assert forward.count(640 + HEADERS) == 120
    assert forward.count(REPORT) == 3, "at 20 ms, 1.02 s and 2.02 s"
    assert sizes(observed, 1) == [60 + 28 + 14] * 2
    packets, frames = tables(observed)
    assert set(packets["fate"][packets["purpose"] == "media"]) == {"played"}
    assert list(packets["fate"][packets["purpose"] == "report"]) == ["spare"] * 3
    assert set(frames["kind"]) == {"decoded"}
    assert observed.sender["reports"] == 2
    assert observed.sender["foreign_feedback"] == 0


def test_pcm_sounds_as_over_udp_although_its_octets_are_turned_round() -> None:
    np.testing.assert_array_equal(
        rtp(Link(delay_ns=10 * MS)).media, streamed(Link(delay_ns=10 * MS)).media
    )


@pytest.mark.parametrize("kind", ["g711", "g722", "opus", "amr-nb"])
def test_codecs_with_a_payload_format_come_through(kind: str) -> None:
    observed = rtp(Link(delay_ns=10 * MS), frames=20, of=codec(kind))
    _, frames = tables(observed, kind=kind)
    assert set(frames["kind"]) == {"decoded"}


def test_a_lost_report_is_a_lost_packet_of_its_own() -> None:
    # Frame 0, its report, frames 1 and so on.
    observed = rtp(Link(loss=LossTrace(tuple(int(k == 1) for k in range(1000)))))
    packets, frames = tables(observed)
    assert list(packets["fate"][packets["purpose"] == "report"]) == ["lost"]
    assert set(packets["fate"][packets["purpose"] == "media"]) == {"played"}
    assert set(frames["kind"]) == {"decoded"}


def test_what_is_asked_for_comes_again_in_time() -> None:
    asks = SenderSettings(nack_retries=1, reports=True, report_every_ns=5 * SECOND)
    lossy = Link(delay_ns=10 * MS, loss=LossTrace(tuple(int(k in (4, 5)) for k in range(1000))))
    observed = rtp(lossy, sender=asks, receiver=ReceiverSettings(start_ns=200 * MS))
    packets, frames = tables(observed)
    again = packets["purpose"] == "retransmission"
    assert list(packets["frame"][again]) == [3, 4]
    assert list(packets["fate"][again]) == ["played"] * 2
    assert set(frames["kind"]) == {"decoded"}
    assert sizes(observed, 0).count(640 + HEADERS + 2) == 2, "with the original's number"
    assert sizes(observed, 1)[0] == 16 + 28 + 14, "one request names both"


def test_a_rate_that_follows_reports_steps_down_on_a_narrow_link() -> None:
    adapt = SenderSettings(
        adapt="loss-delay", report_every_ns=100 * MS, reports=True, lowest_bps=8_000
    )
    narrow = Link(delay_ns=10 * MS, rate=Rate(32_000, 1600, limit_bytes=8_000))
    observed = rtp(narrow, frames=300, of=codec("opus", bitrate=32_000), sender=adapt)
    targets = observed.sent_frames["target_bps"]
    assert targets[0] == 32_000
    assert targets[150:].mean() < 24_000
    fixed = rtp(narrow, frames=300, of=codec("opus", bitrate=32_000))
    dropped = [int((one.link_log["outcome"] == Outcome.QUEUE).sum()) for one in (observed, fixed)]
    assert dropped[0] < dropped[1]


def test_a_frame_larger_than_a_datagram_is_unsupported() -> None:
    with pytest.raises(Unsupported, match="shorter codec frame"):
        rtp(Link(), transport=TransportSettings("rtp", mtu_bytes=576))


@pytest.mark.parametrize("name", ["quic-datagram", "quic-stream", "webrtc"])
def test_what_is_not_modelled_says_so(name: str) -> None:
    with pytest.raises(Unsupported, match=f"{name} is not modelled in virtual time"):
        streamed(Link(), transport=TransportSettings(name))  # type: ignore[arg-type]

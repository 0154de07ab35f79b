"""Several streams over one link, and one sender to several receivers, in virtual time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.codecs.base import Codec
from harness.errors import Unsupported
from harness.media.fates import join
from harness.media.settings import ReceiverSettings, SenderSettings
from harness.media.tracks import track_figures, tracks_beside
from harness.network.link import Link, LinkPair, LossTrace, Rate
from harness.records import Columns, Kind, Observed, TrackRecords
from harness.transports.base import TransportSettings
from harness.virtual.compute import Compute, Zero
from harness.virtual.simulate import Stream, simulate, simulate_broadcast
from tests.virtual.streams import MS, Fixed, codec

PCM = codec()
OPUS = codec("opus", bitrate=32_000)
DEEP = ReceiverSettings(start_ns=400 * MS, max_ns=1000 * MS)
ADAPT = SenderSettings(adapt="loss-delay", report_every_ns=100 * MS, lowest_bps=8_000)


def stream(
    forward: Link | None = None,
    frames: int = 10,
    of: Codec = PCM,
    sender: SenderSettings | None = None,
    transport: TransportSettings | None = None,
    compute: Compute | None = None,
) -> Stream:
    samples = frames * of.facts.frame_samples - of.facts.delay_samples
    pcm = np.random.default_rng(5).normal(0, 3000, samples).astype(np.int16)
    return Stream(
        codec=of,
        pcm=pcm,
        pair=LinkPair(forward or Link(), Link(delay_ns=20 * MS)),
        receiver=DEEP,
        transport=transport or TransportSettings(),
        stream_id=9,
        seed=1,
        compute=compute or Zero(),
        sender=sender or SenderSettings(),
    )


def beside(first: Stream, start_ns: int, number: int = 1) -> Stream:
    return replace(first, stream_id=9 + number, seed=1 + number, start_ns=start_ns)


def tables(observed: Observed, facts_of: Codec = PCM) -> list[tuple[Columns, Columns]]:
    streams: list[Observed | TrackRecords] = [observed, *observed.tracks]
    return [
        join(
            one.sent_packets,
            one.sent_frames,
            one.received_packets,
            one.played_frames,
            observed.link_log,
            facts_of.facts,
            one.t0_ns,
        )
        for one in streams
    ]


def test_on_a_link_that_carries_all_a_track_fares_as_if_it_were_alone() -> None:
    alone = stream(Link(delay_ns=30 * MS), compute=Fixed({"encode": 1 * MS, "decode": 1 * MS}))
    single = simulate(alone)
    shared = simulate(alone, [beside(alone, 7 * MS), beside(alone, 13 * MS, 2)])
    for records in ("sent_packets", "sent_frames", "received_packets", "played_frames"):
        for name, column in getattr(single, records).items():
            np.testing.assert_array_equal(getattr(shared, records)[name], column)
    np.testing.assert_array_equal(shared.played, single.played)
    assert [track.t0_ns for track in shared.tracks] == [7 * MS, 13 * MS]
    assert len(shared.link_log["in_ns"]) == 3 * len(single.link_log["in_ns"])


def test_each_track_has_the_fates_of_its_own_packets() -> None:
    # They enter in turns: 0 1 0 1 0 1 ...; lost are the third (track 0) and the sixth (track 1).
    first = stream(Link(delay_ns=5 * MS, loss=LossTrace((0, 0, 1, 0, 0, 1, *[0] * 50))))
    observed = simulate(first, [beside(first, 10 * MS)])
    fates = [list(packets["fate"]) for packets, _ in tables(observed)]
    lost = [[frame for frame, fate in enumerate(of) if fate == "lost"] for of in fates]
    assert lost == [[1], [2]]
    figures = [track_figures(*one, media_s=0.2) for one in tables(observed)]
    assert [track["packets_lost"] for track in figures] == [1, 1]
    assert [track["in_time"] for track in figures] == [0.9, 0.9]
    assert [track["goodput_bps"] for track in figures] == [9 * 640 * 8 / 0.2] * 2
    assert figures[0]["mouth_to_ear_p50_ms"] == 20 + 5 + 400 + 10


def test_one_process_encodes_one_frame_after_the_other() -> None:
    first = stream(compute=Fixed({"encode": 8 * MS}), frames=3)
    observed = simulate(first, [beside(first, 0)])
    assert list(observed.sent_frames["encode_start_ns"]) == [20 * MS, 40 * MS, 60 * MS]
    (second,) = observed.tracks
    assert list(second.sent_frames["encode_start_ns"]) == [28 * MS, 48 * MS, 68 * MS]


def test_tracks_that_adapt_make_room_for_each_other() -> None:
    narrow = Link(delay_ns=20 * MS, rate=Rate(100_000, 1600, limit_bytes=3000))
    losses = []
    for sender in (None, ADAPT):
        first = stream(narrow, 400, OPUS, sender)
        others = [beside(first, (5 * n) * MS, n) for n in (1, 2)]
        observed = simulate(first, others)
        kinds = [one.played_frames["kind"] for one in (observed, *observed.tracks)]
        losses.append([float(np.mean(of == Kind.CONCEALED)) for of in kinds])
    assert sum(losses[1]) < sum(losses[0]) / 3


def test_a_branch_of_a_broadcast_that_nobody_answers_is_a_stream_of_its_own() -> None:
    links = [Link(delay_ns=10 * MS), Link(delay_ns=90 * MS, loss=LossTrace((0, 1, 0)))]
    branches = [replace(stream(link), seed=n, sender_seed=0) for n, link in enumerate(links)]
    for heard, branch in enumerate(branches):
        together, alone = simulate_broadcast(branches, heard), simulate(branch)
        np.testing.assert_array_equal(together.played, alone.played)
        for name, column in alone.link_log.items():
            np.testing.assert_array_equal(together.link_log[name], column)


def test_a_sender_follows_the_worst_receiver_or_the_mean_of_them() -> None:
    narrow = Link(delay_ns=20 * MS, rate=Rate(40_000, 1600, limit_bytes=3000))
    rates = {}
    for follow in ("worst", "mean"):
        sender = replace(ADAPT, follow=follow)
        branches = [stream(link, 400, OPUS, sender) for link in (Link(delay_ns=10 * MS), narrow)]
        near, far = (simulate_broadcast(branches, heard) for heard in (0, 1))
        np.testing.assert_array_equal(near.sent_frames["target_bps"], far.sent_frames["target_bps"])
        rates[follow] = int(near.sent_frames["target_bps"][-1])
    (alone,) = (simulate(stream(Link(delay_ns=10 * MS), 400, OPUS, ADAPT)),)
    assert rates["worst"] < rates["mean"] < int(alone.sent_frames["target_bps"][-1])


def test_what_is_asked_for_again_goes_to_every_receiver() -> None:
    nack = SenderSettings(nack_retries=1)
    links = [Link(delay_ns=10 * MS), Link(delay_ns=10 * MS, loss=LossTrace((0, 1, *[0] * 50)))]
    branches = [stream(link, sender=nack) for link in links]
    whole = simulate_broadcast(branches, 0)
    ((packets, _),) = tables(whole)
    assert list(packets["fate"][packets["purpose"] == "retransmission"]) == ["spare"]
    assert Kind.CONCEALED not in simulate_broadcast(branches, 1).played_frames["kind"]


def test_both_need_datagrams() -> None:
    over_tcp = stream(transport=TransportSettings("tcp"))
    with pytest.raises(Unsupported, match="need datagrams"):
        simulate(over_tcp, [beside(over_tcp, 0)])
    with pytest.raises(Unsupported, match="needs datagrams"):
        simulate_broadcast([over_tcp, over_tcp], 0)


def test_tracks_differ_in_all_that_two_calls_differ_in() -> None:
    tracks = tracks_beside(16, 0xFFFF_FFFF, 4, 8000, PCM.facts)
    assert tracks == tracks_beside(16, 0xFFFF_FFFF, 4, 8000, PCM.facts)
    assert tracks != tracks_beside(16, 0xFFFF_FFFF, 5, 8000, PCM.facts)
    assert len({0xFFFF_FFFF, *(track.stream_id for track in tracks)}) == 16
    for name in ("seed", "start_ns", "rotation_samples"):
        assert len({getattr(track, name) for track in tracks}) == 15
    assert all(0 <= track.start_ns < 20 * MS for track in tracks)
    pcm = np.arange(8000, dtype=np.int16)
    turned = tracks[0].pcm(pcm)
    assert turned[0] == tracks[0].rotation_samples
    assert sorted(turned) == list(pcm)
    assert tracks_beside(1, 9, 4, 8000, PCM.facts) == []

"""The listener in virtual time: exact instants, cyclic loss lists, no luck."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.codecs.base import CodecFacts, Pcm
from harness.errors import CellFailed
from harness.media.packet import Packet
from harness.media.playout import ReceiverCore
from harness.media.settings import ReceiverSettings
from harness.media.wire import HARNESS
from harness.records import Kind

from .simulation import (
    FACTS,
    MS,
    STREAM,
    T0,
    Clock,
    ScriptedDecoder,
    arrivals,
    listen,
    send,
    voiced,
    with_fec,
    with_plc,
)

FIXED = ReceiverSettings()
ADAPTIVE = ReceiverSettings(mode="adaptive")
SPEECH = voiced(320 * 100)
SENT = send(SPEECH)
K = SENT.frames


class CountingDecoder(ScriptedDecoder):
    """Makes up other audio with every call, so that no two calls can change places unseen."""

    def _constant(self, value: int) -> Pcm:
        return super()._constant(value + len(self.calls))


def kinds(frames: dict, of: range | None = None) -> list[str]:
    return [
        Kind(int(kind)).name
        for frame, kind in zip(frames["frame"], frames["kind"], strict=True)
        if of is None or frame in of
    ]


# -- fixed -----------------------------------------------------------------------------------------


def test_on_a_perfect_network_every_frame_is_played_on_the_first_frames_clock() -> None:
    heard = listen(arrivals(SENT, [30 * MS]), K)
    frames = heard.frames
    first_arrival = T0 + 20 * MS + 30 * MS
    assert frames["frame"].tolist() == list(range(K))
    assert set(kinds(frames)) == {"DECODED"}
    assert frames["pull_ns"].tolist() == [first_arrival + (60 + 20 * k) * MS for k in range(K)]
    assert (frames["play_ns"] - frames["pull_ns"] == 10 * MS).all()
    assert (frames["pull_ns"] - frames["complete_ns"] == 60 * MS).all()
    assert set(frames["buffer_frames"][:-3]) == {4}  # 0, 20, 40 and (just in time) 60 ms old
    np.testing.assert_array_equal(heard.core.media(), SPEECH)
    np.testing.assert_array_equal(heard.core.played(), SPEECH)
    assert set(heard.verdicts()) == {"USED"}
    assert heard.core.figures()["device_underruns"] == 0


def test_a_packet_is_in_time_up_to_the_scheduled_instant_and_late_one_ns_after() -> None:
    on_the_dot, too_late = [60 * MS], [60 * MS + 1]
    for delay, expected in ((on_the_dot, "USED"), (too_late, "LATE")):
        heard = listen(arrivals(SENT, lambda i, d=delay[0]: d if i == 5 else 0), K)
        assert heard.verdicts().count(expected) == (K if expected == "USED" else 1)


def test_a_shell_that_pulls_late_does_not_make_late_packets_early() -> None:
    core = ReceiverCore(FIXED, FACTS, ScriptedDecoder(FACTS), STREAM, 2, Clock())
    (_, first), (_, second) = send(voiced(640)).packets
    core.on_packet(first, T0)
    assert core.next_pull_ns() == T0 + 60 * MS
    core.pull()
    core.on_packet(second, T0 + 80 * MS + 1)
    assert core.next_pull_ns() == T0 + 80 * MS
    core.pull()
    assert core.frames()["kind"].tolist() == [Kind.DECODED, Kind.CONCEALED]
    assert core.frames()["complete_ns"].tolist() == [T0, -1]
    core.stop(T0 + 200 * MS)
    assert core.packets()["verdict"][1] == 2  # LATE


def test_frames_lost_before_the_first_one_keep_the_timeline() -> None:
    lost_first_two = arrivals(SENT, lambda i: None if i < 2 else 10 * MS)
    heard = listen(lost_first_two, K)
    frames = heard.frames
    arrived = T0 + 3 * 20 * MS + 10 * MS
    assert frames["frame"].tolist() == list(range(K))
    assert frames["pull_ns"].tolist() == [arrived + (60 + 20 * (k - 2)) * MS for k in range(K)]
    assert kinds(frames)[:3] == ["SILENCE", "SILENCE", "DECODED"]
    # From silence, the first 5 ms of the first good frame are faded in.
    np.testing.assert_array_equal(heard.core.media()[720:], SPEECH[720:])


def test_cyclic_loss_is_concealed_and_never_shortens_the_timeline() -> None:
    heard = listen(arrivals(SENT, [5 * MS, 5 * MS, None, 5 * MS]), K)
    lost = [k for k in range(K) if k % 4 == 2]
    assert [k for k, kind in enumerate(kinds(heard.frames)) if kind == "CONCEALED"] == lost
    assert len(heard.core.media()) == len(heard.core.played()) == K * 320
    # Frame 5 follows a good one, so it is exact; frame 3 has its first 5 ms faded.
    np.testing.assert_array_equal(heard.core.media()[5 * 320 : 6 * 320], SPEECH[1600:1920])
    assert heard.decoder.calls[:6] == [
        "decode",
        "decode",
        "conceal",
        "decode",
        "decode",
        "decode",
    ]


def test_the_decoder_is_told_of_every_frame_once_whatever_the_concealment() -> None:
    came = arrivals(SENT, [5 * MS, None])
    for concealment, constant in (("codec", True), ("zero", False), ("pitch", False)):
        chosen = ReceiverSettings(concealment=concealment)
        heard = listen(came, K, chosen, with_plc())
        assert heard.decoder.calls == ["decode", "conceal"] * (K // 2)
        concealed = heard.core.media()[320:640]
        assert (concealed == 1000).all() == constant


def test_fec_comes_before_concealment_and_needs_the_next_packet_in_time() -> None:
    came = arrivals(SENT, lambda i: None if i in (10, 20, 21) else 5 * MS)
    heard = listen(came, K, FIXED, with_fec())
    assert kinds(heard.frames, range(10, 11)) == ["FEC"]
    assert kinds(heard.frames, range(20, 22)) == ["CONCEALED", "FEC"]
    assert (heard.core.media()[3200:3520] == 2000).all()
    assert (heard.core.media()[6400:6720] == 1000).all()
    frames = heard.frames
    assert frames["complete_ns"][10] == frames["complete_ns"][11]
    # One call for the missing frame, one for the next; never both recover and conceal.
    assert heard.decoder.calls.count("recover") == 2
    assert heard.decoder.calls.count("conceal") == 1

    late = arrivals(SENT, lambda i: None if i == 10 else 500 * MS if i == 11 else 5 * MS)
    heard = listen(late, K, FIXED, with_fec())
    assert kinds(heard.frames, range(10, 12)) == ["CONCEALED", "FEC"]


def test_redundancy_is_asked_of_the_nearest_packet_only() -> None:
    """Where that one has none, parsing all that follow costs milliseconds and finds nothing."""

    class WithoutRedundancy(ScriptedDecoder):
        def recover(self, later_payload: bytes, frames_back: int = 1) -> Pcm | None:
            super().recover(later_payload, frames_back)
            asked.append(frames_back)
            return None

    asked: list[int] = []
    facts = replace(with_fec(), recovery_frames=10)
    came = arrivals(SENT, lambda i: None if i in (10, 11, 12) else 5 * MS)
    sees_far = ReceiverSettings(start_ns=300 * MS)
    heard = listen(came, K, sees_far, facts, WithoutRedundancy(facts))
    assert kinds(heard.frames, range(10, 13)) == ["CONCEALED"] * 3
    assert asked == [3, 2, 1]


def test_fec_is_the_codecs_own_whatever_the_concealment() -> None:
    zero = ReceiverSettings(concealment="zero")
    heard = listen(arrivals(SENT, lambda i: None if i == 10 else 0), K, zero, with_fec())
    assert kinds(heard.frames, range(10, 11)) == ["FEC"]


def test_a_payload_that_the_codec_refuses_is_concealed() -> None:
    heard = listen(arrivals(SENT, [0]), K, decoder=ScriptedDecoder(FACTS, refused=(7,)))
    assert kinds(heard.frames, range(7, 8)) == ["CONCEALED"]
    assert [i for i, v in enumerate(heard.verdicts()) if v == "UNDECODABLE"] == [7]
    assert heard.decoder.calls[7:9] == ["decode", "conceal"]


def test_duplicates_and_reordering_do_no_harm() -> None:
    came = arrivals(SENT, [30 * MS, 5 * MS, 5 * MS])  # every third overtaken
    copies = [(at + 1 * MS, packet) for at, packet in came]
    late_copies = [(at + 200 * MS, packet) for at, packet in came]
    heard = listen(sorted(came + copies + late_copies, key=lambda a: a[0]), K)
    assert set(kinds(heard.frames)) == {"DECODED"}
    np.testing.assert_array_equal(heard.core.media(), SPEECH)
    assert heard.verdicts().count("USED") == K
    assert set(heard.verdicts()) == {"USED", "DUPLICATE"}


def test_a_lost_fragment_loses_its_frame_and_says_why() -> None:
    sent = send(SPEECH, max_packet_bytes=340)  # 640 bytes of PCM in two packets
    assert len(sent.packets) == 2 * K
    came = arrivals(sent, lambda i: None if i == 20 else 0)
    heard = listen(came, K)
    assert kinds(heard.frames, range(10, 11)) == ["CONCEALED"]
    assert [i for i, v in enumerate(heard.verdicts()) if v != "USED"] == [20]
    assert heard.verdicts()[20] == "INCOMPLETE"

    late = arrivals(sent, lambda i: 90 * MS if i == 20 else 0)
    heard = listen(late, K)
    odd = {heard.verdicts()[i] for i in np.flatnonzero(heard.packets["frame"] == 10)}
    assert odd == {"INCOMPLETE", "LATE"}


def test_a_lost_end_marker_hangs_nobody() -> None:
    heard = listen(arrivals(SENT, lambda i: None if i >= K - 3 else 0), K, FIXED)
    assert heard.frames["frame"].tolist() == list(range(K))
    assert heard.core.finished
    heard = listen(arrivals(SENT, lambda i: None if i >= K - 3 else 0), K, ADAPTIVE)
    assert sorted(k for k in heard.frames["frame"].tolist() if k >= 0) == list(range(K))


@pytest.mark.parametrize("mode", [FIXED, ADAPTIVE])
def test_when_nothing_arrives_there_is_silence_to_the_full_length(mode: ReceiverSettings) -> None:
    stop = T0 + 5_000 * MS
    heard = listen([], K, mode, stop_ns=stop)
    assert heard.core.next_pull_ns() is None
    assert heard.frames["frame"].tolist() == list(range(K))
    assert set(kinds(heard.frames)) == {"SILENCE"}
    assert (heard.frames["complete_ns"] == -1).all()
    assert heard.core.media().shape == heard.core.played().shape == (K * 320,)
    assert heard.decoder.calls == []


def test_what_is_still_held_at_the_stop_was_late() -> None:
    stop = T0 + 500 * MS
    heard = listen(arrivals(SENT, [0]), K, stop_ns=stop)
    assert heard.frames["frame"].tolist() == list(range(K))
    played = kinds(heard.frames).count("DECODED")
    assert played == 21  # pulls at 80, 100, ... 480 ms
    assert heard.verdicts()[:played] == ["USED"] * played
    assert set(heard.verdicts()[played:]) == {"LATE"}


def test_foreign_and_damaged_packets_are_told_apart() -> None:
    other = send(voiced(640), stream_id=1).packets[0][1]
    damaged = bytearray(SENT.packets[0][1])
    damaged[40] ^= 1
    beyond = HARNESS.pack(Packet(STREAM, 0, K, 0, 1, False, b"x"))
    wrong_end = HARNESS.pack(Packet(STREAM, 0, 3, 0, 1, True, b"x"))
    core = ReceiverCore(FIXED, FACTS, ScriptedDecoder(FACTS), STREAM, K, Clock())
    for packet in (other, b"\x80rtp", b"", bytes(damaged), beyond, wrong_end):
        core.on_packet(packet, T0)
    core.stop(T0 + MS)
    assert core.packets()["verdict"].tolist() == [5, 5, 5, 3, 3, 3]
    assert (core.packets()["frame"] == -1).all()
    assert set(kinds(core.frames())) == {"SILENCE"}


@given(st.lists(st.tuples(st.binary(max_size=60), st.integers(0, 10**9)), max_size=20))
def test_any_bytes_are_survived(came: list[tuple[bytes, int]]) -> None:
    core = ReceiverCore(FIXED, FACTS, ScriptedDecoder(FACTS), STREAM, 3, Clock())
    for packet, at in came:
        core.on_packet(packet, T0 + at)
    core.stop(T0 + 10**9)
    assert len(core.packets()["verdict"]) == len(came)


@given(
    st.lists(
        st.builds(
            lambda stream, seq, frame, fragment, more, end, payload, at: (
                HARNESS.pack(Packet(stream, seq, frame, fragment, fragment + more, end, payload)),
                at,
            ),
            st.sampled_from([STREAM, 1]),
            st.integers(0, 9),
            st.sampled_from([0, 1, 2, 3, 2**32 - 1]),
            st.integers(0, 3),
            st.integers(1, 3),
            st.booleans(),
            st.binary(min_size=1, max_size=8),
            st.integers(0, 300 * MS),
        ),
        max_size=30,
    ),
    st.sampled_from([FIXED, ADAPTIVE]),
)
def test_any_well_formed_nonsense_is_survived(
    came: list[tuple[bytes, int]], mode: ReceiverSettings
) -> None:
    came = sorted(((T0 + at, packet) for packet, at in came), key=lambda a: a[0])
    heard = listen(came, 4, mode, decoder=ScriptedDecoder(FACTS, refused=tuple(range(99))))
    assert sorted(k for k in heard.frames["frame"].tolist() if k >= 0) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "audio",
    [np.zeros(319, np.int16), np.zeros(320, np.float32), np.zeros((320, 1), np.int16), [0] * 320],
)
def test_a_decoder_of_the_wrong_length_or_type_fails_the_cell(audio: object) -> None:
    decoder = ScriptedDecoder(FACTS)
    decoder.decode = lambda payload: audio  # type: ignore[assignment,method-assign,return-value]  # noqa: ARG005
    with pytest.raises(CellFailed, match="decoder returned"):
        listen(arrivals(SENT, [0]), K, decoder=decoder)


def test_a_crashing_decoder_fails_the_cell() -> None:
    decoder = ScriptedDecoder(FACTS)
    decoder.decode = lambda payload: 1 // 0  # type: ignore[assignment,method-assign,return-value]  # noqa: ARG005
    with pytest.raises(CellFailed, match="decoder crashed: ZeroDivisionError"):
        listen(arrivals(SENT, [0]), K, decoder=decoder)


def test_slow_decoding_moves_the_playing_of_its_frame_and_is_counted() -> None:
    core = ReceiverCore(FIXED, FACTS, ScriptedDecoder(FACTS), STREAM, 1, clock := Clock())
    core.on_packet(send(voiced(320)).packets[0][1], T0)
    clock.now = T0 + 75 * MS  # woken 5 ms after the device wanted it
    core.pull()
    assert core.frames()["play_ns"].tolist() == [T0 + 75 * MS]
    assert core.figures()["device_underruns"] == 1


def test_a_first_frame_held_up_for_a_second_does_not_keep_the_listener_behind() -> None:
    """A TCP time-out on the first packet; ``max_ns`` bounds what is held in fixed mode too."""
    came = arrivals(SENT, lambda i: max(1000 - 20 * i, 0) * MS)
    heard = listen(came, K)
    frames = heard.frames
    assert frames["frame"].tolist() == list(range(K))
    skipped = frames["played_samples"] == 0
    assert kinds(frames)[: skipped.sum()] == ["SILENCE"] * int(skipped.sum())
    played = frames["frame"][~skipped]
    behind = frames["pull_ns"][~skipped] - (T0 + (played.astype(np.int64) + 1) * 20 * MS)
    assert behind.max() <= 420 * MS
    assert heard.verdicts().count("LATE") == skipped.sum()
    assert len(heard.core.media()) == K * 320


def test_a_first_packet_that_was_held_up_does_not_anchor_the_fixed_buffer() -> None:
    """The depth counts from the least delayed of the first ten, which is packet 6 here."""
    delays = [70, 55, 65, 50, 68, 60, 30, 65, 70, 55]
    came = arrivals(SENT, lambda i: (delays[i] if i < 10 else 60) * MS)
    heard = listen(came, K)
    frames = heard.frames
    behind = (frames["pull_ns"] - T0) / MS - 20 * (frames["frame"].astype(np.int64) + 1)
    assert behind[0] == 50 + 60, "four frames came before the start, which follows the best of them"
    settled = frames["frame"] >= 10
    np.testing.assert_allclose(behind[settled], 30 + 60, atol=0.1)
    np.testing.assert_array_equal(heard.core.media(), SPEECH)
    assert len(heard.core.media()) - len(heard.core.played()) == 20 * 16
    assert set(heard.verdicts()) == {"USED"}


@pytest.mark.parametrize("least_us", [0, 10, 900])
def test_what_a_machine_adds_to_the_first_packet_is_not_cut_out(least_us: int) -> None:
    """A real receiver's stamps differ by less than a millisecond on a network without jitter."""
    fastest = 30 * MS - least_us * 1000
    heard = listen(arrivals(SENT, lambda i: fastest if i == 8 else 30 * MS), K)
    np.testing.assert_array_equal(heard.core.played(), SPEECH)
    assert set(heard.frames["kind"]) == {Kind.DECODED}


def test_a_packet_that_is_faster_than_the_first_ten_moves_nothing() -> None:
    heard = listen(arrivals(SENT, lambda i: (60 if i < 13 else 5) * MS), K)
    np.testing.assert_array_equal(heard.core.played(), SPEECH)


def test_ten_frames_are_ten_frames_in_two_packets_each_too() -> None:
    sent = send(SPEECH, max_packet_bytes=340)
    fastest = 9 * 2
    heard = listen(arrivals(sent, lambda i: (40 if i in (fastest, fastest + 1) else 60) * MS), K)
    assert len(heard.core.media()) - len(heard.core.played()) == 20 * 16
    unmoved = listen(arrivals(sent, lambda i: (40 if i in (20, 21) else 60) * MS), K)
    np.testing.assert_array_equal(unmoved.core.played(), SPEECH)


# -- adaptive --------------------------------------------------------------------------------------


def depth_ms(frames: dict) -> np.ndarray:
    """Pull less the instant at which a packet without network delay would have been there."""
    media = frames["frame"] >= 0
    sent = T0 + (frames["frame"][media].astype(np.int64) + 1) * 20 * MS
    return (frames["pull_ns"][media] - sent) / MS


LONG = send(voiced(320 * 500))


def spoken(frames: int) -> Pcm:
    """Half a second of pause, a second of voice, and so on, with noise 54 dB below the voice."""
    noise = np.random.default_rng(1).normal(0, 15, 320 * frames).astype(np.int16)
    talks = np.arange(320 * frames) // 8_000 % 3 != 0
    return voiced(320 * frames) * talks + noise


def stretched(frames: dict) -> set[int]:
    return set(frames["frame"][frames["kind"] == Kind.STRETCHED].tolist())


def in_pause(frame: int) -> bool:
    return frame // 25 % 3 == 0


def test_adaptive_drains_to_what_a_steady_network_needs() -> None:
    start_deep = ReceiverSettings(mode="adaptive", start_ns=200 * MS)
    talk = send(spoken(500))
    heard = listen(arrivals(talk, [30 * MS]), 500, start_deep)
    depths = depth_ms(heard.frames) - 30
    assert depths[0] == 200
    assert 20 <= depths[-1] <= 35
    assert set(kinds(heard.frames)) == {"DECODED", "STRETCHED"}
    np.testing.assert_array_equal(heard.core.media(), spoken(500))
    removed = len(heard.core.media()) - len(heard.core.played())
    assert removed == round((200 - depths[-1]) * 16)


def test_a_small_excess_is_taken_out_in_pauses_only() -> None:
    talk = send(spoken(500))
    heard = listen(arrivals(talk, [30 * MS]), 500, ADAPTIVE)
    assert 20 <= depth_ms(heard.frames)[-1] - 30 <= 35
    assert stretched(heard.frames)
    assert all(map(in_pause, stretched(heard.frames)))


def test_a_voice_without_pauses_is_shortened_only_while_far_too_deep() -> None:
    heard = listen(arrivals(LONG, [30 * MS]), LONG.frames, ADAPTIVE)
    assert not stretched(heard.frames), "60 ms are not far from 20 ms"
    start_deep = ReceiverSettings(mode="adaptive", start_ns=200 * MS)
    heard = listen(arrivals(LONG, [30 * MS]), LONG.frames, start_deep)
    assert 70 <= depth_ms(heard.frames)[-1] - 30 <= 80


def test_a_buffer_that_is_too_shallow_grows_in_speech_too() -> None:
    """Late frames are heard more than a repeated period."""
    jitter = [0, 0, 0, 80 * MS, 60 * MS, 40 * MS, 20 * MS]
    heard = listen(arrivals(LONG, jitter), LONG.frames, ReceiverSettings("adaptive", 20 * MS))
    assert depth_ms(heard.frames)[50] >= 80


def test_adaptive_deepens_until_jitter_no_longer_makes_packets_late() -> None:
    jitter = [0, 0, 0, 0, 0, 120 * MS, 100 * MS, 80 * MS, 60 * MS, 40 * MS, 20 * MS]
    fixed = listen(arrivals(LONG, jitter), LONG.frames, FIXED)
    adaptive = listen(arrivals(LONG, jitter), LONG.frames, ADAPTIVE)
    assert fixed.verdicts().count("LATE") > 100
    settled = len(adaptive.verdicts()) // 2
    assert adaptive.verdicts()[settled:].count("LATE") == 0
    assert 120 <= depth_ms(adaptive.frames)[-1] <= 161


def test_a_stall_is_waited_out_instead_of_skipping_media() -> None:
    """A TCP stall: 15 frames come at once, 240 ms after the first of them was due."""
    came = arrivals(LONG, lambda i: (300 - 20 * (i - 200)) * MS if 200 <= i < 215 else 0)
    heard = listen(came, LONG.frames, ADAPTIVE)
    frames = heard.frames
    assert heard.verdicts().count("USED") == LONG.frames
    np.testing.assert_array_equal(heard.core.media()[: 200 * 320], voiced(320 * 500)[: 200 * 320])
    inserted = frames["frame"] == -1
    assert inserted.sum() >= 11
    assert depth_ms(frames).max() <= 400
    fixed = listen(came, LONG.frames, FIXED)
    assert fixed.verdicts().count("LATE") == 12  # frames 200...211


def test_waiting_never_goes_beyond_the_maximum() -> None:
    stalled = arrivals(LONG, lambda i: (2000 - 20 * (i - 200)) * MS if 200 <= i < 300 else 0)
    heard = listen(stalled, LONG.frames, ADAPTIVE)
    assert depth_ms(heard.frames).max() <= 400 + 1e-6
    late = heard.verdicts().count("LATE")
    assert 75 <= late <= 85  # 100 frames less the 20 that 400 ms of depth save
    assert sorted(k for k in heard.frames["frame"].tolist() if k >= 0) == list(range(500))


def test_time_inserted_for_lost_frames_becomes_their_concealment() -> None:
    """Eight frames are lost: the buffer runs dry, time is inserted, then frame 208 tells."""
    came = arrivals(LONG, lambda i: None if 200 <= i < 208 else 0)
    heard = listen(came, LONG.frames, ADAPTIVE)
    frames = heard.frames
    assert (frames["frame"] >= 0).all(), "no inserted time is left over"
    order = frames["frame"].tolist()
    assert order == sorted(order)
    gap = [k for k in range(500) if Kind(int(frames["kind"][k])).name in ("CONCEALED", "SILENCE")]
    assert gap == list(range(200, 208))
    depths = depth_ms(frames)
    assert abs(depths[199] - depths[210]) <= 20, "and the depth is as before"
    assert heard.decoder.calls.count("conceal") == 8
    assert heard.decoder.calls[200:208] == ["conceal"] * 8


LOSSES = {
    "one": {100},
    "every fifth": set(range(100, 490, 5)),
    "bursts of two": {k + i for k in range(100, 290, 20) for i in range(2)},
    "bursts of three, single ones": {k + i for k in range(100, 480, 30) for i in (0, 1, 2, 9)},
    "bursts longer than the longest wait": {k + i for k in range(90, 450, 90) for i in range(30)},
    "the end": set(range(480, 500)),
}


@pytest.mark.parametrize("lost", LOSSES.values(), ids=LOSSES.keys())
@pytest.mark.parametrize("concealment", ["codec", "pitch"])
@pytest.mark.parametrize(
    "facts",
    [FACTS, with_plc(), with_fec(), replace(with_fec(), recovery_frames=4)],
    ids=["no plc", "plc", "fec", "dred"],
)
def test_without_jitter_both_modes_give_the_same_audio_for_the_same_losses(
    lost: set[int], concealment: Literal["codec", "pitch"], facts: CodecFacts
) -> None:
    """A frame of depth, which the adaptive buffer keeps: packet k + 1 is there when k is due."""
    came = arrivals(LONG, lambda i: None if i in lost else 30 * MS)
    heard = {}
    for mode in ("fixed", "adaptive"):
        chosen = ReceiverSettings(mode=mode, start_ns=20 * MS, concealment=concealment)
        decoder = CountingDecoder(facts)
        heard[mode] = listen(came, LONG.frames, chosen, facts, decoder)
    fixed, adaptive = heard["fixed"], heard["adaptive"]
    np.testing.assert_array_equal(adaptive.core.media(), fixed.core.media())
    media = adaptive.frames["frame"] >= 0
    assert kinds({name: column[media] for name, column in adaptive.frames.items()}) == kinds(
        fixed.frames
    )
    told = len(fixed.decoder.calls)
    assert adaptive.decoder.calls[:told] == fixed.decoder.calls


@pytest.mark.parametrize("mode", ["fixed", "adaptive"])
def test_all_losses_are_concealed_by_the_codec_where_it_can(
    mode: Literal["fixed", "adaptive"],
) -> None:
    lost = LOSSES["bursts of two"]
    came = arrivals(LONG, lambda i: None if i in lost else 5 * MS)
    heard = listen(came, LONG.frames, ReceiverSettings(mode=mode), with_plc())
    frames = heard.core.media().reshape(-1, 320)
    assert {k for k in range(LONG.frames) if (frames[k] == 1000).all()} == lost


def test_redundancy_that_comes_while_time_is_inserted_restores_what_is_due_then() -> None:
    """Three frames are lost and one frame of depth: two are inserted, the third is in frame 203."""
    came = arrivals(LONG, lambda i: None if 200 <= i < 203 else 5 * MS)
    chosen = ReceiverSettings(mode="adaptive", start_ns=20 * MS)
    heard = listen(came, LONG.frames, chosen, with_fec())
    assert heard.frames["frame"].tolist() == list(range(LONG.frames))
    assert kinds(heard.frames, range(200, 203)) == ["CONCEALED", "CONCEALED", "FEC"]
    assert (heard.core.media()[202 * 320 : 203 * 320] == 2000).all()


def test_a_codec_without_concealment_hears_of_inserted_time_only_if_media_was_lost() -> None:
    """MP3's ``conceal`` empties its bit reservoir, which a packet that is late still needs."""
    stall = arrivals(LONG, lambda i: (300 - 20 * (i - 200)) * MS if 200 <= i < 215 else 0)
    heard = listen(stall, LONG.frames, ADAPTIVE)
    assert (heard.frames["frame"] == -1).any()
    assert "conceal" not in heard.decoder.calls


# -- whatever the network does ---------------------------------------------------------------------

SHORT = send(voiced(320 * 40), max_packet_bytes=500)
DELAYS = st.lists(
    st.one_of(st.none(), st.integers(0, 600).map(lambda ms: ms * MS)),
    min_size=len(SHORT.packets),
    max_size=len(SHORT.packets),
)


@given(
    DELAYS,
    st.lists(st.integers(0, len(SHORT.packets) - 1), max_size=10),
    st.sampled_from(["fixed", "adaptive"]),
    st.sampled_from(["codec", "zero", "repeat", "pitch"]),
    st.sampled_from([FACTS, with_plc(), with_fec()]),
)
def test_every_frame_is_heard_once_and_every_packet_is_judged(
    delays: list[int | None], copied: list[int], mode: str, concealment: str, facts
) -> None:
    came = arrivals(SHORT, delays)
    came += [(SHORT.packets[i][0] + 700 * MS, SHORT.packets[i][1]) for i in copied]
    came.sort(key=lambda arrival: arrival[0])
    chosen = ReceiverSettings(mode=mode, concealment=concealment, max_ns=200 * MS)  # type: ignore[arg-type]
    heard = listen(came, 40, chosen, facts, stop_ns=T0 + 3_000 * MS)
    frames = heard.frames
    media = [k for k in frames["frame"].tolist() if k >= 0]
    assert media == list(range(40))
    starts, lengths = frames["played_start"].tolist(), frames["played_samples"].tolist()
    assert all(a + n == b for (a, b), n in zip(pairwise(starts), lengths, strict=False))
    assert starts[-1] + lengths[-1] == len(heard.core.played())
    assert len(heard.core.media()) == 40 * 320
    made = np.isin(frames["kind"], (Kind.DECODED, Kind.FEC, Kind.STRETCHED))
    assert (frames["complete_ns"][made] >= 0).all()
    assert (frames["complete_ns"] <= frames["pull_ns"]).all()
    used = heard.packets["frame"][heard.packets["verdict"] == 0]
    decoded = frames["frame"][np.isin(frames["kind"], (Kind.DECODED, Kind.STRETCHED))]
    assert sorted(set(used.tolist())) == sorted(decoded.tolist())
    assert len(heard.decoder.calls) <= 40 + len(decoded)

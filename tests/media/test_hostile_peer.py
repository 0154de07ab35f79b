"""Well-formed packets of arbitrary content: nothing raises, and nothing grows without bound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.codecs.base import Pcm
from harness.endpoint.sender import SenderCore
from harness.media.feedback import MOST_NACKED, Nack
from harness.media.packet import MAX_FRAGMENTS, Packet, Purpose
from harness.media.playout import ReceiverCore
from harness.media.protection import ParityStore
from harness.media.settings import ReceiverSettings, SenderSettings
from harness.media.wire import HARNESS
from tests.media.simulation import FACTS, MS, PCM20, STREAM, T0, Clock, ScriptedDecoder, voiced

FRAMES = 30
SENDERS = [
    SenderSettings(repeat=2, fec="reed-solomon", fec_data=4, fec_parity=2, nack_retries=2),
    SenderSettings(fec="xor", fec_data=3, fec_parity=1, adapt="loss-delay", interleave=3),
]


class StrictDecoder(ScriptedDecoder):
    """Refuses what is no frame of PCM, as any codec does."""

    def decode(self, payload: bytes) -> Pcm:
        if len(payload) != 2 * FACTS.frame_samples:
            raise ValueError("no frame")
        return super().decode(payload)


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    frame = draw(st.integers(0, FRAMES - 1) | st.integers(0, 2**32 - 1))
    fragments = draw(st.integers(1, 3) | st.integers(1, MAX_FRAGMENTS))
    payload = draw(
        st.binary(min_size=1, max_size=40)
        | st.tuples(st.integers(0, 255), st.integers(0, 6), st.integers(0, 255), st.binary()).map(
            lambda parts: bytes(parts[:3]) + parts[3]
        )
    )
    return HARNESS.pack(
        Packet(
            STREAM,
            draw(st.integers(0, 100) | st.integers(0, 2**32 - 1)),
            frame,
            draw(st.integers(0, fragments - 1)),
            fragments,
            frame == FRAMES - 1,
            payload,
            draw(st.sampled_from(Purpose)),
        )
    )


@pytest.mark.parametrize("sender", SENDERS, ids=["repaired", "adaptive"])
@pytest.mark.parametrize("mode", ["fixed", "adaptive"])
@given(came=st.lists(packets(), max_size=40))
def test_a_receiver_takes_any_packets(mode: str, sender: SenderSettings, came: list[bytes]) -> None:
    clock = Clock()
    settings = ReceiverSettings(mode="adaptive" if mode == "adaptive" else "fixed")
    core = ReceiverCore(settings, FACTS, StrictDecoder(FACTS), STREAM, FRAMES, clock, sender)
    for packet in came:
        clock.now += 5 * MS
        core.on_packet(packet, clock.now)
        while (due_ns := core.next_pull_ns()) is not None and due_ns <= clock.now:
            core.pull()
        if core.next_feedback_ns() is not None:
            core.feedback(clock.now)
    core.stop(clock.now)
    assert len(core.packets()["seq"]) == len(came)
    assert len(core.media()) == FRAMES * FACTS.frame_samples


def parity(number: int, data: int, total: int) -> bytes:
    return bytes([number, data, total]) + bytes(50)


@pytest.mark.parametrize("scheme", ["xor", "reed-solomon"])
def test_parity_of_another_scheme_than_the_streams_is_refused(scheme: str) -> None:
    made = 1 if scheme == "xor" else 2
    store = ParityStore(
        SenderSettings(
            fec="xor" if scheme == "xor" else "reed-solomon", fec_data=4, fec_parity=made
        )
    )
    for wrong in (parity(0, 4, 255), parity(0, 5, made), parity(made, 4, made), parity(0, 0, made)):
        with pytest.raises(ValueError, match="parity"):
            list(store.add_parity(0, wrong, 0))
    assert list(store.add_parity(0, parity(0, 4, made), 0)) == []


def test_parity_that_never_becomes_whole_is_forgotten() -> None:
    core = ReceiverCore(
        ReceiverSettings(), FACTS, ScriptedDecoder(FACTS), STREAM, FRAMES, Clock(), SENDERS[0]
    )
    for seq in range(0, 20_000, 2):
        part = Packet(STREAM, seq, 0, 0, 2, False, bytes(100), Purpose.PARITY)
        core.on_packet(HARNESS.pack(part), T0)
    assert len(core._parity_parts) <= 64


def test_a_packet_is_sent_again_as_often_as_each_receiver_may_ask() -> None:
    clock = Clock()
    sent: list[bytes] = []
    settings = SenderSettings(nack_retries=2)
    core = SenderCore(
        *(FACTS, PCM20.encoder(), STREAM, voiced(1600), T0, None),
        lambda packet: not sent.append(packet),
        clock,
        settings,
        receivers=3,
    )
    while (ready_ns := core.next_ready_ns()) is not None:
        clock.now = ready_ns
        core.step()
    original = len(sent)
    asked = Nack(STREAM, (1,) * MOST_NACKED).pack()
    for _ in range(50):
        core.on_feedback(asked)
    assert len(sent) - original == 2 * 3
    core.on_feedback(Nack(STREAM, (2,)).pack())
    assert len(sent) - original == 2 * 3 + 1

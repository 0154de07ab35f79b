"""Figures of the two older systems over UDP, met by their packets in virtual time."""

from __future__ import annotations

import numpy as np

from harness.codecs import aac_blocks
from harness.codecs.base import CodecFacts, Pcm
from harness.media.fates import join
from harness.media.packet import wire_sizes
from harness.media.settings import ReceiverSettings
from harness.network.link import Bernoulli, Link, LossTrace
from harness.records import Columns, Observed
from harness.transports.base import TransportSettings
from tests.virtual.streams import MS, codec, streamed

FRAGMENTS = TransportSettings(mtu_bytes=248, gap_ns=MS, wire="encodec-udp-stream")
BLOCKS = TransportSettings(mtu_bytes=64_000)
ETHERNET_BYTES = 14


FACTS = CodecFacts(
    sample_rate_hz=400,
    frame_samples=99,
    lookahead_frames=0,
    delay_samples=1,
    nominal_bitrate_bps=12_000,
    library="none",
)
"""5,940 samples and 60, as at 24 kHz, in fewer."""


class Chunks:
    """As large and as often as EnCodec's at 12 kbit/s that overlap by 1 %, without the model."""

    facts = FACTS

    def encoder(self) -> Chunks:
        return self

    def decoder(self) -> Chunks:
        return self

    def encode(self, pcm: Pcm) -> bytes:  # noqa: ARG002
        return bytes(446)

    def decode(self, payload: bytes) -> Pcm:  # noqa: ARG002
        return np.zeros(FACTS.frame_samples, np.int16)

    def conceal(self) -> Pcm | None:
        return None

    def recover(self, later_payload: bytes, frames_back: int = 1) -> Pcm | None:  # noqa: ARG002
        return None


def judged(observed: Observed, facts: CodecFacts) -> tuple[Columns, Columns]:
    return join(
        observed.sent_packets,
        observed.sent_frames,
        observed.received_packets,
        observed.played_frames,
        observed.link_log,
        facts,
        observed.t0_ns,
    )


def test_chunks_of_encodec_are_three_packets_1_ms_apart_and_19_8_kbit_s() -> None:
    of = codec("encodec-chunks", overlap="1%", weights="random")
    observed = streamed(frames=3, of=of, transport=FRAGMENTS)
    headers = 28 + ETHERNET_BYTES
    sizes = [220 + headers, 220 + headers, 28 + 446 - 384 + headers]
    assert list(observed.link_log["size_bytes"]) == sizes * 3
    assert list(np.diff(observed.sent_packets["send_ns"][:3])) == [MS, MS]
    _, frames = judged(observed, of.facts)
    assert set(frames["kind"]) == {"decoded"}
    ip_bits = 8 * (sum(sizes) - 3 * ETHERNET_BYTES)
    assert round(ip_bits / (of.facts.frame_samples / 24_000) / 1000, 1) == 19.8


def test_5_percent_of_the_packets_lost_are_14_percent_of_the_chunks() -> None:
    chunks = 4_000
    observed = streamed(
        Link(delay_ns=20 * MS, loss=Bernoulli(0.05)), chunks, of=Chunks(), transport=FRAGMENTS
    )
    packets, frames = judged(observed, FACTS)
    assert len(packets["fate"]) == 3 * chunks
    for lost, expected, draws in (
        (packets["fate"] == "lost", 0.05, 3 * chunks),
        (frames["kind"] == "silence", 1 - 0.95**3, chunks),
    ):
        interval = 4 * np.sqrt(expected * (1 - expected) / draws)
        assert abs(lost.mean() - expected) < interval
    # Who loses a third of a chunk threw the other two away.
    assert (packets["fate"] == "incomplete").sum() > (packets["fate"] == "lost").sum()


def test_sixteen_chunks_begin_to_play_at_the_fourth() -> None:
    old = ReceiverSettings(start_ns=1000 * MS, max_ns=4000 * MS)
    _, frames = judged(streamed(frames=8, of=Chunks(), transport=FRAGMENTS, receiver=old), FACTS)
    # The chunk, its fragments, three chunks more, the device; and the 60 samples of the crossfade.
    expected_ms = 247.5 + 2 + 1000 + 10 + 2.5
    assert set(frames["mouth_to_ear_ns"]) == {int(expected_ms * MS)}


def test_an_aac_block_is_one_datagram_in_ip_fragments_that_all_have_to_come() -> None:
    of = codec("aac-blocks")
    sent = streamed(frames=3, of=of, transport=BLOCKS)
    counts = [len(wire_sizes(int(size))) for size in sent.sent_packets["size_bytes"]]
    assert list(sent.sent_packets["fragments"]) == [1, 1, 1], "for the program it is one"
    assert all(count >= 6 for count in counts)
    assert sent.sender["ip_fragments"] == sum(counts) == len(sent.link_log["size_bytes"])
    last_of_second = [0] * 100
    last_of_second[counts[0] + counts[1] - 1] = 1
    lossy = Link(loss=LossTrace(tuple(last_of_second)))
    packets, frames = judged(streamed(lossy, 3, of=of, transport=BLOCKS), of.facts)
    assert list(packets["fate"]) == ["played", "lost", "played"]
    assert list(frames["kind"] == "decoded") == [True, False, True]


def test_an_aac_block_decodes_to_17408_samples_for_16384() -> None:
    of = codec("aac-blocks")
    payload = of.encoder().encode(np.zeros(16_384, np.int16))
    assert payload is not None
    assert aac_blocks.decoded_samples(payload) == 17_408

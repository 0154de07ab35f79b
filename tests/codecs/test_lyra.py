"""Lyra V2 with its real weights; skipped where neither cache, mirror nor network has them."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from codec_signals import frames, lag, payloads, speech_like
from pesq import pesq
from pystoi import stoi

from harness import assets, codecs
from harness.assets import AssetStore, manifest
from harness.codecs.base import Codec, Pcm
from harness.codecs.lyra import Params, pack, required_assets, unpack
from harness.errors import AssetError, Unsupported
from tests.conftest import real_weights

SIZES = {"3.2kbit": 8, "6kbit": 15, "9.2kbit": 23}
RATE_HZ, SIZE = 16_000, 320


@pytest.fixture(scope="module")
def weights() -> dict[str, Path]:
    pytest.importorskip("ai_edge_litert", reason="needs pip install ai-edge-litert")
    return {name: real_weights(name) for name in required_assets(Params())}


@pytest.fixture(scope="module")
def utterance() -> Pcm:
    """A woman reading, 8.2 s, at -26 dBov, whole frames of it."""
    (item,) = (i for i in manifest.corpora()["librispeech"].items if i.id == "3080-5032-0005")
    try:
        prepared = assets.prepare(item, AssetStore.default())
    except AssetError as error:
        pytest.skip(str(error))
    pcm = assets.resampled(prepared, RATE_HZ)
    return pcm[: len(pcm) // SIZE * SIZE]


def lyra(weights: dict[str, Path], bitrate: str = "9.2kbit") -> Codec:
    return codecs.create("lyra", Params.model_validate({"bitrate": bitrate}), weights)


def played(codec: Codec, coded: list[bytes], lost: frozenset[int] = frozenset()) -> list[Pcm]:
    decoder = codec.decoder()
    heard = [
        decoder.conceal() if number in lost else decoder.decode(payload)
        for number, payload in enumerate(coded)
    ]
    return [frame for frame in heard if frame is not None]


def coded(codec: Codec, pcm: Pcm) -> list[bytes]:
    return [payload for payload in payloads(codec, pcm) if payload is not None]


def scores(reference: Pcm, heard: list[Pcm]) -> tuple[float, float]:
    track = np.concatenate(heard)
    return (
        pesq(RATE_HZ, reference, track, "wb"),
        float(stoi(reference / 32768, track / 32768, RATE_HZ)),
    )


@pytest.mark.parametrize("size", SIZES.values())
def test_payloads_hold_two_codes_a_byte(size: int) -> None:
    codes = [number * 7 % 16 for number in range(2 * size)]
    assert len(pack(codes)) == size
    assert unpack(pack(codes)) == tuple(codes)
    assert pack(codes)[0] == codes[0] << 4 | codes[1]


@pytest.mark.parametrize("size", [0, 7, 9, 22, 24])
def test_payloads_of_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="expected one of 8, 15, 23"):
        unpack(bytes(size))


@pytest.mark.parametrize(
    ("bitrate", "pesq_wb", "intelligible"),
    [("3.2kbit", 2.41, 0.902), ("6kbit", 2.93, 0.936), ("9.2kbit", 3.12, 0.946)],
)
def test_an_utterance_scores_what_it_should(
    weights: dict[str, Path], utterance: Pcm, bitrate: str, pesq_wb: float, intelligible: float
) -> None:
    """As measured once; another CPU rounds otherwise, and may choose another code here or there."""
    codec = lyra(weights, bitrate)
    stream = coded(codec, utterance)
    assert {len(payload) for payload in stream} == {SIZES[bitrate]}
    heard = played(codec, stream)
    assert lag(np.concatenate(heard), utterance) == codec.facts.delay_samples == 0
    found = scores(utterance, heard)
    assert found[0] == pytest.approx(pesq_wb, abs=0.1)
    assert found[1] == pytest.approx(intelligible, abs=0.01)


def test_repeated_features_are_better_than_silence(
    weights: dict[str, Path], utterance: Pcm
) -> None:
    codec = lyra(weights)
    stream = coded(codec, utterance)
    lost = frozenset(range(20, len(stream), 15))
    heard = played(codec, stream, lost)
    holed = [frame * (number not in lost) for number, frame in enumerate(heard)]
    concealed, silent = scores(utterance, heard), scores(utterance, holed)
    assert concealed[0] > silent[0] + 0.4
    assert concealed[1] > silent[1] + 0.01


def test_a_long_gap_falls_silent(weights: dict[str, Path], utterance: Pcm) -> None:
    codec = lyra(weights)
    stream = coded(codec, utterance[150 * SIZE : 250 * SIZE])
    heard = played(codec, stream, frozenset(range(50, 90)))
    levels = [float(np.sqrt(np.mean(np.square(frame, dtype=float)))) for frame in heard]
    assert min(levels[50:54]) > 1000  # 80 ms at the level of the speech before
    assert max(levels[56:90]) < 20


def test_a_loss_is_forgotten(weights: dict[str, Path], utterance: Pcm) -> None:
    codec = lyra(weights)
    stream = coded(codec, utterance[150 * SIZE : 250 * SIZE])
    whole = played(codec, stream)
    holed = played(codec, stream, frozenset({50, 51}))
    wrong = [
        n for n, pair in enumerate(zip(whole, holed, strict=True)) if (pair[0] != pair[1]).any()
    ]
    assert wrong[:3] == [50, 51, 52]
    assert wrong[-1] < 50 + 30


def test_the_bitrate_changes_from_frame_to_frame(weights: dict[str, Path], utterance: Pcm) -> None:
    """The quantisers are residual: a lower rate is a higher one's codes cut off."""
    codec = lyra(weights)
    steady, changing = codec.encoder(), codec.encoder()
    decoder = codec.decoder()
    asked = [9_200, 1, 4_700, 5_000, 7_700, 1_000_000]
    answered = []
    for number, frame in enumerate(frames(utterance, codec)[100:160]):
        bps = asked[number % len(asked)]
        answered.append(changing.set_bitrate(bps))  # type: ignore[attr-defined]
        best, payload = steady.encode(frame), changing.encode(frame)
        assert best is not None
        assert payload is not None
        assert payload == best[: len(payload)]
        assert 8 * len(payload) * 50 == answered[-1]
        assert decoder.decode(payload).shape == (SIZE,)
    assert answered[:6] == [9_200, 3_200, 6_000, 6_000, 9_200, 9_200]
    low, high = codec.facts.bitrate_range_bps or (0, 0)
    assert (min(answered), max(answered)) == (low, high)


def test_a_change_of_a_sample_is_heard_in_its_frame(weights: dict[str, Path]) -> None:
    """Causal, and without delay: what differs from frame 20 on is heard from frame 20 on."""
    codec = lyra(weights)
    calm = speech_like(RATE_HZ, 0.6)
    other = calm.copy()
    other[20 * SIZE :] = 20_000
    one, two = (played(codec, coded(codec, pcm)) for pcm in (calm, other))
    differing = [(a != b).any() for a, b in zip(one, two, strict=True)]
    assert differing.index(True) == 20


@pytest.mark.parametrize("damage", ["empty", "garbage", "truncated"])
def test_damaged_weights_are_named(weights: dict[str, Path], damage: str, tmp_path: Path) -> None:
    whole = weights["lyra-v2-decoder"].read_bytes()
    content = {"empty": b"", "garbage": b"no model" * 99, "truncated": whole[: len(whole) // 2]}
    path = tmp_path / "damaged.tflite"
    path.write_bytes(content[damage])
    with pytest.raises(AssetError, match=r"lyra-v2-decoder: expected a TFLite model in .*damaged"):
        lyra({**weights, "lyra-v2-decoder": path})


def test_another_network_is_told_apart(weights: dict[str, Path]) -> None:
    names = required_assets(Params())
    for one, other in pairwise([*names, names[0]]):
        with pytest.raises(AssetError, match=f"{one}: expected a network with the signatures"):
            lyra({**weights, one: weights[other]})


def test_missing_weights_are_named() -> None:
    pytest.importorskip("ai_edge_litert", reason="needs pip install ai-edge-litert")
    with pytest.raises(AssetError, match="Lyra needs the asset 'lyra-v2-encoder'"):
        lyra({})


def test_without_the_library_it_is_unsupported(
    weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(Unsupported, match="pip install ai-edge-litert"):
        lyra(weights)


def test_a_bitrate_that_lyra_does_not_have_is_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"expected one of 3\.2kbit, 6kbit, 9\.2kbit, got 8kbit"):
        Params.model_validate({"bitrate": "8kbit"})

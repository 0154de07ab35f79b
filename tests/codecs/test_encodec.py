"""EnCodec streamed against the ``encodec`` package's own offline coding."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from codec_settings import make
from codec_signals import frames, speech_like
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from harness.codecs import encodec
from harness.codecs.base import Pcm
from harness.errors import AssetError

PRIMING = 7
BITRATES = {"1.5kbit": 2, "3kbit": 4, "6kbit": 8, "12kbit": 16, "24kbit": 32}


@pytest.fixture(scope="module")
def offline() -> Iterator[Any]:
    with torch.inference_mode():
        yield encodec.offline_model(None)


def _with_silence(pcm: Pcm) -> torch.Tensor:
    """The offline input that a stream of ``pcm`` equals: seven silent frames come first."""
    samples = np.concatenate([np.zeros(PRIMING * 320, np.int16), pcm])
    return torch.from_numpy(samples.astype(np.float32) / np.float32(32768))[None, None]


def _streamed_codes(bitrate: str, pcm: Pcm) -> NDArray[np.int64]:
    codec = make("encodec", weights="random", bitrate=bitrate)
    encoder = codec.encoder()
    payloads = [encoder.encode(frame) for frame in frames(pcm, codec)]
    return np.array([encodec.unpack(p or b"", BITRATES[bitrate]) for p in payloads])


def _ties(streamed: NDArray[np.int64], wanted: NDArray[np.int64], latents: Any, model: Any) -> int:
    """Frames whose codes differ; fails unless each does so from a tie on.

    Where two vectors of a codebook are equally near to within the rounding of 32-bit floats,
    which of them wins depends on the order of additions, and the codebooks after that one code
    another residual. Distances are taken in 64 bits.
    """
    vectors = [layer.codebook.double() for layer in model.quantizer.vq.layers]
    apart = np.flatnonzero((streamed != wanted).any(1))
    for frame in apart:
        stage = int(np.flatnonzero(streamed[frame] != wanted[frame])[0])
        residual = latents[:, frame].double()
        for depth in range(stage):
            residual = residual - vectors[depth][wanted[frame, depth]]
        near = [
            float((residual - vectors[stage][codes[frame, stage]]).square().sum())
            for codes in (streamed, wanted)
        ]
        assert near[0] == pytest.approx(near[1], rel=1e-5)
    return len(apart)


@pytest.fixture(scope="module")
def latents(offline: Any) -> torch.Tensor:
    """What the package's encoder makes of 20 s offline, shape (1, 128, 7 + 1500)."""
    latents: torch.Tensor = offline.encoder(_with_silence(speech_like(24_000, 20)))
    return latents


def _check_codes(bitrate: str, seconds: int, offline: Any, latents: torch.Tensor) -> None:
    streamed = _streamed_codes(bitrate, speech_like(24_000, 20)[: 24_000 * seconds])
    bandwidth = float(bitrate.removesuffix("kbit"))
    codes = offline.quantizer.encode(latents, offline.frame_rate, bandwidth)
    wanted = codes[:, 0, PRIMING:].T.numpy()[: 75 * seconds]
    assert streamed.shape == wanted.shape == (75 * seconds, BITRATES[bitrate])
    assert len(np.unique(wanted[:, 0])) > 20  # the signal does exercise the codebooks
    ties = _ties(streamed, wanted, latents[0, :, PRIMING:], offline)
    assert ties <= 0.002 * len(wanted)


@pytest.mark.parametrize("bitrate", ["3kbit", "12kbit"])
def test_streamed_codes_equal_offline_codes(
    bitrate: str, offline: Any, latents: torch.Tensor
) -> None:
    _check_codes(bitrate, 2, offline, latents)


@pytest.mark.slow
@pytest.mark.parametrize("bitrate", ["1.5kbit", "6kbit", "24kbit"])
def test_streamed_codes_equal_offline_codes_over_20_s(
    bitrate: str, offline: Any, latents: torch.Tensor
) -> None:
    _check_codes(bitrate, 20, offline, latents)


def test_the_offline_codes_are_those_of_the_packages_own_encode(offline: Any) -> None:
    """The tests above share one run of the package's encoder among bitrates; so does it."""
    samples = _with_silence(speech_like(24_000, 1))
    offline.set_target_bandwidth(6.0)
    ((codes, scale),) = offline.encode(samples)
    assert scale is None
    shared = offline.quantizer.encode(offline.encoder(samples), offline.frame_rate, 6.0)
    assert torch.equal(codes, shared.transpose(0, 1))


@pytest.mark.parametrize("bitrate", ["1.5kbit", "24kbit"])
def test_streamed_audio_equals_offline_audio(bitrate: str, offline: Any) -> None:
    """Within 1e-6 of full scale before, and half a step after rounding to 16 bits."""
    pcm = speech_like(24_000, 2)
    streamed = _streamed_codes(bitrate, pcm)
    offline.set_target_bandwidth(float(bitrate.removesuffix("kbit")))
    ((silence, _),) = offline.encode(_with_silence(np.zeros(320, np.int16)))
    codes = torch.cat([silence[..., :PRIMING], torch.from_numpy(streamed.T)[None]], 2)
    wanted = offline.decode([(codes, None)])[0, 0, PRIMING * 320 :].numpy()
    assert np.std(wanted) > 0.01

    codec = make("encodec", weights="random", bitrate=bitrate)
    layers = codec.primed_decoder.fork()  # type: ignore[attr-defined]
    heard = torch.cat([layers(codec.quantizer.decode([tuple(f)])) for f in streamed])  # type: ignore[attr-defined]
    np.testing.assert_allclose(heard[:, 0].numpy(), wanted, atol=1e-6)

    decoder = codec.decoder()
    rounded = np.concatenate([decoder.decode(encodec.pack([int(c) for c in f])) for f in streamed])
    np.testing.assert_allclose(rounded, np.clip(wanted * 32768, -32768, 32767), atol=0.51)


@pytest.mark.parametrize(("bitrate", "codebooks"), BITRATES.items())
def test_payload_sizes(bitrate: str, codebooks: int) -> None:
    codec = make("encodec", weights="random", bitrate=bitrate)
    payload = codec.encoder().encode(np.zeros(320, np.int16))
    assert payload is not None
    assert len(payload) == -(-codebooks * 10 // 8)
    assert codec.facts.weights == "random"


@given(st.lists(st.integers(0, 1023), min_size=1, max_size=32))
def test_packing_is_reversible(codes: list[int]) -> None:
    assert list(encodec.unpack(encodec.pack(codes), len(codes))) == codes


def test_packing_order_and_padding() -> None:
    assert encodec.pack([1023, 0]) == bytes([0b11111111, 0b11000000, 0])
    with pytest.raises(ValueError, match="padding bits"):
        encodec.unpack(b"\x00\x00\x01", 2)


def test_concealment_repeats_then_falls_silent_and_decoding_goes_on() -> None:
    codec = make("encodec", weights="random")
    pcm = speech_like(24_000, 0.8)
    encoder = codec.encoder()
    coded = [encoder.encode(frame) or b"" for frame in frames(pcm, codec)]
    decoder, silent = codec.decoder(), codec.decoder()
    for payload in coded:
        decoder.decode(payload)
    apart = []
    for _ in range(40):
        heard, resting = decoder.conceal(), silent.conceal()
        assert heard is not None
        assert resting is not None
        apart.append(np.abs(heard.astype(int) - resting).mean())
    assert np.mean(apart[-5:]) < 0.1 * np.mean(apart[:3])


def test_random_weights_are_the_same_every_time() -> None:
    first = encodec.offline_model(None).state_dict()
    second = encodec.offline_model(None).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_making_a_model_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    encodec.offline_model(None)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A file with the real checkpoint's keys and shapes."""
    with pytest.warns(FutureWarning):
        model = encodec.package().EncodecModel.encodec_model_24khz(pretrained=False)
    path = tmp_path / "weights.th"
    torch.save(model.state_dict(), path)
    return path


def test_weights_are_read_from_the_asset(checkpoint: Path) -> None:
    params = encodec.Params(weights="real")
    assert encodec.required_assets(params) == ("encodec-24khz",)
    codec = encodec.create(params, {"encodec-24khz": checkpoint})
    assert codec.facts.weights == "real"
    stored = torch.load(checkpoint, weights_only=True)
    name = "quantizer.vq.layers.3._codebook.embed"
    assert torch.equal(encodec.offline_model(checkpoint).state_dict()[name], stored[name])


def test_wrong_weights_are_named(checkpoint: Path) -> None:
    state = torch.load(checkpoint, weights_only=True)
    state["surplus"] = state.pop("encoder.model.0.conv.conv.bias")
    torch.save(state, checkpoint)
    with pytest.raises(
        AssetError, match=r"missing encoder\.model\.0\.conv\.conv\.bias, unexpected surplus"
    ):
        encodec.create(encodec.Params(), {"encodec-24khz": checkpoint})


class Attack:
    """Pickled, it would run a command when read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("import harness; harness.attacked = True",))


def test_pickled_objects_are_never_executed(tmp_path: Path) -> None:
    path = tmp_path / "attack.th"
    torch.save({"encoder": Attack()}, path)
    with pytest.raises(AssetError, match=r"attack\.th: not an EnCodec checkpoint"):
        encodec.create(encodec.Params(), {"encodec-24khz": path})
    assert not hasattr(sys.modules["harness"], "attacked")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off"])
def test_damaged_weights_are_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.th"
    path.write_bytes(content)
    with pytest.raises(AssetError, match=r"weights\.th: not an EnCodec checkpoint"):
        encodec.create(encodec.Params(), {"encodec-24khz": path})


def test_real_weights_need_the_asset() -> None:
    with pytest.raises(AssetError, match="needs the asset 'encodec-24khz'"):
        encodec.create(encodec.Params(), {})


def test_random_weights_need_none() -> None:
    assert encodec.required_assets(encodec.Params(weights="random")) == ()

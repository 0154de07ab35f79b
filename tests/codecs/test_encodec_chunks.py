"""EnCodec in stateless chunks, both models, against the ``encodec`` package's own calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from codec_signals import frames, payloads, round_trip, speech_like
from numpy.typing import NDArray

from harness.codecs import encodec, encodec_48k, encodec_chunks
from harness.codecs.base import Pcm
from harness.codecs.chunked import AdjustableChunkEncoder, ChunkedCodec
from harness.errors import AssetError

encodec.ready()


@cache
def _codec(**written: Any) -> ChunkedCodec:
    return encodec_chunks.create(encodec_chunks.Params(weights="random", **written), {})


@cache
def _codec_48k(**written: Any) -> ChunkedCodec:
    return encodec_48k.create(encodec_48k.Params(weights="random", **written), {})


@cache
def _package_model() -> Any:
    """The package's 24 kHz model with our random weights, under the name that it publishes."""
    model = encodec.offline_model(None)
    model.name = "encodec_24khz"
    return model


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def _float(pcm: Pcm) -> torch.Tensor:
    return torch.from_numpy(pcm.astype(np.float32) / np.float32(32768))


def _decoded(payload: bytes, codec: ChunkedCodec) -> NDArray[np.float32]:
    return codec.model.decode(payload)


def test_a_chunk_of_6000_samples_at_12_kbit_is_446_bytes() -> None:
    """With 192 bytes in a packet, three fragments; 66 of the bytes are the container's header."""
    codec = _codec()
    payload = codec.encoder().encode(speech_like(24_000, 0.25))
    assert len(payload) == 446
    assert -(-len(payload) // 192) == 3
    assert payload[:9] == b"ECDC\0\0\0\0\x39"
    assert payload[9:66] == b'{"m": "encodec_24khz", "al": 6000, "nc": 16, "lm": false}'
    assert codec.facts.algorithmic_delay_ns == 250_000_000
    # 19 frames of 320 samples for 18.75: a little more than the bitrate asked for.
    assert codec.facts.nominal_bitrate_bps == 12_160


def _compress(pcm: Pcm, *, use_lm: bool) -> bytes:
    from encodec.compress import compress

    _package_model().set_target_bandwidth(12)
    compressed: bytes = compress(_package_model(), _float(pcm)[None], use_lm=use_lm)
    return compressed


def test_a_payload_is_what_the_package_compresses_to() -> None:
    pcm = speech_like(24_000, 0.25)
    assert _codec().encoder().encode(pcm) == _compress(pcm, use_lm=False)


def test_raw_framing_leaves_the_header_out() -> None:
    pcm = speech_like(24_000, 0.25)
    assert _codec(framing="raw").encoder().encode(pcm) == _compress(pcm, use_lm=False)[66:]


def test_a_chunk_decodes_to_what_the_package_makes_of_its_codes() -> None:
    pcm = speech_like(24_000, 0.25)
    codec = _codec()
    _package_model().set_target_bandwidth(12)
    wanted = _package_model()(_float(pcm)[None, None])[0, 0].numpy()
    assert np.std(wanted) > 0.01
    heard = _decoded(codec.encoder().encode(pcm), codec)
    np.testing.assert_allclose(heard, wanted, atol=1e-6)


def test_a_stream_is_the_packages_chunks_crossfaded_at_the_declared_delay() -> None:
    codec = _codec(chunk=1280, overlap=320, boundary="linear")
    pcm = speech_like(24_000, 0.24)
    heard = round_trip(codec, pcm)
    padded = _float(np.concatenate([np.zeros(320, np.int16), pcm]))
    _package_model().set_target_bandwidth(12)
    wanted = np.zeros(len(padded))
    rise = np.arange(1, 321) / 321
    for start in range(0, len(pcm) - 960 + 1, 960):
        chunk = _package_model()(padded[None, None, start : start + 1280])[0, 0].numpy()
        gain = np.ones(1280)
        gain[:320] = rise if start else 1
        gain[-320:] = 1 - rise
        wanted[start : start + 1280] += gain * chunk
    # ``wanted`` begins 320 samples, which is D, before the stream: so does what is heard.
    assert codec.facts.delay_samples == 320
    whole = len(heard)
    np.testing.assert_allclose(heard, wanted[:whole] * 32768, atol=0.6)


def test_the_48_khz_model_equals_the_packages_own_segments_and_overlap() -> None:
    """The package crossfades its own segments by 1 %; both channels carry the mono input."""
    codec = _codec_48k(chunk=4800, overlap="1%", bitrate="12kbit")
    assert codec.facts.delay_samples == 48
    pcm = speech_like(48_000, 0.4)[: 4 * 4752]
    heard = round_trip(codec, pcm)
    model = encodec.offline_model(None, "48khz")
    model.segment = 0.1
    model.set_target_bandwidth(12)
    stream = _float(np.concatenate([np.zeros(48, np.int16), pcm])).expand(1, 2, -1)
    wanted = model(stream)[0].mean(0).numpy()[: len(heard)]
    assert np.std(wanted) > 0.01
    np.testing.assert_allclose(heard, np.clip(wanted * 32768, -32768, 32767), atol=0.6)


def test_the_published_48_khz_chunk_is_a_second_of_latency() -> None:
    facts = _codec_48k().facts
    assert (facts.sample_rate_hz, facts.frame_samples, facts.delay_samples) == (48_000, 47_520, 480)
    assert facts.algorithmic_delay_ns == 1_000_000_000


def test_a_louder_chunk_has_the_same_codes_and_another_level() -> None:
    model = _codec_48k(chunk=3200, framing="raw").model
    samples = speech_like(48_000, 0.1)[:3200].astype(np.float32) / np.float32(65536)
    quiet, loud = model.encode(samples), model.encode(samples + samples)
    assert quiet[4:] == loud[4:]
    np.testing.assert_allclose(model.decode(loud), 2 * model.decode(quiet), rtol=1e-5)


def test_silence_is_coded() -> None:
    codec = _codec_48k(chunk=3200, framing="raw")
    assert not codec.decoder().decode(codec.model.encode(np.zeros(3200, np.float32))).any()


@pytest.mark.parametrize("framing", ["ecdc", "raw"])
def test_the_language_model_changes_bits_and_not_audio(framing: str) -> None:
    plain = _codec(chunk=960, framing=framing)
    entropy_coded = _codec(chunk=960, framing=framing, lm=True)
    pcm = speech_like(24_000, 0.04)
    one, two = plain.encoder().encode(pcm), entropy_coded.encoder().encode(pcm)
    assert one != two
    np.testing.assert_array_equal(_decoded(one, plain), _decoded(two, entropy_coded))


def test_the_language_models_bits_are_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the four bytes that name the arithmetic: the package would download its LM."""
    codec = _codec(chunk=960, lm=True)
    monkeypatch.setattr(_package_model(), "get_lm_model", lambda: codec.model.lm, raising=False)  # type: ignore[attr-defined]
    pcm = speech_like(24_000, 0.04)
    wanted = _compress(pcm, use_lm=True)
    payload = codec.encoder().encode(pcm)
    head = wanted.index(b"}") + 1
    assert payload[:head] == wanted[:head]
    assert payload[head + 4 :] == wanted[head:]


def test_the_language_model_forgets_from_chunk_to_chunk() -> None:
    """So a lost chunk costs no other, and chunks decode in any order."""
    codec = _codec(chunk=960, lm=True)
    coded = [p for p in payloads(codec, speech_like(24_000, 0.12)) if p is not None]
    assert len(set(coded)) == 3
    forward = [_decoded(p, codec) for p in coded]
    backward = [_decoded(p, codec) for p in reversed(coded)]
    for one, two in zip(forward, reversed(backward), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("framing", ["ecdc", "raw"])
def test_a_peer_with_another_number_of_threads_is_refused(framing: str) -> None:
    codec = _codec(chunk=960, lm=True, framing=framing)
    payload = codec.encoder().encode(speech_like(24_000, 0.04))
    torch.set_num_threads(2)
    try:
        with pytest.raises(ValueError, match=r"another arithmetic.*2 thread.*or set lm: false"):
            codec.decoder().decode(payload)
    finally:
        torch.set_num_threads(1)
    codec.decoder().decode(payload)
    assert encodec_chunks.arithmetic() in codec.facts.library


def test_codes_that_end_too_early_are_refused() -> None:
    codec = _codec(chunk=960, lm=True)
    payload = codec.encoder().encode(speech_like(24_000, 0.04))
    with pytest.raises(ValueError, match="cut off"):
        codec.decoder().decode(payload[:-8])


def test_a_chunk_of_another_length_is_refused() -> None:
    payload = _codec(chunk=960).encoder().encode(np.zeros(960, np.int16))
    with pytest.raises(ValueError, match=r"of \d+ bytes: expected one of .* head of 1280 samples"):
        _codec(chunk=1280).decoder().decode(payload)


def test_a_level_that_no_audio_has_is_refused() -> None:
    codec = _codec_48k(chunk=3200, framing="raw")
    payload = codec.encoder().encode(speech_like(48_000, 0.1)[: codec.facts.frame_samples])
    for level in (b"\x7f\xc0\0\0", b"\x40\0\0\0", b"\xbf\0\0\0"):  # NaN, 2, -0.5
        with pytest.raises(ValueError, match="damaged: its level"):
            codec.decoder().decode(level + payload[4:])


@pytest.mark.parametrize("written", [{}, {"framing": "raw"}, {"framing": "raw", "lm": True}])
def test_the_bitrate_changes_in_mid_stream(written: dict[str, Any]) -> None:
    codec = _codec(chunk=960, **written)
    encoder, decoder = codec.encoder(), codec.decoder()
    assert isinstance(encoder, AdjustableChunkEncoder)
    assert codec.facts.bitrate_range_bps == (1_500, 24_000)
    pcm = frames(speech_like(24_000, 0.2), codec)
    used = []
    for frame, asked in zip(pcm, (1_000, 3_100, 100_000, 11_000, 6_000), strict=True):
        used.append(encoder.set_bitrate(asked))
        decoder.decode(encoder.encode(frame))
    assert used == [1_500, 3_000, 24_000, 12_000, 6_000]


@pytest.mark.parametrize(
    ("params", "written", "says"),
    [
        (encodec_chunks.Params, {"chunk": 6720}, "expected 6719 or 6721 samples at 24kHz"),
        (encodec_chunks.Params, {"chunk": 100}, "expected 320 samples"),
        (encodec_chunks.Params, {"chunk": 20, "framing": "raw"}, "expected 320 samples"),
        (encodec_chunks.Params, {"bitrate": "2kbit"}, "1.5kbit, 3kbit, 6kbit, 12kbit, 24kbit"),
        (encodec_48k.Params, {"chunk": "1.5s"}, "expected 48000 samples at 48kHz"),
        (encodec_48k.Params, {"bitrate": "1.5kbit"}, "3kbit, 6kbit, 12kbit, 24kbit"),
    ],
)
def test_illegal_settings(params: Any, written: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        params(**written)


def test_lengths_that_the_package_miscounts_work_without_its_container() -> None:
    codec = _codec(chunk=6720, framing="raw")
    payload = codec.encoder().encode(speech_like(24_000, 0.28))
    assert len(payload) == 21 * 16 * 10 // 8
    assert codec.decoder().decode(payload).shape == (6720,)


@pytest.mark.parametrize(
    ("module", "lm", "needed"),
    [
        (encodec_chunks, False, ("encodec-24khz",)),
        (encodec_chunks, True, ("encodec-24khz", "encodec-lm-24khz")),
        (encodec_48k, False, ("encodec-48khz",)),
        (encodec_48k, True, ("encodec-48khz", "encodec-lm-48khz")),
    ],
)
def test_real_weights_need_their_assets(module: Any, lm: bool, needed: tuple[str, ...]) -> None:
    params = module.Params(lm=lm)
    assert module.required_assets(params) == needed
    assert module.required_assets(module.Params(lm=lm, weights="random")) == ()
    with pytest.raises(AssetError, match=f"needs the asset '{needed[0]}'"):
        module.create(params, {})


def test_real_weights_are_read_from_their_assets(tmp_path: Path) -> None:
    """Files with the published keys and shapes, here of our random weights."""
    lm = _codec(chunk=960, lm=True).model.lm  # type: ignore[attr-defined]
    lm_file = tmp_path / "lm.th"
    torch.save({name: 2 * value for name, value in lm.state_dict().items()}, lm_file)
    model_file = tmp_path / "48khz.th"
    state = encodec.offline_model(None, "48khz").state_dict()
    torch.save({name: value + 1 for name, value in state.items()}, model_file)

    codec = encodec_48k.create(encodec_48k.Params(), {"encodec-48khz": model_file})
    assert codec.facts.weights == "real"
    name = "encoder.model.0.conv.conv.bias"
    assert torch.equal(codec.model.network.state_dict()[name], state[name] + 1)  # type: ignore[attr-defined]
    with pytest.raises(AssetError, match=r"lm\.th: not a checkpoint of EnCodec 48 kHz: missing"):
        encodec_48k.create(encodec_48k.Params(), {"encodec-48khz": lm_file})
    with pytest.raises(AssetError, match=r"48khz\.th: not a.*24khz language model: missing"):
        encodec_chunks._lm(model_file, encodec_chunks.VARIANT)
    loaded = encodec_chunks._lm(lm_file, encodec_chunks.VARIANT)
    assert torch.equal(loaded.state_dict()["linears.3.weight"], 2 * lm.linears[3].weight)


def test_random_language_models_are_the_same_every_time() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    encodec_chunks._lm.cache_clear()
    first = encodec_chunks._lm(None, encodec_chunks.VARIANT).state_dict()
    encodec_chunks._lm.cache_clear()
    second = encodec_chunks._lm(None, encodec_chunks.VARIANT).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), before)


def test_both_ends_of_a_stream_share_no_state() -> None:
    codec = _codec(chunk=1280, overlap=320)
    pcm = frames(speech_like(24_000, 0.2), codec)
    one, two = codec.encoder(), codec.encoder()
    first = one.encode(pcm[0])
    assert one.encode(pcm[1]) != two.encode(pcm[1])  # the overlap is of its own past
    assert two.encode(pcm[0]) != first
    with pytest.raises(dataclasses.FrozenInstanceError):
        codec.model.bitrate_bps = 1  # type: ignore[attr-defined]

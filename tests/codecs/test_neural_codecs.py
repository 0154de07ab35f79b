"""Neural codecs of other people, exercised with seeded random weights of small configurations.

A model whose package this machine lacks is skipped; the reason says how to install it.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from codec_signals import frames, lag, noise_bursts, payloads, round_trip, speech_like
from hypothesis import given
from hypothesis import strategies as st

from harness import codecs
from harness.codecs import dac, esc, mimi, snac, wavtokenizer
from harness.codecs.base import Codec, Pcm
from harness.codecs.models import bits, foreign
from harness.errors import AssetError, HarnessError, Unsupported

CHUNKED: list[tuple[str, dict[str, Any]]] = [
    ("dac", {}),
    ("dac", {"rate": "24kHz", "codebooks": 4, "chunk": 9600, "overlap": 0}),
    ("snac", {}),
    ("esc", {}),
    ("wavtokenizer", {}),
    ("wavtokenizer", {"tokens_per_s": 40, "chunk": "100ms"}),
]


def _make(name: str, **written: Any) -> Codec:
    return codecs.create(name, codecs.params_class(name)(**written), {})


def _random(name: str, **written: Any) -> Codec:
    try:
        return _make(name, weights="random", **written)
    except Unsupported as error:
        pytest.skip(str(error))


def _samples(pcm: Pcm) -> Any:
    return torch.from_numpy(pcm.astype(np.float32) / np.float32(32768))


# Mimi


@pytest.fixture(scope="module")
def offline_mimi() -> Iterator[Any]:
    _random("mimi")
    model = mimi.offline_model(None)
    model.set_num_codebooks(8)
    with mimi.quiet():
        yield model


def _mimi_codes(pcm: Pcm) -> tuple[Codec, bits.Codes]:
    codec = _random("mimi")
    coded = [bits.unpack(p or b"", 8, 11, "frame") for p in payloads(codec, pcm)]
    return codec, np.array(coded)


def test_mimi_streamed_codes_equal_offline_codes(offline_mimi: Any) -> None:
    """Which proves the delay: frame k of the codes is made of input up to frame k, as offline."""
    pcm = speech_like(24_000, 2.4)
    _, streamed = _mimi_codes(pcm)
    wanted = offline_mimi.encode(_samples(pcm)[None, None])[0].T.numpy()
    assert streamed.shape == wanted.shape == (30, 8)
    assert len(np.unique(wanted[:, 0])) > 10  # the signal does exercise the codebooks
    np.testing.assert_array_equal(streamed, wanted)


def test_mimi_streamed_audio_equals_offline_audio(offline_mimi: Any) -> None:
    codec, streamed = _mimi_codes(speech_like(24_000, 1.6))
    wanted = offline_mimi.decode(torch.from_numpy(streamed.T.copy())[None])[0, 0].numpy()
    decoder = codec.decoder()
    heard = np.concatenate([decoder.decode(bits.pack(codes, 11)) for codes in streamed])
    assert heard.shape == wanted.shape
    assert np.std(wanted) > 0.01
    np.testing.assert_allclose(heard, np.clip(wanted * 32768, -32768, 32767), atol=0.55)


def test_mimi_has_the_rate_that_it_is_known_for() -> None:
    codec = _random("mimi")
    assert codec.facts.frame_ns == 80_000_000
    assert codec.facts.nominal_bitrate_bps == 1_100
    assert {len(p or b"") for p in payloads(codec, speech_like(24_000, 0.4))} == {11}
    assert _random("mimi", codebooks=32).facts.nominal_bitrate_bps == 4_400


def test_mimi_streams_of_other_rates_share_the_model() -> None:
    """The number of codebooks is the stream's, not the model's."""
    one, two = _random("mimi", codebooks=3), _random("mimi", codebooks=8)
    pcm = speech_like(24_000, 0.4)
    alone = payloads(one, pcm)
    encoders = one.encoder(), two.encoder()
    together = [(encoders[0].encode(f), encoders[1].encode(f)) for f in frames(pcm, one)]
    assert [first for first, _ in together] == alone
    assert {len(second or b"") for _, second in together} == {11}


def test_mimi_concealment_goes_on_to_silence() -> None:
    codec, coded = _mimi_codes(speech_like(24_000, 0.8))
    decoder, resting = codec.decoder(), codec.decoder()
    for codes in coded:
        decoder.decode(bits.pack(codes, 11))
    apart = []
    for _ in range(12):
        heard, silent = decoder.conceal(), resting.conceal()
        assert heard is not None
        assert silent is not None
        apart.append(np.abs(heard.astype(int) - silent).mean())
    assert np.mean(apart[-3:]) < 0.2 * apart[0]


# Models in chunks


@pytest.mark.parametrize(("name", "written"), CHUNKED)
def test_a_chunk_is_heard_where_it_was_spoken(name: str, written: dict[str, Any]) -> None:
    """A change of one code in the middle of a chunk moves the output about that code's samples."""
    codec: Any = _random(name, **written)
    model = codec.model
    codes = model.codes(model.encode(speech_like(24_000, 2)[: model.chunk_samples] / 32768))
    step = model.steps // 2
    other = codes.copy()
    other[:, step] = (other[:, step] + 1) % (1 << model.code_bits)
    moved = np.abs(model.tokeniser.decode(codes) - model.tokeniser.decode(other)) ** 2
    centre = float((moved * np.arange(len(moved))).sum() / moved.sum())
    hop = model.padded_samples / model.steps
    assert centre == pytest.approx((step + 0.5) * hop, abs=hop / 2)


@pytest.mark.parametrize(("name", "written"), CHUNKED)
def test_chunks_are_coded_alone_and_the_same_every_time(name: str, written: dict[str, Any]) -> None:
    codec: Any = _random(name, **written)
    model = codec.model
    chunk = speech_like(24_000, 2)[: model.chunk_samples].astype(np.float32) / 32768
    payload = model.encode(chunk)
    heard = model.decode(payload)
    model.decode(model.encode(-chunk))
    assert model.encode(chunk) == payload
    np.testing.assert_array_equal(model.decode(payload), heard)
    assert len(heard) == model.chunk_samples
    assert np.std(heard) > 1e-3


@pytest.mark.parametrize(
    ("name", "written", "bps"),
    [
        ("dac", {"overlap": 0}, 6_000),
        ("dac", {"overlap": 0, "rate": "24kHz"}, 24_000),
        ("dac", {"overlap": 0, "codebooks": 4}, 2_000),
        ("snac", {"overlap": 0}, 984),
        ("esc", {"overlap": 0, "chunk": 80 * (4 * 50 - 1)}, 9_045),
        ("esc", {"overlap": 0, "num_streams": 1, "chunk": 80 * (4 * 50 - 1)}, 1_507),
        ("wavtokenizer", {}, 900),
        ("wavtokenizer", {"tokens_per_s": 40}, 480),
        ("wavtokenizer", {"chunk": "100ms"}, 960),  # 7.5 tokens are 8
    ],
)
def test_nominal_bitrates(name: str, written: dict[str, Any], bps: int) -> None:
    codec = _random(name, **written)
    assert codec.facts.nominal_bitrate_bps == bps
    first = codec.encoder().encode(np.zeros(codec.facts.frame_samples, np.int16))
    seconds = codec.facts.frame_samples / codec.facts.sample_rate_hz
    assert len(first or b"") == -(-round(bps * seconds) // 8)


@pytest.mark.parametrize("name", ["dac", "esc"])
def test_the_rate_changes_between_chunks(name: str) -> None:
    codec: Any = _random(name)
    low, high = codec.facts.bitrate_range_bps
    encoder, decoder = codec.encoder(), codec.decoder()
    sizes = []
    for frame, asked in zip(
        frames(speech_like(24_000, 5), codec), (high, low, 2 * low), strict=False
    ):
        encoder.set_bitrate(asked)
        payload = encoder.encode(frame)
        sizes.append(len(model_codes := codec.model.codes(payload)))
        assert model_codes.shape[1] == codec.model.steps
        assert len(decoder.decode(payload)) == codec.facts.frame_samples
    least = 3 if name == "esc" else 1
    assert sizes == [len(codec.model.decodable) * least, least, 2 * least]


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("esc", {"framing": "pickled"}),
        ("esc", {"model": "large", "boundary": "average"}),
        ("wavtokenizer", {"framing": "json", "chunk": "100ms"}),
        ("wavtokenizer", {"overlap": "10%"}),
    ],
)
def test_stand_ins_lag_by_the_declared_delay(name: str, written: dict[str, Any]) -> None:
    codec = _random(name, **written)
    pcm = noise_bursts(codec.facts.sample_rate_hz, 5)
    assert lag(round_trip(codec, pcm), pcm) == codec.facts.delay_samples


# DAC's own checkpoints


def _published(model: Any, rate_hz: int) -> dict[str, Any]:
    """The state of ``model`` under its publisher's names, each weight as norm and direction."""
    names = {}
    for old in model.state_dict():
        room, _, rest = old.partition(".")
        if room == "quantizer":
            names[old] = old
            continue
        inside = f"{room}.block" if room == "encoder" else f"{room}.model"
        parts = rest.split(".")
        if parts[0] != "block":
            place = {"conv1": 0, "snake1": 5, "conv2": 6}[parts[0]]
            names[old] = f"{inside}.{place}.{parts[1]}"
            continue
        order = (
            ["res_unit1", "res_unit2", "res_unit3", "snake1", "conv1"]
            if room == "encoder"
            else ["snake1", "conv_t1", "res_unit1", "res_unit2", "res_unit3"]
        )
        steps = [int(parts[1]) + 1, order.index(parts[2])]
        if len(parts) == 5:
            steps.append(["snake1", "conv1", "snake2", "conv2"].index(parts[3]))
        places = ".block.".join(map(str, steps))
        names[old] = f"{inside}.{places}.{parts[-1]}"
    published = {}
    for old, value in model.state_dict().items():
        name = names[old]
        if name.endswith(".weight") and "codebook" not in name:
            norm = value.flatten(1).norm(dim=1).reshape(-1, *[1] * (value.dim() - 1))
            published[f"{name}_g"] = norm
            published[f"{name}_v"] = 3 * value
        else:
            published[name] = value
    return {"state_dict": published, "metadata": {"kwargs": {"sample_rate": rate_hz}}}


def test_dac_reads_its_publishers_checkpoints() -> None:
    _random("dac")
    model = dac.network(16_000, None)
    state = _published(model, 16_000)["state_dict"]
    assert "encoder.block.2.block.0.block.1.weight_g" in state
    renamed = dac.renamed(state, Path("weights.pth"))
    wanted = model.state_dict()
    assert renamed.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(renamed[name], value)
    del state["encoder.block.0.weight_v"]
    with pytest.raises(AssetError, match=r"weights.pth.*block.0.weight_g lacks its weight_v"):
        dac.renamed(state, Path("weights.pth"))


# Weights that are not the model's


@pytest.mark.parametrize("name", ["mimi", "snac", "dac"])
@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("w.pth", {"encoder.x": torch.zeros(1)}, "missing .*unexpected encoder.x"),
        ("w.safetensors", b"\x10\0\0\0\0\0\0\0cut off", "not a checkpoint that can be read"),
        ("w.pth", {"code": slice(3)}, "not a checkpoint that can be read"),
    ],
    ids=["another model's", "truncated", "not only tensors"],
)
def test_wrong_weights_are_named(
    name: str, file: str, content: Any, says: str, tmp_path: Path
) -> None:
    _random(name)
    path = tmp_path / file
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    network = {
        "mimi": mimi.offline_model,
        "snac": snac.network,
        "dac": lambda file: dac.network(16_000, file),
    }[name]
    with pytest.raises(AssetError, match=rf"(?s){path}.*{says}"):
        network(path)


@pytest.mark.parametrize("name", ["mimi", "snac", "dac"])
def test_real_weights_are_assets(name: str) -> None:
    _random(name)
    params = codecs.params_class(name)()
    (asset,) = codecs.module(name).required_assets(params)
    with pytest.raises(AssetError, match=asset):
        codecs.create(name, params, {})


# What older systems sent


def test_an_esc_chunk_is_the_old_systems_pickle_byte_by_byte() -> None:
    """And with its length prefix 7,566 bytes: 67 kbit/s, as that system printed."""
    codec = _random("esc", framing="pickled")
    plain = _random("esc")
    pcm = speech_like(16_000, 4)
    messages = payloads(codec, pcm)
    assert {len(message or b"") + 4 for message in messages} == {7_566}
    assert 7_566 * 8 * 16_000 / codec.facts.frame_samples == pytest.approx(67_253, abs=1)
    for index, (message, payload) in enumerate(zip(messages, payloads(plain, pcm), strict=True)):
        assert message is not None
        codes = bits.unpack(payload or b"", 918, 10, "chunk")
        old = {
            "chunk_idx": index + 1,
            "codes": codes.reshape(1, 6, 3, 51),
            "size": (2, 102),
            "timestamp": index * 0.9,
        }
        assert message == pickle.dumps(old, protocol=4)


@given(
    st.integers(0, 100_000),
    st.sampled_from([1, 3, 6]),
    st.sampled_from([1, 5, 51, 300]),
)
def test_pickled_payloads_of_any_shape_are_read_again(index: int, streams: int, steps: int) -> None:
    codes = np.arange(streams * 3 * steps) * 7 % 1024
    framing = esc.Pickled(steps, 14_400)
    message = framing.wrap(bits.pack(codes, 10), index)
    old = {
        "chunk_idx": index + 1,
        "codes": codes.reshape(1, streams, 3, steps),
        "size": (2, 2 * steps),
        "timestamp": index * 14_400 / 16_000,
    }
    assert message == pickle.dumps(old, protocol=4)
    assert framing.unwrap(message) == bits.pack(codes, 10)


def test_a_pickle_that_this_sender_did_not_write_is_refused() -> None:
    framing = esc.Pickled(51, 14_400)
    message = framing.wrap(bits.pack(np.arange(918), 10), 3)
    assert framing.unwrap(message)
    harmful = pickle.dumps(_Harmful(), protocol=4)
    for foreign_bytes in (
        harmful,
        harmful.ljust(len(message), b"."),
        message[:-1],
        b"",
        message * 2,
    ):
        with pytest.raises(ValueError, match=r"of \d+ bytes"):
            framing.unwrap(foreign_bytes)
    for place in [0, 3, 11, 25, 30, 40, 100, 170, len(message) - 25, len(message) - 1]:
        damaged = bytearray(message)
        damaged[place] ^= 0x55
        if place != 25:  # the chunk's number may be any
            with pytest.raises(ValueError, match=r"of \d+ bytes"):
                framing.unwrap(bytes(damaged))
    for code in (1024, -1):
        codes = np.zeros((1, 6, 3, 51), np.int64)
        codes[0, 2, 1, 7] = code
        old = {"chunk_idx": 1, "codes": codes, "size": (2, 102), "timestamp": 0.0}
        with pytest.raises(ValueError, match=r"a code outside 0\.\.\.1023"):
            framing.unwrap(pickle.dumps(old, protocol=4))


class _Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("the payload was unpickled",)


def test_a_wavtokenizer_message_is_the_old_systems_json() -> None:
    codec = _random("wavtokenizer", framing="json", chunk="100ms")
    messages = payloads(codec, speech_like(24_000, 0.5))
    assert {len(message or b"") for message in messages} == {152}
    third = json.loads(messages[2] or b"")
    assert list(third) == ["id", "details", "timestamp"]
    assert json.dumps(third | {"timestamp": 1}) in (messages[2] or b"").decode().replace(
        "1750000000.200000", "1"
    )


def test_bytes_taken_for_samples_make_the_old_systems_rate() -> None:
    """17.9 kbit/s where 75 tokens of 12 bits a second are 0.9."""
    codec = _random("wavtokenizer", framing="json", chunk="100ms", bytes_as_samples=True)
    messages = payloads(codec, speech_like(24_000, 1))
    rate_bps = 8 * 10 * np.mean([len(message or b"") for message in messages])
    assert rate_bps == pytest.approx(17_920)
    decoder = codec.decoder()
    assert all(len(decoder.decode(message or b"")) == 2_400 for message in messages)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (b"", "of 0 bytes"),
        (b"[" * 5_000, "of 5000 bytes"),
        (b'{"id": "stream1", "details": "A", "timestamp": 1750000000.000000}', "padd|base64"),
        (
            b'{"id": "stream1", "details": "", "timestamp": 1750000000.000000}',
            "of 0 bytes, expected",
        ),
        (
            b'{"id": "stream1", "details": "' + b"/" * 86 + b'==", "timestamp": 1750000000.000000}',
            "outside 0...4095|base64|padd",
        ),
    ],
)
def test_json_that_this_sender_did_not_write_is_refused(message: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=rf"(?i){says}"):
        wavtokenizer.Json(8, 2_400).unwrap(message)


# The user's own models


@pytest.mark.parametrize(
    ("name", "written", "variable"),
    [
        ("esc", {}, "HARNESS_ESC"),
        ("esc", {"model": "large"}, "HARNESS_ESC"),
        ("wavtokenizer", {}, "HARNESS_WAVTOKENIZER"),
    ],
)
def test_a_model_that_the_user_did_not_name_is_unsupported(
    name: str, written: dict[str, Any], variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(Unsupported, match=rf"{variable} to be set.*git clone https://"):
        _make(name, **written)
    monkeypatch.setenv(variable, "/nowhere")
    with pytest.raises(Unsupported, match=r"there is no /nowhere.*git clone https://"):
        _make(name, **written)


ESC_CHECKOUT = """
import torch

class Quantizer:
    num_vqs = 3

class Model(torch.nn.Module):
    def __init__(self, gain):
        super().__init__()
        self.quantizers = [Quantizer()]
        self.gain = torch.nn.Parameter(torch.tensor(float(gain)))

    def encode(self, x, num_streams):
        print("chatter on standard output")
        steps = x.reshape(len(x), -1)[:, 40::320]
        code = (steps * self.gain).round().long()[:, None, None]
        return code.expand(-1, num_streams, 3, -1), (2, 2 * steps.shape[1])

    def decode(self, codes, feat_shape):
        assert feat_shape == (2, 2 * codes.shape[-1])
        return (codes[:, 0, 0] / self.gain).repeat_interleave(320, 1)

def make_model(config, name):
    assert name == "csvq+swinT"
    return Model(**config)
"""
WAVTOKENIZER_CHECKOUT = """
import torch, yaml

class WavTokenizer(torch.nn.Module):
    @classmethod
    def from_hparams0802(cls, path):
        with open(path) as file:
            return cls(yaml.safe_load(file)["hop"])

    def __init__(self, hop):
        super().__init__()
        self.hop = hop
        self.head = torch.nn.Linear(1, 1, bias=False)

    def encode_infer(self, x, bandwidth_id):
        assert x.ndim == 2 and bandwidth_id.tolist() == [0]
        level = x.reshape(len(x), -1, self.hop).mean(2) * 1000 + 2000
        return None, level.round().long()[None]

    def codes_to_features(self, codes):
        return (codes - 2000) / 1000 * self.head.weight

    def decode(self, features, bandwidth_id):
        return features.repeat_interleave(self.hop, 1)
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Checkouts with the interfaces of both models; their weights lie beside them."""
    pytest.importorskip("yaml")
    (tmp_path / "esc").mkdir()
    (tmp_path / "esc" / "models.py").write_text(ESC_CHECKOUT)
    (tmp_path / "decoder").mkdir()
    (tmp_path / "decoder" / "pretrained.py").write_text(WAVTOKENIZER_CHECKOUT)
    (tmp_path / "config.yaml").write_text("{model: {gain: 1}, model_name: csvq+swinT, hop: 320}")
    torch.save({"model_state_dict": {"gain": torch.tensor(100.0)}}, tmp_path / "model.pth")
    state = {"head.weight": torch.ones(1, 1), "discriminator.x": torch.ones(1)}
    torch.save({"state_dict": state}, tmp_path / "small.ckpt")
    monkeypatch.setenv("HARNESS_ESC", str(tmp_path))
    monkeypatch.setenv("HARNESS_WEIGHTS_ESC_BASE", str(tmp_path))
    monkeypatch.setenv("HARNESS_WAVTOKENIZER", str(tmp_path))
    monkeypatch.setenv("HARNESS_WEIGHTS_WAVTOKENIZER_75", str(tmp_path / "small.ckpt"))
    monkeypatch.setenv("HARNESS_ESC_PYTHON", sys.executable)
    foreign.tokeniser.cache_clear()
    return tmp_path


def test_the_users_models_run_in_processes_of_their_own(checkout: Path) -> None:
    for name, weights in (("esc", "model.pth"), ("wavtokenizer", "small.ckpt")):
        codec = _make(name)
        assert codec.facts.weights == "real"
        digest = hashlib.sha256((checkout / weights).read_bytes()).hexdigest()
        assert f"sha256 {digest}" in codec.facts.library
        rate_hz, delay = codec.facts.sample_rate_hz, codec.facts.delay_samples
        level = np.full(3 * rate_hz, 8192, np.int16)
        heard = round_trip(codec, level)
        assert abs(heard[delay + 400 :].astype(int) - 8192).max() < 40
    assert "esc.models" not in sys.modules
    assert "decoder.pretrained" not in sys.modules


@pytest.mark.parametrize(
    ("break_it", "error", "says"),
    [
        (lambda at: (at / "model.pth").write_bytes(b"PK"), AssetError, "model.pth: not a check"),
        (lambda at: (at / "esc" / "models.py").write_text("import nonsense_"), Unsupported, "nons"),
        (
            lambda at: (at / "esc" / "models.py").write_text("import os; os._exit(3)"),
            Unsupported,
            "no answer",
        ),
    ],
    ids=["truncated", "does not import", "dies"],
)
def test_a_users_model_that_fails_says_why(
    break_it: Any, error: type[HarnessError], says: str, checkout: Path
) -> None:
    break_it(checkout)
    with pytest.raises(error, match=says):
        _make("esc")


# Settings


@pytest.mark.parametrize(
    ("name", "written", "says"),
    [
        ("mimi", {"codebooks": 33}, "less than or equal to 32"),
        ("snac", {"chunk": 6000}, "expected 4096 or 6144 samples at 24kHz"),
        ("dac", {"chunk": "50ms"}, "expected 640 or 960 samples at 16kHz"),
        ("dac", {"rate": "44.1kHz"}, "one of 16kHz, 24kHz, got 44.1kHz"),
        ("dac", {"codebooks": 13}, "expected at most 12 at 16kHz, got 13"),
        ("esc", {"num_streams": 7}, "less than or equal to 6"),
        ("esc", {"chunk": 16_100}, "expected 16000 or 16240 samples at 16kHz"),
        ("esc", {"chunk": "10s", "framing": "pickled"}, "at most 8128 codes"),
        ("wavtokenizer", {"tokens_per_s": 50}, "one of 40, 75, got 50"),
        ("wavtokenizer", {"framing": "pickled"}, "'packed' or 'json'"),
    ],
)
def test_illegal_settings(name: str, written: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        codecs.params_class(name)(**written)


@given(st.integers(1, 12), st.data())
def test_codes_of_any_width_are_packed_first_bit_first(width: int, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(0, (1 << width) - 1), min_size=1, max_size=40))
    packed = bits.pack(np.array(values, np.int64), width)
    written = "".join(f"{value:0{width}b}" for value in values)
    assert packed == int(written.ljust(8 * len(packed), "0"), 2).to_bytes(len(packed), "big")
    assert bits.unpack(packed, len(values), width, "codes").tolist() == values

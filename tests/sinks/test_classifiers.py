"""The classifiers that really run: on real speech, and from checkpoints good and bad."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from harness.assets.store import ENV_MIRROR
from harness.errors import AssetError, Unsupported
from harness.sinks.classifiers import silero_vad, wav2vec2_gender
from harness.sinks.listen import as_heard

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def vad() -> silero_vad.SileroVad:
    try:
        return silero_vad.create()
    except Unsupported as error:
        return pytest.skip(str(error))


@pytest.fixture(scope="module")
def speech() -> NDArray[np.int16]:
    folder = os.environ.get(ENV_MIRROR)
    found = sorted(Path(folder or "/nowhere").rglob("*librispeech*/**/*.flac"))
    if not found:
        pytest.skip(f"needs {ENV_MIRROR} set to a folder with LibriSpeech")
    pcm, rate_hz = soundfile.read(found[0], dtype="int16", frames=8 * RATE_HZ)
    assert rate_hz == RATE_HZ
    return pcm


def test_silero_hears_speech_where_it_is(vad: silero_vad.SileroVad, speech: NDArray) -> None:
    audio = as_heard(speech, RATE_HZ)
    windows = audio[: len(audio) // 2048 * 2048].reshape(-1, 2048)
    loud = np.sqrt((windows**2).mean(axis=1)) > 0.03
    labels = np.array(vad.classify(windows)) == "speech"
    assert labels[loud].mean() > 0.8
    noise = np.random.default_rng(1).normal(0, 0.03, windows.shape).astype(np.float32)
    assert vad.classify(noise) == ["none"] * len(noise)


def test_silero_decides_on_each_window_alone(vad: silero_vad.SileroVad) -> None:
    windows = np.random.default_rng(2).normal(0, 0.1, (5, 2048)).astype(np.float32)
    together = vad.probabilities(windows)
    alone = [vad.probabilities(window[np.newaxis])[0] for window in windows]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert len(vad.classify(windows[:, :1000])) == 5, "any length of window will do"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seeded random weights of a small wav2vec2, in the files in which real ones come."""
    pytest.importorskip("transformers", reason="pip install transformers")
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2ForSequenceClassification

    torch.manual_seed(3)
    config = Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_kernel=(10, 8),
        conv_stride=(5, 4),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        classifier_proj_size=8,
        id2label={0: "female", 1: "male"},
        label2id={"female": 0, "male": 1},
    )
    folder = tmp_path_factory.mktemp("wav2vec2")
    Wav2Vec2ForSequenceClassification(config).save_pretrained(folder)
    return folder


def create(folder: Path) -> wav2vec2_gender.Wav2Vec2Gender:
    return wav2vec2_gender.create({wav2vec2_gender.ENVIRONMENT: str(folder)})


def test_wav2vec2_labels_are_the_checkpoints(checkpoint: Path) -> None:
    windows = np.random.default_rng(4).normal(0, 0.1, (3, 2048)).astype(np.float32)
    found = create(checkpoint)
    labels = found.classify(windows)
    assert len(labels) == 3
    assert set(labels) <= {"female", "male"}
    assert found.classify(windows * 0.1) == labels, "loudness is taken off"


def test_wav2vec2_takes_the_names_that_older_checkpoints_have(
    checkpoint: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(checkpoint / "model.safetensors")
    older = {
        key.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for key, value in state.items()
    }
    assert older.keys() != state.keys()
    save_file(older, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    windows = np.random.default_rng(5).normal(0, 0.1, (4, 2048)).astype(np.float32)
    assert create(tmp_path).classify(windows) == create(checkpoint).classify(windows)


def test_wav2vec2_without_a_checkpoint_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"hf download alefiury/.*--local-dir"):
        wav2vec2_gender.create({})
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")  # a pickle is no substitute
    with pytest.raises(Unsupported, match=r"there is no .*model\.safetensors"):
        create(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "other keys", "other model", "no config"])
def test_wav2vec2_refuses_what_is_no_such_checkpoint(
    checkpoint: Path, tmp_path: Path, damage: str
) -> None:
    from safetensors.torch import load_file, save_file

    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    weights = (checkpoint / "model.safetensors").read_bytes()
    model = tmp_path / "model.safetensors"
    model.write_bytes(weights[: len(weights) // 2] if damage == "truncated" else weights)
    if damage == "other keys":
        state = load_file(model)
        state["intruder"] = state.pop("classifier.bias")
        save_file(state, model)
    if damage == "other model":
        config["architectures"] = ["Wav2Vec2ForCTC"]
    text = "{" if damage == "no config" else json.dumps(config)
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(AssetError, match=str(tmp_path)) as caught:
        create(tmp_path)
    if damage == "other keys":
        assert "classifier.bias" in str(caught.value)
        assert "intruder" in str(caught.value)

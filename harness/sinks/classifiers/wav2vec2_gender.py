"""wav2vec2 with a head that tells a speaker's gender, by the user's own checkpoint.

``HARNESS_WAV2VEC2_GENDER`` names a folder with ``config.json`` and ``model.safetensors``, such as
Hugging Face's ``alefiury/wav2vec2-large-xlsr-53-gender-recognition-librispeech``; labels are those
of its configuration. Its publisher states no sha256, so it is not fetched by the harness. Nothing
is unpickled, no code of the checkpoint's is run, nothing is downloaded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import AssetError, Unsupported

ENVIRONMENT = "HARNESS_WAV2VEC2_GENDER"
_ARCHITECTURE = "Wav2Vec2ForSequenceClassification"
_REMEDY = (
    f"export {ENVIRONMENT}=FOLDER with config.json and model.safetensors, such as made by: hf"
    " download alefiury/wav2vec2-large-xlsr-53-gender-recognition-librispeech --local-dir FOLDER"
)
_FLOOR = 1e-7
"""Added to the variance, as the model's feature extractor does."""


def create(environ: Mapping[str, str] = os.environ) -> Wav2Vec2Gender:
    """Raises Unsupported without libraries or weights, AssetError for another model or a damaged
    one."""
    written = environ.get(ENVIRONMENT)
    if not written:
        raise Unsupported(f"expected {ENVIRONMENT} to be set, it is not: {_REMEDY}")
    folder = Path(written)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise Unsupported(f"{ENVIRONMENT}: there is no {folder / name}: {_REMEDY}")
    try:
        import torch
        from transformers import Wav2Vec2Config, Wav2Vec2ForSequenceClassification
    except ImportError as error:
        message = f"wav2vec2-gender needs transformers ({error}): pip install transformers torch"
        raise Unsupported(message) from error
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        written_config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        architectures = written_config.get("architectures")
        config = Wav2Vec2Config.from_dict(written_config)
        model = Wav2Vec2ForSequenceClassification(config)
    except Exception as error:  # whatever a configuration that is none makes of the library
        raise AssetError(f"{folder}: not a configuration of {_ARCHITECTURE}: {error}") from error
    if architectures != [_ARCHITECTURE]:
        raise AssetError(f"{folder}: expected a {_ARCHITECTURE}, got {architectures}")
    try:
        state = load_file(folder / "model.safetensors")
        missing, unexpected = model.load_state_dict(_renamed(state), strict=False)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise AssetError(f"{folder}/model.safetensors: {error}") from error
    if missing or unexpected:
        raise AssetError(
            f"{folder}/model.safetensors: not of a {_ARCHITECTURE} as its config.json says:"
            f" missing {missing[:3] or 'none'}, unexpected {unexpected[:3] or 'none'}"
        )
    torch.set_num_threads(1)
    model.train(False)
    return Wav2Vec2Gender(model)


def _renamed(state: Mapping[str, Any]) -> dict[str, Any]:
    """Weight norm has had two ways of naming its tensors in torch; checkpoints have the older."""
    names = {
        "weight_g": "parametrizations.weight.original0",
        "weight_v": "parametrizations.weight.original1",
    }

    def new(key: str) -> str:
        stem, _, last = key.rpartition(".")
        return f"{stem}.{names.get(last, last)}"

    return {new(key): value for key, value in state.items()}


class Wav2Vec2Gender:
    """Labels are those of the checkpoint."""

    real_time_factor = 3.6
    """Of wav2vec2 large on windows of 128 ms; base takes a fifth of that."""

    def __init__(self, model: Any) -> None:
        import transformers

        self._model = model
        self._labels = {int(key): str(label) for key, label in model.config.id2label.items()}
        self.library = f"transformers {transformers.__version__}"

    def classify(self, windows: NDArray[np.float32]) -> list[str]:
        import torch

        mean = windows.mean(axis=1, keepdims=True)
        spread = np.sqrt(windows.var(axis=1, keepdims=True) + _FLOOR)
        with torch.inference_mode():
            logits = self._model(torch.from_numpy((windows - mean) / spread)).logits
        return [self._labels[index] for index in logits.argmax(dim=-1).tolist()]

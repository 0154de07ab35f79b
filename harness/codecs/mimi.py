"""Mimi (Defossez et al., "Moshi: a speech-text foundation model for real-time dialogue", 2024).

Streamed with the ``moshi`` package's own streaming modules: 24 kHz, frames of 1,920 samples
(80 ms), residual vector quantisation with 2,048 vectors a codebook, 8 codebooks for 1.1 kbit/s. The
model is causal and pads its beginning with zeros, so frame by frame it gives the codes of offline
coding: L = 0, D = 0. (``transformers`` has the model too, but its frame-wise decoding forgets state
at the transposed convolutions.)

A payload is the codes of one frame, 11 bits for each codebook, first codebook first.

``conceal`` feeds the last codes again for one frame, then those of silence, so that every layer
fades by itself and the frames after the gap find a state of the right age. Weights are real (the
asset ``mimi``) or random: a small model of the same frames and codes, seeded, for tests and timing,
and of no use to listen to.
"""

from __future__ import annotations

import copy
import importlib.metadata
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from harness.codecs import base
from harness.codecs.base import CodecFacts, Pcm
from harness.codecs.models import bits, seeded, weights
from harness.codecs.models.bits import Codes
from harness.codecs.models.ready import weights_file

_WEIGHTS = "mimi"
_RATE_HZ = 24_000
_FRAME_SAMPLES = 1_920
_CODE_BITS = 11
_MAX_CODEBOOKS = 32
_REPEATED_FRAMES = 1
_SILENT_FRAMES = 8
_SEED = 20240917
_NEEDED = ("torch", "moshi", "safetensors", "sentencepiece", "huggingface_hub", "einops")
_REMEDY = (
    "pip install torch safetensors sentencepiece sphn huggingface_hub einops tqdm"
    " && pip install --no-deps moshi==0.2.13"
)

ABOUT = base.About(
    title="Mimi (Defossez et al. 2024), frame by frame",
    tier="neural",
    bitrates="137.5 bit/s a codebook, 1-32 codebooks (1.1 kbit at 8)",
    code_licence="MIT",
    weights_licence="CC-BY-4.0",
    remedy=_REMEDY,
)


class Params(base.Params):
    codebooks: Annotated[int, Field(ge=1, le=_MAX_CODEBOOKS)] = 8
    weights: Literal["real", "random"] = "real"


def required_assets(params: Params) -> tuple[str, ...]:
    return (_WEIGHTS,) if params.weights == "real" else ()


def create(params: Params, assets: Mapping[str, Path]) -> MimiCodec:
    """Also sets torch to one thread for the whole process, as frames this small want it.

    Raises Unsupported where a package is missing, AssetError where the weights are not Mimi's.
    """
    file = weights_file("Mimi", _NEEDED, _REMEDY, params.weights, _WEIGHTS, assets)
    import torch

    model = _model(file)
    facts = CodecFacts(
        sample_rate_hz=_RATE_HZ,
        frame_samples=_FRAME_SAMPLES,
        lookahead_frames=0,
        delay_samples=0,
        nominal_bitrate_bps=params.codebooks * _CODE_BITS * _RATE_HZ // _FRAME_SAMPLES,
        library=f"moshi {importlib.metadata.version('moshi')}, torch {torch.__version__}",
        weights=params.weights,
        conceals=True,
    )
    return MimiCodec(facts, model, params.codebooks, _codes_of_silence(model, params.codebooks))


@dataclass(frozen=True)
class MimiCodec:
    facts: CodecFacts
    model: Any
    """The package's ``MimiModel``, shared by all streams; each brings its own state."""
    codebooks: int
    silence: Codes

    def encoder(self) -> MimiEncoder:
        return MimiEncoder(_Stream(self.model, self.codebooks))

    def decoder(self) -> MimiDecoder:
        return MimiDecoder(_Stream(self.model, self.codebooks), self.silence)


class MimiEncoder:
    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    def encode(self, pcm: Pcm) -> bytes:
        return bits.pack(self._stream.encode(pcm), _CODE_BITS)


class MimiDecoder:
    def __init__(self, stream: _Stream, silence: Codes) -> None:
        self._stream = stream
        self._silence = silence
        self._last = silence
        self._concealed_frames = 0

    def decode(self, payload: bytes) -> Pcm:
        self._last = bits.unpack(payload, len(self._silence), _CODE_BITS, "Mimi frame")
        self._concealed_frames = 0
        return self._stream.decode(self._last)

    def conceal(self) -> Pcm:
        self._concealed_frames += 1
        repeats = self._concealed_frames <= _REPEATED_FRAMES
        return self._stream.decode(self._last if repeats else self._silence)

    def recover(self, later_payload: bytes, frames_back: int = 1) -> Pcm | None:  # noqa: ARG002
        return None


class _Stream:
    """One stream's state on the shared model, put in place for each call."""

    def __init__(self, model: Any, codebooks: int) -> None:
        self._model = model
        self._codebooks = codebooks
        with model.streaming(1):
            self._state = model.get_streaming_state()

    def encode(self, pcm: Pcm) -> Codes:
        """Codes of one frame, shape (codebooks,)."""
        import torch

        samples = torch.from_numpy(pcm.astype(np.float32) / np.float32(32768))
        with self._in_place():
            codes: Codes = self._model.encode(samples[None, None])[0, :, 0].numpy()
        return codes

    def decode(self, codes: Codes) -> Pcm:
        """The samples of one frame."""
        import torch

        with self._in_place():
            samples = self._model.decode(torch.from_numpy(codes)[None, :, None])[0, 0]
        pcm: Pcm = (samples * 32768).round_().clamp_(-32768, 32767).to(torch.int16).numpy()
        return pcm

    def _in_place(self) -> AbstractContextManager[ExitStack]:
        stack = quiet()
        self._model.set_num_codebooks(self._codebooks)
        self._model.set_streaming_state(self._state)
        stack.callback(self._model.set_streaming_state, dict.fromkeys(self._state))
        return stack


def quiet() -> ExitStack:
    """Inference without gradients, and without compiling parts of the model on their first call."""
    import torch
    from moshi.utils.compile import no_compile

    stack = ExitStack()
    stack.enter_context(torch.inference_mode())
    stack.enter_context(no_compile())
    return stack


def _codes_of_silence(model: Any, codebooks: int) -> Codes:
    """What the encoder makes of silence, once it has forgotten its beginning."""
    stream = _Stream(model, codebooks)
    silence = np.zeros(_FRAME_SAMPLES, np.int16)
    return [stream.encode(silence) for _ in range(_SILENT_FRAMES)][-1]


@lru_cache(maxsize=1)
def _model(file: Path | None) -> Any:
    model = offline_model(file)
    model.set_num_codebooks(_MAX_CODEBOOKS)
    return model


def offline_model(file: Path | None) -> Any:
    """The package's own ``MimiModel``.

    ``file`` is a verified checkpoint; None makes a small model with weights of a fixed seed. Raises
    AssetError, naming the file, if it is no checkpoint of this model.
    """
    from moshi.models import loaders

    state = weights.read(file) if file else {}
    with seeded.drawn_from(_SEED):
        if file is None:
            model = loaders.get_mimi(None, _small(loaders._mimi_config), num_codebooks=8)
            seeded.enliven(model, gain=0.95)
            _fill_codebooks(model)
        else:
            model = loaders.get_mimi(None, num_codebooks=8)
            weights.fill(model, state, file, "Mimi")
    return model.requires_grad_(False)


def _small(config: Mapping[str, Any]) -> dict[str, Any]:
    """The real model's frames and codes with a fraction of its channels."""
    small: dict[str, Any] = copy.deepcopy(dict(config))
    small["seanet"] |= {"n_filters": 4, "dimension": 32}
    small["quantizer"] |= {"dimension": 8, "input_dimension": 32, "output_dimension": 32}
    small["transformer"] |= {
        "d_model": 32,
        "num_heads": 2,
        "num_layers": 1,
        "dim_feedforward": 64,
        "input_dimension": 32,
        "output_dimensions": [32],
    }
    return small


def _fill_codebooks(model: Any) -> None:
    """A fresh model's codebooks are all zero; each next one gets finer, as residuals do."""
    import torch

    with torch.no_grad():
        for quantizer in (model.quantizer.rvq_first, model.quantizer.rvq_rest):
            for depth, layer in enumerate(quantizer.vq.layers):
                layer._codebook.embedding_sum.normal_(std=0.3 * 0.85**depth)
                layer._codebook._initialized.fill_(1)

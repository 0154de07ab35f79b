"""DAC, the Descript Audio Codec (Kumar et al., "High-Fidelity Audio Compression with Improved
RVQGAN", 2023), in chunks.

The model of the ``transformers`` package: 320 samples a step at 16 kHz and 24 kHz (50 and 75 steps
a second), residual vector quantisation with 1,024 vectors a codebook, 12 and 32 codebooks. It is
not causal, so it streams in chunks (:mod:`harness.codecs.chunked`), each coded on its own; a
payload is 10 bits a code, codebook by codebook. A decoded chunk is 8 samples short, because its odd
transposed convolution is cropped; they are zero, and a blend over an overlap hides them.

Weights are real (the assets ``dac-16khz``, ``dac-24khz``) or random: a small model of the same
steps and codes, seeded, for tests and timing, and of no use to listen to.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from harness.codecs import base, chunked
from harness.codecs.allowed import OneOf
from harness.codecs.chunked import ChunkedCodec, LengthOrShare, Samples
from harness.codecs.models import seeded, weights
from harness.codecs.models.bits import Codes
from harness.codecs.models.ready import weights_file
from harness.codecs.models.tokens import TokenModel
from harness.errors import AssetError
from harness.fields import FrequencyHz
from harness.units import format_frequency

_RATIOS = (2, 4, 5, 8)
_HOP_SAMPLES = 320
_CODE_BITS = 10
_CODEBOOKS = {16_000: 12, 24_000: 32}
_SEED = 20230611
_NEEDED = ("torch", "transformers")
_REMEDY = "pip install torch transformers"

ABOUT = base.About(
    title="DAC, Descript Audio Codec (Kumar et al. 2023)",
    tier="neural",
    bitrates="500 bit/s a codebook at 16 kHz (to 6 kbit), 750 at 24 kHz (to 24 kbit)",
    code_licence="Apache-2.0",
    weights_licence="MIT",
    causal=False,
    remedy=_REMEDY,
)


class Params(chunked.Params):
    """``codebooks`` None takes all that the model has."""

    rate: Annotated[FrequencyHz, OneOf(tuple(_CODEBOOKS), format_frequency)] = 16_000
    chunk: chunked.Length = "400ms"
    overlap: LengthOrShare = "10%"
    codebooks: Annotated[int, Field(ge=1)] | None = None
    weights: Literal["real", "random"] = "real"

    def sample_rate_hz(self) -> int:
        return self.rate

    def round_trips(self, chunk_samples: int) -> bool:
        return chunk_samples > 0 and chunk_samples % _HOP_SAMPLES == 0

    @model_validator(mode="after")
    def _has_the_codebooks(self) -> Self:
        if self.codebooks is not None and self.codebooks > _CODEBOOKS[self.rate]:
            raise ValueError(
                f"codebooks: expected at most {_CODEBOOKS[self.rate]} at"
                f" {format_frequency(self.rate)}, got {self.codebooks}"
            )
        return self


def _weights_name(rate_hz: int) -> str:
    return f"dac-{rate_hz // 1000}khz"


def required_assets(params: Params) -> tuple[str, ...]:
    return (_weights_name(params.rate),) if params.weights == "real" else ()


def create(params: Params, assets: Mapping[str, Path]) -> ChunkedCodec:
    """Also sets torch to one thread for the whole process.

    Raises Unsupported where a package is missing, AssetError where the weights are not DAC's.
    """
    file = weights_file("DAC", _NEEDED, _REMEDY, params.weights, _weights_name(params.rate), assets)
    import torch

    layout = params.layout()
    available = _CODEBOOKS[params.rate]
    model = TokenModel(
        tokeniser=_tokeniser(params.rate, file),
        name="DAC",
        chunk_samples=layout.chunk_samples,
        padded_samples=layout.chunk_samples,
        steps=layout.chunk_samples // _HOP_SAMPLES,
        code_bits=_CODE_BITS,
        codebooks=params.codebooks or available,
        decodable=tuple(range(1, available + 1)),
    )
    version = importlib.metadata.version("transformers")
    return chunked.codec(
        layout,
        model,
        library=f"transformers {version}, torch {torch.__version__}",
        weights=params.weights,
        rates=model.with_codebooks(model.decodable),
    )


class DacTokeniser:
    def __init__(self, model: Any) -> None:
        self._model = model

    def encode(self, samples: Samples, codebooks: int) -> Codes:
        import torch

        with torch.inference_mode():
            coded = self._model.encode(torch.from_numpy(samples)[None, None], codebooks)
        codes: Codes = coded.audio_codes[0].numpy()
        return codes

    def decode(self, codes: Codes) -> Samples:
        import torch

        with torch.inference_mode():
            decoded = self._model.decode(audio_codes=torch.from_numpy(codes)[None])
        samples: Samples = decoded.audio_values[0].numpy()
        return samples


@lru_cache(maxsize=2)
def _tokeniser(rate_hz: int, file: Path | None) -> DacTokeniser:
    return DacTokeniser(network(rate_hz, file))


def network(rate_hz: int, file: Path | None) -> Any:
    """The package's ``DacModel``; ``file`` is a verified checkpoint, None fills a small one from a
    fixed seed. Raises AssetError, naming the file, if it is no checkpoint of this model."""
    from transformers import DacConfig, DacModel

    state = weights.read(file) if file else {}
    config = DacConfig(
        sampling_rate=rate_hz,
        downsampling_ratios=list(_RATIOS),
        encoder_hidden_size=64 if file else 4,
        decoder_hidden_size=1536 if file else 64,
        n_codebooks=_CODEBOOKS[rate_hz],
    )
    with seeded.drawn_from(_SEED):
        model: Any = DacModel(config)
        model.eval()
        if file is None:
            seeded.enliven(model, gain=0.8)
            seeded.enliven(model.decoder, gain=0.5)
            for quantizer in model.quantizer.quantizers:
                quantizer.codebook.weight.data.normal_()
        else:
            if "state_dict" in state:
                state = renamed(state["state_dict"], file)
            weights.fill(model, state, file, f"DAC at {format_frequency(rate_hz)}")
    return model.requires_grad_(False)


def renamed(state: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The publisher's own checkpoint under the names of ``transformers``, weight norm undone.

    A weight is ``g * v / |v|``, the norm taken over all but the first axis (Salimans and Kingma,
    2016). Raises AssetError where a norm has lost its other half.
    """
    from torch import _weight_norm

    plain: dict[str, Any] = {}
    for name, value in state.items():
        stem, _, last = name.rpartition(".")
        if last == "weight_v":
            continue
        if last == "weight_g":
            direction = state.get(f"{stem}.weight_v")
            if direction is None:
                raise AssetError(f"{file}: not a checkpoint of DAC: {name} lacks its weight_v")
            name, value = f"{stem}.weight", _weight_norm(direction, value, 0)
        plain[_transformers_name(name)] = value
    return plain


def _transformers_name(name: str) -> str:
    """``encoder.block.2.block.0.block.1.bias`` is ``encoder.block.1.res_unit1.conv1.bias``."""
    found = re.fullmatch(r"(encoder\.block|decoder\.model)\.(\d+)((?:\.block\.\d+)*)\.(\w+)", name)
    if found is None:
        return name
    room, place = found[1].split(".")[0], int(found[2])
    inner = [int(step) for step in re.findall(r"\d+", found[3])]
    last = len(_RATIOS) + 1
    if not inner:
        outside = {0: "conv1", last: "snake1", last + 1: "conv2"}
        return f"{room}.{outside.get(place, place)}.{found[4]}"
    around = (
        ["res_unit1", "res_unit2", "res_unit3", "snake1", "conv1"]
        if room == "encoder"
        else ["snake1", "conv_t1", "res_unit1", "res_unit2", "res_unit3"]
    )
    parts = [around[inner[0]]]
    if len(inner) > 1:
        parts.append(["snake1", "conv1", "snake2", "conv2"][inner[1]])
    return ".".join([room, "block", str(place - 1), *parts, found[4]])

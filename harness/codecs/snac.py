"""SNAC 24 kHz (Siuzdak et al., "SNAC: Multi-Scale Neural Audio Codec", 2024), in chunks.

The ``snac`` package's model: 512 samples a step, residual vector quantisation with 4,096 vectors a
codebook, three codebooks of which the first codes every fourth step, the second every second and
the third every one: 7 codes of 12 bits for 2,048 samples, 984 bit/s. It is not causal, so it
streams in chunks (:mod:`harness.codecs.chunked`), each coded on its own. A payload is 12 bits a
code, first the first code of every group of 2,048 samples, then the second.

The decoder adds noise of its own; it is drawn from one seed for every chunk, so that decoding is a
function of the payload. Weights are real (the asset ``snac-24khz``) or random: a small model of the
same steps and codes, seeded, for tests and timing, and of no use to listen to.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from harness.codecs import base, chunked
from harness.codecs.chunked import ChunkedCodec, LengthOrShare, Samples
from harness.codecs.models import seeded, weights
from harness.codecs.models.bits import Codes
from harness.codecs.models.ready import weights_file
from harness.codecs.models.tokens import TokenModel

_WEIGHTS = "snac-24khz"
_RATE_HZ = 24_000
_STRIDES = (4, 2, 1)
_GROUP_SAMPLES = 2_048
_GROUP_CODES = 7
_CODE_BITS = 12
_SEED = 20241018
_NEEDED = ("torch", "snac", "einops")
_REMEDY = "pip install torch snac"

ABOUT = base.About(
    title="SNAC 24 kHz (Siuzdak et al. 2024)",
    tier="neural",
    bitrates="984 bit/s",
    code_licence="MIT",
    weights_licence="MIT",
    causal=False,
    remedy=_REMEDY,
)


class Params(chunked.Params):
    chunk: chunked.Length = "256ms"
    overlap: LengthOrShare = "10%"
    weights: Literal["real", "random"] = "real"

    def sample_rate_hz(self) -> int:
        return _RATE_HZ

    def round_trips(self, chunk_samples: int) -> bool:
        return chunk_samples > 0 and chunk_samples % _GROUP_SAMPLES == 0


def required_assets(params: Params) -> tuple[str, ...]:
    return (_WEIGHTS,) if params.weights == "real" else ()


def create(params: Params, assets: Mapping[str, Path]) -> ChunkedCodec:
    """Also sets torch to one thread for the whole process.

    Raises Unsupported where a package is missing, AssetError where the weights are not SNAC's.
    """
    file = weights_file("SNAC", _NEEDED, _REMEDY, params.weights, _WEIGHTS, assets)
    import torch

    layout = params.layout()
    model = TokenModel(
        tokeniser=_tokeniser(file),
        name="SNAC",
        chunk_samples=layout.chunk_samples,
        padded_samples=layout.chunk_samples,
        steps=layout.chunk_samples // _GROUP_SAMPLES,
        code_bits=_CODE_BITS,
        codebooks=_GROUP_CODES,
        decodable=(_GROUP_CODES,),
    )
    version = importlib.metadata.version("snac")
    return chunked.codec(
        layout,
        model,
        library=f"snac {version}, torch {torch.__version__}",
        weights=params.weights,
    )


class SnacTokeniser:
    """A step is a group of 2,048 samples; its 7 codes count as one codebook each."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def encode(self, samples: Samples, codebooks: int) -> Codes:  # noqa: ARG002
        import torch

        with torch.inference_mode():
            scales = self._model.encode(torch.from_numpy(samples)[None, None])
        groups = len(samples) // _GROUP_SAMPLES
        return np.concatenate([scale.numpy().reshape(groups, -1).T for scale in scales])

    def decode(self, codes: Codes) -> Samples:
        import torch

        scales, start = [], 0
        for stride in _STRIDES:
            size = _STRIDES[0] // stride
            flat = np.ascontiguousarray(codes[start : start + size].T).reshape(1, -1)
            scales.append(torch.from_numpy(flat))
            start += size
        with torch.inference_mode(), seeded.drawn_from(_SEED):
            samples: Samples = self._model.decode(scales)[0, 0].numpy()
        return samples


@lru_cache(maxsize=1)
def _tokeniser(file: Path | None) -> SnacTokeniser:
    return SnacTokeniser(network(file))


def network(file: Path | None) -> Any:
    """The package's ``SNAC``, without weight normalisation; ``file`` is a verified checkpoint, None
    fills a small one from a fixed seed. Raises AssetError, naming the file, if it is no checkpoint
    of this model."""
    from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

    state = weights.read(file) if file else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # snac 1.2.1 compiles a function with torch.jit
        from snac import SNAC

    with seeded.drawn_from(_SEED):
        model = SNAC(
            sampling_rate=_RATE_HZ,
            encoder_dim=48 if file else 4,
            encoder_rates=[2, 4, 8, 8],
            decoder_dim=1024 if file else 64,
            decoder_rates=[8, 8, 4, 2],
            attn_window_size=None,
            codebook_size=1 << _CODE_BITS,
            codebook_dim=8,
            vq_strides=list(_STRIDES),
            noise=True,
            depthwise=True,
        ).eval()
        if file is not None:
            weights.fill(model, state, file, "SNAC 24 kHz")
        for module in model.modules():
            if is_parametrized(module, "weight"):
                remove_parametrizations(module, "weight")
        if file is None:
            seeded.enliven(model, gain=0.8)
            seeded.enliven(model.decoder, gain=0.5)
    return model.requires_grad_(False)

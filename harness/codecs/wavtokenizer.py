"""WavTokenizer (Ji et al., "WavTokenizer: an Efficient Acoustic Discrete Codec Tokenizer for Audio
Language Modeling", 2024), in chunks.

24 kHz; one codebook of 4,096 vectors, 75 or 40 tokens a second (320 or 600 samples a token). Its
decoder attends to all that it is given, so it streams in chunks (:mod:`harness.codecs.chunked`),
each coded on its own; a chunk that is no whole number of tokens takes one more, and zeros after it.

``framing`` is what a payload looks like. ``packed``: 12 bits a token. ``json``: what an older
system sent over a WebSocket for each chunk, ``{"id": "stream1", "details": ..., "timestamp": ...}``
with the tokens as base64 of int64 (:func:`harness.codecs.models.framing.json_message`).

``bytes_as_samples`` repeats that system's fault: it gave the model each of the two bytes of a
sample as a sample of its own, so that 0.1 s became 15 tokens instead of 8, and a message of 224
bytes: 17.9 kbit/s for what should have been 0.9. It never decoded them; a listener would hear what
is heard here, the decoded values taken for bytes again.

The model is on no package index. Weights ``real`` are the user's, in the user's checkout, found
through environment variables (:data:`PLACES`) and run in a process of their own; ``random`` is a
small model of our own with the same tokens, of no use to listen to.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from harness.codecs import base, chunked
from harness.codecs.allowed import OneOf
from harness.codecs.base import Codec
from harness.codecs.chunked import Samples
from harness.codecs.models import bits, foreign, small
from harness.codecs.models.framing import FramedCodec, data_of_json, json_message
from harness.codecs.models.tokens import Tokeniser, TokenModel
from harness.errors import Unsupported

_RATE_HZ = 24_000
_HOPS = {40: 600, 75: 320}
_CODE_BITS = 12
_WIDTH = 16


def _place(tokens_per_s: int) -> foreign.Place:
    weights = f"HARNESS_WEIGHTS_WAVTOKENIZER_{tokens_per_s}"
    return foreign.Place(
        model="wavtokenizer",
        checkout="HARNESS_WAVTOKENIZER",
        weights=weights,
        python="HARNESS_WAVTOKENIZER_PYTHON",
        remedy=(
            "git clone https://github.com/jishengpeng/WavTokenizer; get"
            f" WavTokenizer_small_{_HOPS[tokens_per_s]}_24k_4096.ckpt from"
            " https://huggingface.co/novateur/WavTokenizer, and the .yaml of"
            f" frame{tokens_per_s} beside it in a folder of their own; export"
            f" HARNESS_WAVTOKENIZER=<the clone> {weights}=<the .ckpt>, and"
            " HARNESS_WAVTOKENIZER_PYTHON=<a python with its requirements> where this one cannot"
            " import it; Docker's containers see neither, so take the netns or virtual lab"
        ),
    )


PLACES = {tokens_per_s: _place(tokens_per_s) for tokens_per_s in _HOPS}
"""Where the user's own models are looked for."""

ABOUT = base.About(
    title="WavTokenizer (Ji et al. 2024)",
    tier="neural",
    bitrates="480, 900 bit/s (40, 75 tokens/s)",
    code_licence="MIT",
    weights_licence="MIT",
    causal=False,
    remedy=PLACES[75].remedy,
)


class Params(chunked.Params):
    tokens_per_s: Annotated[int, OneOf(tuple(_HOPS), str)] = 75
    chunk: chunked.Length = "1s"
    framing: Literal["packed", "json"] = "packed"
    bytes_as_samples: bool = False
    weights: Literal["real", "random"] = "real"

    def sample_rate_hz(self) -> int:
        return _RATE_HZ

    def round_trips(self, chunk_samples: int) -> bool:
        return chunk_samples > 0


def required_assets(params: Params) -> tuple[str, ...]:  # noqa: ARG001
    return ()


def create(params: Params, assets: Mapping[str, Path]) -> Codec:  # noqa: ARG001
    """Raises Unsupported, with the commands, where the user's model is not found or cannot run;
    AssetError where its weights are another model's."""
    layout = params.layout()
    hop = _HOPS[params.tokens_per_s]
    heard = layout.chunk_samples * (2 if params.bytes_as_samples else 1)
    tokens = -(-heard // hop)
    tokeniser, library = _tokeniser(params)
    model: chunked.Model = TokenModel(
        tokeniser=tokeniser,
        name="WavTokenizer",
        chunk_samples=heard,
        padded_samples=tokens * hop,
        steps=tokens,
        code_bits=_CODE_BITS,
        codebooks=1,
        decodable=(1,),
    )
    if params.bytes_as_samples:
        model = _BytesAsSamples(model)
    codec = chunked.codec(layout, model, library=library, weights=params.weights)
    if params.framing == "json":
        return FramedCodec(codec, Json(tokens, layout.frame_samples))
    return codec


def _tokeniser(params: Params) -> tuple[Tokeniser, str]:
    if params.weights == "real":
        place = PLACES[params.tokens_per_s]
        theirs = foreign.tokeniser("wavtokenizer", *place.find())
        return theirs, theirs.library
    if importlib.util.find_spec("torch") is None:
        raise Unsupported("WavTokenizer's stand-in needs torch: pip install torch")
    import torch

    torch.set_num_threads(1)
    ours = small.tokeniser(_HOPS[params.tokens_per_s], _WIDTH, 1, 1 << _CODE_BITS)
    return ours, f"stand-in for WavTokenizer, torch {torch.__version__}"


@dataclass(frozen=True)
class _BytesAsSamples:
    """A model that is given the bytes of 16-bit samples (0...255, low one first), not samples."""

    inner: chunked.Model

    @property
    def payload_bits(self) -> int:
        return self.inner.payload_bits

    def encode(self, samples: Samples) -> bytes:
        pcm = np.rint(samples * 32768).astype("<i2")
        return self.inner.encode(pcm.view(np.uint8).astype(np.float32))

    def decode(self, payload: bytes) -> Samples:
        values = np.clip(np.rint(self.inner.decode(payload)), 0, 255).astype(np.uint8)
        samples: Samples = values.view("<i2").astype(np.float32) / np.float32(32768)
        return samples


@dataclass(frozen=True)
class Json:
    """Messages of ``tokens`` tokens each."""

    tokens: int
    frame_samples: int

    def wrap(self, payload: bytes, index: int) -> bytes:
        tokens = bits.unpack(payload, self.tokens, _CODE_BITS, "WavTokenizer chunk")
        time_s = index * self.frame_samples / _RATE_HZ
        return json_message(tokens.astype("<i8").tobytes(), time_s)

    def unwrap(self, message: bytes) -> bytes:
        data = data_of_json(message, "WavTokenizer")
        if len(data) != 8 * self.tokens:
            raise ValueError(
                f"WavTokenizer message has tokens of {len(data)} bytes, expected {8 * self.tokens}"
            )
        tokens = np.frombuffer(data, "<i8")
        if tokens.min() < 0 or tokens.max() >> _CODE_BITS:
            raise ValueError(f"WavTokenizer token outside 0...{(1 << _CODE_BITS) - 1}")
        return bits.pack(tokens, _CODE_BITS)

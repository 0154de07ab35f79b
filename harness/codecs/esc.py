"""ESC, the Efficient Speech Codec (Gu and Diao, 2024), in chunks.

16 kHz speech; a step of 20 ms has up to six streams of three codes of 10 bits, 1.5 kbit/s a stream.
The model sees a spectrogram with a hop of 80 samples, four of them to a step, and is not causal, so
it streams in chunks (:mod:`harness.codecs.chunked`), each coded on its own. A chunk of 80 (4k - 1)
samples is k steps exactly; one of whole steps, k * 320, takes a step more, and zeros after it.

``framing`` is what a payload looks like. ``bitpacked``: the codes, 10 bits each, stream by stream.
``pickled``: what an older system sent over TCP for each chunk, a Python pickle (protocol 4) of
``{"chunk_idx", "codes" (int64), "size", "timestamp"}``, byte by byte; with its length prefix of 4
bytes a chunk of 16,000 samples with six streams is 7,566 bytes. Nothing pickles or unpickles here:
the bytes around the codes depend on three numbers only, and a payload that has others is refused.
Its timestamp is the chunk's media time, because a codec has no clock.

The model is on no package index. Weights ``real`` are the user's, in the user's checkout, found
through environment variables (:data:`PLACES`) and run in a process of their own; ``random`` is a
small model of our own with the same steps, streams and codes, of no use to listen to.
"""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from harness.codecs import base, chunked
from harness.codecs.base import Codec
from harness.codecs.chunked import LengthOrShare
from harness.codecs.models import bits, foreign, small
from harness.codecs.models.framing import FramedCodec
from harness.codecs.models.tokens import Tokeniser, TokenModel
from harness.errors import Unsupported

_RATE_HZ = 16_000
_HOP_SAMPLES = 80
_STEP_SAMPLES = 4 * _HOP_SAMPLES
_STREAMS = 6
_GROUP = 3
_CODE_BITS = 10
_WIDTHS = {"base": 16, "large": 24}
_LARGEST_PICKLED_CODES = 8_192 - 64
"""Beyond 64 KiB pickle's protocol 4 lays bytes out in another way."""


def _place(variant: str) -> foreign.Place:
    weights = f"HARNESS_WEIGHTS_ESC_{variant.upper()}"
    return foreign.Place(
        model="esc",
        checkout="HARNESS_ESC",
        weights=weights,
        python="HARNESS_ESC_PYTHON",
        remedy=(
            "git clone https://github.com/yzGuu830/efficient-speech-codec; get a checkpoint as its"
            " README says; export HARNESS_ESC=<the clone>"
            f" {weights}=<the folder of config.yaml and model.pth>, and HARNESS_ESC_PYTHON=<a"
            " python with torch and torchaudio> where this one cannot import it; Docker's"
            " containers see neither, so take the netns or virtual lab"
        ),
    )


PLACES = {variant: _place(variant) for variant in _WIDTHS}
"""Where the user's own models are looked for."""

ABOUT = base.About(
    title="ESC, Efficient Speech Codec (Gu and Diao 2024)",
    tier="neural",
    bitrates="1.5, 3, 4.5, 6, 7.5, 9 kbit (1-6 streams)",
    code_licence="MIT",
    weights_licence="not stated by their publisher",
    causal=False,
    remedy=PLACES["base"].remedy,
)


class Params(chunked.Params):
    model: Literal["base", "large"] = "base"
    num_streams: Annotated[int, Field(ge=1, le=_STREAMS)] = _STREAMS
    chunk: chunked.Length = 16_000
    overlap: LengthOrShare = 1_600
    framing: Literal["bitpacked", "pickled"] = "bitpacked"
    weights: Literal["real", "random"] = "real"

    def sample_rate_hz(self) -> int:
        return _RATE_HZ

    def round_trips(self, chunk_samples: int) -> bool:
        rest = chunk_samples % _STEP_SAMPLES
        return chunk_samples > 0 and rest in (0, _STEP_SAMPLES - _HOP_SAMPLES)

    @model_validator(mode="after")
    def _fits_a_pickle(self) -> Self:
        codes = self.num_streams * _GROUP * _steps(self.layout().chunk_samples)
        if self.framing == "pickled" and codes > _LARGEST_PICKLED_CODES:
            raise ValueError(
                f"framing: a pickled chunk has at most {_LARGEST_PICKLED_CODES} codes, these"
                f" settings have {codes}; take a shorter chunk or fewer streams"
            )
        return self


def _steps(chunk_samples: int) -> int:
    return -(-(chunk_samples + _HOP_SAMPLES) // _STEP_SAMPLES)


def required_assets(params: Params) -> tuple[str, ...]:  # noqa: ARG001
    return ()


def create(params: Params, assets: Mapping[str, Path]) -> Codec:  # noqa: ARG001
    """Raises Unsupported, with the commands, where the user's model is not found or cannot run;
    AssetError where its weights are another model's."""
    layout = params.layout()
    steps = _steps(layout.chunk_samples)
    tokeniser, library = _tokeniser(params)
    model = TokenModel(
        tokeniser=tokeniser,
        name="ESC",
        chunk_samples=layout.chunk_samples,
        padded_samples=steps * _STEP_SAMPLES - _HOP_SAMPLES,
        steps=steps,
        code_bits=_CODE_BITS,
        codebooks=params.num_streams * _GROUP,
        decodable=tuple(range(_GROUP, _STREAMS * _GROUP + 1, _GROUP)),
    )
    codec = chunked.codec(
        layout,
        model,
        library=library,
        weights=params.weights,
        rates=model.with_codebooks(model.decodable),
    )
    if params.framing == "pickled":
        return FramedCodec(codec, Pickled(steps, layout.frame_samples))
    return codec


def _tokeniser(params: Params) -> tuple[Tokeniser, str]:
    if params.weights == "real":
        theirs = foreign.tokeniser("esc", *PLACES[params.model].find())
        return theirs, theirs.library
    if importlib.util.find_spec("torch") is None:
        raise Unsupported("ESC's stand-in with random weights needs torch: pip install torch")
    import torch

    torch.set_num_threads(1)
    width = _WIDTHS[params.model]
    ours = small.tokeniser(_STEP_SAMPLES, width, _STREAMS * _GROUP, 1 << _CODE_BITS)
    return _Rounded(ours), f"stand-in for ESC {params.model}, torch {torch.__version__}"


@dataclass(frozen=True)
class _Rounded:
    """ESC's lengths on a tokeniser of whole steps: a step of fewer samples is one with zeros."""

    inner: Tokeniser

    def encode(self, samples: chunked.Samples, codebooks: int) -> bits.Codes:
        return self.inner.encode(np.pad(samples, (0, _HOP_SAMPLES)), codebooks)

    def decode(self, codes: bits.Codes) -> chunked.Samples:
        return self.inner.decode(codes)


@dataclass(frozen=True)
class Pickled:
    """Messages as ``pickle.dumps`` of numpy 2 writes them (PEP 3154), of chunks of ``steps``."""

    steps: int
    frame_samples: int

    def wrap(self, payload: bytes, index: int) -> bytes:
        """``chunk_idx`` counts from 1."""
        streams = self._streams(payload)
        codes = bits.unpack(payload, streams * _GROUP * self.steps, _CODE_BITS, "ESC chunk")
        time_s = index * self.frame_samples / _RATE_HZ
        head = _head(index + 1, streams, self.steps)
        body = head + codes.astype("<i8").tobytes() + _tail(self.steps, time_s)
        return b"\x80\x04\x95" + struct.pack("<Q", len(body)) + body

    def unwrap(self, message: bytes) -> bytes:
        for streams in range(1, _STREAMS + 1):
            size = 8 * streams * _GROUP * self.steps
            start = len(message) - len(_tail(self.steps, 0)) - size
            if self._is_ours(message, start, size, streams):
                codes = np.frombuffer(message, "<i8", size // 8, start)
                if codes.min() < 0 or codes.max() >> _CODE_BITS:
                    raise ValueError(f"ESC message has a code outside 0...{(1 << _CODE_BITS) - 1}")
                return bits.pack(codes, _CODE_BITS)
        raise ValueError(
            f"ESC message of {len(message)} bytes is not laid out as those of this sender"
        )

    def _streams(self, payload: bytes) -> int:
        sizes = [
            bits.packed_bytes(streams * _GROUP * self.steps, _CODE_BITS)
            for streams in range(1, _STREAMS + 1)
        ]
        return sizes.index(len(payload)) + 1

    def _is_ours(self, message: bytes, start: int, size: int, streams: int) -> bool:
        """Whether all but the codes, the chunk's number and the time is as :meth:`wrap` has it."""
        if start < _INDEX_AT + 2:
            return False
        index, _ = _read_int(message, _INDEX_AT)
        expected = _head(index, streams, self.steps)
        tail = message[start + size :]
        time_s = struct.unpack(">d", tail[-10:-2])[0]
        return (
            message[:3] == b"\x80\x04\x95"
            and message[3:11] == struct.pack("<Q", len(message) - 11)
            and message[11:start] == expected
            and tail == _tail(self.steps, time_s)
        )


def _text(word: str) -> bytes:
    return b"\x8c" + bytes([len(word)]) + word.encode() + b"\x94"


def _int(value: int) -> bytes:
    if value < 1 << 8:
        return b"K" + struct.pack("<B", value)
    if value < 1 << 16:
        return b"M" + struct.pack("<H", value)
    return b"J" + struct.pack("<i", value)


def _read_int(message: bytes, at: int) -> tuple[int, int]:
    """An integer as :func:`_int` writes it, and where it ends; (0, at) if there is none."""
    form = {b"K": "<B", b"M": "<H", b"J": "<i"}.get(message[at : at + 1])
    if form is None or len(message) < at + 1 + struct.calcsize(form):
        return 0, at
    return struct.unpack_from(form, message, at + 1)[0], at + 1 + struct.calcsize(form)


_BEFORE_INDEX = b"}\x94(" + _text("chunk_idx")
_INDEX_AT = 11 + len(_BEFORE_INDEX)
_ARRAY = (
    _text("codes")
    + _text("numpy._core.multiarray")
    + _text("_reconstruct")
    + b"\x93\x94"
    + _text("numpy")
    + _text("ndarray")
    + b"\x93\x94K\x00\x85\x94C\x01b\x94\x87\x94R\x94(K\x01("
)
_DTYPE = (
    b"h\x06"
    + _text("dtype")
    + b"\x93\x94"
    + _text("i8")
    + b"\x89\x88\x87\x94R\x94(K\x03"
    + _text("<")
    + b"NNN"
    + b"J\xff\xff\xff\xff" * 2
    + b"K\x00t\x94b\x89"
)


def _head(index: int, streams: int, steps: int) -> bytes:
    """From the opening of the dictionary to the codes, an array of (1, streams, 3, steps)."""
    size = 8 * streams * _GROUP * steps
    shape = _int(1) + _int(streams) + _int(_GROUP) + _int(steps) + b"t\x94"
    opening = b"C" + struct.pack("<B", size) if size < 1 << 8 else b"B" + struct.pack("<I", size)
    return _BEFORE_INDEX + _int(index) + _ARRAY + shape + _DTYPE + opening


def _tail(steps: int, time_s: float) -> bytes:
    """From the end of the codes: the latent's ``size``, (2, two columns a step), and the time."""
    size = _text("size") + _int(2) + _int(2 * steps) + b"\x86\x94"
    return b"\x94t\x94b" + size + _text("timestamp") + b"G" + struct.pack(">d", time_s) + b"u."

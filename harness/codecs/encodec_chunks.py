"""EnCodec 24 kHz in chunks that know nothing of each other, as files are coded.

So do systems that call ``encodec.compress`` on each block of audio: every chunk starts from
silence that is not there, and its edges are heard. See ``encodec.py`` for the same model streamed
frame by frame, with 13.3 ms of delay in place of a chunk's.

A payload, by ``framing``:

* ``ecdc``: the container of the ``encodec`` package, byte for byte: "ECDC", version 0, the length
  of a JSON header as u32, the header (model, audio length, codebooks, LM or not), then the codes,
  10 bits each, all codebooks of a frame together, least significant bit first;
* ``raw``: the codes alone, whose number follows from the size.

``lm: true`` codes the codes arithmetically with the package's language model, which forgets
everything from chunk to chunk, as in ``encodec.compress``: so a lost chunk costs itself alone, and
no chunk gains by the one before. Its probabilities come of floating-point sums whose rounding
depends on the processor's vector instructions, the number of threads and the version of torch, and
a decoder with another rounding reads other codes without noticing. Four bytes before the LM's bits
(after the number of codebooks in ``raw``) therefore name the sender's :func:`arithmetic`, and a
payload from another is refused. This is no part of ECDC.

encodec 0.1.1 expects a frame too many for some lengths, 6,720 samples for one: ``ecdc`` refuses
them. Weights are real (the assets ``encodec-24khz`` and, with LM, ``encodec-lm-24khz``) or random:
seeded, for tests and timing, and of no use to listen to.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import math
import platform
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.codecs import base, chunked
from harness.codecs.allowed import OneOf
from harness.codecs.chunked import ChunkedCodec, Length, Samples
from harness.codecs.encodec import (
    Kind,
    checkpoint,
    load_checkpoint,
    offline_model,
    package,
    ready,
    seeded,
)
from harness.fields import BitrateBps
from harness.units import format_bitrate

if TYPE_CHECKING:
    from torch import Tensor

_HOP_SAMPLES = 320
_CODE_BITS = 10
_LM_LAYERS = 5
_LM_WIDTH = 200
_LM_PAST_S = 3.5
_SCALE = struct.Struct("!f")
_ARITHMETIC_BYTES = 4
Framing = Literal["ecdc", "raw"]

ABOUT = base.About(
    title="EnCodec 24 kHz, in stateless chunks (Defossez et al. 2022)",
    tier="neural",
    bitrates="1.5, 3, 6, 12, 24 kbit",
    code_licence="MIT",
    weights_licence="not stated by their publisher",
    causal=False,
)


@dataclass(frozen=True)
class Variant:
    """One of the two published models."""

    kind: Kind
    rate_hz: int
    channels: int
    bitrates_bps: tuple[int, ...]
    normalised: bool
    """Whether a chunk's level is taken out and sent along."""

    @property
    def frame_rate_hz(self) -> int:
        return self.rate_hz // _HOP_SAMPLES

    def frames(self, samples: int) -> int:
        """Frames of codes that a chunk has."""
        return -(-samples // _HOP_SAMPLES)

    def codebooks(self, bitrate_bps: int) -> int:
        return bitrate_bps // (self.frame_rate_hz * _CODE_BITS)

    def round_trips(self, samples: int, framing: Framing) -> bool:
        if samples < _HOP_SAMPLES:
            return False
        # The package's own sum, whose rounding makes it wrong.
        expected = math.ceil(samples / self.rate_hz * self.frame_rate_hz)
        return framing == "raw" or expected == self.frames(samples)


VARIANT = Variant("24khz", 24_000, 1, (1_500, 3_000, 6_000, 12_000, 24_000), normalised=False)


class VariantParams(chunked.Params):
    """What chunks of both models may be set to."""

    framing: Framing = "ecdc"
    lm: bool = False
    weights: Literal["real", "random"] = "real"


class Params(VariantParams):
    bitrate: Annotated[BitrateBps, OneOf(VARIANT.bitrates_bps, format_bitrate)] = 12_000
    chunk: Length = 6_000

    def sample_rate_hz(self) -> int:
        return VARIANT.rate_hz

    def round_trips(self, chunk_samples: int) -> bool:
        return VARIANT.round_trips(chunk_samples, self.framing)


def required_assets(params: Params) -> tuple[str, ...]:
    return assets_of(params, VARIANT)


def create(params: Params, assets: Mapping[str, Path]) -> ChunkedCodec:
    """Also sets torch to one thread for the whole process."""
    return make(params, params.bitrate, VARIANT, assets)


def assets_of(params: VariantParams, variant: Variant) -> tuple[str, ...]:
    """Names of the weights that the settings need."""
    if params.weights == "random":
        return ()
    return (f"encodec-{variant.kind}", *((f"encodec-lm-{variant.kind}",) if params.lm else ()))


def make(
    params: VariantParams, bitrate_bps: int, variant: Variant, assets: Mapping[str, Path]
) -> ChunkedCodec:
    """A codec of one of the models. Raises Unsupported, AssetError as ``CodecModule.create``."""
    library = ready()
    files = [checkpoint(name, assets) for name in assets_of(params, variant)]
    weights, lm_weights, *_ = (*files, None, None)
    layout = params.layout()
    network = _model(weights, variant.kind)
    lm = _lm(lm_weights, variant) if params.lm else None
    models = {
        bps: ChunkModel(network, lm, variant, params.framing, layout.chunk_samples, bps)
        for bps in variant.bitrates_bps
    }
    return chunked.codec(
        layout,
        models[bitrate_bps],
        library=f"{library}, LM on {arithmetic()}" if params.lm else library,
        weights=params.weights,
        rates=tuple(models.values()),
    )


@lru_cache(maxsize=2)
def _model(weights: Path | None, kind: Kind) -> Any:
    return offline_model(weights, kind)


@lru_cache(maxsize=2)
def _lm(weights: Path | None, variant: Variant) -> Any:
    """The language model, with the sizes that ``EncodecModel.get_lm_model`` gives it."""
    package()
    from encodec.model import LMModel

    with seeded():
        model = LMModel(
            n_q=variant.codebooks(variant.bitrates_bps[-1]),
            card=1 << _CODE_BITS,
            dim=_LM_WIDTH,
            num_layers=_LM_LAYERS,
            past_context=int(_LM_PAST_S * variant.frame_rate_hz),
        )
    if weights is not None:
        load_checkpoint(model, weights, f"the EnCodec {variant.kind} language model")
    return model.eval().requires_grad_(False)


def arithmetic() -> str:
    """What the rounding of the language model's sums depends on, as this process has it now."""
    import torch

    return (
        f"torch {torch.__version__} {platform.machine()}"
        f" {torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()} thread(s)"
    )


def _fingerprint() -> bytes:
    names = f"encodec {importlib.metadata.version('encodec')}, {arithmetic()}"
    return hashlib.sha256(names.encode()).digest()[:_ARITHMETIC_BYTES]


@dataclass(frozen=True)
class ChunkModel:
    """Codes chunks at one bitrate, and decodes those of all."""

    network: Any
    lm: Any
    """None where codes are sent as they are."""
    variant: Variant
    framing: Framing
    chunk_samples: int
    bitrate_bps: int

    @property
    def payload_bits(self) -> int:
        scale_bits = 8 * _SCALE.size if self.variant.normalised else 0
        codebooks = self.variant.codebooks(self.bitrate_bps)
        return scale_bits + codebooks * self._frames * _CODE_BITS

    @property
    def _frames(self) -> int:
        return self.variant.frames(self.chunk_samples)

    def encode(self, samples: Samples) -> bytes:
        import torch

        kbps = self.bitrate_bps / 1000
        with torch.inference_mode():
            heard = torch.from_numpy(samples).expand(1, self.variant.channels, -1)
            level = self._level(heard)
            latent = self.network.encoder(heard / level)
            codes = self.network.quantizer.encode(latent, self.variant.frame_rate_hz, kbps)[:, 0]
            payload = io.BytesIO()
            payload.write(self._head(len(codes)))
            if self.variant.normalised:
                payload.write(_SCALE.pack(float(level)))
            if self.lm is None:
                _pack(codes, payload)
            else:
                payload.write(_fingerprint())
                _compress(codes, self.lm, payload)
        return payload.getvalue()

    def decode(self, payload: bytes) -> Samples:
        import torch

        codebooks, body = self._opened(payload)
        level = np.float32(1)
        if self.variant.normalised:
            level = np.float32(_SCALE.unpack(body.read(_SCALE.size))[0])
            if not 0 <= level <= 1:
                raise ValueError(f"EnCodec chunk is damaged: its level is {level}, not 0...1")
        with torch.inference_mode():
            codes = (
                _unpacked(body, codebooks, self._frames)
                if self.lm is None
                else _decompressed(body, self.lm, codebooks, self._frames)
            )
            decoded = self.network.decoder(self.network.quantizer.decode(codes[:, None]))
            samples: Samples = decoded[0].mean(0).numpy() * level
        return samples[: self.chunk_samples]

    def _level(self, heard: Any) -> Any:
        """What the model's input is divided by: the root of its mean square, or 1."""
        return heard.square().mean().sqrt() + 1e-8 if self.variant.normalised else 1

    def _head(self, codebooks: int) -> bytes:
        """What stands before the codes, and before the level that goes with them."""
        if self.framing == "raw":
            return b"" if self.lm is None else bytes([codebooks])
        from encodec.binary import write_ecdc_header

        head = io.BytesIO()
        description = {
            "m": f"encodec_{self.variant.kind}",
            "al": self.chunk_samples,
            "nc": codebooks,
            "lm": self.lm is not None,
        }
        write_ecdc_header(head, description)
        return head.getvalue()

    def _opened(self, payload: bytes) -> tuple[int, io.BytesIO]:
        """Number of codebooks, and what follows the head. Raises ValueError."""
        scale = _SCALE.size if self.variant.normalised else 0
        sizes = []
        for bitrate_bps in self.variant.bitrates_bps:
            codebooks = self.variant.codebooks(bitrate_bps)
            head = self._head(codebooks)
            least = len(head) + scale
            if self.lm is None:
                sizes.append(least + -(-codebooks * self._frames * _CODE_BITS // 8))
                fits = len(payload) == sizes[-1]
            else:
                sizes.append(least + _ARITHMETIC_BYTES)
                fits = len(payload) > sizes[-1]
            if fits and payload.startswith(head):
                return codebooks, io.BytesIO(payload[len(head) :])
        known = ", ".join(map(str, sizes))
        raise ValueError(
            f"EnCodec chunk of {len(payload)} bytes: expected {'more than ' if self.lm else ''}one"
            f" of {known} bytes, and the {self.framing} head of {self.chunk_samples} samples"
        )


def _pack(codes: Tensor, payload: io.BytesIO) -> None:
    """``codes`` has shape (codebooks, frames)."""
    from encodec.binary import BitPacker

    packer: Any = BitPacker(_CODE_BITS, payload)
    for code in codes.t().flatten().tolist():
        packer.push(code)
    packer.flush()


def _unpacked(body: io.BytesIO, codebooks: int, frames: int) -> Tensor:
    """The inverse of :func:`_pack`; ``body`` is long enough."""
    import torch
    from encodec.binary import BitUnpacker

    unpacker = BitUnpacker(_CODE_BITS, body)
    codes = [unpacker.pull() for _ in range(codebooks * frames)]
    return torch.tensor(codes).view(frames, codebooks).t()


class _Predictor:
    """The language model fed frame by frame, from its start: nothing is known of other chunks."""

    def __init__(self, lm: Any, codebooks: int) -> None:
        import torch

        self._lm = lm
        self._last = torch.zeros(1, codebooks, 1, dtype=torch.long)
        self._state: Any = None
        self._offset = 0

    def tables(self, range_bits: int) -> list[NDArray[np.int64]]:
        """Cumulated frequencies of the next frame's codes, one table for each codebook: as arrays,
        since the coder looks its entries up one by one."""
        from encodec.quantization.ac import build_stable_quantized_cdf

        probable, self._state, self._offset = self._lm(self._last, self._state, self._offset)
        return [
            build_stable_quantized_cdf(column, range_bits, check=False).numpy()
            for column in probable[0, :, :, 0].t()
        ]

    def heard(self, frame: Tensor) -> None:
        """What the next frame's codes turned out to be, shape (codebooks,)."""
        self._last = 1 + frame[None, :, None]


def _compress(codes: Tensor, lm: Any, payload: io.BytesIO) -> None:
    """As ``encodec.compress`` does; ``codes`` has shape (codebooks, frames)."""
    from encodec.quantization.ac import ArithmeticCoder

    coder: Any = ArithmeticCoder(payload)
    predictor = _Predictor(lm, len(codes))
    for frame in codes.t():
        tables = predictor.tables(coder.total_range_bits)
        for code, table in zip(frame.tolist(), tables, strict=True):
            coder.push(code, table)
        predictor.heard(frame)
    coder.flush()


def _decompressed(body: io.BytesIO, lm: Any, codebooks: int, frames: int) -> Tensor:
    """The inverse of :func:`_compress`. Raises ValueError: another arithmetic, or damage."""
    import torch
    from encodec.quantization.ac import ArithmeticDecoder

    if body.read(_ARITHMETIC_BYTES) != _fingerprint():
        raise ValueError(
            "EnCodec chunk was entropy-coded with another arithmetic than this end's"
            f" ({arithmetic()}), whose LM would read other codes: run both ends on the same kind"
            " of processor with the same torch and number of threads, or set lm: false"
        )
    decoder: Any = ArithmeticDecoder(body)
    predictor = _Predictor(lm, codebooks)
    decoded = []
    for _ in range(frames):
        try:
            codes = [decoder.pull(table) for table in predictor.tables(decoder.total_range_bits)]
        except RuntimeError as error:  # the coder's search fell between two symbols
            raise ValueError("EnCodec chunk is damaged: the LM knows no such codes") from error
        if None in codes:
            raise ValueError("EnCodec chunk is cut off: its codes end too early")
        decoded.append(torch.tensor(codes))
        predictor.heard(decoded[-1])
    return torch.stack(decoded, 1)

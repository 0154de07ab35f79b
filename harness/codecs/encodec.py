"""EnCodec 24 kHz (Defossez et al., "High Fidelity Neural Audio Compression", 2022), streaming.

The model is causal: frame by frame (320 samples, 13.3 ms) it gives the very codes of offline
coding, if each layer keeps what it needs of the past. A convolution of kernel k and stride s keeps
its last k - s inputs, a transposed one the s output samples that the next frame still adds to, an
LSTM its state. What remains is the beginning: offline, every convolution pads by reflecting its
first inputs, which takes 7 frames to have. Both ends therefore start from 7 frames of silence
that are coded once, offline fashion, when the codec is made; hence L = 0, D = 0, and the payloads
of a stream are the codes of offline coding of ``7 * 320`` zeros followed by the stream, without
its first 7 frames. The decoder has then decoded the codes of that silence.

A payload is the codes of one frame, 10 bits for each codebook, first codebook first, most
significant bit first, zero bits up to the next byte.

``conceal`` feeds the last codes again for up to :data:`_REPEATED_FRAMES` frames, then those of
silence, so that convolutions and LSTM fade by themselves and the frames after the gap find a
state of the right age. Weights are real (the asset ``encodec-24khz``) or random: seeded, for tests
and timing, and of no use to listen to.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import numpy as np

from harness.codecs import base
from harness.codecs.allowed import OneOf
from harness.codecs.base import CodecFacts, Pcm
from harness.errors import AssetError, Unsupported
from harness.fields import BitrateBps
from harness.units import format_bitrate

if TYPE_CHECKING:
    from torch import Tensor

_WEIGHTS = "encodec-24khz"
_RATE_HZ = 24_000
_FRAME_SAMPLES = 320
_PRIMING_FRAMES = 7
_CODE_BITS = 10
_BITRATE_PER_CODEBOOK = _RATE_HZ // _FRAME_SAMPLES * _CODE_BITS
_REPEATED_FRAMES = 3
_SEED = 20221024
_HALF_IMPORTED = ("encodec", "torchaudio")
Kind = Literal["24khz", "48khz"]


ABOUT = base.About(
    title="EnCodec 24 kHz, frame by frame (Defossez et al. 2022)",
    tier="neural",
    bitrates="1.5, 3, 6, 12, 24 kbit",
    code_licence="MIT",
    weights_licence="not stated by their publisher",
)


class Params(base.Params):
    bitrate: Annotated[BitrateBps, OneOf((1_500, 3_000, 6_000, 12_000, 24_000), format_bitrate)] = (
        6_000
    )
    weights: Literal["real", "random"] = "real"


def required_assets(params: Params) -> tuple[str, ...]:
    return (_WEIGHTS,) if params.weights == "real" else ()


def create(params: Params, assets: Mapping[str, Path]) -> EncodecCodec:
    """Also sets torch to one thread for the whole process: on a frame this small, more of them
    wait for each other longer than they compute."""
    library = ready()
    network = _network(checkpoint(_WEIGHTS, assets) if params.weights == "real" else None)
    facts = CodecFacts(
        sample_rate_hz=_RATE_HZ,
        frame_samples=_FRAME_SAMPLES,
        lookahead_frames=0,
        delay_samples=0,
        nominal_bitrate_bps=params.bitrate,
        library=library,
        weights=params.weights,
        conceals=True,
    )
    return EncodecCodec(facts, *network.primed(params.bitrate // _BITRATE_PER_CODEBOOK))


@dataclass(frozen=True)
class EncodecCodec:
    facts: CodecFacts
    quantizer: Quantizer
    primed_encoder: Chain
    primed_decoder: Chain
    silence: tuple[int, ...]

    def encoder(self) -> EncodecEncoder:
        return EncodecEncoder(self.primed_encoder.fork(), self.quantizer)

    def decoder(self) -> EncodecDecoder:
        return EncodecDecoder(self.primed_decoder.fork(), self.quantizer, self.silence)


class EncodecEncoder:
    def __init__(self, layers: Chain, quantizer: Quantizer) -> None:
        self._layers = layers
        self._quantizer = quantizer

    def encode(self, pcm: Pcm) -> bytes:
        import torch

        with torch.inference_mode():
            samples = torch.from_numpy(pcm.astype(np.float32) / np.float32(32768))
            (codes,) = self._quantizer.encode(self._layers(samples[:, None]))
        return pack(codes)


class EncodecDecoder:
    def __init__(self, layers: Chain, quantizer: Quantizer, silence: tuple[int, ...]) -> None:
        self._layers = layers
        self._quantizer = quantizer
        self._silence = silence
        self._last = silence
        self._concealed_frames = 0

    def decode(self, payload: bytes) -> Pcm:
        self._last = unpack(payload, len(self._silence))
        self._concealed_frames = 0
        return self._synthesise(self._last)

    def conceal(self) -> Pcm:
        self._concealed_frames += 1
        repeats = self._concealed_frames <= _REPEATED_FRAMES
        return self._synthesise(self._last if repeats else self._silence)

    def recover(self, later_payload: bytes, frames_back: int = 1) -> Pcm | None:  # noqa: ARG002
        return None

    def _synthesise(self, codes: tuple[int, ...]) -> Pcm:
        import torch

        with torch.inference_mode():
            samples = self._layers(self._quantizer.decode([codes]))[:, 0]
            pcm: Pcm = (samples * 32768).round_().clamp_(-32768, 32767).to(torch.int16).numpy()
        return pcm


def pack(codes: Sequence[int]) -> bytes:
    """The codes of one frame, each in 0...1023, as ``ceil(10 * len(codes) / 8)`` bytes."""
    bits = 0
    for code in codes:
        bits = bits << _CODE_BITS | code
    size, padding = _size(len(codes))
    return (bits << padding).to_bytes(size, "big")


def unpack(payload: bytes, codebooks: int) -> tuple[int, ...]:
    """The inverse of :func:`pack`. Raises ValueError on a wrong size or bits in the padding."""
    size, padding = _size(codebooks)
    if len(payload) != size:
        raise ValueError(f"EnCodec frame of {len(payload)} bytes, expected {size}")
    bits = int.from_bytes(payload, "big")
    if bits & (1 << padding) - 1:
        raise ValueError("EnCodec frame is damaged: its padding bits are not zero")
    bits >>= padding
    mask = (1 << _CODE_BITS) - 1
    return tuple(bits >> _CODE_BITS * place & mask for place in reversed(range(codebooks)))


def _size(codebooks: int) -> tuple[int, int]:
    """Bytes of a payload, and bits of padding at its end."""
    size = -(-codebooks * _CODE_BITS // 8)
    return size, size * 8 - codebooks * _CODE_BITS


class Layer(Protocol):
    """A layer with its past. State tensors are replaced and never written into, so a fork shares
    them with its origin until either moves on. ``x`` has shape (time, channels): with so few
    steps in a frame, products of that layout are the fast ones."""

    def __call__(self, x: Tensor) -> Tensor: ...
    def fork(self) -> Layer: ...


class Chain:
    """Layers one after the other."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = tuple(layers)

    def __call__(self, x: Tensor) -> Tensor:
        for layer in self._layers:
            x = layer(x)
        return x

    def fork(self) -> Chain:
        return Chain([layer.fork() for layer in self._layers])


class _Elu:
    def __call__(self, x: Tensor) -> Tensor:
        from torch.nn.functional import elu

        return elu(x)

    def fork(self) -> _Elu:
        return self


class _Residual:
    def __init__(self, shortcut: Layer, block: Layer) -> None:
        self._shortcut = shortcut
        self._block = block

    def __call__(self, x: Tensor) -> Tensor:
        return self._shortcut(x) + self._block(x)

    def fork(self) -> _Residual:
        return _Residual(self._shortcut.fork(), self._block.fork())


class _Convolution:
    """Causal convolution as one matrix product: weight (in * kernel, out), bias (out,).

    ``past`` holds the last kernel - stride inputs; None until the first call, which must bring
    more than that many and reflects them.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, kernel: int, stride: int, past: Tensor | None = None
    ) -> None:
        self._weight, self._bias = weight, bias
        self._kernel, self._stride = kernel, stride
        self._past = past

    def __call__(self, x: Tensor) -> Tensor:
        import torch

        if self._kernel > 1:
            keep = self._kernel - self._stride
            past = x[1 : keep + 1].flip(0) if self._past is None else self._past
            x = torch.cat((past, x))
            self._past = x[-keep:]
            x = x.unfold(0, self._kernel, self._stride).flatten(1)
        return torch.addmm(self._bias, x, self._weight)

    def fork(self) -> _Convolution:
        return _Convolution(self._weight, self._bias, self._kernel, self._stride, self._past)


class _Upsampling:
    """Causal transposed convolution of kernel 2 * stride as one matrix product.

    Weight (in, 2 * stride * out), bias (out,). Each input adds to its own ``stride`` outputs and
    to the next ``stride``: those of the last input are the ``carry``, without bias.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, stride: int, carry: Tensor | None = None
    ) -> None:
        self._weight, self._bias = weight, bias
        self._stride = stride
        self._carry = carry

    def __call__(self, x: Tensor) -> Tensor:
        import torch

        own, late = (x @ self._weight).view(len(x), 2, self._stride, len(self._bias)).unbind(1)
        first = torch.zeros_like(late[:1]) if self._carry is None else self._carry
        self._carry = late[-1:]
        return (own + torch.cat((first, late[:-1])) + self._bias).flatten(0, 1)

    def fork(self) -> _Upsampling:
        return _Upsampling(self._weight, self._bias, self._stride, self._carry)


class _Lstm:
    """Stacked LSTM cells with a skip connection around them; several times faster than torch's
    own on single steps. A cell is (weight, bias) of its four gates (input, forget, cell, output)
    over its input and hidden state: shapes (2 * width, 4 * width) and (4 * width,)."""

    def __init__(
        self,
        cells: Sequence[tuple[Tensor, Tensor]],
        state: tuple[tuple[Tensor, Tensor], ...] | None = None,
    ) -> None:
        self._cells = cells
        self._state = state

    def __call__(self, x: Tensor) -> Tensor:
        import torch

        if self._state is None:
            zero = torch.zeros_like(x[0])
            self._state = ((zero, zero),) * len(self._cells)
        outputs = []
        for step in x:
            output, state = step, []
            for (weight, bias), (hidden, memory) in zip(self._cells, self._state, strict=True):
                gates = torch.addmv(bias, weight.t(), torch.cat((output, hidden)))
                enter, forget, new, leave = gates.chunk(4)
                memory = forget.sigmoid() * memory + enter.sigmoid() * new.tanh()
                output = leave.sigmoid() * memory.tanh()
                state.append((output, memory))
            self._state = tuple(state)
            outputs.append(output)
        return torch.stack(outputs) + x

    def fork(self) -> _Lstm:
        return _Lstm(self._cells, self._state)


class Quantizer:
    """Residual vector quantisation with the first ``codebooks`` of the model's codebooks.

    ``vectors`` has shape (codebooks, 1024, 128). The nearest vector to r minimises
    |r - e|^2, which is to maximise 2 e.r - |e|^2: |e|^2 is computed once.
    """

    def __init__(self, vectors: Tensor) -> None:
        self._vectors = vectors
        self._books = [
            (book, book.t().contiguous(), -energy)
            for book, energy in zip(vectors, vectors.square().sum(2), strict=True)
        ]

    def encode(self, latent: Tensor) -> list[tuple[int, ...]]:
        """Codes of each frame of ``latent``, shape (frames, 128)."""
        import torch

        residual = latent
        codes = []
        for book, transposed, minus_energy in self._books:
            chosen = torch.addmm(minus_energy, residual, transposed, alpha=2).argmax(1)
            residual = residual - book[chosen]
            codes.append(chosen)
        return [tuple(frame) for frame in torch.stack(codes, 1).tolist()]

    def decode(self, codes: Sequence[tuple[int, ...]]) -> Tensor:
        """Sum of the coded vectors, shape (frames, 128)."""
        import torch

        chosen = torch.tensor(codes)
        return self._vectors[torch.arange(chosen.shape[1]), chosen].sum(1)


@dataclass(frozen=True)
class _Network:
    """The model's layers, unprimed, and all of its codebooks."""

    encoder: Chain
    decoder: Chain
    vectors: Tensor

    def primed(self, codebooks: int) -> tuple[Quantizer, Chain, Chain, tuple[int, ...]]:
        """Quantizer, encoder and decoder after the silence, and the codes of silence."""
        import torch

        quantizer = Quantizer(self.vectors[:codebooks])
        encoder, decoder = self.encoder.fork(), self.decoder.fork()
        with torch.inference_mode():
            silence = quantizer.encode(encoder(torch.zeros(_PRIMING_FRAMES * _FRAME_SAMPLES, 1)))
            decoder(quantizer.decode(silence))
        return quantizer, encoder, decoder, silence[-1]


@lru_cache(maxsize=1)
def _network(weights: Path | None) -> _Network:
    import torch

    model = offline_model(weights)
    with torch.inference_mode():
        return _Network(
            encoder=_streaming(model.encoder.model),
            decoder=_streaming(model.decoder.model),
            vectors=torch.stack([layer.codebook.clone() for layer in model.quantizer.vq.layers]),
        )


def _streaming(module: Any) -> Any:
    """The streaming counterpart of one of the package's modules."""
    kind = type(module).__name__
    if kind == "Sequential":
        return Chain([_streaming(child) for child in module])
    if kind == "SEANetResnetBlock":
        return _Residual(_streaming(module.shortcut), _streaming(module.block))
    if kind == "SConv1d":
        conv = module.conv.conv
        return _Convolution(
            conv.weight.flatten(1).t(), conv.bias, conv.kernel_size[0], conv.stride[0]
        )
    if kind == "SConvTranspose1d":
        conv = module.convtr.convtr
        stride = conv.stride[0]
        halves = conv.weight.unflatten(2, (2, stride))
        return _Upsampling(halves.permute(0, 2, 3, 1).flatten(1), conv.bias, stride)
    if kind == "SLSTM":
        return _Lstm([_gates(module.lstm, depth) for depth in range(module.lstm.num_layers)])
    if kind == "ELU":
        return _Elu()
    raise Unsupported(f"encodec {importlib.metadata.version('encodec')} has an unknown {kind}")


def _gates(lstm: Any, depth: int) -> tuple[Tensor, Tensor]:
    import torch

    weights = [getattr(lstm, f"weight_{source}_l{depth}") for source in ("ih", "hh")]
    biases = [getattr(lstm, f"bias_{source}_l{depth}") for source in ("ih", "hh")]
    return torch.cat(weights, 1).t().contiguous(), biases[0] + biases[1]


def ready() -> str:
    """Sets torch to one thread for the whole process; the names and versions of what codes.

    Raises Unsupported where a library is missing.
    """
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("encodec") is None:
        raise Unsupported("EnCodec needs the packages torch, einops and encodec (--no-deps)")
    import torch

    torch.set_num_threads(1)
    return f"encodec {importlib.metadata.version('encodec')}, torch {torch.__version__}"


def checkpoint(name: str, assets: Mapping[str, Path]) -> Path:
    """The verified file of an asset. Raises AssetError where it is not among ``assets``."""
    if name not in assets:
        raise AssetError(f"EnCodec with real weights needs the asset {name!r}; fetch it")
    return assets[name]


def offline_model(weights: Path | None, kind: Kind = "24khz") -> Any:
    """The package's own ``EncodecModel``, without weight normalisation.

    ``weights`` is a verified checkpoint file; None fills the model from a fixed seed. Raises
    AssetError, naming the file, if it is no checkpoint of this model.
    """
    from torch.nn.utils import remove_weight_norm

    model_class = package().EncodecModel
    with warnings.catch_warnings(), seeded():
        # encodec 0.1.1 uses torch's older weight_norm, which warns that it will go.
        warnings.simplefilter("ignore", FutureWarning)
        model = getattr(model_class, f"encodec_model_{kind}")(pretrained=False)
        if weights is None:
            _fill_randomly(model)
        else:
            load_checkpoint(model, weights, f"EnCodec {kind.removesuffix('khz')} kHz")
    for module in model.modules():
        if hasattr(module, "weight_g"):
            remove_weight_norm(module)
    return model.requires_grad_(False)


@contextmanager
def seeded() -> Iterator[None]:
    """Random weights made inside are the same every time; the caller's generator is left alone."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        yield


def _fill_randomly(model: Any) -> None:
    """Make a fresh model alive: its layers damp every signal and all its codebooks are zero.

    The factors keep speech at a sensible level: latents near 0.3, codes that vary, no clipping.
    """
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight_g"):
                parameter.mul_(2.0 if name.startswith("encoder") else 1.5)
            elif name.endswith("conv.bias") or name.endswith("convtr.bias"):
                parameter.mul_(0.3)
        for depth, layer in enumerate(model.quantizer.vq.layers):
            layer.codebook.normal_(std=0.3 * 0.85**depth)


def load_checkpoint(model: Any, weights: Path, title: str) -> None:
    """Fill a fresh model of the package from a file, unpickling nothing.

    Raises AssetError, naming the file, where it is damaged or of another model than ``title``.
    """
    import torch

    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        missing, unexpected = model.load_state_dict(state, strict=False)
    except Exception as error:  # torch names no common base of what a damaged file raises
        raise AssetError(f"{weights}: not an EnCodec checkpoint: {error}") from error
    if missing or unexpected:
        raise AssetError(
            f"{weights}: not a checkpoint of {title}: missing {_some(missing)},"
            f" unexpected {_some(unexpected)}"
        )


def _some(keys: Sequence[str]) -> str:
    shown = ", ".join(keys[:5]) or "none"
    return shown if len(keys) <= 5 else f"{shown} and {len(keys) - 5} more"


def package() -> Any:
    """The ``encodec`` package, which imports torchaudio for functions that nobody calls here.

    torchaudio has no CPU build on the package index, so where it is missing or broken an empty
    module takes its place during the import.
    """
    try:
        import encodec
    except (ImportError, OSError):
        for name in [name for name in sys.modules if name.split(".")[0] in _HALF_IMPORTED]:
            del sys.modules[name]
        sys.modules["torchaudio"] = types.ModuleType("torchaudio")
        try:
            import encodec
        finally:
            del sys.modules["torchaudio"]
    return encodec

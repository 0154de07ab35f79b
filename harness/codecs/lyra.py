"""Lyra V2 (Google, 2022): SoundStream's encoder, residual vector quantiser and decoder, through the
TFLite networks of google/lyra 1.3.2.

A frame is 20 ms at 16 kHz. The encoder makes 64 features of it, up to 46 quantisers of 4 bits each
code them, and LyraGAN makes the 20 ms again; every network is causal and keeps its past, so L = 0,
D = 0. How many quantisers are used is the bitrate, 16, 30 or 46 of them, and may change from frame
to frame. A payload is what Lyra's own packets are: the code of each quantiser in turn, 4 bits, most
significant first, without a header; its size tells how many there are.

Lyra was trained on speech of usual level: the corpus preparation brings items there.

``conceal`` gives LyraGAN the last features again, as Lyra's own decoder does for up to 80 ms; then
come those of silence, where Lyra would fade to comfort noise. Weights are real or there are none:
a quantised network cannot be filled at random in a way that means anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from harness import litert
from harness.codecs import base
from harness.codecs.allowed import OneOf
from harness.codecs.base import CodecFacts, Pcm
from harness.errors import AssetError
from harness.fields import BitrateBps
from harness.litert import Network, Run
from harness.units import format_bitrate

_ENCODER, _QUANTIZER, _DECODER = "lyra-v2-encoder", "lyra-v2-quantizer", "lyra-v2-decoder"
_RATE_HZ = 16_000
_FRAME_SAMPLES = 320
_FEATURES = 64
_QUANTIZERS = 46
_CODE_BITS = 4
_BITRATE_PER_QUANTIZER = _RATE_HZ // _FRAME_SAMPLES * _CODE_BITS
_BITRATES = (3_200, 6_000, 9_200)
_PAYLOAD_BYTES = tuple(bps // _BITRATE_PER_QUANTIZER * _CODE_BITS // 8 for bps in _BITRATES)
_REPEATED_FRAMES = 4
_SETTLING_FRAMES = 50
"""Silence that the encoder is given until its features stay as they are."""

Features = NDArray[np.float32]

ABOUT = base.About(
    title="Lyra V2 (Google 2022)",
    tier="neural",
    bitrates="3.2, 6, 9.2 kbit",
    code_licence="Apache-2.0",
    weights_licence="Apache-2.0",
    remedy=litert.REMEDY,
)


class Params(base.Params):
    bitrate: Annotated[BitrateBps, OneOf(_BITRATES, format_bitrate)] = 6_000


def required_assets(params: Params) -> tuple[str, ...]:  # noqa: ARG001
    return (_ENCODER, _QUANTIZER, _DECODER)


def create(params: Params, assets: Mapping[str, Path]) -> LyraCodec:
    library = litert.version()
    for name in required_assets(params):
        if name not in assets:
            raise AssetError(f"Lyra needs the asset {name!r}; fetch it")
    encoder = Network(
        _ENCODER, assets[_ENCODER], {"serving_default": {"input_audio": (1, _FRAME_SAMPLES)}}
    )
    quantizer = Network(
        _QUANTIZER,
        assets[_QUANTIZER],
        {
            "encode": {"input_frames": (1, 1, _FEATURES), "num_quantizers": ()},
            "decode": {"encoding_indices": (_QUANTIZERS, 1, 1)},
        },
    )
    decoder = Network(
        _DECODER, assets[_DECODER], {"serving_default": {"input_audio": (1, 1, _FEATURES)}}
    )
    facts = CodecFacts(
        sample_rate_hz=_RATE_HZ,
        frame_samples=_FRAME_SAMPLES,
        lookahead_frames=0,
        delay_samples=0,
        nominal_bitrate_bps=params.bitrate,
        library=f"lyra 1.3.2 (weights), {library}",
        weights="real",
        conceals=True,
        bitrate_range_bps=(_BITRATES[0], _BITRATES[-1]),
    )
    return LyraCodec(facts, encoder, quantizer, decoder, _silence(encoder, quantizer))


@dataclass(frozen=True)
class LyraCodec:
    facts: CodecFacts
    _encoder: Network
    _quantizer: Network
    _decoder: Network
    _silence: Features

    def encoder(self) -> LyraEncoder:
        quantize = self._quantizer.start("encode")
        return LyraEncoder(self._encoder.start(), quantize, self.facts.nominal_bitrate_bps)

    def decoder(self) -> LyraDecoder:
        return LyraDecoder(self._quantizer.start("decode"), self._decoder.start(), self._silence)


class LyraEncoder:
    def __init__(self, analyse: Run, quantize: Run, bitrate_bps: int) -> None:
        self._analyse = analyse
        self._quantize = quantize
        self._quantizers = bitrate_bps // _BITRATE_PER_QUANTIZER

    def encode(self, pcm: Pcm) -> bytes:
        features = _features(self._analyse, pcm)
        codes = _codes(self._quantize, features, self._quantizers)
        return pack(codes[: self._quantizers])

    def set_bitrate(self, bps: int) -> int:
        nearest = min(_BITRATES, key=lambda bitrate_bps: abs(bitrate_bps - bps))
        self._quantizers = nearest // _BITRATE_PER_QUANTIZER
        return nearest


class LyraDecoder:
    def __init__(self, dequantize: Run, synthesise: Run, silence: Features) -> None:
        self._dequantize = dequantize
        self._synthesise = synthesise
        self._silence = silence
        self._last = silence
        self._concealed_frames = 0

    def decode(self, payload: bytes) -> Pcm:
        self._last = _dequantized(self._dequantize, unpack(payload))
        self._concealed_frames = 0
        return self._synthesised(self._last)

    def conceal(self) -> Pcm:
        self._concealed_frames += 1
        repeats = self._concealed_frames <= _REPEATED_FRAMES
        return self._synthesised(self._last if repeats else self._silence)

    def recover(self, later_payload: bytes, frames_back: int = 1) -> Pcm | None:  # noqa: ARG002
        return None

    def _synthesised(self, features: Features) -> Pcm:
        samples = self._synthesise(input_audio=features)["output_0"][0]
        pcm: Pcm = np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)
        return pcm


def pack(codes: Sequence[int]) -> bytes:
    """An even number of codes in 0...15, two to a byte, the first one in the upper half."""
    return bytes(high << 4 | low for high, low in zip(codes[::2], codes[1::2], strict=True))


def unpack(payload: bytes) -> tuple[int, ...]:
    """The inverse of :func:`pack`. Raises ValueError on a size that Lyra does not have."""
    if len(payload) not in _PAYLOAD_BYTES:
        sizes = ", ".join(map(str, _PAYLOAD_BYTES))
        raise ValueError(f"Lyra frame of {len(payload)} bytes, expected one of {sizes}")
    return tuple(code for byte in payload for code in (byte >> 4, byte & 15))


def _features(analyse: Run, pcm: Pcm) -> Features:
    samples = pcm.astype(np.float32) / np.float32(32768)
    features: Features = analyse(input_audio=samples[None])["output_0"]
    return features


def _codes(quantize: Run, features: Features, quantizers: int) -> list[int]:
    """One code for each of the network's quantisers; -1 beyond the first ``quantizers``."""
    answer = quantize(input_frames=features, num_quantizers=np.array(quantizers, np.int32))
    codes: list[int] = answer["output_0"].ravel().tolist()
    return codes


def _dequantized(dequantize: Run, codes: Sequence[int]) -> Features:
    indices = np.full((_QUANTIZERS, 1, 1), -1, np.int32)
    indices[: len(codes), 0, 0] = codes
    features: Features = dequantize(encoding_indices=indices)["output_0"]
    return features


def _silence(encoder: Network, quantizer: Network) -> Features:
    """What digital silence sounds like to the decoder, as well as it can be coded."""
    analyse = encoder.start()
    for _ in range(_SETTLING_FRAMES):
        features = _features(analyse, np.zeros(_FRAME_SAMPLES, np.int16))
    codes = _codes(quantizer.start("encode"), features, _QUANTIZERS)
    return _dequantized(quantizer.start("decode"), codes)

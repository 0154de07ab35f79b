"""Opus (RFC 6716): libopus, bound by ctypes.

PyAV's Opus decoder has no call for lost packets; libopus itself has three ways of living with
one: concealment (``conceal``), deep PLC (a neural one, ``deep_plc``) and in-band FEC, a coarse
copy of each frame inside the packet after it (``fec``; ``recover``). DTX stays off: every frame
has a payload.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from harness.codecs import base
from harness.codecs.allowed import Between, OneOf, whole_samples
from harness.codecs.base import CodecFacts, Pcm
from harness.errors import Unsupported
from harness.fields import BitrateBps, DurationNs, FrequencyHz, Probability
from harness.units import format_bitrate, format_duration, format_frequency

_ENVIRONMENT = "HARNESS_LIBOPUS"
_MAX_PAYLOAD = 3 * 1275 + 7
"""Bytes: three 20 ms frames of 1275 bytes each in one 60 ms packet (RFC 6716, section 3)."""
_APPLICATIONS = {"voip": 2048, "audio": 2049, "lowdelay": 2051}
_SET_BITRATE, _SET_VBR, _SET_COMPLEXITY = 4002, 4006, 4010
_SET_INBAND_FEC, _SET_PACKET_LOSS_PERC, _GET_LOOKAHEAD = 4012, 4014, 4027
_DEEP_PLC_COMPLEXITY = 5
"""Decoder complexity from which libopus >= 1.5 conceals by its neural vocoder, if it has one."""
_CELT_CONFIG = 16
"""First TOC configuration number without a SILK layer (RFC 6716, table 2)."""


ABOUT = base.About(
    title="Opus (RFC 6716)",
    tier="core",
    bitrates="6-510 kbit",
    code_licence="BSD-3-Clause",
)


class Params(base.Params):
    rate: Annotated[
        FrequencyHz, OneOf((8_000, 12_000, 16_000, 24_000, 48_000), format_frequency)
    ] = 16_000
    bitrate: Annotated[BitrateBps, Between(6_000, 510_000, format_bitrate)] = 24_000
    frame: Annotated[
        DurationNs,
        OneOf(
            (2_500_000, 5_000_000, 10_000_000, 20_000_000, 40_000_000, 60_000_000), format_duration
        ),
    ] = 20_000_000
    application: Literal["voip", "audio", "lowdelay"] = "voip"
    complexity: Annotated[int, Field(ge=0, le=10)] = 10
    vbr: bool = True
    fec: bool = False
    expected_loss: Probability = 0.0
    deep_plc: bool = False

    @model_validator(mode="after")
    def _fec_is_possible(self) -> Self:
        if not self.fec:
            return self
        if self.application == "lowdelay":
            raise ValueError(
                "fec: true needs application voip or audio (lowdelay never uses SILK, the layer"
                " that carries the redundancy)"
            )
        if self.frame < 10_000_000:
            raise ValueError(
                f"fec: true needs a frame of 10ms or more, got {format_duration(self.frame)}"
                " (shorter frames are CELT, which carries no redundancy)"
            )
        if self.expected_loss < 0.01:
            raise ValueError(
                "fec: true needs expected_loss of at least 1%, 10% say (the encoder spends bits on"
                " redundancy only for losses that it expects)"
            )
        return self


def required_assets(params: Params) -> tuple[str, ...]:  # noqa: ARG001
    return ()


def create(params: Params, assets: Mapping[str, Path]) -> OpusCodec:  # noqa: ARG001
    lib = library()
    if params.deep_plc and not has_deep_plc(lib):
        raise Unsupported(
            f"deep_plc: {lib.name} in {lib.path} was built without deep PLC; name another"
            f" libopus (1.5 or later, --enable-deep-plc) in {_ENVIRONMENT}"
        )
    lookahead = OpusEncoder(lib, params).lookahead_samples()
    facts = CodecFacts(
        sample_rate_hz=params.rate,
        frame_samples=whole_samples(params.frame, params.rate),
        lookahead_frames=0,
        delay_samples=lookahead,
        nominal_bitrate_bps=params.bitrate,
        library=lib.name,
        conceals=True,
        recovery_frames=int(params.fec),
    )
    return OpusCodec(facts, params, lib)


@dataclass(frozen=True)
class OpusCodec:
    facts: CodecFacts
    params: Params
    lib: Library

    def encoder(self) -> OpusEncoder:
        return OpusEncoder(self.lib, self.params)

    def decoder(self) -> OpusDecoder:
        complexity = _DEEP_PLC_COMPLEXITY if self.params.deep_plc else 0
        return OpusDecoder(self.lib, self.params, complexity)


class OpusEncoder:
    def __init__(self, lib: Library, params: Params) -> None:
        error = ctypes.c_int()
        self._lib = lib
        self._state = lib.c.opus_encoder_create(
            params.rate, 1, _APPLICATIONS[params.application], ctypes.byref(error)
        )
        lib.check(error.value, "opus_encoder_create")
        weakref.finalize(self, lib.c.opus_encoder_destroy, self._state)
        for request, value in (
            (_SET_BITRATE, params.bitrate),
            (_SET_VBR, int(params.vbr)),
            (_SET_COMPLEXITY, params.complexity),
            (_SET_INBAND_FEC, int(params.fec)),
            (_SET_PACKET_LOSS_PERC, round(params.expected_loss * 100)),
        ):
            lib.check(
                lib.c.opus_encoder_ctl(self._state, request, ctypes.c_int(value)),
                f"opus_encoder_ctl({request}, {value})",
            )
        self._frame_samples = whole_samples(params.frame, params.rate)
        self._pcm = np.zeros(self._frame_samples, np.int16)
        self._pcm_at = self._pcm.ctypes.data
        self._payload = ctypes.create_string_buffer(_MAX_PAYLOAD)

    def lookahead_samples(self) -> int:
        """Encoder look-ahead and decoder delay together, at the codec's sampling rate."""
        samples = ctypes.c_int()
        self._lib.check(
            self._lib.c.opus_encoder_ctl(self._state, _GET_LOOKAHEAD, ctypes.byref(samples)),
            "OPUS_GET_LOOKAHEAD",
        )
        return samples.value

    def encode(self, pcm: Pcm) -> bytes:
        self._pcm[:] = pcm
        size = self._lib.c.opus_encode(
            self._state, self._pcm_at, self._frame_samples, self._payload, _MAX_PAYLOAD
        )
        self._lib.check(size, "opus_encode")
        return ctypes.string_at(self._payload, size)


class OpusDecoder:
    """``complexity`` 0 conceals by pitch prediction, 5 by deep PLC where the library has it."""

    def __init__(self, lib: Library, params: Params, complexity: int) -> None:
        error = ctypes.c_int()
        self._lib = lib
        self._state = lib.c.opus_decoder_create(params.rate, 1, ctypes.byref(error))
        lib.check(error.value, "opus_decoder_create")
        weakref.finalize(self, lib.c.opus_decoder_destroy, self._state)
        if complexity:
            lib.check(
                lib.c.opus_decoder_ctl(self._state, _SET_COMPLEXITY, ctypes.c_int(complexity)),
                "OPUS_SET_COMPLEXITY of the decoder",
            )
        self._rate_hz = params.rate
        self._frame_samples = whole_samples(params.frame, params.rate)
        self._silk_frames = max(1, params.frame // 20_000_000)
        self._fec = params.fec
        self._pcm = np.zeros(self._frame_samples, np.int16)
        self._pcm_at = self._pcm.ctypes.data

    def decode(self, payload: bytes) -> Pcm:
        samples = self._lib.c.opus_packet_get_nb_samples(payload, len(payload), self._rate_hz)
        if samples != self._frame_samples:
            raise ValueError(
                f"Opus packet of {len(payload)} bytes: "
                + (
                    self._lib.explain(samples)
                    if samples < 0
                    else f"{samples} samples, expected {self._frame_samples}"
                )
            )
        return self._run(payload, len(payload), fec=0)

    def conceal(self) -> Pcm:
        return self._run(None, 0, fec=0)

    def recover(self, later_payload: bytes, frames_back: int = 1) -> Pcm | None:
        if not self._fec or frames_back != 1 or not self._carries_redundancy(later_payload):
            return None
        return self._run(later_payload, len(later_payload), fec=1)

    def _run(self, payload: bytes | None, size: int, fec: int) -> Pcm:
        samples = self._lib.c.opus_decode(
            self._state, payload, size, self._pcm_at, self._frame_samples, fec
        )
        if samples != self._frame_samples:
            raise ValueError(f"Opus packet of {size} bytes: {self._lib.explain(samples)}")
        return self._pcm.copy()

    def _carries_redundancy(self, payload: bytes) -> bool:
        """The LBRR flag, which follows the VAD flags of a SILK layer (RFC 6716, 4.2.3)."""
        if not payload or payload[0] >> 3 >= _CELT_CONFIG:
            return False
        samples = self._lib.c.opus_packet_get_nb_samples(payload, len(payload), self._rate_hz)
        offset = ctypes.c_int()
        sizes = (ctypes.c_int16 * 48)()
        frames = self._lib.c.opus_packet_parse(
            payload, len(payload), None, None, sizes, ctypes.byref(offset)
        )
        if samples != self._frame_samples or frames < 1 or sizes[0] < 1:
            return False
        silk_frames = max(1, self._silk_frames // frames)
        return bool(payload[offset.value] >> (7 - silk_frames) & 1)


@dataclass(frozen=True)
class Library:
    """One loaded libopus."""

    c: ctypes.CDLL
    path: str

    @property
    def name(self) -> str:
        """Such as ``libopus 1.6.1``."""
        return bytes(self.c.opus_get_version_string()).decode()

    def explain(self, code: int) -> str:
        return bytes(self.c.opus_strerror(code)).decode()

    def check(self, code: int, what: str) -> None:
        if code < 0:
            raise Unsupported(f"{self.name}: {what}: {self.explain(code)}")


@lru_cache
def library() -> Library:
    """libopus: the one named in HARNESS_LIBOPUS, else the one in PyAV's wheel, else the system's.

    PyAV's comes first because its version is locked with the wheel's, so host and container code
    with the same one. Raises Unsupported, with the remedy, where none can be loaded.
    """
    chosen = os.environ.get(_ENVIRONMENT)
    candidates = [chosen] if chosen else [*_pyav_libraries(), "libopus.so.0"]
    failures = []
    for path in candidates:
        try:
            return Library(_declared(ctypes.CDLL(path)), path)
        except (OSError, AttributeError) as error:
            failures.append(f"{path}: {error}")
    raise Unsupported(
        f"no libopus ({'; '.join(failures)}); install the package av or Debian's libopus0, or name"
        f" a libopus in {_ENVIRONMENT}"
    )


def _pyav_libraries() -> list[str]:
    spec = importlib.util.find_spec("av")
    if spec is None or spec.origin is None:
        return []
    return [str(path) for path in Path(spec.origin).parents[1].glob("av.libs/libopus-*.so*")]


def _declared(c: ctypes.CDLL) -> ctypes.CDLL:
    """The C signatures of opus.h; raises AttributeError if the library has not all of them."""
    integer, pointer, text = ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p
    for name, returns, arguments in (
        ("opus_get_version_string", text, []),
        ("opus_strerror", text, [integer]),
        ("opus_encoder_create", pointer, [ctypes.c_int32, integer, integer, pointer]),
        ("opus_encoder_ctl", integer, [pointer, integer]),
        ("opus_encoder_destroy", None, [pointer]),
        ("opus_encode", ctypes.c_int32, [pointer, pointer, integer, text, ctypes.c_int32]),
        ("opus_decoder_create", pointer, [ctypes.c_int32, integer, pointer]),
        ("opus_decoder_ctl", integer, [pointer, integer]),
        ("opus_decoder_destroy", None, [pointer]),
        ("opus_decode", integer, [pointer, text, ctypes.c_int32, pointer, integer, integer]),
        ("opus_packet_get_nb_samples", integer, [text, ctypes.c_int32, ctypes.c_int32]),
        ("opus_packet_parse", integer, [text, ctypes.c_int32, pointer, pointer, pointer, pointer]),
    ):
        function = getattr(c, name)
        function.restype, function.argtypes = returns, arguments
    return c


@lru_cache
def has_deep_plc(lib: Library) -> bool:
    """Whether decoder complexity 5 conceals a lost frame otherwise than complexity 0 does."""
    params = Params()
    samples = whole_samples(params.frame, params.rate)
    encoder = OpusEncoder(lib, params)
    plain = OpusDecoder(lib, params, 0)
    try:
        deep = OpusDecoder(lib, params, _DEEP_PLC_COMPLEXITY)
    except Unsupported:  # before 1.5 decoders have no complexity
        return False
    # A 125 Hz pulse train: voiced enough for both concealments to continue it.
    time = np.arange(20 * samples)
    pulses = np.where(time % (params.rate // 125) < 8, 8000, -500).astype(np.int16)
    for frame in pulses.reshape(-1, samples):
        payload = encoder.encode(frame)
        plain.decode(payload)
        deep.decode(payload)
    return any(not np.array_equal(plain.conceal(), deep.conceal()) for _ in range(3))

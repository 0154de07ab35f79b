"""Opus (RFC 6716): libopus, bound by ctypes.

PyAV's Opus decoder has no call for lost packets; libopus itself has four ways of living with one:
concealment (``conceal``), deep PLC (a neural one, ``deep_plc``), in-band FEC, a coarse copy of each
frame inside the packet after it (``fec``; ``recover``), and DRED, features of up to a second of
speech in every packet, from which the decoder's vocoder speaks any frame of that time (``dred``;
``recover`` with ``frames_back``; Valin et al., ICASSP 2023). Deep PLC and DRED are in no
distribution's libopus and not in PyAV's: ``make libopus`` builds one that has them, and the
container image carries it. DTX stays off: every frame has a payload.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from harness.codecs import base
from harness.codecs.allowed import Between, OneOf, whole_samples
from harness.codecs.base import CodecFacts, Pcm
from harness.codecs.opus_library import ENVIRONMENT, Library, library
from harness.errors import Unsupported
from harness.fields import BitrateBps, DurationNs, FrequencyHz, Probability
from harness.units import NS_PER_S, format_bitrate, format_duration, format_frequency

_REMEDY = f"build one that has it (make libopus), or name one in {ENVIRONMENT}"
_MAX_PAYLOAD = 3 * 1275 + 7
"""Bytes: three 20 ms frames of 1275 bytes each in one 60 ms packet (RFC 6716, section 3)."""
_APPLICATIONS = {"voip": 2048, "audio": 2049, "lowdelay": 2051}
_SET_BITRATE, _GET_BITRATE, _SET_VBR, _SET_COMPLEXITY = 4002, 4003, 4006, 4010
_SET_VBR_CONSTRAINT = 4020
_SET_INBAND_FEC, _SET_PACKET_LOSS_PERC, _GET_LOOKAHEAD = 4012, 4014, 4027
_SET_DRED_DURATION = 4050
_BITRATES_BPS = (6_000, 510_000)
_DEEP_PLC_COMPLEXITY = 5
"""Decoder complexity from which libopus >= 1.5 conceals by its neural vocoder, if it has one."""
_CELT_CONFIG = 16
"""First TOC configuration number without a SILK layer (RFC 6716, table 2)."""
_DRED_STEP_NS, _DRED_LONGEST_NS, _DRED_SHORTEST_FRAME_NS = 10_000_000, 1_040_000_000, 10_000_000
_DRED_ABOVE_BPS = {False: 12_000, True: 20_000}
"""Without and with FEC: libopus 1.5 spends a share of the bitrate above this on DRED
(compute_dred_bitrate in its opus_encoder.c)."""

_FEC_THRESHOLD_BPS = {8_000: 13_000, 12_000: 15_000, 16_000: 17_000}
"""By sampling rate of the SILK layer: the equivalent rate from which libopus's decide_fec (in its
opus_encoder.c) switches FEC on without any loss expected, hysteresis included."""

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
    bitrate: Annotated[BitrateBps, Between(*_BITRATES_BPS, format_bitrate)] = 24_000
    frame: Annotated[
        DurationNs,
        OneOf(
            (2_500_000, 5_000_000, 10_000_000, 20_000_000, 40_000_000, 60_000_000), format_duration
        ),
    ] = 20_000_000
    application: Literal["voip", "audio", "lowdelay"] = "voip"
    complexity: Annotated[int, Field(ge=0, le=10)] = 10
    vbr: bool = True
    vbr_constraint: bool = True
    """Whether a variable rate is bounded (constrained VBR) or follows the signal freely, as it does
    in ``opus_demo``. Only the CELT layer heeds it."""
    fec: bool = False
    expected_loss: Probability = 0.0
    deep_plc: bool = False
    dred: Annotated[DurationNs, Between(0, _DRED_LONGEST_NS, format_duration)] = 0
    """How far every packet's redundancy reaches back, as far as the bitrate allows; 0 is off. Its
    decoder conceals by deep PLC what DRED does not reach."""

    @model_validator(mode="after")
    def _constraint_has_an_effect(self) -> Self:
        if not (self.vbr or self.vbr_constraint):
            raise ValueError(
                "vbr_constraint: false needs vbr: true (a constant rate is not bounded)"
            )
        return self

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
        if self.bitrate < (least := _least_fec_bps(self)):
            raise ValueError(
                f"fec: true needs a bitrate of {format_bitrate(least)} or more at an expected_loss"
                f" of {self.expected_loss:.0%}, got {format_bitrate(self.bitrate)} (no packet"
                " carries redundancy at these settings)"
            )
        return self

    @model_validator(mode="after")
    def _dred_is_possible(self) -> Self:
        if not self.dred:
            return self
        if self.dred % _DRED_STEP_NS:
            raise ValueError(
                "dred: expected a multiple of 10ms (0ms is off), got " + format_duration(self.dred)
            )
        if self.frame < _DRED_SHORTEST_FRAME_NS or self.dred < self.frame:
            raise ValueError(
                "dred needs a frame of 10ms or more and must be as long as one frame at least, got"
                f" dred {format_duration(self.dred)} with a frame of {format_duration(self.frame)}"
            )
        if self.expected_loss < 0.01:
            raise ValueError(
                "dred needs expected_loss of at least 1%, 10% say (the encoder spends bits on"
                " redundancy only for losses that it expects)"
            )
        if self.bitrate <= (above := _DRED_ABOVE_BPS[self.fec]):
            raise ValueError(
                f"dred{' beside fec' if self.fec else ''} needs a bitrate above"
                f" {format_bitrate(above)}, got {format_bitrate(self.bitrate)} (only what lies"
                " above is spent on it)"
            )
        return self


def _least_fec_bps(params: Params) -> int:
    """The bitrate below which libopus spends nothing on FEC, in whole 100 bit/s.

    Solves decide_fec and compute_equiv_rate of its opus_encoder.c for the bitrate. Where more than
    5 % of loss is expected, the encoder gives up audio bandwidth for FEC.
    """
    loss = round(100 * params.expected_loss)
    silk_rate_hz = 8_000 if loss > 5 else min(params.rate, 16_000)
    needed = _FEC_THRESHOLD_BPS[silk_rate_hz] * (125 - min(loss, 25)) / 100
    needed /= 1 - loss / (6 * loss + 10)
    needed /= (90 + params.complexity) / 100 * (1 if params.complexity > 1 else 0.8)
    frames_per_s = NS_PER_S // params.frame
    if not params.vbr:  # rounded to whole bytes per frame
        needed = needed * 12 / 11 - 4 * frames_per_s
    needed += 60 * max(0, frames_per_s - 50)
    return int(needed) // 100 * 100


def required_assets(params: Params) -> tuple[str, ...]:  # noqa: ARG001
    return ()


def create(params: Params, assets: Mapping[str, Path]) -> OpusCodec:  # noqa: ARG001
    lib = library()
    if params.deep_plc and not has_deep_plc(lib):
        raise Unsupported(
            f"deep_plc: {lib.name} in {lib.path} was built without deep PLC; {_REMEDY}"
        )
    if params.fec and not _spends_on_fec(lib, params):
        raise Unsupported(
            f"fec: no packet of {lib.name} carries redundancy at these settings (application"
            f" {params.application}, {format_bitrate(params.bitrate)}, an expected_loss of"
            f" {params.expected_loss:.0%}); raise expected_loss, or take application voip"
        )
    if params.dred:
        if not has_dred(lib):
            raise Unsupported(f"dred: {lib.name} in {lib.path} was built without DRED; {_REMEDY}")
        if not _spends_on_dred(lib, params):
            raise Unsupported(
                f"dred: {lib.name} spends nothing on DRED at {format_bitrate(params.bitrate)} and"
                f" an expected_loss of {params.expected_loss:.0%}; raise either"
                + (", or leave fec out" if params.fec else "")
            )
    encoder = OpusEncoder(lib, params)
    lookahead = encoder.lookahead_samples()
    facts = CodecFacts(
        sample_rate_hz=params.rate,
        frame_samples=whole_samples(params.frame, params.rate),
        lookahead_frames=0,
        delay_samples=lookahead,
        nominal_bitrate_bps=encoder.set_bitrate(params.bitrate),
        payload_format="opus",
        library=lib.name,
        conceals=True,
        recovery_frames=max(int(params.fec), params.dred // params.frame),
        # libopus holds one channel to 300 kbit/s in 1.5 and to more in 1.6, and says so only here.
        bitrate_range_bps=(encoder.set_bitrate(0), encoder.set_bitrate(_BITRATES_BPS[1])),
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
        deep = self.params.deep_plc or self.params.dred
        complexity = _DEEP_PLC_COMPLEXITY if deep else 0
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
            (_SET_VBR_CONSTRAINT, int(params.vbr_constraint)),
            (_SET_COMPLEXITY, params.complexity),
            (_SET_INBAND_FEC, int(params.fec)),
            (_SET_PACKET_LOSS_PERC, round(params.expected_loss * 100)),
        ):
            self._set(request, value)
        if params.dred:
            self._set(_SET_DRED_DURATION, params.dred // _DRED_STEP_NS)
        self._frame_samples = whole_samples(params.frame, params.rate)
        self._pcm = np.zeros(self._frame_samples, np.int16)
        self._pcm_at = self._pcm.ctypes.data
        self._payload = ctypes.create_string_buffer(_MAX_PAYLOAD)

    def lookahead_samples(self) -> int:
        """Encoder look-ahead and decoder delay together, at the codec's sampling rate."""
        return self._get(_GET_LOOKAHEAD)

    def set_bitrate(self, bps: int) -> int:
        lowest, highest = _BITRATES_BPS
        self._set(_SET_BITRATE, min(max(bps, lowest), highest))
        return self._get(_GET_BITRATE)

    def encode(self, pcm: Pcm) -> bytes:
        self._pcm[:] = pcm
        size = self._lib.c.opus_encode(
            self._state, self._pcm_at, self._frame_samples, self._payload, _MAX_PAYLOAD
        )
        self._lib.check(size, "opus_encode")
        return ctypes.string_at(self._payload, size)

    def _set(self, request: int, value: int) -> None:
        self._lib.check(
            self._lib.c.opus_encoder_ctl(self._state, request, ctypes.c_int(value)),
            f"opus_encoder_ctl({request}, {value})",
        )

    def _get(self, request: int) -> int:
        value = ctypes.c_int()
        self._lib.check(
            self._lib.c.opus_encoder_ctl(self._state, request, ctypes.byref(value)),
            f"opus_encoder_ctl({request})",
        )
        return value.value


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
        self._dred = _Dred(lib, params.rate) if params.dred else None
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
        """By FEC, a coded waveform, where there is any; else by DRED, features of speech."""
        if self._fec and frames_back == 1 and self.carries_redundancy(later_payload):
            return self._run(later_payload, len(later_payload), fec=1)
        if self._dred is None or not self._is_one_frame(later_payload):
            return None
        offset = frames_back * self._frame_samples
        begins, ends = self._dred.read(later_payload, offset)
        # The vocoder runs 10 ms behind its features; it predicts those missing at either end.
        first_used = offset - self._frame_samples - self._rate_hz // 100
        if not (begins > 0 and ends <= offset and first_used < begins):
            return None
        samples = self._lib.c.opus_decoder_dred_decode(
            self._state, self._dred.state, offset, self._pcm_at, self._frame_samples
        )
        return self._made(samples, "DRED of an Opus packet", len(later_payload))

    def _run(self, payload: bytes | None, size: int, fec: int) -> Pcm:
        samples = self._lib.c.opus_decode(
            self._state, payload, size, self._pcm_at, self._frame_samples, fec
        )
        return self._made(samples, "Opus packet", size)

    def _made(self, samples: int, what: str, size: int) -> Pcm:
        if samples != self._frame_samples:
            raise ValueError(f"{what} of {size} bytes: {self._lib.explain(samples)}")
        return self._pcm.copy()

    def _is_one_frame(self, payload: bytes) -> bool:
        samples = self._lib.c.opus_packet_get_nb_samples(payload, len(payload), self._rate_hz)
        return bool(samples == self._frame_samples)

    def carries_redundancy(self, payload: bytes) -> bool:
        """The LBRR flag, which follows the VAD flags of a SILK layer (RFC 6716, 4.2.3)."""
        if not payload or payload[0] >> 3 >= _CELT_CONFIG or not self._is_one_frame(payload):
            return False
        offset = ctypes.c_int()
        sizes = (ctypes.c_int16 * 48)()
        frames = self._lib.c.opus_packet_parse(
            payload, len(payload), None, None, sizes, ctypes.byref(offset)
        )
        if frames < 1 or sizes[0] < 1:
            return False
        silk_frames = max(1, self._silk_frames // frames)
        return bool(payload[offset.value] >> (7 - silk_frames) & 1)


class _Dred:
    """What the DRED of one packet after another holds. Raises Unsupported without DRED."""

    def __init__(self, lib: Library, rate_hz: int) -> None:
        error = ctypes.c_int()
        self._lib = lib
        self._rate_hz = rate_hz
        self._decoder = lib.c.opus_dred_decoder_create(ctypes.byref(error))
        lib.check(error.value, "opus_dred_decoder_create")
        weakref.finalize(self, lib.c.opus_dred_decoder_destroy, self._decoder)
        self.state = lib.c.opus_dred_alloc(ctypes.byref(error))
        lib.check(error.value, "opus_dred_alloc")
        weakref.finalize(self, lib.c.opus_dred_free, self.state)
        self._held = (b"", 0)
        self._span = (0, 0)

    def read(self, payload: bytes, wanted: int) -> tuple[int, int]:
        """Where its redundancy begins and ends, in samples before the packet's own audio; (0, 0)
        where it has none. Looks ``wanted`` samples back, and no farther than that costs time."""
        held, looked_at = self._held
        # A burst asks the packet after it for one frame after another, the oldest first.
        if held != payload or wanted > looked_at:
            ends = ctypes.c_int()
            begins = self._lib.c.opus_dred_parse(
                self._decoder, self.state, payload, len(payload), wanted, self._rate_hz,
                ctypes.byref(ends), 0,
            )  # fmt: skip
            self._held = (payload, wanted)
            self._span = (begins, ends.value) if begins > 0 else (0, 0)
        return self._span


def _pulses(rate_hz: int, seconds: float) -> Pcm:
    """A 125 Hz pulse train: voiced enough for every concealment to continue it."""
    time = np.arange(round(seconds * rate_hz))
    return np.where(time % (rate_hz // 125) < rate_hz // 2000, 8000, -500).astype(np.int16)


def _vowels(rate_hz: int, seconds: float) -> Pcm:
    """Syllables of a wandering voice, with nothing above 3.4 kHz: speech to any classifier."""
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    phase = 2 * np.pi * 125 * (time + 0.02 * np.sin(2 * np.pi * 1.5 * time))
    voice = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 25))
    loudness = np.sin(2 * np.pi * 2 * time) ** 2
    return np.rint(6000 * loudness * voice).astype(np.int16)


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
    for frame in _pulses(params.rate, 0.4).reshape(-1, samples):
        payload = encoder.encode(frame)
        plain.decode(payload)
        deep.decode(payload)
    return any(not np.array_equal(plain.conceal(), deep.conceal()) for _ in range(3))


@lru_cache
def has_dred(lib: Library) -> bool:
    """Whether it was built with DRED; a libopus from 1.5 on has the calls for it in any case."""
    if not hasattr(lib.c, "opus_dred_alloc"):
        return False
    try:
        _Dred(lib, Params().rate)
    except Unsupported:
        return False
    return True


def _spends_on_dred(lib: Library, params: Params) -> bool:
    """Whether packets carry DRED at these settings: too small a budget gets none, unsaid."""
    dred, size = _Dred(lib, params.rate), whole_samples(params.frame, params.rate)
    pulses = _pulses(params.rate, 1)
    return any(dred.read(payload, size)[0] > 0 for payload in _coded(lib, params, pulses))


@lru_cache
def _spends_on_fec(lib: Library, params: Params) -> bool:
    """Whether packets carry in-band FEC at these settings: an encoder that prefers CELT to SILK, or
    full bandwidth to FEC, carries none."""
    carries = OpusDecoder(lib, params, 0).carries_redundancy
    signals = _pulses(params.rate, 1), _vowels(params.rate, 1)
    return any(carries(payload) for pcm in signals for payload in _coded(lib, params, pcm))


def _coded(lib: Library, params: Params, pcm: Pcm) -> Iterator[bytes]:
    encoder, size = OpusEncoder(lib, params), whole_samples(params.frame, params.rate)
    for start in range(0, len(pcm) - size + 1, size):
        yield encoder.encode(pcm[start : start + size])

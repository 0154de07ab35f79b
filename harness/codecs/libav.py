"""What the codecs of libavcodec (by PyAV) share: one frame in, at most one payload out."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.errors import Unsupported

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext

Name = Literal["aac", "g722"]


def version() -> str:
    """Such as ``PyAV 18.1.0, libavcodec 62.28.102``. Raises Unsupported without PyAV."""
    try:
        import av
    except ImportError as error:
        raise Unsupported(f"PyAV cannot be imported ({error}); install the package av") from error
    numbers = ".".join(map(str, av.library_versions["libavcodec"]))
    return f"PyAV {av.__version__}, libavcodec {numbers}"


def encoder(
    name: Name, rate_hz: int, sample_format: str, options: dict[str, str], bitrate_bps: int | None
) -> AudioCodecContext:
    """An open mono encoder. Raises Unsupported where this libavcodec lacks it."""
    context = _context(name, "w", rate_hz)
    context.format = sample_format
    context.time_base = Fraction(1, rate_hz)
    context.options = options
    if bitrate_bps is not None:
        context.bit_rate = bitrate_bps
    context.open()
    return context


def decoder(name: Name, rate_hz: int, extradata: bytes | None = None) -> AudioCodecContext:
    """An open mono decoder. Raises Unsupported where this libavcodec lacks it."""
    context = _context(name, "r", rate_hz)
    if extradata is not None:
        context.extradata = extradata
    context.open()
    return context


def encode(
    context: AudioCodecContext, samples: NDArray[np.int16] | NDArray[np.float32], start: int
) -> bytes | None:
    """Feed one frame, shape (frame_samples,), whose first sample is number ``start``."""
    import av

    frame = av.AudioFrame.from_ndarray(
        samples.reshape(1, -1), format=context.format.name, layout="mono"
    )
    frame.sample_rate = context.sample_rate
    frame.pts = start
    packets = context.encode(frame)
    return bytes(packets[0]) if packets else None


def decode(context: AudioCodecContext, payload: bytes, frame_samples: int) -> NDArray[Any]:
    """One frame, shape (frame_samples,). Raises ValueError if the payload does not hold one."""
    import av

    try:
        frames = context.decode(av.Packet(payload)) if payload else []
    except av.error.FFmpegError as error:
        raise ValueError(f"{context.name} packet of {len(payload)} bytes: {error}") from error
    samples = sum(frame.samples for frame in frames)
    if len(frames) != 1 or samples != frame_samples:
        raise ValueError(
            f"{context.name} packet of {len(payload)} bytes: {samples} samples,"
            f" expected {frame_samples}"
        )
    return frames[0].to_ndarray().reshape(-1)


def _context(name: Name, mode: Literal["r", "w"], rate_hz: int) -> AudioCodecContext:
    library = version()
    import av

    try:
        context = av.CodecContext.create(name, mode)
    except ValueError as error:  # av.codec.codec.UnknownCodecError is one
        raise Unsupported(f"{library} has no {name} ({mode}): {error}") from error
    context.sample_rate = rate_hz
    context.layout = "mono"
    context.thread_count = 1
    return context

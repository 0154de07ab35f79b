"""What the codecs of libavcodec (by PyAV) share: one frame in, at most one payload out."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.codecs.base import Pcm
from harness.errors import Unsupported

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext

Name = Literal["aac", "flac", "g722", "libmp3lame", "libopencore_amrnb", "mp3float", "sbc"]
SampleFormat = Literal["fltp", "s16", "s16p"]


def version() -> str:
    """Such as ``PyAV 18.1.0, libavcodec 62.28.102``. Raises Unsupported without PyAV."""
    try:
        import av
    except ImportError as error:
        raise Unsupported(
            f"PyAV cannot be imported ({error}); install it with: pip install av"
        ) from error
    numbers = ".".join(map(str, av.library_versions["libavcodec"]))
    return f"PyAV {av.__version__}, libavcodec {numbers}"


def require(*codecs: tuple[Name, Literal["r", "w"]]) -> str:
    """:func:`version`. Raises Unsupported where this libavcodec lacks one of these."""
    library = version()
    import av

    for name, mode in codecs:
        try:
            av.Codec(name, mode)
        except ValueError as error:  # av.codec.codec.UnknownCodecError is one
            what = "encoder" if mode == "w" else "decoder"
            raise Unsupported(
                f"{library} has no {what} {name}; PyAV's own wheel brings it: pip install"
                " --force-reinstall --only-binary av av"
            ) from error
    return library


class Encoder:
    """A mono encoder. Raises Unsupported where this libavcodec lacks it."""

    def __init__(
        self,
        name: Name,
        rate_hz: int,
        sample_format: SampleFormat,
        options: dict[str, str] | None = None,
        bitrate_bps: int | None = None,
    ) -> None:
        context = _context(name, "w", rate_hz)
        context.format = sample_format
        context.time_base = Fraction(1, rate_hz)
        context.options = options or {}
        if bitrate_bps is not None:
            context.bit_rate = bitrate_bps
        context.open()
        self._context = context
        self._fed = 0

    @property
    def extradata(self) -> bytes:
        """What a decoder is told out of band."""
        return bytes(self._context.extradata or b"")

    def encode(self, pcm: Pcm) -> bytes | None:
        """Feed one frame, shape (frame_samples,)."""
        import av

        sample_format = self._context.format.name
        samples = pcm / np.float32(32768) if sample_format == "fltp" else pcm
        frame = av.AudioFrame.from_ndarray(
            samples.reshape(1, -1), format=sample_format, layout="mono"
        )
        frame.sample_rate = self._context.sample_rate
        frame.pts = self._fed
        self._fed += len(pcm)
        packets = self._context.encode(frame)
        return bytes(packets[0]) if packets else None

    def assign_bitrate(self, bps: int) -> None:
        """From the next frame on, of encoders that look at it again for every frame."""
        self._context.bit_rate = bps


class Decoder:
    """A mono decoder without concealment. Raises Unsupported where this libavcodec lacks it."""

    def __init__(
        self,
        name: Name,
        rate_hz: int,
        frame_samples: int,
        extradata: bytes | None = None,
        options: dict[str, str] | None = None,
    ) -> None:
        self._made_of = name, rate_hz, extradata, options
        self._rate_hz = rate_hz
        self._frame_samples = frame_samples
        self.reset()

    def reset(self) -> None:
        """Forget all that was decoded."""
        name, rate_hz, extradata, options = self._made_of
        self._context = _context(name, "r", rate_hz)
        if extradata is not None:
            self._context.extradata = extradata
        self._context.options = options or {}
        self._context.open()

    def decode(self, payload: bytes) -> Pcm:
        """One frame, shape (frame_samples,). Raises ValueError if the payload does not hold one."""
        try:
            return self._decode(payload)
        except ValueError:
            # A damaged payload may have changed the decoder half-way: what follows would depend
            # on it for longer than on a loss.
            self.reset()
            raise

    def conceal(self) -> Pcm | None:
        return None

    def recover(self, later_payload: bytes, frames_back: int = 1) -> Pcm | None:  # noqa: ARG002
        return None

    def _decode(self, payload: bytes) -> Pcm:
        import av

        told = f"{self._context.name} packet of {len(payload)} bytes"
        try:
            # An empty packet would end the stream.
            frames = self._context.decode(av.Packet(payload)) if payload else []
        except av.error.FFmpegError as error:
            raise ValueError(f"{told}: {error}") from error
        found = [(frame.samples, frame.sample_rate, frame.layout.nb_channels) for frame in frames]
        if found != [(self._frame_samples, self._rate_hz, 1)]:
            raise ValueError(
                f"{told}: (samples, Hz, channels) {found}, expected one frame of"
                f" {(self._frame_samples, self._rate_hz, 1)}"
            )
        samples: NDArray[Any] = frames[0].to_ndarray().reshape(-1)
        if samples.dtype != np.int16:
            samples = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
        return samples


def _context(name: Name, mode: Literal["r", "w"], rate_hz: int) -> AudioCodecContext:
    require((name, mode))
    import av
    from av.audio.codeccontext import AudioCodecContext

    context = av.CodecContext.create(name, mode)
    assert isinstance(context, AudioCodecContext)
    context.sample_rate = rate_hz
    context.layout = "mono"
    context.thread_count = 1
    return context

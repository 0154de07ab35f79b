"""Containers around a codec's payloads: what older systems wrote about each of them."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Protocol, cast

from harness.codecs.base import AdjustableEncoder, Codec, CodecFacts, Decoder, Encoder, Pcm

_EPOCH_S = 1_750_000_000
_JSON = re.compile(
    rb'\{"id": "stream1", "details": "([A-Za-z0-9+/]*=?=?)", "timestamp": \d{10}\.\d{6}\}'
)


def json_message(data: bytes, time_s: float) -> bytes:
    """What an older system sent over a WebSocket for each chunk: ``data`` as base64, without spaces
    but those that ``json.dumps`` writes.

    Its timestamp is the chunk's media time after an arbitrary instant, written with the ten digits
    and the microseconds of ``time.time()``, because a codec has no clock.
    """
    details = base64.b64encode(data).decode()
    stamp = f"{_EPOCH_S + time_s:.6f}"
    return f'{{"id": "stream1", "details": "{details}", "timestamp": {stamp}}}'.encode()


def data_of_json(message: bytes, of: str) -> bytes:
    """The inverse. Raises ValueError for what :func:`json_message` could not have made."""
    found = _JSON.fullmatch(message)
    if found is None:
        raise ValueError(
            f"{of} message of {len(message)} bytes is not laid out as those of this sender"
        )
    return base64.b64decode(found[1], validate=True)


class Framing(Protocol):
    def wrap(self, payload: bytes, index: int) -> bytes:
        """The message for payload number ``index``, from 0."""
        ...

    def unwrap(self, message: bytes) -> bytes:
        """The payload. Raises ValueError for what :meth:`wrap` could not have made."""
        ...


@dataclass(frozen=True)
class FramedCodec:
    """``inner`` with each payload in a message; its nominal bitrate stays that of the payloads."""

    inner: Codec
    framing: Framing

    @property
    def facts(self) -> CodecFacts:
        return self.inner.facts

    def encoder(self) -> FramedEncoder:
        return FramedEncoder(self.inner.encoder(), self.framing)

    def decoder(self) -> FramedDecoder:
        return FramedDecoder(self.inner.decoder(), self.framing)


class FramedEncoder:
    def __init__(self, inner: Encoder, framing: Framing) -> None:
        self._inner = inner
        self._framing = framing
        self._payloads = 0

    def encode(self, pcm: Pcm) -> bytes | None:
        payload = self._inner.encode(pcm)
        if payload is None:
            return None
        self._payloads += 1
        return self._framing.wrap(payload, self._payloads - 1)

    def set_bitrate(self, bps: int) -> int:
        """Of the payloads, as :class:`AdjustableEncoder` says; for adjustable codecs only."""
        return cast(AdjustableEncoder, self._inner).set_bitrate(bps)


class FramedDecoder:
    def __init__(self, inner: Decoder, framing: Framing) -> None:
        self._inner = inner
        self._framing = framing

    def decode(self, message: bytes) -> Pcm:
        return self._inner.decode(self._framing.unwrap(message))

    def conceal(self) -> Pcm | None:
        return self._inner.conceal()

    def recover(self, later_payload: bytes, frames_back: int = 1) -> Pcm | None:  # noqa: ARG002
        return None

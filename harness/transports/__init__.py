"""Transports by name; a transport's file is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple, cast

from harness.errors import Unsupported
from harness.transports.base import Transport


class Carrier(NamedTuple):
    """What is known of a transport without its library."""

    module: str
    reliable: bool = False
    """Nothing is lost, duplicated or reordered between sender and receiver."""
    bare: bool = False
    """Each packet is a datagram of its own size, so that the link's log tells of it."""


TRANSPORTS: dict[str, Carrier] = {
    "udp": Carrier("udp", bare=True),
    "rtp": Carrier("udp", bare=True),
    "quic-datagram": Carrier("quic_datagram"),
    "quic-stream": Carrier("quic_stream", reliable=True),
    "webrtc": Carrier("webrtc"),
    "tcp": Carrier("tcp", reliable=True),
    "websocket": Carrier("websocket", reliable=True),
}
"""RTP is UDP: how its packets look is :mod:`harness.media.rtp`'s matter."""


def transport(name: str) -> Transport:
    """The transport of that name. Raises Unsupported, naming those there are, or the library that
    is missing."""
    if name not in TRANSPORTS:
        raise Unsupported(f"unknown transport {name!r} (there are: {', '.join(TRANSPORTS)})")
    try:
        module = import_module(f"harness.transports.{TRANSPORTS[name].module}")
    except ModuleNotFoundError as missing:
        raise Unsupported(
            f"transport {name} needs {missing.name}: pip install {missing.name}"
        ) from missing
    return cast(Transport, module)

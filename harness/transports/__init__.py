"""Transports by name; a transport's file is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from harness.errors import Unsupported
from harness.transports.base import Transport

TRANSPORTS: dict[str, str] = {
    "udp": "harness.transports.udp",
    "rtp": "harness.transports.udp",
    "quic-datagram": "harness.transports.quic_datagram",
    "quic-stream": "harness.transports.quic_stream",
    "tcp": "harness.transports.tcp",
    "websocket": "harness.transports.websocket",
}
"""Their files. RTP is UDP: how its packets look is :mod:`harness.media.rtp`'s matter."""


def transport(name: str) -> Transport:
    """The transport of that name. Raises Unsupported, naming those there are, or the library that
    is missing."""
    if name not in TRANSPORTS:
        raise Unsupported(f"unknown transport {name!r} (there are: {', '.join(TRANSPORTS)})")
    try:
        return cast(Transport, import_module(TRANSPORTS[name]))
    except ModuleNotFoundError as missing:
        raise Unsupported(
            f"transport {name} needs {missing.name}: pip install {missing.name}"
        ) from missing


def is_reliable(name: str) -> bool:
    """Whether a stream carries the packets, so that none is lost on its own."""
    return transport(name).RELIABLE


def is_bare(name: str) -> bool:
    """Whether the link's log has a row of its own for each packet."""
    return transport(name).BARE

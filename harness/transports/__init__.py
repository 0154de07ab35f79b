"""Transports by name; a transport's file is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from harness.errors import Unsupported
from harness.transports.base import Transport

TRANSPORTS = {
    "udp": "harness.transports.udp",
    "tcp": "harness.transports.tcp",
    "websocket": "harness.transports.websocket",
}


def transport(name: str) -> Transport:
    """The transport of that name. Raises Unsupported, naming those there are."""
    if name not in TRANSPORTS:
        raise Unsupported(f"unknown transport {name!r} (there are: {', '.join(TRANSPORTS)})")
    return cast(Transport, import_module(TRANSPORTS[name]))


def is_reliable(name: str) -> bool:
    """Whether a stream carries the packets, so that none is lost on its own."""
    return transport(name).RELIABLE

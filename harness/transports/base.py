"""What a transport is set to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TransportSettings:
    """``mtu_bytes`` is the IP MTU that datagrams are fragmented for (UDP only)."""

    transport: Literal["udp", "tcp", "websocket"] = "udp"
    mtu_bytes: int = 1500

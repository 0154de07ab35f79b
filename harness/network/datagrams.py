"""Which datagram an Ethernet frame carries, as the endpoints know it too."""

from __future__ import annotations

from typing import NamedTuple

from harness.network.packet_socket import ETHERTYPE, IPV4
from harness.records import datagram_identity

_ETHERNET_BYTES = 14
_UDP_BYTES = 8
_UDP = 17
_FRAGMENT_BYTES = 1480
"""What a fragment carries on a link of 1500 bytes."""


class Identity(NamedTuple):
    """The columns of LINK_IDENTITY."""

    identity: int
    ip_fragment: int


NONE = Identity(0, 0)


class Datagrams:
    """One direction's frames, in order of entering: IPv4 fragments belong to the first of theirs,
    by IP's identification (RFC 791, 3.2)."""

    def __init__(self) -> None:
        self._first: dict[bytes, int] = {}

    def identify(self, frame: bytes) -> Identity:
        """``NONE`` for all but UDP, and for fragments whose first was never seen."""
        if frame[ETHERTYPE] != IPV4 or len(frame) < _ETHERNET_BYTES + 20:
            return NONE
        ip = frame[_ETHERNET_BYTES:]
        if ip[9] != _UDP:
            return NONE
        header, whole = 4 * (ip[0] & 0x0F), int.from_bytes(ip[2:4], "big")
        flags = int.from_bytes(ip[6:8], "big")
        offset, more = 8 * (flags & 0x1FFF), flags & 0x2000
        if offset:
            return Identity(self._first.get(ip[4:6], 0), offset // _FRAGMENT_BYTES)
        identity = datagram_identity(ip[header + _UDP_BYTES : whole])
        if more:
            self._first[ip[4:6]] = identity
        return Identity(identity, 0)

"""AF_PACKET sockets with kernel timestamps: how relay and taps see frames (packet(7)).

Frames are whole Ethernet frames without FCS. Timestamps are the kernel's, CLOCK_REALTIME, taken
when the frame passed the interface and not when it was read.
"""

from __future__ import annotations

import socket
import struct
from types import TracebackType
from typing import NamedTuple

from harness import linux
from harness.errors import MachineCannot

ETHERTYPE = slice(12, 14)
IPV4 = b"\x08\x00"
LOCAL_EXPERIMENTAL = b"\x88\xb5"
"""An EtherType that no host listens to (IEEE 802)."""
_ETH_P_ALL = 0x0003
_SOL_PACKET = 263
_PACKET_STATISTICS = 6
_PACKET_IGNORE_OUTGOING = 23
_SO_RCVBUFFORCE = 33
_LARGEST_FRAME = 2048


class Frame(NamedTuple):
    data: bytes
    realtime_ns: int
    outgoing: bool


class PacketSocket:
    """All frames of one interface; non-blocking. ``outgoing``: also those that it transmits."""

    def __init__(self, ifname: str, *, outgoing: bool, buffer_bytes: int) -> None:
        try:
            # Bound to no protocol first: nothing arrives before the options are set.
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        except PermissionError as error:
            raise MachineCannot(f"no AF_PACKET sockets ({error}); NET_RAW is needed") from error
        try:
            sock.setblocking(False)
            _force_buffer(sock, buffer_bytes)
            linux.stamp_arrivals(sock)
            sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 0 if outgoing else 1)
            sock.bind((ifname, _ETH_P_ALL))
        except OSError:
            sock.close()
            raise
        self._socket = sock
        self._dropped = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> Frame | None:
        """The next frame that waits, or None."""
        try:
            data, ancillary, _, address = self._socket.recvmsg(_LARGEST_FRAME, linux.STAMP_BYTES)
        except BlockingIOError:
            return None
        stamp_ns = linux.arrival_realtime_ns(ancillary)
        assert stamp_ns is not None
        return Frame(data, stamp_ns, address[2] == socket.PACKET_OUTGOING)

    def send(self, frame: bytes) -> None:
        """Transmit. Raises OSError: ENOBUFS or EAGAIN when the interface takes no more."""
        self._socket.send(frame)

    def dropped(self) -> int:
        """Frames that passed the interface but did not fit the buffer, since it was opened."""
        answer = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        self._dropped += struct.unpack("II", answer)[1]  # reading it resets the kernel's
        return self._dropped

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> PacketSocket:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _force_buffer(sock: socket.socket, size_bytes: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size_bytes)
    except PermissionError:  # not in the initial user namespace: as much as rmem_max allows
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size_bytes)

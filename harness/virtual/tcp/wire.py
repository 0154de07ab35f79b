"""What both ends agree on: frames and their sizes, and the clocks that their timers follow."""

from __future__ import annotations

from typing import Literal, NamedTuple

from harness.units import NS_PER_MS, NS_PER_S

MSS = 1448
"""Largest payload of a segment: MTU 1500 less IPv4, TCP and the time stamps option."""
HEADER_BYTES = 14 + 20 + 20 + 12
"""Ethernet, IPv4, TCP, time stamps with their padding: the size of a pure acknowledgement too."""
SACK_BLOCKS = 3
"""As many as fit beside the time stamps."""
HOST_NS = 50_000
"""From the link's end to a host's TCP, and from there to the application that reads: interrupts and
scheduling. Without it, what really comes one after the other would be at the same instant."""
DEFAULT_HZ = 250
"""Ticks of a host's timers a second (the kernel's ``CONFIG_HZ``): that of Debian and Amazon Linux,
and of Ubuntu before 24.10. Fedora, Arch, RHEL and newer Ubuntu have 1000."""
RTO_MIN_NS = 200 * NS_PER_MS
RTO_MAX_NS = 120 * NS_PER_S
NEVER_NS = 1 << 62

Framing = Literal["tcp", "websocket"]


def framed_bytes(framing: Framing, size_bytes: int) -> int:
    """A message with what marks it off: a u32 before it (``transports/tcp.py``), or the header of a
    masked WebSocket frame (RFC 6455, section 5.2)."""
    if framing == "tcp":
        return 4 + size_bytes
    extended = 0 if size_bytes < 126 else 2 if size_bytes < 1 << 16 else 8
    return 2 + extended + 4 + size_bytes


class Data(NamedTuple):
    """A data segment on the wire."""

    seq: int
    end: int
    sent_ms: int
    push: bool


class Ack(NamedTuple):
    """A pure acknowledgement on the wire; a D-SACK comes first in ``blocks``."""

    ack: int
    echo_ms: int
    blocks: tuple[tuple[int, int], ...]

    def size_bytes(self) -> int:
        """Of the frame: the option is a head of 4 bytes and 8 bytes a block."""
        return HEADER_BYTES + (4 + 8 * len(self.blocks) if self.blocks else 0)


class Wheel:
    """When a timer of so many ticks fires: the kernel rounds up, to 8 ticks from 63 on, to 64 from
    504 on, and so forth."""

    def __init__(self, phase_ns: int, hz: int = DEFAULT_HZ) -> None:
        self._phase_ns = phase_ns
        self.hz = hz
        self.tick_ns = NS_PER_S // hz

    def expiry_ns(self, now_ns: int, ticks: int) -> int:
        at = (now_ns + self._phase_ns) // self.tick_ns + ticks
        shift, span = 0, 63
        while ticks >= span:
            shift, span = shift + 3, span * 8
        at = ((at + (1 << shift)) >> shift) << shift
        return at * self.tick_ns - self._phase_ns

    def ticks_of(self, duration_ns: int) -> int:
        """As many ticks as last at least so long."""
        return -(-duration_ns // self.tick_ns)


def stamp(now_ns: int) -> int:
    """A time stamp in the option's unit, 1 ms; 0 is none."""
    return now_ns // NS_PER_MS + 1

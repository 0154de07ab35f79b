"""One-way messages over TCP in virtual time: what Linux does, as a function of times and sizes.

A sans-IO model of one established connection between two Linux hosts (6.x, default settings), whose
data runs over one :class:`LinkModel` and whose acknowledgements over another. What it follows, with
the choices that Linux makes where the standards leave room:

* loss detection by time, with a reordering window that adapts, and tail loss probes
  (RACK-TLP, RFC 8985); selective and duplicate-selective acknowledgements (RFC 2018, RFC 2883);
* recovery at the pace of what arrives (proportional rate reduction, RFC 6937); a reduction that was
  a mistake is taken back (Eifel, RFC 4015, by time stamps, RFC 7323, and by D-SACK, RFC 3708);
* retransmission time-out with exponential back-off (RFC 6298; at least 200 ms above the smoothed
  round trip), and F-RTO after it (RFC 5682);
* CUBIC (RFC 9438) from 10 segments on (RFC 6928); a window that is not used does not grow
  (RFC 7661 in spirit);
* TCP_NODELAY: a message leaves at once while the window allows; what waits leaves in full segments,
  and small neighbours of a retransmitted segment travel with it;
* the receiver acknowledges when the application has read, which it does at once; only full segments
  from the middle of a backlog, and the first of a connection that has just answered (a WebSocket
  server's), wait for the next segment, at most 40 ms (RFC 1122, 4.2.3.2);
* timers fire at the ticks of the timer wheel (``hz`` a second, 250 by default): never early, later
  the longer they are.

Left out: HyStart, pacing, ECN, and the receiver's window with its growth.

``tests/bench/validate_tcp.py`` holds the model against the kernel; what the kernel did once is
frozen in ``tests/virtual/kernel_tcp``, and a test holds the model to it. On Linux 6.18 (CUBIC set
on the socket), with the same seeded losses and 3 minutes of voice each, all of its 35 networks
agree: p50 and p95 within 5 ms or 10 %, p99 within 10 ms or 20 %, beyond what the phase of the
hosts' clocks makes. Farthest apart, and alike in every run: with jitter and loss the kernel
retransmits a fifth more, and its p95 is 9 % higher; after outages at 100 ms its p99 is 3 to 6 %
lower; where a rate falls below the stream for a second, its p95 is up to 5 % higher. A stream that
its window limits differs much between seeds: 5 % loss at 100 ms and 256 kbit/s has a p95 from 270
to 440 ms in 3 minutes. What is not validated is refused, see ``validity.py``.
"""

from harness.virtual.tcp.stream import TcpStream, round_trip_ns
from harness.virtual.tcp.validity import require_validated
from harness.virtual.tcp.wire import DEFAULT_HZ, HEADER_BYTES, HOST_NS, MSS, Framing, framed_bytes

__all__ = [
    "DEFAULT_HZ",
    "HEADER_BYTES",
    "HOST_NS",
    "MSS",
    "Framing",
    "TcpStream",
    "framed_bytes",
    "require_validated",
    "round_trip_ns",
]

"""The few Linux calls that Python 3.11 lacks: exact sleeping, real-time priority, namespaces, the
kernel's time stamps of what sockets receive.

Used by the processes that measure; nothing here knows what they measure.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.units import NS_PER_S, monotonic_ns

CLONE_NEWUSER = 0x1000_0000
CLONE_NEWNET = 0x4000_0000
_PR_SET_PDEATHSIG = 1
_PR_SET_TIMERSLACK = 29
_TIMER_ABSTIME = 1
_SO_TIMESTAMPNS = 35
"""asm-generic/socket.h; SCM_TIMESTAMPNS, the type of the control message, is the same number."""
_TIMESPEC = struct.Struct("@ll")
STAMP_BYTES = socket.CMSG_SPACE(_TIMESPEC.size)
"""Room for the control message that carries a stamp."""
NARROW_NS = 2_000
"""A bracket so narrow holds no preemption: three clock reads take 0.2 us, a preemption tens of us
and more."""
_BRACKETS = 16

_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


def _check(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


def sleep_until(deadline_ns: int) -> None:
    """Sleep to an absolute CLOCK_MONOTONIC instant (clock_nanosleep(2)); returns at once if past.

    The other threads of the process run meanwhile. An absolute deadline does not drift.
    """
    until = _Timespec(*divmod(deadline_ns, NS_PER_S))
    while True:
        error = _libc.clock_nanosleep(
            time.CLOCK_MONOTONIC, _TIMER_ABSTIME, ctypes.byref(until), None
        )
        if error != errno.EINTR:
            break
    if error:
        raise OSError(error, f"clock_nanosleep: {os.strerror(error)}")


def exact_timers() -> None:
    """Let the kernel round the calling thread's timers by no more than 1 ns (default 50 us)."""
    _check(_libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0), "prctl(PR_SET_TIMERSLACK)")


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it ends, however it ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


@contextlib.contextmanager
def real_time(priority: int) -> Iterator[str]:
    """SCHED_FIFO for the calling thread where it is allowed; yields ``fifo:N`` or ``other``."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except OSError:
        yield "other"
        return
    try:
        yield f"fifo:{priority}"
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def unshare(flags: int) -> None:
    """Move the process to new namespaces (unshare(2)). Raises OSError, EPERM without the right."""
    _check(_libc.unshare(flags), "unshare")


def join_namespace(pid: int, kind: str) -> None:
    """Move the process to a namespace of another one (setns(2)); ``kind`` as in /proc/PID/ns."""
    descriptor = os.open(Path(f"/proc/{pid}/ns/{kind}"), os.O_RDONLY)
    try:
        _check(_libc.setns(descriptor, 0), f"setns({kind} of {pid})")
    finally:
        os.close(descriptor)


class ClockOffset(NamedTuple):
    """CLOCK_REALTIME minus CLOCK_MONOTONIC, off by half of ``width_ns`` at the most."""

    ns: int
    width_ns: int


def clock_offset(
    realtime_ns: Callable[[], int] = time.time_ns,
    monotonic_ns: Callable[[], int] = monotonic_ns,
) -> ClockOffset:
    """How far apart the two clocks are now.

    CLOCK_REALTIME is read between two reads of CLOCK_MONOTONIC, again and again until no time
    passed between these (``NARROW_NS``); of 16 brackets, the narrowest counts. A thread that was
    preempted within a bracket would otherwise shift every stamp by as long as it waited.
    """
    best: ClockOffset | None = None
    for _ in range(_BRACKETS):
        before_ns, real_ns, after_ns = monotonic_ns(), realtime_ns(), monotonic_ns()
        width_ns = after_ns - before_ns
        if best is None or width_ns < best.width_ns:
            best = ClockOffset(real_ns - before_ns - width_ns // 2, width_ns)
        if width_ns <= NARROW_NS:
            break
    assert best is not None
    return best


def stamp_arrivals(sock: socket.socket) -> None:
    """Have the kernel stamp what this socket receives (SO_TIMESTAMPNS, socket(7)): when it came
    from the interface, however late it is read."""
    sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)


def arrival_realtime_ns(ancillary: Sequence[tuple[int, int, bytes]]) -> int | None:
    """The stamp among the control messages of a recvmsg(2), CLOCK_REALTIME; None without one."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack(data)
            return int(seconds) * NS_PER_S + int(nanoseconds)
    return None


def receive_stamped(sock: socket.socket, most_bytes: int) -> tuple[bytes, Any, int]:
    """A datagram of a socket with :func:`stamp_arrivals`, its sender, and when it arrived
    (CLOCK_MONOTONIC). Raises what recvmsg(2) does."""
    data, ancillary, _, peer = sock.recvmsg(most_bytes, STAMP_BYTES)
    now_ns = monotonic_ns()
    stamp_ns = arrival_realtime_ns(ancillary)
    if stamp_ns is None:
        return data, peer, now_ns
    return data, peer, min(stamp_ns - clock_offset().ns, now_ns)

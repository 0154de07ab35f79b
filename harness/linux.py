"""The few Linux calls that Python 3.11 lacks: exact sleeping, real-time priority, namespaces.

Used by the processes that measure; nothing here knows what they measure.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from harness.units import NS_PER_S

CLONE_NEWUSER = 0x1000_0000
CLONE_NEWNET = 0x4000_0000
_PR_SET_PDEATHSIG = 1
_PR_SET_TIMERSLACK = 29
_TIMER_ABSTIME = 1

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

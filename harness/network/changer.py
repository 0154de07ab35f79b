"""Changes of qdiscs at their instants, by a thread that does nothing else, and how late each was.

Messages are made beforehand; at its instant a change is one send and one ACK on a netlink socket.
Where several are due at once (the machine stalled, or they are closer together than the kernel can
follow), only the latest state of each qdisc is sent, and what it overtook counts as skipped.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Sequence
from typing import NamedTuple

from harness import linux
from harness.errors import CellFailed
from harness.network.netem import Step
from harness.network.packet_socket import LOCAL_EXPERIMENTAL
from harness.units import NS_PER_MS, NS_PER_S, monotonic_ns

_NETLINK_ROUTE = 0
_ERROR = struct.Struct("=IHHIIi")
_NEAR_NS = 3 * NS_PER_MS
_PRIORITY = 20
_EMPTY_FRAME = bytes(12) + LOCAL_EXPERIMENTAL


class Made(NamedTuple):
    """One change, as it was made."""

    at_ns: int
    """Its instant, from t0."""
    lateness_ns: int
    """Of the kernel's ACK."""
    skipped: bool
    """A later one of the same qdiscs was sent in its stead."""


class Changer:
    """Carries out the steps of several ports from its making on; ``close`` ends it.

    ``ports`` are (name, steps in order of time); instants count from ``t0_ns`` (CLOCK_MONOTONIC).
    """

    def __init__(self, ports: Sequence[tuple[str, Sequence[Step]]], t0_ns: int) -> None:
        self._due = sorted(
            ((step.at_ns, port, step) for port, (_, steps) in enumerate(ports) for step in steps),
            key=lambda due: due[:2],
        )
        self._t0_ns = t0_ns
        self._made: list[list[Made]] = [[] for _ in ports]
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        with contextlib.ExitStack() as stack:
            self._netlink = stack.enter_context(
                socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE)
            )
            self._netlink.bind((0, 0))
            self._netlink.settimeout(5)
            self._wakers = [stack.enter_context(_waker(name)) for name, _ in ports]
            self._resources = stack.pop_all()
        self._thread = threading.Thread(target=self._run, name="changer", daemon=True)
        self._thread.start()

    def close(self) -> list[list[Made]]:
        """Make no more changes; those that were made, per port. Raises CellFailed if the kernel
        refused one."""
        self._stop.set()
        self._thread.join()
        self._resources.close()
        if self._failure is not None:
            raise CellFailed(f"a change of the link failed: {self._failure}") from self._failure
        return self._made

    def _run(self) -> None:
        try:
            linux.exact_timers()
            with linux.real_time(_PRIORITY):
                done = 0
                while done < len(self._due) and self._wait(self._t0_ns + self._due[done][0]):
                    done += self._make(done)
        except BaseException as error:
            self._failure = error

    def _wait(self, until_ns: int) -> bool:
        """False if told to stop meanwhile."""
        while (left_ns := until_ns - monotonic_ns()) > _NEAR_NS:
            if self._stop.wait((left_ns - _NEAR_NS) / NS_PER_S):
                return False
        linux.sleep_until(until_ns)
        return not self._stop.is_set()

    def _make(self, first: int) -> int:
        """All steps that are due by now, of which ``first`` is the first; how many."""
        now_ns = monotonic_ns() - self._t0_ns
        last = first
        while last + 1 < len(self._due) and self._due[last + 1][0] <= now_ns:
            last += 1
        due = self._due[first : last + 1]
        latest: dict[tuple[int, str], bytes] = {}
        sent_by: dict[tuple[int, str], int] = {}
        rises: set[int] = set()
        for number, (_, port, step) in enumerate(due):
            for kind, message in (("netem", step.netem), ("tbf", step.tbf)):
                if message:
                    latest[port, kind], sent_by[port, kind] = message, number
            if step.rises:
                rises.add(port)
        for message in latest.values():
            self._send(message)
        for port in rises:
            with contextlib.suppress(BlockingIOError):
                self._wakers[port].send(_EMPTY_FRAME)
        done_ns = monotonic_ns() - self._t0_ns
        in_force = set(sent_by.values())
        for number, (at_ns, port, step) in enumerate(due):
            skipped = number not in in_force and bool(step.netem or step.tbf)
            self._made[port].append(Made(at_ns, done_ns - at_ns, skipped))
        return len(due)

    def _send(self, message: bytes) -> None:
        self._netlink.send(message)
        error = _ERROR.unpack_from(self._netlink.recv(4096))[-1]
        if error:
            raise OSError(-error, f"RTM_NEWQDISC: {os.strerror(-error)}")


def _waker(ifname: str) -> socket.socket:
    """Sends on an interface, and receives nothing."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setblocking(False)
    sock.bind((ifname, 0))
    return sock

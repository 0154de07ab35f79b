"""Processors that do not sleep while cells stream.

An idle processor halts, and waking it takes time that no priority can buy back: on bare metal what
its idle state takes to leave, in a virtual machine what the host takes to run it again, which on a
crowded host is tens of milliseconds (a halted one of two was seen to take its timer 33 ms late, and
ten processes with it). Kernels hear of this through /dev/cpu_dma_latency (PM QoS), as cyclictest
asks; no host hears its guest, so a guest's processors are kept busy instead, by one process each
that gives way to everything else (SCHED_IDLE).
"""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from harness import linux

POLLED = "polled"
NO_IDLE_STATES = "no idle states"
AS_THEY_ARE = "as they are"
_LATENCY = Path("/dev/cpu_dma_latency")
_LEAST_NICE = "19"


@contextlib.contextmanager
def awake() -> Iterator[str]:
    """Keep this machine's processors from sleeping; yields how: one of the constants above."""
    with ExitStack() as stack:
        if is_guest():
            for processor in sorted(os.sched_getaffinity(0)):
                command = [sys.executable, "-m", __name__, str(processor)]
                poller = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
                stack.callback(poller.wait)
                stack.callback(poller.kill)
            yield POLLED
            return
        try:
            held = stack.enter_context(_LATENCY.open("wb", buffering=0))
            held.write(struct.pack("i", 0))
        except OSError:
            yield AS_THEY_ARE
            return
        yield NO_IDLE_STATES


def is_guest(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this machine is virtual, as far as its processor says so (CPUID.1:ECX[31])."""
    with contextlib.suppress(OSError):
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("flags"):
                return "hypervisor" in line.split()
    return False


def _poll(processor: int) -> None:
    """Run for ever, on one processor, whenever nobody else wants it."""
    linux.die_with_parent()
    os.sched_setaffinity(0, {processor})
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    # A session's processes share one weight, however low their own is (sched(7), autogroup).
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(_LEAST_NICE)
    while True:
        pass


if __name__ == "__main__":
    _poll(int(sys.argv[1]))

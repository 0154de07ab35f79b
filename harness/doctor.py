"""What this machine can do for the harness, found out by trying, and the remedy for what it cannot.

Each check tries the very thing in a child process or in a namespace of its own, and leaves nothing
behind.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from harness.assets import AssetStore
from harness.assets.manifest import asset_of, corpora
from harness.assets.store import ENV_MIRROR
from harness.codecs import opus_library
from harness.errors import AssetError, HarnessError, MachineCannot
from harness.labs.docker import connect
from harness.network import probe
from harness.units import readable_size

NEEDED_BYTES = 5 * 10**9
"""Environment, wheelhouse and both images."""
_CHILD_TIMEOUT_S = 60


class Finding(NamedTuple):
    """``ok`` is None where something is missing that is of use but not needed."""

    name: str
    ok: bool | None
    detail: str
    remedy: str | None = None


def diagnose() -> list[Finding]:
    """Every check, in order of importance; takes a few seconds."""
    return [
        _docker(),
        _root(),
        _user_namespaces(),
        *_link_engines(),
        _real_time(),
        _cores(),
        _memory(),
        _disk(),
        _gpu(),
        _libopus(),
        _program("espeak-ng", "makes synthetic speech where no corpus can be reached"),
        _program("debootstrap", "makes the base image where no registry answers"),
        _program("gcc", "builds PESQ while the environment is set up"),
        _corpus(),
    ]


def _docker() -> Finding:
    try:
        client = connect()
    except MachineCannot as error:
        remedy = "install and start it (Debian: apt-get install docker.io), join the group docker"
        return Finding("Docker", False, str(error), remedy)
    try:
        version = client.version()
    finally:
        client.close()
    where = os.environ.get("DOCKER_HOST", "its default socket")
    detail = f"{version['Version']} on {where}, kernel {version['KernelVersion']}"
    return Finding("Docker", True, detail)


def _root() -> Finding:
    if os.geteuid() == 0:
        return Finding("root", True, "yes")
    return Finding("root", None, f"no (uid {os.geteuid()})", "not needed with Docker access")


def _user_namespaces() -> Finding:
    failure = _child("from harness.linux import *; unshare(CLONE_NEWUSER | CLONE_NEWNET)")
    if failure is None:
        return Finding("user namespaces", True, "the netns lab runs without root")
    remedy = "sysctl kernel.unprivileged_userns_clone=1 (or run the netns lab as root)"
    return Finding("user namespaces", None, failure, remedy)


def _link_engines() -> Iterator[Finding]:
    try:
        found = probe.on_this_machine()
    except MachineCannot as error:
        remedy = "run as root, or allow user namespaces; the docker lab asks its own helper"
        for name in ("netem", "tbf", "relay"):
            yield Finding(name, None, f"not tried: {error}", remedy)
        return
    reasons = found["reasons"]
    remedies = {
        "netem": "a kernel with sch_netem (modprobe sch_netem); until then the relay engine is"
        " taken",
        "tbf": "a kernel with sch_tbf (modprobe sch_tbf); until then the relay engine is taken",
        "relay": "the right to open packet sockets (NET_RAW)",
    }
    for name, remedy in remedies.items():
        if found[name]:
            seeded = "" if name != "netem" else f", {'with' if found['seed'] else 'no'} seed"
            yield Finding(name, True, f"works{seeded}")
        else:
            yield Finding(name, False if name == "relay" else None, reasons[name], remedy)


def _real_time() -> Finding:
    failure = _child("import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))")
    if failure is None:
        return Finding("real-time priority", True, "SCHED_FIFO is allowed")
    remedy = "ulimit -r 50 (limits.conf: rtprio); without it timing has a longer tail"
    return Finding("real-time priority", None, failure, remedy)


def _cores() -> Finding:
    usable = len(os.sched_getaffinity(0))
    if usable < 2:
        return Finding("cores", False, str(usable), "two at least: sender and receiver compete")
    return Finding("cores", True, f"{usable} usable of {os.cpu_count()}")


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    detail = f"{readable_size(memory.available)} of {readable_size(memory.total)} free"
    if memory.available < 2 * 10**9:
        return Finding("memory", False, detail, "2 GB at least; use fewer --jobs")
    return Finding("memory", True, detail)


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    detail = f"{readable_size(free)} free in {Path.cwd()}"
    if free < NEEDED_BYTES:
        return Finding("disk", False, detail, f"{readable_size(NEEDED_BYTES)} for set-up and a run")
    return Finding("disk", True, detail)


def _gpu() -> Finding:
    failure = _child(
        "import sys, torch; sys.exit(None if torch.cuda.is_available() else 'torch sees none')"
    )
    if failure is None:
        return Finding("GPU", True, "torch sees one; codecs run on the CPU all the same")
    return Finding("GPU", None, failure, "none needed: codecs run on the CPU")


def _libopus() -> Finding:
    try:
        return Finding("libopus", True, opus_library.library().name)
    except HarnessError as error:
        return Finding("libopus", False, str(error), "pip install av, or apt-get install libopus0")


def _program(name: str, use: str) -> Finding:
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if path is None:
        return Finding(name, None, f"not installed; it {use}", f"apt-get install {name}")
    return Finding(name, True, path)


def _corpus() -> Finding:
    try:
        store = AssetStore.default()
    except AssetError as error:
        return Finding("speech corpus", False, str(error))
    name, wanted = next((name, c.items) for name, c in corpora().items() if c.kind == "speech")
    missing = next((asset for asset in map(asset_of, wanted) if not store.has(asset)), None)
    if missing is None:
        return Finding("speech corpus", True, f"{name} is in {store.cache}")
    reason = store.lacks(missing)
    if reason is None:
        return Finding("speech corpus", True, f"{name} can be fetched")
    remedy = (
        f"a proxy (https_proxy), or the files in a folder and {ENV_MIRROR} set to it;"
        " until then synthetic speech stands in, for plumbing only"
    )
    return Finding("speech corpus", None, reason, remedy)


def _child(code: str) -> str | None:
    """None where the code runs; else the last line of what it said."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=_CHILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {_CHILD_TIMEOUT_S} s"
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]

"""Where and with what a run was made: the columns of ``runs`` that machine and checkout know."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

import harness
from harness.clockfacts import clock_facts
from harness.errors import HarnessError

PACKAGES = (
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "soundfile",
    "soxr",
    "pesq",
    "pystoi",
    "pebble",
    "pydantic",
    "pyyaml",
    "pyroute2",
    "docker",
    "av",
    "websockets",
    "torch",
    "encodec",
    "matplotlib",
)
"""Whatever a figure may depend on."""


def run_facts(libraries: Mapping[str, Callable[[], str]] | None = None) -> dict[str, Any]:
    """The columns ``host``, ``versions``, ``git_sha`` and ``git_dirty`` of ``runs``.

    ``libraries`` gives the versions of what no package manager knows, such as libopus, by name;
    one that cannot tell is left out.
    """
    sha, dirty = _git(Path(harness.__file__).resolve().parent)
    return {
        "host": json.dumps(host_facts()),
        "versions": json.dumps(versions() | _asked(libraries or {})),
        "git_sha": sha,
        "git_dirty": dirty,
    }


def host_facts() -> dict[str, Any]:
    """Kernel, CPU, cores, memory, clock and frequency governor; null where the machine is mute."""
    return {
        "machine_id": _machine_id(),
        "system": platform.system(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "governor": _governor(),
        **clock_facts(),
    }


def versions() -> dict[str, str]:
    """Versions of Python, the harness and the packages of ``PACKAGES`` that are installed."""
    found = {"python": sys.version.split()[0], "harness": harness.__version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _asked(libraries: Mapping[str, Callable[[], str]]) -> dict[str, str]:
    found = {}
    for name, version in libraries.items():
        try:
            found[name] = version()
        except (OSError, ImportError, HarnessError):
            continue
    return found


def _machine_id() -> str | None:
    """Of machine-id(5), which is not to be published, the beginning of a hash."""
    try:
        text = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    return hashlib.sha256(text.encode()).hexdigest()[:12] if text else None


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "cpu model"):
            return value.strip()
    return platform.processor() or platform.machine()


def _governor() -> str | None:
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return None


def _git(package: Path) -> tuple[str | None, bool | None]:
    """Commit and dirtiness of the checkout that ``package`` is in; None outside of one."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if git("rev-parse", "--show-prefix") != f"{package.name}/":
            return None, None  # installed inside somebody else's checkout
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        return None, None

"""What a test needs stands in its markers; where this machine lacks it, the test says so."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.assets import AssetStore


@functools.cache
def _lacks_root() -> str | None:
    return None if os.geteuid() == 0 else "needs root"


@functools.cache
def _lacks_netns() -> str | None:
    flags = "--net" if os.geteuid() == 0 else "--user --map-root-user --net"
    done = subprocess.run(["unshare", *flags.split(), "true"], capture_output=True, text=True)
    return None if done.returncode == 0 else f"no network namespaces here: {done.stderr.strip()}"


@functools.cache
def _lacks_docker() -> str | None:
    from harness.errors import MachineCannot
    from harness.labs.docker import connect

    try:
        connect().close()
    except MachineCannot as error:
        return str(error)
    return None


@functools.cache
def _lacks_netem() -> str | None:
    from harness.network.probe import can_netem

    reason = can_netem()
    return reason and f"no netem in this kernel: {reason}"


NEEDS = {
    "root": _lacks_root,
    "netns": _lacks_netns,
    "docker": _lacks_docker,
    "netem": _lacks_netem,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for marker, lacks in NEEDS.items():
            if item.get_closest_marker(marker) and (reason := lacks()):
                item.add_marker(pytest.mark.skip(reason=reason))


def real_weights(name: str) -> Path:
    """The weights of that name; skips the test where neither cache, mirror nor network has them."""
    from harness.assets import manifest
    from harness.assets.store import Unreachable

    try:
        return _asset_store().fetch(manifest.weights()[name].asset)
    except Unreachable as error:
        pytest.skip(str(error))


@functools.cache
def _asset_store() -> AssetStore:
    """One for all tests: it asks a host that does not answer only once."""
    from harness.assets import AssetStore

    return AssetStore.default()


def harness(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """The command line as a user calls it."""
    return subprocess.run(  # type: ignore[call-overload]
        [sys.executable, "-m", "harness.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        **options,
    )

"""``harness clean``: what killed runs left behind; the locks tell living runs from dead ones."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import docker
import docker.errors

from harness.errors import MachineCannot
from harness.labs.base import LABEL_LOCK, LABEL_RUN, control_directories, is_dead
from harness.labs.docker import connect


def clean(*, dry_run: bool, run_id: str | None = None) -> list[str]:
    """Remove the leftovers of dead runs, or of dead processes of one; returns what was (or would
    be) removed.

    Containers and networks carry the path of their orchestrator's lock; the kernel drops that lock
    when the orchestrator ends, however it ends. Namespaces of the netns lab need no cleaning: they
    are anonymous and die with their processes.
    """
    removed: list[str] = []
    with contextlib.suppress(MachineCannot):
        client = connect()
        removed += _clean_docker(client, dry_run=dry_run, run_id=run_id)
        client.close()
    for directory in sorted(Path(tempfile.gettempdir()).glob(control_directories(run_id))):
        if is_dead(directory / "lock"):
            removed.append(f"control directory {directory}")
            if not dry_run:
                shutil.rmtree(directory, ignore_errors=True)
    return removed


def _clean_docker(client: docker.DockerClient, *, dry_run: bool, run_id: str | None) -> list[str]:
    removed = []
    ours = {"filters": {"label": LABEL_RUN if run_id is None else f"{LABEL_RUN}={run_id}"}}
    things: list[tuple[str, dict[str, str], Any]] = [
        (f"container {c.name}", c.labels, c) for c in client.containers.list(all=True, **ours)
    ]
    things += [(f"network {n.name}", n.attrs["Labels"], n) for n in client.networks.list(**ours)]
    for name, labels, thing in things:
        if not is_dead(Path(labels.get(LABEL_LOCK, ""))):
            continue
        removed.append(f"{name} of run {labels[LABEL_RUN]}")
        if not dry_run:
            with contextlib.suppress(docker.errors.NotFound):
                thing.remove(**({"force": True, "v": True} if name.startswith("container") else {}))
    return removed

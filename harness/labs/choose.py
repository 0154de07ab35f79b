"""Which lab runs here, and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.errors import BadInput, MachineCannot
from harness.labs.base import Lab, Session
from harness.labs.netns import NetnsLab

LABS = ("auto", "docker", "netns")


def open_lab(
    wanted: str, session: Session, assets: Path, progress: Callable[[str], None]
) -> tuple[Lab, str]:
    """The lab and the reason for it. Raises MachineCannot, BadInput for an unknown name."""
    if wanted not in LABS:
        raise BadInput(f"--lab: expected one of {', '.join(LABS)}, got {wanted!r}")
    if wanted == "netns":
        return NetnsLab(session), "asked for"
    from harness.labs.docker import DockerLab

    try:
        lab = DockerLab(session, assets, progress)
    except MachineCannot as error:
        if wanted == "docker":
            raise
        return NetnsLab(session), f"auto: docker cannot run here ({error})"
    return lab, "asked for" if wanted == "docker" else "auto: a Docker engine answers"

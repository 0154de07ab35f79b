"""Which lab runs here, and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.errors import BadInput, MachineCannot
from harness.labs.base import Lab, Session
from harness.labs.netns import NetnsLab
from harness.labs.virtual import VirtualLab
from harness.network import probe

LABS = ("auto", "docker", "netns", "virtual")


def open_lab(
    wanted: str, session: Session, assets: Path, progress: Callable[[str], None]
) -> tuple[Lab | VirtualLab, str]:
    """The lab and the reason for it: the first of docker, netns and virtual that can run here,
    unless one is asked for. Raises MachineCannot, BadInput for an unknown name."""
    if wanted not in LABS:
        raise BadInput(f"--lab: expected one of {', '.join(LABS)}, got {wanted!r}")
    if wanted == "virtual":
        return VirtualLab(), "asked for"
    if wanted == "netns":
        return NetnsLab(session), "asked for"
    from harness.labs.docker import DockerLab

    try:
        lab = DockerLab(session, assets, progress)
    except MachineCannot as error:
        if wanted == "docker":
            raise
        why = f"auto: docker cannot run here ({error})"
    else:
        return lab, "asked for" if wanted == "docker" else "auto: a Docker engine answers"
    reason = _no_netns()
    if reason is None:
        return NetnsLab(session), why
    return VirtualLab(), f"{why}, nor can network namespaces ({reason})"


def _no_netns() -> str | None:
    """None where the netns lab can run, else the reason why it cannot."""
    try:
        found = probe.on_this_machine()
    except MachineCannot as error:
        return str(error)
    if found["relay"] or (found["netem"] and found["tbf"]):
        return None
    return f"no link engine runs in them: {found['reasons']['relay']}"

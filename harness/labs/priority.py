"""What a container needs before it may take real-time priority.

It needs the right: a limit, or a capability where the engine may not raise limits. And where the
kernel gives out real-time budgets by group (CONFIG_RT_GROUP_SCHED; Linux documents it in
Documentation/scheduler/sched-rt-group.rst), it needs a group that has one: Docker's have none, and
a share for each would be too small for a codec and throttle it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from docker.types import Ulimit

_NOBODY = "65534:65534"
PROMOTIONS: tuple[dict[str, Any], ...] = (
    {"user": _NOBODY, "ulimits": [Ulimit(name="rtprio", soft=50, hard=50)]},
    {"user": "0:0", "cap_add": ["SYS_NICE"]},
    {"user": _NOBODY},
)
"""Options of a container, best first: a limit and no capability; one capability, where the engine
has no CAP_SYS_RESOURCE to raise a limit; nothing. ``agent_facts`` says which priority was
reached."""


def leave_group_without_budget(
    pid: int,
    container: str,
    proc: Path = Path("/proc"),
    groups: Path = Path("/sys/fs/cgroup"),
) -> None:
    """Move a container's process out of a cpu group that has no real-time budget, to the root of
    that controller (cgroup v1; v2 hands out no budgets). All its other groups stay.

    Does nothing where ``pid`` is not that container's on this machine (the engine is elsewhere), or
    this process may not move it: then it runs at ordinary priority.
    """
    with contextlib.suppress(OSError):
        for line in (proc / str(pid) / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if "cpu" not in controllers.split(",") or container not in path:
                continue
            root = groups / controllers
            budget = root / path.lstrip("/") / "cpu.rt_runtime_us"
            if budget.exists() and int(budget.read_text()) == 0:
                (root / "cgroup.procs").write_text(str(pid))

"""Facts that tell whether two processes read the same CLOCK_MONOTONIC.

All containers of one kernel share it unless a time namespace shifts it (time_namespaces(7)), so
two processes may subtract each other's times when both boot_id and time namespace agree.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def clock_facts() -> dict[str, Any]:
    """``boot_id`` (text), ``time_ns`` (inode of the time namespace; null on kernels without)."""
    try:
        time_ns: int | None = os.stat("/proc/self/ns/time").st_ino  # noqa: PTH116 (magic link)
    except FileNotFoundError:
        time_ns = None
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return {"boot_id": boot_id, "time_ns": time_ns}

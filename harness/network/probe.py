"""What the kernel can do for a link, found out by trying (a module may be absent or barred).

``python -m harness.network.probe`` tries in a network namespace of its own and prints JSON.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from typing import Any

from harness.errors import HarnessError, MachineCannot, Unsupported
from harness.network import netem
from harness.network.link import Link, Rate
from harness.network.packet_socket import PacketSocket

_SEED = 20_260_101


def on_interface(ifname: str) -> dict[str, Any]:
    """``{"netem", "tbf", "relay", "seed": bool, "reasons": {name: text}}``.

    Sets and removes qdiscs on ``ifname``, which must not carry traffic meanwhile.
    """
    reasons: dict[str, str] = {}
    seed = False
    try:
        facts = netem.apply(ifname, Link(delay_ns=1_000_000), _SEED)
        seed = facts["netem"]["seed"] is not None
        if not seed:
            reasons["seed"] = "this kernel's netem (before 6.6) takes no seed"
    except HarnessError as error:
        reasons["netem"] = reasons["seed"] = str(error)
    try:
        netem.try_tbf(ifname, Rate(1_000_000, 1600, limit_bytes=16_000))
    except HarnessError as error:
        reasons["tbf"] = str(error)
    netem.clear(ifname)
    try:
        PacketSocket(ifname, outgoing=False, buffer_bytes=1 << 20).close()
    except (HarnessError, OSError) as error:
        reasons["relay"] = str(error)
    return {
        "netem": "netem" not in reasons,
        "tbf": "tbf" not in reasons,
        "relay": "relay" not in reasons,
        "seed": seed,
        "reasons": reasons,
    }


@functools.cache
def on_this_machine() -> dict[str, Any]:
    """As :func:`on_interface`, in a scratch namespace. Raises MachineCannot if none can be made."""
    done = subprocess.run(
        [sys.executable, "-m", "harness.network.probe"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        raise MachineCannot(done.stderr.strip().splitlines()[-1])
    return dict(json.loads(done.stdout))


def can_netem() -> str | None:
    """None where the engine ``netem`` can work, else the reason why it cannot."""
    try:
        found = on_this_machine()
    except MachineCannot as error:
        return str(error)
    missing = [found["reasons"][name] for name in ("netem", "tbf") if not found[name]]
    return "; ".join(missing) or None


def main() -> None:
    from harness.network.topology import unshare_net

    try:
        unshare_net(user=os.geteuid() != 0)
        json.dump(on_interface("lo"), sys.stdout)
    except (MachineCannot, Unsupported) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

"""How exactly the relay delays: from sending to receiving process, against what was asked.

The error holds the two sockets and the plain path too; the link's own log, the relay alone.
"""

from __future__ import annotations

import numpy as np

from harness.labs.base import session
from harness.labs.netns import NetnsLab
from harness.network import link_to_json
from harness.network.link import Link, LinkPair
from harness.units import NS_PER_MS, NS_PER_S
from tests.bench.bench_latency import bare_udp_one_way

ASKED_NS = 25 * NS_PER_MS
RATES = (50, 5_000)
SECONDS = 5


def measure() -> dict[str, str]:
    """Median and 99th percentile of the error at each packet rate."""
    link = Link(delay_ns=ASKED_NS)
    figures = {}
    with session("bench-relay") as mine:
        pair = NetnsLab(mine).open_pair(0)
        try:
            asked = {"link": link_to_json(LinkPair(link, link)), "engine": "relay", "seed": 1}
            pair.link.call("apply", asked)
            for rate in RATES:
                pair.link.call("start")
                took = bare_udp_one_way(pair, SECONDS * rate, NS_PER_S // rate)
                _, log = pair.link.call("collect")
                alone = log["out_ns"] - log["in_ns"]
                for name, times in (("process to process", took), ("relay alone", alone)):
                    median, p99 = np.percentile(times - ASKED_NS, (50, 99)) / NS_PER_MS
                    figures[f"{rate} packets/s, {name}: median, p99 (aim < 0.1, < 1 ms)"] = (
                        f"{median:.3f} ms, {p99:.3f} ms"
                    )
        finally:
            pair.close()
    return figures

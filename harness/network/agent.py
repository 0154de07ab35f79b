"""``python -m harness.network.agent --socket S --name N``: the link agent's process.

It starts in the network namespace that holds the bridge ports (the docker lab), or makes its own
(``--unshare``, the netns lab), and serves until the orchestrator hangs up.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from harness import linux, threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--unshare", action="store_true", help="run in a fresh network namespace")
    parser.add_argument("--user", action="store_true", help="... inside a fresh user namespace")
    parser.add_argument("--pdeathsig", action="store_true", help="die with the parent process")
    options = parser.parse_args()
    if options.pdeathsig:
        linux.die_with_parent()
    if options.unshare:
        # One thread may enter a user namespace, and numerical libraries start their own.
        os.environ.update(threads.ENVIRONMENT)
    from harness.clockfacts import clock_facts
    from harness.control import serve
    from harness.network import topology
    from harness.network.link_agent import LinkAgent

    if options.unshare:
        topology.unshare_net(options.user)
    agent = LinkAgent()
    hello = {"name": options.name, "pid": os.getpid(), **clock_facts()}
    try:
        serve(options.socket, hello, agent.handlers())
    finally:
        agent.close()


if __name__ == "__main__":
    main()

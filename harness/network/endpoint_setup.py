"""``python -m harness.network.endpoint_setup``: prepare an endpoint's interface from inside.

For a helper container that shares an endpoint's network namespace and has NET_ADMIN only:
offloads and IPv6 off, static ARP for the peer. Prints what the interface is, as JSON;
``iflink`` is the index of the bridge port on the host's side.
"""

from __future__ import annotations

import argparse
import json

from harness.network import topology


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interface", required=True)
    parser.add_argument("--peer-ip", required=True)
    parser.add_argument("--peer-mac", required=True)
    options = parser.parse_args()
    topology.prepare_end(options.interface)
    topology.static_arp(options.interface, options.peer_ip, options.peer_mac)
    print(json.dumps(topology.describe_interface(options.interface)))  # noqa: T201


if __name__ == "__main__":
    main()

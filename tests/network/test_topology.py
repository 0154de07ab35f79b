"""What an endpoint's namespace holds, with which rights it is made, and that it leaves nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from pyroute2 import IPRoute
from pyroute2.ethtool.ioctl import IoctlEthtool

from harness.control import Channel, Listener
from harness.errors import CellFailed
from harness.network import link_to_json, topology
from harness.network.link import Link, LinkPair
from harness.network.probe import on_this_machine
from harness.records import Outcome
from tests.network.conftest import LinkProcess, Wire

ROOT = Path(__file__).parents[2]


@pytest.mark.root
@pytest.mark.parametrize("side", ["sender", "receiver"])
def test_an_endpoint_has_its_address_and_nothing_else(wire: Wire, side: str) -> None:
    def look() -> None:
        with IPRoute() as ip:
            index = topology.index_of(ip, "eth0")
            families = [a["family"] for a in ip.get_addr(index=index)]
            assert families == [2]  # no IPv6
            assert not [r for r in ip.get_routes() if r["dst_len"] == 0]  # no way out
            (neighbour,) = ip.get_neighbours(ifindex=index)
            assert neighbour["state"] == 0x80  # permanent
        ethtool = IoctlEthtool()
        ethtool.change_ifname("eth0")
        flags = ethtool.get_offload_flags()
        ethtool.close()
        for name in ("tx-checksumming", "tcp-segmentation-offload", "generic-receive-offload"):
            assert not flags[name]

    topology.in_net_of(wire.pids[side], look)


@pytest.mark.root
def test_a_port_is_found_by_what_the_endpoint_says(wire: Wire) -> None:
    facts = topology.in_net_of(wire.pids["sender"], lambda: topology.describe_interface("eth0"))
    assert facts["mtu"] == 1500
    answer, _ = wire.agent.call("find_port", {"ifindex": facts["iflink"]})
    assert answer["port"] == "port-s"
    with pytest.raises(CellFailed, match="not a veth end"):
        wire.agent.call("find_port", {"ifindex": 1})
    with pytest.raises(CellFailed, match="no interface with index 4711"):
        wire.agent.call("find_port", {"ifindex": 4711})


@pytest.mark.root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv (util-linux)")
def test_net_admin_alone_prepares_an_endpoint() -> None:
    code = (
        "import subprocess, sys\n"
        "from pyroute2 import IPRoute\n"
        "from harness.network.topology import unshare_net\n"
        "unshare_net(False)\n"
        "with IPRoute() as ip:\n"
        "    ip.link('add', ifname='eth0', kind='veth', peer='far')\n"
        "    ip.link('set', index=ip.link_lookup(ifname='eth0')[0], state='up')\n"
        "    far = ip.link_lookup(ifname='far')[0]\n"
        "subprocess.run(['setpriv', '--bounding-set=-all,+net_admin', '--inh-caps=-all',\n"
        "    '--no-new-privs', sys.executable, '-m', 'harness.network.endpoint_setup',\n"
        "    '--interface', 'eth0', '--peer-ip', '192.0.2.9', '--peer-mac', '02:00:00:00:00:09'],\n"
        "    check=True)\n"
        "print(far)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    facts, far = done.stdout.splitlines()
    assert json.loads(facts)["iflink"] == int(far)


@pytest.mark.root
def test_a_killed_link_agent_takes_its_network_along(tmp_path: Path) -> None:
    with pair(tmp_path, user=False) as (agent, channel, (sender, _)):
        channel.close()
        agent.kill()
        agent.wait()
        assert ask(sender, "wait until eth0 is gone") == "gone"


@pytest.mark.netns
def test_a_user_namespace_is_enough_for_a_pair(tmp_path: Path) -> None:
    with pair(tmp_path, user=True) as (_, channel, (sender, receiver)):
        link = LinkPair(Link(delay_ns=1_000_000), Link())
        asked = {"link": link_to_json(link), "engine": "relay", "seed": 1}
        channel.call("apply", asked)
        channel.call("start")
        assert ask(receiver, "bind") == "bound"
        assert ask(sender, "send") == "sent"
        assert ask(receiver, "receive") == "hello"
        _, log = channel.call("collect")
        assert log["outcome"].tolist() == [Outcome.DELIVERED]


@pytest.mark.netns
def test_the_probe_answers_for_this_machine() -> None:
    found = on_this_machine()
    assert found["relay"]
    assert all(found[name] or found["reasons"][name] for name in ("netem", "tbf", "seed"))


ENDPOINT = """
import socket, sys
from pyroute2 import IPRoute
from harness.linux import CLONE_NEWNET, die_with_parent, join_namespace, unshare
from harness.network.topology import RECEIVER_ADDRESS
die_with_parent()
if len(sys.argv) > 1:
    join_namespace(int(sys.argv[1]), "user")
unshare(CLONE_NEWNET)
print("ready", flush=True)
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(10)
for order in sys.stdin:
    match order.strip():
        case "bind":
            sock.bind((RECEIVER_ADDRESS, 5004))
            answer = "bound"
        case "send":
            sock.sendto(b"hello", (RECEIVER_ADDRESS, 5004))
            answer = "sent"
        case "receive":
            answer = sock.recv(100).decode()
        case _:
            with IPRoute() as ip:
                while ip.link_lookup(ifname="eth0"):
                    pass
            answer = "gone"
    print(answer, flush=True)
"""


@contextmanager
def pair(
    directory: Path, user: bool
) -> Iterator[tuple[subprocess.Popen[str], Channel, list[subprocess.Popen[str]]]]:
    """A link agent, and two endpoint processes plugged into it that take orders."""
    with ExitStack() as stack:
        listener = Listener(directory / "s")
        stack.callback(listener.close)
        options = ["--socket", str(directory / "s"), "--name", "link", "--pdeathsig", "--unshare"]
        options += ["--user"] if user else []
        agent = start(stack, "-m", "harness.network.agent", *options)
        channel, _ = listener.accept("link", 20, LinkProcess(agent))
        stack.callback(channel.close)
        channel.call("build_middle")
        endpoints = []
        for side in ("sender", "receiver"):
            process = start(stack, "-c", ENDPOINT, *([str(agent.pid)] if user else []))
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            channel.call("plug", {"pid": process.pid, "side": side})
            endpoints.append(process)
        yield agent, channel, endpoints


def start(stack: ExitStack, *command: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )

    def end() -> None:
        process.kill()
        process.communicate()

    stack.callback(end)
    return process


def ask(process: subprocess.Popen[str], order: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(order + "\n")
    process.stdin.flush()
    return process.stdout.readline().strip()

"""A real pair: two network namespaces, a bridge in a third, and a real link agent."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.control import Channel, Listener
from harness.network import link_to_json, topology
from harness.network.link import Link, LinkPair
from harness.records import Columns
from harness.units import NS_PER_S, monotonic_ns

PORT = 5004
_HOLDER = """
import sys
from harness.linux import die_with_parent
from harness.network.topology import unshare_net
die_with_parent()
unshare_net(False)
print("ready", flush=True)
sys.stdin.read()
"""


@dataclass
class LinkProcess:
    """A link agent as :class:`harness.control.AgentProcess`."""

    process: subprocess.Popen[Any]
    title: str = "the link agent"

    def runs(self) -> bool:
        return self.process.poll() is None

    def post_mortem(self) -> str:
        return f"exit code {self.process.wait(10)}"


@dataclass
class Wire:
    """UDP sockets at both ends and the agent between them."""

    agent: Channel
    sender: socket.socket
    receiver: socket.socket
    pids: dict[str, int]

    def apply(
        self, engine: str, forward: Link, reverse: Link | None = None, seed: int = 1
    ) -> dict[str, Any]:
        pair = LinkPair(forward, reverse or Link())
        asked = {"link": link_to_json(pair), "engine": engine, "seed": seed}
        answer, _ = self.agent.call("apply", asked)
        self.agent.call("start")
        self.received()  # what an earlier test left
        return dict(answer["readback"])

    def start(self, ahead_s: float = 0.1) -> int:
        """The link begins anew; t0, so far ahead, on CLOCK_MONOTONIC."""
        t0_ns = monotonic_ns() + int(ahead_s * NS_PER_S)
        self.agent.call("start", {"t0_ns": t0_ns})
        return t0_ns

    def send(self, count: int, interval_s: float, size_bytes: int = 100) -> None:
        """Datagrams of ``size_bytes`` payload to the receiver, by an absolute schedule."""
        start = time.monotonic()
        for number in range(count):
            self.sender.sendto(
                number.to_bytes(4, "big").ljust(size_bytes, b"."),
                (topology.RECEIVER_ADDRESS, PORT),
            )
            if interval_s:
                time.sleep(max(0.0, start + (number + 1) * interval_s - time.monotonic()))

    def collect(self) -> tuple[dict[str, Any], Columns]:
        answer, log = self.agent.call("collect")
        return answer["counters"], log

    def received(self) -> list[int]:
        """Numbers of the datagrams that came out by now, in order of coming."""
        numbers = []
        while True:
            try:
                numbers.append(int.from_bytes(self.receiver.recv(2048)[:4], "big"))
            except BlockingIOError:
                return numbers


def _udp(address: str) -> Callable[[], socket.socket]:
    def make() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.bind((address, PORT))
        sock.setblocking(False)
        return sock

    return make


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    with ExitStack() as stack:
        path = tmp_path_factory.mktemp("control") / "s"
        listener = Listener(path)
        stack.callback(listener.close)
        agent = _start(
            stack,
            *("-m", "harness.network.agent", "--socket", str(path), "--name", "link"),
            *("--unshare", "--pdeathsig"),
        )
        channel, hello = listener.accept("link", 20, LinkProcess(agent))
        stack.callback(channel.close)
        assert hello["pid"] == agent.pid
        channel.call("build_middle")
        pids, sockets = {}, {}
        for side, address in (
            ("sender", topology.SENDER_ADDRESS),
            ("receiver", topology.RECEIVER_ADDRESS),
        ):
            holder = _start(stack, "-c", _HOLDER)
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"ready\n"
            pids[side] = holder.pid
            channel.call("plug", {"pid": holder.pid, "side": side})
            sockets[side] = stack.enter_context(topology.in_net_of(holder.pid, _udp(address)))
        yield Wire(channel, sockets["sender"], sockets["receiver"], pids)


def _start(stack: ExitStack, *command: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )

    def end() -> None:
        process.kill()
        process.communicate()

    stack.callback(end)
    return process

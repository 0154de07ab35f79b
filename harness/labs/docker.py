"""The docker lab: a sender and a receiver container on a bridge, a helper container for the link.

Needs access to Docker only. Per pair:

* an internal bridge network without a host address, so that nothing leads out of it;
* two endpoint containers: no capabilities, read-only root, unprivileged user, own cpuset where
  there are cores to spare (an engine that may not raise RLIMIT_RTPRIO gives them SYS_NICE instead);
* two short-lived helpers inside the endpoints' network namespaces (NET_ADMIN only) for offloads
  and static ARP;
* one helper with the host's network (NET_ADMIN, NET_RAW, SYS_NICE) that runs the link agent.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import docker.errors
import docker.utils
import requests.exceptions
from docker.models.containers import Container
from docker.models.networks import Network

from harness import errors
from harness.control import Listener
from harness.labs.base import (
    END_TIMEOUT_S,
    START_TIMEOUT_S,
    Pair,
    Session,
    agent_title,
    last_lines,
)
from harness.labs.image import ImageFacts, ensure_image
from harness.labs.priority import PROMOTIONS, leave_group_without_budget
from harness.units import monotonic_ns

CONTROL = "/run/harness"
ASSETS = "/assets"
_REFUSED = re.compile("rlimit|capabilit")
"""What an engine says of a limit or a capability that it may not give."""


def connect() -> docker.DockerClient:
    """The engine that DOCKER_HOST or the default socket names. Raises MachineCannot."""
    try:
        _knock()
        client = docker.from_env(timeout=120)
        client.ping()
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
        raise errors.MachineCannot(
            f"no Docker engine answers ({error}); start it, or use --lab netns"
        ) from error
    return client


def _knock() -> None:
    """Docker's client leaks the socket of a connection that fails, so one of our own goes first."""
    address = docker.utils.parse_host(os.environ.get("DOCKER_HOST"))
    if address.startswith("http+unix://"):
        path = address.removeprefix("http+unix://")
        with socket.socket(socket.AF_UNIX) as door:
            try:
                door.connect(path)
            except OSError as error:
                raise OSError(error.errno, error.strerror, path) from error


@contextlib.contextmanager
def engine_errors(doing: str) -> Iterator[None]:
    """Docker's failures as the harness's own."""
    try:
        yield
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        raise errors.CellFailed(f"Docker failed while {doing}: {error}") from error


class DockerLab:
    """Pairs of containers; see the module's docstring."""

    name = "docker"

    def __init__(self, session: Session, assets: Path, progress: Callable[[str], None]) -> None:
        self._client = connect()
        self._session = session
        self._assets = assets
        self._image: ImageFacts = ensure_image(self._client, progress)
        info = self._client.info()
        self._cores = int(info.get("NCPU") or os.cpu_count() or 1)
        self._has_cpusets = bool(info.get("CPUSet", False))
        self._version = self._client.version()
        self._promotions = PROMOTIONS

    def facts(self) -> dict[str, Any]:
        return {
            "engine": self._version.get("Version"),
            "api": self._version.get("ApiVersion"),
            "kernel": self._version.get("KernelVersion"),
            **self._image.as_dict(),
        }

    def asset_path(self, path: Path) -> str:
        return f"{ASSETS}/{path.relative_to(self._assets)}"

    def close(self) -> None:
        self._client.close()

    def open_pair(self, index: int) -> Pair:
        with ExitStack() as stack, engine_errors("starting a pair"):
            socket_name = f"pair-{index}-{monotonic_ns()}.sock"
            listener = Listener(self._session.control_dir / socket_name)
            stack.callback(listener.close)
            network = self._network(stack, index)
            endpoints = {
                role: self._endpoint(stack, role, index, network, socket_name)
                for role in ("sender", "receiver")
            }
            link = self._agent(
                stack,
                "harness.network.agent",
                "link",
                socket_name,
                network_mode="host",
                user="0:0",
                cap_add=["NET_ADMIN", "NET_RAW", "SYS_NICE"],
            )
            containers = {**endpoints, "link": link}
            channels, facts = {}, {}
            for role, container in containers.items():
                channels[role], facts[role] = listener.accept(
                    role, START_TIMEOUT_S, _DockerAgent(agent_title(role, index), container)
                )
                stack.callback(channels[role].close)
                container.reload()
                leave_group_without_budget(container.attrs["State"]["Pid"], container.id)
            addresses = {role: self._address(c, network) for role, c in endpoints.items()}
            ports = {}
            for role, peer in (("sender", "receiver"), ("receiver", "sender")):
                found = self._wire(endpoints[role], *addresses[peer])
                answer, _ = channels["link"].call("find_port", {"ifindex": found["iflink"]})
                ports[role] = answer["port"]
            channels["link"].call(
                "attach",
                {
                    "sender_port": ports["sender"],
                    "receiver_port": ports["receiver"],
                    "bridge": f"br-{network.id[:12]}",
                },
            )
            return Pair(
                index=index,
                sender=channels["sender"],
                receiver=channels["receiver"],
                link=channels["link"],
                receiver_host=addresses["receiver"][0],
                facts=facts,
                resources=stack.pop_all(),
            )

    def _network(self, stack: ExitStack, index: int) -> Network:
        network = self._client.networks.create(
            f"{self._session.run_id}-pair{index}-{monotonic_ns() % 10**9}",
            driver="bridge",
            internal=True,
            labels=self._session.labels(),
            options={
                "com.docker.network.bridge.inhibit_ipv4": "true",
                "com.docker.network.driver.mtu": "1500",
            },
        )
        stack.callback(_quietly(network.remove))
        network.reload()
        return network

    def _endpoint(
        self, stack: ExitStack, role: str, index: int, network: Network, socket_name: str
    ) -> Container:
        options: dict[str, Any] = {
            "network": network.name,
            "tmpfs": {"/tmp": "size=64m"},
            "sysctls": {"net.ipv6.conf.all.disable_ipv6": "1"},
        }
        if self._has_cpusets and self._cores >= 4:
            offset = 0 if role == "sender" else 1
            options["cpuset_cpus"] = str(1 + (2 * index + offset) % (self._cores - 1))
        agent = (stack, "harness.endpoint.agent", role, socket_name)
        while True:
            promotion = self._promotions[0]
            try:
                return self._agent(*agent, **(options | promotion))
            except docker.errors.APIError as error:
                if promotion is PROMOTIONS[-1] or not _REFUSED.search(str(error)):
                    raise
                # Pairs may open side by side: only the first to meet it strikes it off.
                if self._promotions[0] is promotion:
                    self._promotions = self._promotions[1:]

    def _agent(
        self, stack: ExitStack, module: str, role: str, socket_name: str, **options: Any
    ) -> Container:
        container = self._client.containers.create(
            self._image.id,
            ["-m", module, "--socket", f"{CONTROL}/{socket_name}", "--name", role],
            labels=self._session.labels(),
            cap_drop=["ALL"],
            read_only=True,
            security_opt=["no-new-privileges"],
            log_config={"type": "json-file", "config": {"max-size": "1m"}},
            volumes={
                str(self._session.control_dir): {"bind": CONTROL, "mode": "ro"},
                str(self._assets): {"bind": ASSETS, "mode": "ro"},
            },
            **options,
        )
        stack.callback(_quietly(lambda: container.remove(force=True, v=True)))
        container.start()
        return container

    def _wire(self, container: Container, peer_ip: str, peer_mac: str) -> Any:
        """Offloads off and static ARP inside an endpoint; returns what its interface is."""
        setup = ["-m", "harness.network.endpoint_setup", "--interface", "eth0"]
        output = self._client.containers.run(
            self._image.id,
            [*setup, "--peer-ip", peer_ip, "--peer-mac", peer_mac],
            network_mode=f"container:{container.id}",
            user="0:0",
            cap_drop=["ALL"],
            cap_add=["NET_ADMIN"],
            read_only=True,
            labels=self._session.labels(),
            remove=True,
        )
        return json.loads(output)

    def _address(self, container: Container, network: Network) -> tuple[str, str]:
        found = container.attrs["NetworkSettings"]["Networks"][network.name]
        return found["IPAddress"], found["MacAddress"]


@dataclass
class _DockerAgent:
    """An agent of :class:`DockerLab` as :class:`harness.control.AgentProcess`."""

    title: str
    container: Container

    def runs(self) -> bool:
        self.container.reload()
        return self.container.status in ("created", "running")

    def post_mortem(self) -> str:
        try:
            log = self.container.logs(tail=100).decode(errors="replace")
            return f"{self._end()}; {last_lines(log)}"
        except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
            return f"Docker does not say how ({error})"

    def _end(self) -> str:
        try:
            code = self.container.wait(timeout=END_TIMEOUT_S)["StatusCode"]
        except requests.exceptions.RequestException:
            return "it still runs"
        self.container.reload()
        killed = self.container.attrs["State"].get("OOMKilled")
        return f"exit code {code}" + (", out of memory" if killed else "")


def _quietly(action: Callable[[], object]) -> Callable[[], None]:
    """Teardown goes on when the engine is gone or the thing is; ``harness clean`` gets the rest."""

    def act() -> None:
        with contextlib.suppress(
            docker.errors.DockerException, requests.exceptions.RequestException
        ):
            action()

    return act

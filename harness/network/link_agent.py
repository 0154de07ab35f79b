"""What the link agent does for its orchestrator: the operations of docs/architecture.md.

It holds two bridge ports and at most one running engine between them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from harness.control import Handler
from harness.errors import CellFailed, Unsupported
from harness.network import probe, topology
from harness.network.link import LinkPair, longest_delay_ns
from harness.network.link_json import link_from_json
from harness.network.netem_engine import NetemEngine
from harness.network.relay import Relay
from harness.records import Columns
from harness.units import NS_PER_S, monotonic_ns

_POLL_S = 0.005
_GRACE_S = 0.5


class Engine(Protocol):
    """A link that runs, from its making to ``close``."""

    def readback(self) -> dict[str, Any]:
        """What is really set."""
        ...

    def restart(self, t0_ns: int) -> None:
        """From here on: the seed's first packet, an empty log. Frames under way are dropped.
        The link's changes count from ``t0_ns`` (CLOCK_MONOTONIC), which may be to come."""
        ...

    def in_flight(self) -> int:
        """Packets inside the link now."""
        ...

    def collect(self) -> tuple[dict[str, Any], Columns]:
        """Counters, and the LINK_LOG since the last restart. ``t0_ns`` among the counters is t0
        on the log's clock."""
        ...

    def close(self) -> None: ...


class RelayEngine(Relay):
    """The relay between two bridge ports, which rejoin the bridge when it ends."""

    def __init__(self, ports: tuple[str, str], bridge: str, pair: LinkPair, seed: int) -> None:
        self._ports = ports
        self._bridge = bridge
        for port in ports:
            topology.leave_bridge(port)
        try:
            super().__init__(*ports, pair, seed)
        except BaseException:
            self._rejoin()
            raise

    def close(self) -> None:
        super().close()
        self._rejoin()

    def _rejoin(self) -> None:
        for port in self._ports:
            topology.join_bridge(port, self._bridge)


class LinkAgent:
    """One pair's link; ``apply`` and ``clear`` may follow any operation, failed ones too."""

    def __init__(self) -> None:
        self._plugged: dict[str, str] = {}
        self._ports: tuple[str, str] | None = None
        self._bridge = ""
        self._engine: Engine | None = None
        self._longest_s = 0.0

    def handlers(self) -> dict[str, Handler]:
        """By operation, for :func:`harness.control.serve`."""
        operations: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "probe": self._probe,
            "find_port": lambda asked: {"port": topology.find_port(asked["ifindex"])},
            "build_middle": self._build_middle,
            "plug": self._plug,
            "attach": self._attach,
            "apply": self._apply,
            "start": self._start,
            "clear": self._clear,
        }

        def plain(operation: Callable[[dict[str, Any]], dict[str, Any]]) -> Handler:
            return lambda asked, _: (operation(asked), {})

        return {name: plain(operation) for name, operation in operations.items()} | {
            "collect": lambda _asked, _columns: self._collect()
        }

    def close(self) -> None:
        """Leave no qdisc and no relay behind."""
        if self._engine is not None:
            engine, self._engine = self._engine, None
            engine.close()

    def _probe(self, _asked: dict[str, Any]) -> dict[str, Any]:
        if self._ports is None:
            raise CellFailed("probe comes after attach or plug: it tries qdiscs on a port")
        self.close()
        return probe.on_interface(self._ports[1])

    def _build_middle(self, _asked: dict[str, Any]) -> dict[str, Any]:
        topology.build_middle()
        return {"bridge": topology.BRIDGE}

    def _plug(self, asked: dict[str, Any]) -> dict[str, Any]:
        port = topology.plug(asked["pid"], asked["side"])
        self._plugged[asked["side"]] = port
        if len(self._plugged) == 2:
            self._ports = (self._plugged["sender"], self._plugged["receiver"])
            self._bridge = topology.BRIDGE
        return {"port": port}

    def _attach(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.close()
        ports = (asked["sender_port"], asked["receiver_port"])
        for port in ports:
            topology.prepare_end(port)
        self._ports, self._bridge = ports, asked["bridge"]
        return {}

    def _apply(self, asked: dict[str, Any]) -> dict[str, Any]:
        if self._ports is None:
            raise CellFailed("apply comes after attach or plug")
        pair = link_from_json(asked["link"])
        self.close()
        match asked["engine"]:
            case "relay":
                self._engine = RelayEngine(self._ports, self._bridge, pair, asked["seed"])
            case "netem":
                self._engine = NetemEngine(self._ports, pair, asked["seed"])
            case other:
                raise Unsupported(f"no link engine {other!r}; there are netem and relay")
        longest_ns = max(longest_delay_ns(link) for link in (pair.forward, pair.reverse))
        self._longest_s = longest_ns / NS_PER_S + _GRACE_S
        return {"readback": self._engine.readback()}

    def _start(self, asked: dict[str, Any]) -> dict[str, Any]:
        engine = self._running()
        self._wait_until_empty(engine)
        engine.restart(asked.get("t0_ns", monotonic_ns()))
        return {}

    def _collect(self) -> tuple[dict[str, Any], Columns]:
        engine = self._running()
        self._wait_until_empty(engine)
        counters, log = engine.collect()
        return {"counters": counters}, log

    def _clear(self, _asked: dict[str, Any]) -> dict[str, Any]:
        self.close()
        return {}

    def _running(self) -> Engine:
        if self._engine is None:
            raise CellFailed("no link runs; apply one first")
        return self._engine

    def _wait_until_empty(self, engine: Engine) -> None:
        """Let packets under way come out, for as long as the link may hold one."""
        deadline = time.monotonic() + self._longest_s
        while engine.in_flight() and time.monotonic() < deadline:
            time.sleep(_POLL_S)

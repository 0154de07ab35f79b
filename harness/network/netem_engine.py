"""Engine ``netem`` as the link agent runs it: qdiscs on both bridge ports, taps beside them."""

from __future__ import annotations

from typing import Any

from harness.network import netem
from harness.network.link import LinkPair
from harness.network.tap import Tap, attribute_queue, log_columns, match
from harness.records import Columns, Outcome


class NetemEngine:
    """A running netem link. qdiscs work on egress, so forward sits on the receiver's port."""

    def __init__(self, ports: tuple[str, str], pair: LinkPair, seed: int) -> None:
        sender_port, receiver_port = ports
        self._directions = (
            ("forward", receiver_port, pair.forward, netem.direction_seed(seed, 0)),
            ("reverse", sender_port, pair.reverse, netem.direction_seed(seed, 1)),
        )
        for _, _, link, direction_seed in self._directions:
            netem.plan(link, direction_seed)  # both are possible before either is set
        self._tap = Tap(sender_port, receiver_port)
        try:
            self._set()
        except BaseException:
            self.close()
            raise

    def readback(self) -> dict[str, Any]:
        """The kernel's report per direction, ``seed`` null in it where the kernel has none."""
        return {"engine": "netem", **self._facts}

    def restart(self, t0_ns: int) -> None:
        """Fresh qdiscs: the generator begins at its seed, the counters at zero."""
        self._set()
        self._tap.restart()

    def in_flight(self) -> int:
        counted = [netem.counters(port) for _, port, _, _ in self._directions]
        return sum(kinds["netem"]["qlen"] for kinds in counted if "netem" in kinds)

    def collect(self) -> tuple[dict[str, Any], Columns]:
        """Counters, and the LINK_LOG since the last restart.

        ``log_drops`` counts frames that the taps missed, ``unexplained`` those that left without
        being seen to enter; qdisc counters stand per direction.
        """
        entered, left, missed = self._tap.collect()
        counters: dict[str, Any] = {"log_drops": missed, "unexplained": 0}
        logs = []
        for number, (name, port, link, _) in enumerate(self._directions):
            kinds = netem.counters(port)
            counters[name] = kinds
            rows, unexplained = match(entered[number], left[number])
            counters["unexplained"] += unexplained
            if link.loss is None:
                queue_drops = sum(row.outcome is Outcome.LOST for row in rows)
            else:
                queue_drops = kinds["tbf"]["drops"] if "tbf" in kinds else 0
            logs.append(attribute_queue(rows, queue_drops, link.delay_ns))
        return counters, log_columns(*logs)

    def close(self) -> None:
        self._tap.close()
        for _, port, _, _ in self._directions:
            netem.clear(port)

    def _set(self) -> None:
        self._facts = {
            name: netem.apply(port, link, direction_seed)
            for name, port, link, direction_seed in self._directions
        }

"""One real sender and two receivers, over the loopback interface."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from harness.control import Channel
from harness.endpoint.fan import Fan
from harness.records import Kind
from harness.units import NS_PER_MS, NS_PER_S, monotonic_ns
from tests.endpoint.test_endpoint_agent import SPEECH, job, part, started


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[dict[str, Channel]]:
    with ExitStack() as stack:
        yield started(stack, tmp_path / "s", ["sender", "lender", "near", "far"])


@pytest.mark.parametrize("talker", ["near", "far"])
def test_one_sender_serves_two_receivers_and_hears_both(
    ends: dict[str, Channel], talker: str
) -> None:
    adapt = {"adapt": "loss-delay", "report_every_ns": 50 * NS_PER_MS}
    wanted = job(codec="opus", sender=adapt)
    ports = {}
    for name in ("near", "far"):
        mine = wanted if name == talker else wanted | {"sender": {}}
        ready, _ = ends[name].call("prepare_receiver", {"job": mine})
        ports[name] = ready["port"]
    asked = {"host": wanted["host"], "transport": wanted["transport"], "port": ports["far"]}
    lent, _ = ends["lender"].call("lend", asked)
    order = {"job": wanted, "port": ports["near"], "files": lent["files"]}
    ends["sender"].call("prepare_sender", order, {"pcm": SPEECH})
    os.close(lent["files"][0])
    ends["lender"].call("close")  # the socket lives on with who has it
    t0_ns = monotonic_ns() + 50 * NS_PER_MS
    times = {"t0_ns": t0_ns, "stop_ns": t0_ns + 5 * NS_PER_S}
    running = [ends[name] for name in ("near", "far", "sender")]
    for end in running:
        end.ask("run", times)
    near, far, (sent, columns) = [end.answer(20) for end in running]
    for _, heard in (near, far):
        assert len(part(heard, "packets")["seq"]) == 26
        assert Kind.CONCEALED not in part(heard, "frames")["kind"]
    np.testing.assert_array_equal(near[1]["media"], far[1]["media"])
    for receiver in (0, 1):
        packets = part(columns, f"to{receiver}.packets")
        np.testing.assert_array_equal(packets["seq"], part(columns, "packets")["seq"])
        assert (packets["send_ns"] > 0).all()
        assert sent["to"][receiver]["refused_packets"] == 0
    assert sent["reports"] > 5


class Door:
    """Takes every packet but one."""

    def __init__(self, refused: int) -> None:
        self._refused = refused
        self.came: list[bytes] = []

    def send(self, packet: bytes) -> bool:
        self.came.append(packet)
        return len(self.came) - 1 != self._refused


def test_what_one_socket_refuses_the_others_get() -> None:
    doors = [Door(refused=2), Door(refused=0)]
    fan = Fan(doors)
    packets = [b"0", b"1", b"2", b"3"]
    assert [fan.send(packet) for packet in packets] == [True] * 4
    assert [door.came for door in doors] == [packets, packets]
    assert fan.refused == [[2], [0]]

"""Streams as older systems run them: acknowledged messages, bounded queues."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from harness.transports import transport
from harness.transports.base import TransportSettings
from harness.transports.stream import StreamSender
from harness.units import NS_PER_MS, NS_PER_S, monotonic_ns

HOST = "127.0.0.1"
STREAMS = ["tcp", "websocket"]


class Slow:
    """A receiver whose application acknowledges a packet when it is told to."""

    def __init__(self, name: str) -> None:
        self.arrived: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.go = threading.Semaphore(0)
        self.receiver = transport(name).listen(HOST, self._on_packet)

    def _on_packet(self, packet: bytes, recv_ns: int) -> None:
        self.arrived.put(packet)
        self.go.acquire(timeout=10)
        self.receiver.reply(recv_ns.to_bytes(8, "big"))


@contextmanager
def ends(name: str, **settings: Any) -> Iterator[tuple[StreamSender, Slow]]:
    slow = Slow(name)
    sender = transport(name).connect(HOST, slow.receiver.port, TransportSettings(**settings))
    try:
        yield cast(StreamSender, sender), slow
    finally:
        slow.go.release(100)
        sender.close()
        slow.receiver.close()


def depths(sender: StreamSender) -> list[int]:
    return [depth for _, depth in sender.counts()["queue_depth"]]


@pytest.mark.parametrize("name", STREAMS)
def test_the_next_message_leaves_when_the_last_was_acknowledged(name: str) -> None:
    with ends(name, in_flight=1, queue=5) as (sender, slow):
        assert all(sender.send(b"%d" % i) for i in range(3))
        assert slow.arrived.get(timeout=10) == b"0"
        assert depths(sender) == [1, 2]  # the others are still here
        assert sender.counts()["ack_rtt_ns"] == [None] * 3
        slow.go.release(2)
        assert [slow.arrived.get(timeout=10) for _ in range(2)] == [b"1", b"2"]
        slow.go.release()
        sender.flush(monotonic_ns() + 10 * NS_PER_S)
        counts = sender.counts()
        assert depths(sender) == [1, 2, 1, 0]
        assert len(counts["send_call_ns"]) == 3
        assert counts["ack_rtt_ns"][0] > counts["send_call_ns"][0] > 0


def test_as_many_messages_are_in_flight_as_may_be() -> None:
    with ends("websocket", in_flight=2, queue=5) as (sender, slow):
        for i in range(4):
            sender.send(b"%d" % i)
        assert depths(sender) == [1, 2]
        slow.go.release()
        assert [slow.arrived.get(timeout=10) for _ in range(2)] == [b"0", b"1"]
        sender.flush(monotonic_ns() + NS_PER_MS)
        assert slow.receiver.counts()["unsaid_replies"] == 0


@pytest.mark.parametrize(
    ("when_full", "taken", "dropped", "arrive"),
    [
        ("drop-newest", [True, True, True, False], [], [b"0", b"1", b"2"]),
        ("drop-oldest", [True, True, True, True], [1], [b"0", b"2", b"3"]),
    ],
)
def test_a_full_queue_drops_what_it_is_told_to(
    when_full: str, taken: list[bool], dropped: list[int], arrive: list[bytes]
) -> None:
    with ends("tcp", in_flight=1, queue=2, when_full=when_full) as (sender, slow):
        assert [sender.send(b"%d" % i) for i in range(4)] == taken
        assert sender.counts()["queue_dropped"] == dropped
        slow.go.release(3)
        assert [slow.arrived.get(timeout=10) for _ in arrive] == arrive


def test_a_full_queue_that_blocks_holds_up_whoever_sends() -> None:
    with ends("tcp", in_flight=1, queue=1) as (sender, slow):
        assert sender.send(b"0")
        assert sender.send(b"1")
        assert not sender.send(b"late", deadline_ns=monotonic_ns())
        taken: list[bool] = []
        thread = threading.Thread(target=lambda: taken.append(sender.send(b"2")))
        thread.start()
        assert slow.arrived.get(timeout=10) == b"0"
        slow.go.release(3)
        assert [slow.arrived.get(timeout=10) for _ in range(2)] == [b"1", b"2"]
        thread.join(10)
        assert taken == [True]
        assert sender.counts()["queue_blocked_ns"] > 0


def test_a_sender_whose_receiver_is_gone_says_so_and_waits_for_nobody() -> None:
    with ends("tcp", in_flight=1, queue=1) as (sender, slow):
        sender.send(b"0")
        slow.go.release(100)
        slow.receiver.close()

        def send_on() -> None:
            while True:
                sender.send(b"x")

        with pytest.raises(OSError, match=r"reset|hung up|Broken pipe"):
            send_on()

"""The bounded queue between receiving and decoding."""

from __future__ import annotations

import threading

from harness.endpoint.gate import Gate


def depths(gate: Gate) -> list[int]:
    return [depth for _, depth in gate.counts()["receive_queue_depth"]]


def test_a_full_gate_holds_the_receiving_thread_until_something_is_decoded() -> None:
    gate = Gate(2, "block")
    through: list[bool] = []
    passed = threading.Event()

    def receive() -> None:
        for _ in range(3):
            through.append(gate.enter())
        passed.set()

    thread = threading.Thread(target=receive)
    thread.start()
    assert not passed.wait(0.05)
    gate.left(1)
    assert passed.wait(10)
    thread.join()
    assert through == [True] * 3
    assert depths(gate) == [1, 2, 1, 2]
    assert gate.counts()["receive_queue_dropped"] == 0


def test_a_gate_that_drops_turns_away_what_is_too_much() -> None:
    gate = Gate(2, "drop-newest")
    assert [gate.enter() for _ in range(4)] == [True, True, False, False]
    gate.left(2)
    assert gate.enter()
    assert depths(gate) == [1, 2, 0, 1]
    assert gate.counts()["receive_queue_dropped"] == 2


def test_an_opened_gate_holds_nobody() -> None:
    gate = Gate(1, "block")
    gate.enter()
    thread = threading.Thread(target=gate.enter)
    thread.start()
    gate.open()
    thread.join(10)
    assert not thread.is_alive()


def test_without_a_bound_there_is_no_gate() -> None:
    gate = Gate(0, "block")
    assert all(gate.enter() for _ in range(100))
    assert gate.counts() == {}

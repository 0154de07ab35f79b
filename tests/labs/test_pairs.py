"""The pool of warm pairs, over a lab without processes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from harness.control import Channel
from harness.errors import BadInput, CellFailed, HarnessError, Unsupported
from harness.labs.base import Pair
from harness.labs.pairs import PairPool


class FakeChannel(Channel):
    """An agent that answers everything, or is gone."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gone = False

    def settle(self, timeout_s: float) -> None:  # noqa: ARG002
        self.asked.append("settle")

    def call(self, op: str, *_: Any, **__: Any) -> Any:
        if self.gone:
            raise CellFailed("gone")
        self.asked.append(op)
        return {}, {}


class FakeLab:
    """Counts its pairs."""

    name = "fake"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.open = self.opened = self.most = 0
        self.threads: list[threading.Thread] = []

    def open_pair(self, index: int) -> Pair:
        with self._lock:
            self.threads.append(threading.current_thread())
            self.open += 1
            self.opened += 1
            self.most = max(self.most, self.open)
        stack = ExitStack()
        stack.callback(self._closed)
        channels = FakeChannel(), FakeChannel(), FakeChannel()
        return Pair(index, *channels, receiver_host="", facts={}, resources=stack)

    def _closed(self) -> None:
        with self._lock:
            self.open -= 1

    def facts(self) -> dict[str, Any]:
        return {}

    def asset_path(self, path: Path) -> str:
        return str(path)

    def close(self) -> None: ...


@pytest.fixture
def lab() -> FakeLab:
    return FakeLab()


def test_broadcasts_wait_for_each_other_and_never_for_ever(lab: FakeLab) -> None:
    pool = PairPool(lab, 4)
    pool.warm_up(4)

    def work(listeners: int) -> int:
        with pool.claim(listeners) as pairs:
            return len({pair.index for pair in pairs})

    wanted = [3, 1, 2, 3, 4, 1, 3, 2] * 6
    with ThreadPoolExecutor(12) as threads:
        futures = [threads.submit(work, listeners) for listeners in wanted]
        _, waiting = wait(futures, timeout=60)
        assert not waiting
    assert [future.result() for future in futures] == wanted
    assert (lab.most, lab.opened) == (4, 4)
    pool.close()
    assert lab.open == 0


def test_as_many_cells_go_side_by_side_as_there_may_be_pairs(lab: FakeLab) -> None:
    pool = PairPool(lab, 4)
    all_at_once = threading.Barrier(4)

    def single(_: int) -> None:
        with pool.claim(1):
            all_at_once.wait(timeout=30)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(single, range(4)))
    assert (lab.most, lab.opened) == (4, 4)


def test_a_broadcast_larger_than_the_bound_has_the_lab_to_itself(lab: FakeLab) -> None:
    pool = PairPool(lab, 2)
    for _ in range(3):
        with pool.claim(5) as pairs:
            assert len(pairs) == 5
    assert (lab.most, lab.opened) == (5, 5)


@pytest.mark.parametrize("error", [Unsupported, BadInput])
def test_what_cannot_be_asked_costs_no_pair(lab: FakeLab, error: type[HarnessError]) -> None:
    pool = PairPool(lab, 1)
    with pytest.raises(error), pool.claim(1) as (pair,):
        raise error("no")
    for channel, closing in (
        (pair.sender, "close"),
        (pair.receiver, "close"),
        (pair.link, "clear"),
    ):
        assert isinstance(channel, FakeChannel)
        assert channel.asked == ["settle", closing]
    with pool.claim(1) as (again,):
        assert again is pair
    assert (lab.open, lab.opened) == (1, 1)


@pytest.mark.parametrize("error", [CellFailed, RuntimeError])
def test_a_broken_pair_is_closed_and_replaced(lab: FakeLab, error: type[Exception]) -> None:
    pool = PairPool(lab, 1)
    with pytest.raises(error), pool.claim(1) as (pair,):
        raise error("broken")
    with pool.claim(1) as (other,):
        assert other is not pair
    assert (lab.open, lab.opened) == (1, 2)


def test_a_pair_that_does_not_come_back_to_idle_is_closed(lab: FakeLab) -> None:
    pool = PairPool(lab, 1)
    with pool.claim(1) as (pair,):
        assert isinstance(pair.receiver, FakeChannel)
        pair.receiver.gone = True
    with pytest.raises(Unsupported), pool.claim(1):
        raise Unsupported("no")
    assert lab.open == 0


def test_the_threads_that_open_pairs_live_as_long_as_these(lab: FakeLab) -> None:
    """An agent dies with the thread that started it (PR_SET_PDEATHSIG)."""
    pool = PairPool(lab, 3)
    pool.warm_up(2)
    with pool.claim(3):
        pass
    assert len(lab.threads) == 3
    assert all(thread.is_alive() for thread in lab.threads)
    assert threading.current_thread() not in lab.threads
    pool.close()
    assert not any(thread.is_alive() for thread in lab.threads)


def test_after_the_end_nothing_is_opened(lab: FakeLab) -> None:
    pool = PairPool(lab, 2)
    pool.warm_up(1)
    pool.close()
    with pytest.raises(CellFailed, match="interrupted"), pool.claim(1):
        pass
    assert lab.open == 0

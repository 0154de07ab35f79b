"""Who is admitted to something bounded, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.labs.capacity import Admission, Capacity


def admitted(door: Admission, tickets: Sequence[int]) -> list[bool]:
    return [door.is_admitted(ticket) for ticket in tickets]


def test_light_claims_do_not_overtake_a_heavy_one() -> None:
    door = Admission(2.0)
    first, heavy = door.ask(1.5), door.ask(2.0)
    lights = [door.ask(0.1) for _ in range(3)]
    assert admitted(door, [first, heavy, *lights]) == [True, False, False, False, False]
    door.leave(first)
    assert admitted(door, [heavy, *lights]) == [True, False, False, False]
    door.leave(heavy)
    assert admitted(door, lights) == [True] * 3


def test_more_than_the_whole_has_it_to_itself() -> None:
    door = Admission(2)
    small, large, last = door.ask(1), door.ask(5), door.ask(1)
    assert admitted(door, [small, large, last]) == [True, False, False]
    door.leave(small)
    assert admitted(door, [large, last]) == [True, False]
    door.leave(large)
    assert door.is_admitted(last)


def test_who_gives_up_holds_up_nobody() -> None:
    door = Admission(1)
    first, given_up, last = door.ask(0.5), door.ask(1), door.ask(0.5)
    door.leave(given_up)
    assert admitted(door, [first, last]) == [True, True]


@given(st.lists(st.floats(0.01, 3), min_size=1, max_size=20), st.data())
def test_the_whole_is_never_exceeded_and_everybody_gets_in_in_order(
    shares: list[float], data: st.DataObject
) -> None:
    door = Admission(2.0)
    tickets = [door.ask(share) for share in shares]
    share_of = dict(zip(tickets, (min(share, 2.0) for share in shares), strict=True))
    entered: list[int] = []
    while tickets:
        inside = [ticket for ticket in tickets if door.is_admitted(ticket)]
        assert inside, "somebody is always inside"
        assert sum(share_of[ticket] for ticket in inside) < 2.0 + 1e-6
        entered += [ticket for ticket in inside if ticket not in entered]
        leaving = data.draw(st.sampled_from(inside))
        tickets.remove(leaving)
        door.leave(leaving)
    assert entered == sorted(share_of)


def test_threads_share_it_and_a_failure_gives_its_share_back() -> None:
    cores = Capacity(2.0)
    held: list[float] = []

    def work(share: float) -> float:
        with cores.claim(share):
            held.append(share)
            most = sum(held)
            held.remove(share)
        return most

    with pytest.raises(ZeroDivisionError), cores.claim(2.0):
        _ = 1 / 0
    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(work, [0.5, 2.0, 1.0, 0.25] * 25)) <= 2.0

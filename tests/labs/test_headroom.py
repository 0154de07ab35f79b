"""As many cells side by side as leave each other undisturbed."""

from __future__ import annotations

import random
from itertools import pairwise

from harness.labs.headroom import Headroom


def test_it_begins_with_half_and_grows_to_the_most() -> None:
    room = Headroom(6)
    reached = [room.at_once]
    for _ in range(30):
        room.end(room.begin(), False)
        reached.append(room.at_once)
    assert reached[0] == 3
    assert reached[-1] == 6
    assert all(0 <= after - before <= 1 for before, after in pairwise(reached))


def test_one_disturbance_of_many_cells_is_answered_once() -> None:
    room = Headroom(8)
    for _ in range(40):
        room.end(room.begin(), False)
    side_by_side = [room.begin() for _ in range(room.at_once)]
    for began in side_by_side:
        room.end(began, True)
    assert room.at_once == 4
    room.end(room.begin(), True)
    assert room.at_once == 2


def test_it_never_stops() -> None:
    room = Headroom(1)
    assert room.at_once == 1
    for _ in range(5):
        room.end(room.begin(), True)
    assert room.at_once == 1


def test_it_settles_where_the_machine_has_room() -> None:
    """A machine that disturbs cells when more than four of them share it."""
    chance, room, reached = random.Random(1), Headroom(24), []
    for _ in range(400):
        began, at_once = room.begin(), room.at_once
        room.end(began, at_once > 4 and chance.random() < 0.9)
        reached.append(at_once)
    settled = reached[50:]
    assert 2 <= sum(settled) / len(settled) <= 5
    assert max(settled) <= 7

"""What protects a stream gives back exactly what was lost, as far as its arithmetic reaches."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.media.protection import (
    ParityMaker,
    ParityStore,
    Repeater,
    interleaved_slot,
    unwrap,
    wrap,
)
from harness.media.settings import SenderSettings

PAYLOADS = st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=12)


def coded(settings: SenderSettings, payloads: list[bytes]) -> list[tuple[int, bytes]]:
    """Parity payloads with the first frame of their group."""
    maker = ParityMaker(settings)
    return [
        (frame - frame % settings.fec_data, parity)
        for frame, payload in enumerate(payloads)
        for parity in maker.add(payload, frame == len(payloads) - 1)
    ]


def restored(
    settings: SenderSettings,
    payloads: list[bytes],
    lost: set[int],
    lost_parity: set[int] = frozenset(),
) -> dict[int, bytes]:
    """What comes back where each group's parity follows its frames."""
    store = ParityStore(settings)
    found = {}
    parities = list(enumerate(coded(settings, payloads)))
    for frame, payload in enumerate(payloads):
        if frame not in lost:
            found |= {r.frame: r.payload for r in store.add_media(frame, payload)}
        if (frame + 1) % settings.fec_data and frame + 1 < len(payloads):
            continue
        for index, (first, parity) in parities:
            if first == frame - frame % settings.fec_data and index not in lost_parity:
                found |= {r.frame: r.payload for r in store.add_parity(first, parity, index)}
    return found


def test_a_group_that_is_long_past_restores_nothing() -> None:
    settings = SenderSettings(fec="xor", fec_data=2, fec_parity=1)
    payloads = [b"%d" % frame for frame in range(40)]
    store = ParityStore(settings)
    for frame, payload in enumerate(payloads[1:], 1):
        assert list(store.add_media(frame, payload)) == []
    first, parity = coded(settings, payloads)[0]
    assert list(store.add_parity(first, parity, 0)) == []


@given(st.binary(min_size=1, max_size=99), st.lists(st.binary(max_size=99), max_size=8))
def test_repeated_payloads_come_apart_again(payload: bytes, older: list[bytes]) -> None:
    assert unwrap(wrap(payload, older)) == (payload, older)


@given(st.binary(min_size=1, max_size=40))
def test_what_was_not_wrapped_is_refused_or_shorter(data: bytes) -> None:
    try:
        payload, older = unwrap(data)
    except ValueError:
        return
    assert len(payload) + sum(map(len, older)) + 1 + 2 * len(older) == len(data)


def test_repetition_carries_the_frames_before_it_at_their_distance() -> None:
    repeater = Repeater(SenderSettings(repeat=2, repeat_distance=3))
    seen = [unwrap(repeater.wrap(b"%d" % frame)) for frame in range(9)]
    assert seen[2] == (b"2", [])
    assert seen[3] == (b"3", [b"0"])
    assert seen[8] == (b"8", [b"5", b"2"])


@given(PAYLOADS, st.integers(1, 5), st.data())
def test_xor_gives_back_any_one_frame_of_a_group(
    payloads: list[bytes], data: int, draw: st.DataObject
) -> None:
    settings = SenderSettings(fec="xor", fec_data=data, fec_parity=1)
    lost = draw.draw(st.sampled_from(range(len(payloads))))
    assert restored(settings, payloads, {lost}) == {lost: payloads[lost]}


@pytest.mark.parametrize(("data", "parity"), [(1, 2), (4, 2), (5, 3)])
def test_reed_solomon_gives_back_as_many_as_it_has_parity(data: int, parity: int) -> None:
    settings = SenderSettings(fec="reed-solomon", fec_data=data, fec_parity=parity)
    payloads = [bytes([frame]) * (20 + 3 * frame) for frame in range(data)]
    for count in range(1, min(data, parity) + 1):
        for lost in combinations(range(data), count):
            # As many parity payloads may be lost beside as are not needed.
            spared = set(range(parity - count))
            found = restored(settings, payloads, set(lost), spared)
            assert found == {frame: payloads[frame] for frame in lost}
    if data > parity:
        assert restored(settings, payloads, set(range(parity + 1))) == {}


def test_a_last_group_that_is_shorter_is_protected_as_well() -> None:
    settings = SenderSettings(fec="reed-solomon", fec_data=4, fec_parity=1)
    payloads = [b"a", b"bb", b"ccc", b"dddd", b"eeeee", b"ffffff"]
    assert restored(settings, payloads, {1, 5}) == {1: b"bb", 5: b"ffffff"}


def test_parity_that_comes_first_waits_for_its_frames() -> None:
    settings = SenderSettings(fec="xor", fec_data=2, fec_parity=1)
    ((first, parity),) = coded(settings, [b"one", b"three"])
    store = ParityStore(settings)
    assert list(store.add_parity(first, parity, 7)) == []
    (found,) = store.add_media(1, b"three")
    assert found == (0, b"one", (7,))


@given(st.binary(max_size=40), st.integers(0, 3))
def test_parity_of_another_making_restores_nothing_wrong(parity: bytes, first: int) -> None:
    store = ParityStore(SenderSettings(fec="reed-solomon", fec_data=2, fec_parity=2))
    assert list(store.add_media(0, b"x" * 30)) == []
    try:
        found = list(store.add_parity(first, parity, 0))
    except ValueError:
        return
    assert all(len(r.payload) > 0 for r in found)


@pytest.mark.parametrize("depth", [2, 3, 6])
def test_interleaving_gives_each_interval_one_frame_and_parts_neighbours(depth: int) -> None:
    slots = [interleaved_slot(frame, depth) for frame in range(12 * depth)]
    assert len(set(slots)) == len(slots)
    order = sorted(range(len(slots)), key=slots.__getitem__)
    steady = order[depth * depth : -depth * depth]
    assert all(abs(b - a) >= depth - 1 for a, b in pairwise(steady))
    assert max(slot - frame for frame, slot in enumerate(slots)) == depth * (depth - 1)

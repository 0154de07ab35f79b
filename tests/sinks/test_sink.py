"""The sink's buffers, windows and batches at exact instants, without model and clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from harness.sinks.settings import SinkSettings
from harness.sinks.sink import Chunk, Decision, IsolatedSink, SharedSink, Window, make, replay

MS = 1_000_000
HOP = 64 * MS
ONE_BY_ONE = SinkSettings(batch_windows=1, wait_ns=0)


def chunks(count: int, client: int = 0, after_ns: int = 0, rms: float = 0.1) -> list[Chunk]:
    """A stream in time: each chunk is whole 64 ms after the one before."""
    return [Chunk(client, at, after_ns + (at + 1) * HOP, rms) for at in range(count)]


def taking(spent_ns: int) -> Callable[[Sequence[Window]], tuple[list[str], int]]:
    return lambda windows: (["yes"] * len(windows), spent_ns)


def summary(decisions: Sequence[Decision]) -> list[tuple[int, int, float]]:
    """Client whose audio it is, number of the first chunk, instant in ms."""
    return [(d.window[0].client, d.window[0].number, d.decided_ns / MS) for d in decisions]


def test_a_classifier_that_keeps_up_decides_as_each_window_ends() -> None:
    decisions = replay(IsolatedSink(ONE_BY_ONE), chunks(5), taking(10 * MS))
    assert summary(decisions) == [(0, 0, 138), (0, 1, 202), (0, 2, 266), (0, 3, 330)]
    assert [[chunk.number for chunk in d.window] for d in decisions] == [
        [0, 1], [1, 2], [2, 3], [3, 4],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("window", "hop", "starts"), [(4, 1, [0, 1, 2]), (4, 2, [0, 2]), (4, 4, [0]), (1, 1, range(6))]
)
def test_windows_overlap_by_what_they_share(window: int, hop: int, starts: Sequence[int]) -> None:
    settings = replace(ONE_BY_ONE, window_chunks=window, hop_chunks=hop)
    decisions = replay(IsolatedSink(settings), chunks(6), taking(0))
    assert [d.window[0].number for d in decisions] == list(starts)
    assert len(decisions) == settings.windows_due(6)


def test_a_batch_waits_to_fill_and_no_longer_than_it_may() -> None:
    patient = SinkSettings(batch_windows=2, wait_ns=100 * MS)
    # Windows end at 128, 192, 256: the second fills the first's batch, nothing fills the third's.
    assert summary(replay(IsolatedSink(patient), chunks(4), taking(MS))) == [
        (0, 0, 193), (0, 1, 193), (0, 2, 357),
    ]  # fmt: skip
    hasty = replace(patient, wait_ns=20 * MS)
    assert summary(replay(IsolatedSink(hasty), chunks(4), taking(MS))) == [
        (0, 0, 149), (0, 1, 213), (0, 2, 277),
    ]  # fmt: skip


def test_silence_is_decided_at_once_and_costs_nothing() -> None:
    calls: list[int] = []

    def classify(windows: Sequence[Window]) -> tuple[list[str], int]:
        calls.append(len(windows))
        return ["yes"] * len(windows), 10 * MS

    stream = [chunk._replace(rms=0.0) if chunk.number < 2 else chunk for chunk in chunks(4)]
    decisions = replay(IsolatedSink(replace(ONE_BY_ONE, gate_rms=0.06)), stream, classify)
    # Of the second window one chunk is loud: 0.05 in the mean.
    assert [(d.label, d.decided_ns / MS) for d in decisions] == [
        (None, 128), (None, 192), ("yes", 266),
    ]  # fmt: skip
    assert calls == [1]


def test_drop_oldest_stays_near_the_present_and_never_spans_a_gap() -> None:
    settings = replace(ONE_BY_ONE, ring_chunks=3, drop="drop-oldest")
    sink = IsolatedSink(settings)
    decisions = replay(sink, chunks(12), taking(300 * MS))
    # Busy from 128 to 428: 1...6 came, of which the ring kept 3, 4, 5 (6 comes at 448).
    assert summary(decisions)[:2] == [(0, 0, 428), (0, 3, 728)]
    assert all(d.window[1].number == d.window[0].number + 1 for d in decisions)
    assert sink.dropped_chunks > 0
    assert sink.deepest == 3


def test_drop_newest_keeps_what_it_has() -> None:
    settings = replace(ONE_BY_ONE, ring_chunks=3, drop="drop-newest")
    sink = IsolatedSink(settings)
    decisions = replay(sink, chunks(8), taking(300 * MS))
    # 1, 2, 3 wait while 4 and 5 find no room; 6 takes that of 1, and 7 finds none. Then 3 and 6 are
    # next to each other in the ring, and no window.
    assert summary(decisions) == [(0, 0, 428), (0, 1, 728), (0, 2, 1028)]
    assert sink.dropped_chunks == 3


def test_blocking_loses_nothing_and_is_ever_later() -> None:
    sink = IsolatedSink(replace(ONE_BY_ONE, ring_chunks=3, drop="block"))
    decisions = replay(sink, chunks(12), taking(100 * MS))
    assert [d.window[0].number for d in decisions] == list(range(11))
    assert [d.decided_ns for d in decisions] == [(128 + 100 * (at + 1)) * MS for at in range(11)]
    assert sink.dropped_chunks == 0
    assert sink.deepest > 3


def test_clients_have_their_own_windows_and_share_batches() -> None:
    settings = SinkSettings(clients=2, batch_windows=2, wait_ns=50 * MS)
    both = chunks(3) + chunks(3, client=1, after_ns=10 * MS)
    decisions = replay(IsolatedSink(settings), both, taking(MS))
    assert summary(decisions) == [(0, 0, 139), (1, 0, 139), (0, 1, 203), (1, 1, 203)]
    assert all(d.client == d.window[0].client == d.window[1].client for d in decisions)


def test_the_shared_queue_waits_for_a_chunk_more_and_never_gives_the_last_window() -> None:
    settings = SinkSettings(shared=True)
    decisions = replay(SharedSink(settings, lambda _: 0), chunks(5), taking(10 * MS))
    assert summary(decisions) == [(0, 0, 202), (0, 1, 266), (0, 2, 330)]


def test_the_shared_queue_mixes_clients_and_answers_whoever_wins() -> None:
    settings = SinkSettings(shared=True, clients=2)
    both = chunks(3) + chunks(3, client=1, after_ns=10 * MS)
    decisions = replay(SharedSink(settings, lambda count: count - 1), both, taking(0))
    assert [[(c.client, c.number) for c in d.window] for d in decisions] == [
        [(0, 0), (1, 0)], [(1, 0), (0, 1)], [(0, 1), (1, 1)], [(1, 1), (0, 2)],
    ]  # fmt: skip
    assert {d.client for d in decisions} == {1}


def test_races_hang_on_the_seed_alone() -> None:
    settings = SinkSettings(shared=True, clients=3)
    stream = [chunk for client in range(3) for chunk in chunks(40, client, client * MS)]

    def winners(seed: int) -> list[int]:
        return [d.client for d in replay(make(settings, seed), stream, taking(0))]

    assert winners(1) == winners(1) != winners(2)
    assert set(winners(1)) == {0, 1, 2}


def test_no_chunk_no_decision() -> None:
    assert replay(make(SinkSettings(), 0), [], taking(0)) == []
    assert replay(make(SinkSettings(), 0), chunks(1), taking(0)) == []

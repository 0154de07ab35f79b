"""Cells, their ids, seeds and order."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from harness.assets.items import ItemRef
from harness.errors import BadInput
from harness.plan import OVERHEAD_S, Cell, plan
from harness.scenario import Scenario, loads

TEXT = """\
name: t
corpus: [c]
codecs: [pcm, {codec: opus, bitrate: 24kbit}, g711]
transports: [udp, tcp]
networks: [clean, wifi-lossy]
receivers: [{}, {jitter_buffer: {mode: adaptive}}]
repetitions: 2
"""
ITEMS = [
    ItemRef("anna", "c", "speech", "https://x/anna", sha256="a" * 64, seconds=8.0),
    ItemRef("bert", "c", "speech", "https://x/bert", sha256="b" * 64, seconds=12.0),
]


def scenario(text: str = TEXT) -> Scenario:
    return loads(text, "s.yaml", Path("/nowhere"))


def cells(text: str = TEXT, items: list[ItemRef] = ITEMS) -> tuple[Cell, ...]:
    return plan(scenario(text), items).cells


def test_every_combination_once() -> None:
    labels = [cell.label for cell in cells()]
    assert len(labels) == len(set(labels)) == 3 * 2 * 2 * 2 * 2 * 2
    assert "opus-24kbit/tcp/wifi-lossy/fixed-60ms/anna/1" in labels


def test_ids_tell_cells_apart() -> None:
    found = cells()
    assert len({cell.cell_id for cell in found}) == len(found)
    assert len({cell.stream_id for cell in found}) == len(found)
    assert all(len(cell.cell_id) == 16 and 0 <= cell.stream_id < 2**32 for cell in found)


def test_blocks_share_network_utterance_repetition_and_seed() -> None:
    blocks = defaultdict(set)
    for cell in cells():
        blocks[cell.block].add((cell.network.name, cell.item.id, cell.repetition, cell.seed))
    assert len(blocks) == 2 * 2 * 2
    assert all(len(shared) == 1 for shared in blocks.values())
    seeds = {shared.pop()[-1] for shared in blocks.values()}
    assert len(seeds) == len(blocks)
    assert all(0 <= seed < 2**53 for seed in seeds)


def test_blocks_run_one_after_the_other_in_mixed_order() -> None:
    found = cells()
    order = [cell.block for cell in found]
    first = sorted(set(order), key=order.index)
    assert order == sorted(order, key=first.index)
    by_block = defaultdict(list)
    for cell in found:
        by_block[cell.block].append((cell.codec.name, cell.transport.name, cell.receiver.name))
    assert len({tuple(names) for names in by_block.values()}) == len(by_block)
    assert len({names[0] for names in by_block.values()}) > 2


def test_the_seed_of_the_scenario_changes_order_seeds_and_ids() -> None:
    one, two = cells(), cells(TEXT + "seed: 2\n")
    assert {cell.label for cell in one} == {cell.label for cell in two}
    assert [cell.label for cell in one] != [cell.label for cell in two]
    assert not {cell.cell_id for cell in one} & {cell.cell_id for cell in two}
    assert not {cell.seed for cell in one} & {cell.seed for cell in two}


def test_other_cells_change_neither_id_nor_seed_nor_relative_order() -> None:
    alone = cells(TEXT.replace("[pcm, ", "[").replace("repetitions: 2", ""), ITEMS[:1])
    all_ = [cell.cell_id for cell in cells()]
    positions = [all_.index(cell.cell_id) for cell in alone]
    assert positions == sorted(positions)
    by_id = {cell.cell_id: cell for cell in cells()}
    assert all(by_id[cell.cell_id] == cell for cell in alone)


@pytest.mark.parametrize(
    "change",
    [
        ("bitrate: 24kbit", "bitrate: 24kbit, name: opus-24kbit, complexity: 9"),
        ("[udp,", "[{transport: udp, name: udp, mtu: 1400B},"),
        ("wifi-lossy", "{preset: wifi-lossy, name: wifi-lossy, forward: {delay: 16ms}}"),
        ("[{}", "[{device: 11ms, name: fixed-60ms}"),
    ],
)
def test_the_id_follows_what_a_name_means(change: tuple[str, str]) -> None:
    before = {cell.label: cell for cell in cells()}
    after = {cell.label: cell for cell in cells(TEXT.replace(*change))}
    assert before.keys() == after.keys()
    changed = [name for name in before if before[name].cell_id != after[name].cell_id]
    assert 0 < len(changed) < len(before)
    assert all(before[name].seed == after[name].seed for name in before)


def test_the_id_follows_the_audio_and_not_its_address() -> None:
    moved = ItemRef("anna", "c", "speech", "https://y/anna", sha256="a" * 64, seconds=8.0)
    other = ItemRef("anna", "c", "speech", "https://x/anna", sha256="c" * 64, seconds=8.0)
    ids = [{cell.cell_id for cell in cells(items=[item])} for item in (ITEMS[0], moved, other)]
    assert ids[0] == ids[1]
    assert not ids[0] & ids[2]


def test_ids_are_the_same_in_another_process() -> None:
    program = "from tests.test_plan import cells\nprint(' '.join(cell.cell_id for cell in cells()))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
        env={"PYTHONHASHSEED": "7", "PATH": "/usr/bin"},
    )
    assert done.stdout.split() == [cell.cell_id for cell in cells()]


def test_ids_are_pinned() -> None:
    """A cell keeps its id from one version to the next, or runs made before cannot be resumed.

    Where that is meant (a codec got another parameter, a link another effect), pin anew.
    """
    first = min(cells(TEXT.replace("opus, bitrate: 24kbit", "g722")), key=lambda cell: cell.label)
    assert first.label == "g711/tcp/clean/adaptive-60ms/anna/0"
    assert first.cell_id == "8a07cfce483c684e"


class TestRules:
    def test_exclude_removes_what_matches_on_all_its_axes(self) -> None:
        found = cells(TEXT + "exclude: [{codec: [pcm, g*], transport: tcp, utterance: an*}]\n")
        removed = {(cell.codec.name, cell.transport.name, cell.item.id) for cell in cells()} - {
            (cell.codec.name, cell.transport.name, cell.item.id) for cell in found
        }
        assert removed == {("pcm", "tcp", "anna"), ("g711", "tcp", "anna")}

    def test_include_keeps_what_matches_any_rule(self) -> None:
        found = cells(TEXT + "include: [{codec: pcm, network: clean}, {codec: g711}]\n")
        kept = {(cell.codec.name, cell.network.name) for cell in found}
        assert kept == {("pcm", "clean"), ("g711", "clean"), ("g711", "wifi-lossy")}

    def test_exclude_wins(self) -> None:
        found = cells(TEXT + "include: [{codec: pcm}]\nexclude: [{transport: udp}]\n")
        assert {(cell.codec.name, cell.transport.name) for cell in found} == {("pcm", "tcp")}

    @pytest.mark.parametrize(
        ("rules", "items", "said"),
        [
            ("exclude: [{utterance: ana}]", ITEMS, 'got "ana"; did you mean "anna"?'),
            ("exclude: [{utterance: '*'}]", ITEMS, "expected rules that leave a cell"),
            ("seed: 1", [], "expected a corpus with audio"),
            ("seed: 1", [ITEMS[0], ITEMS[0]], "expected each item once, got anna again"),
        ],
    )
    def test_nothing_left(self, rules: str, items: list[ItemRef], said: str) -> None:
        with pytest.raises(BadInput) as caught:
            plan(scenario(TEXT + rules + "\n"), items)
        assert said in str(caught.value)


class TestSelect:
    @pytest.mark.parametrize(
        ("pattern", "expected"),
        [
            ("pcm", 32),
            ("opus*", 32),
            ("tcp", 48),
            ("*/udp/clean/*", 24),
            ("pcm/udp/clean/fixed-60ms/anna/0", 1),
            ("*/1", 48),
            ("anna", 48),
            (None, 96),
        ],
    )
    def test_by_label_and_name(self, pattern: str | None, expected: int) -> None:
        assert len(plan(scenario(), ITEMS).select(pattern).cells) == expected

    def test_by_id_in_the_order_of_the_plan(self) -> None:
        whole = plan(scenario(), ITEMS)
        assert whole.select(whole.cells[5].cell_id[:10]).cells == (whole.cells[5],)
        chosen = whole.select("udp").cells
        assert chosen == tuple(cell for cell in whole.cells if cell in chosen)

    def test_nothing_matches(self) -> None:
        with pytest.raises(BadInput, match='did you mean "g711"'):
            plan(scenario(), ITEMS).select("g771")


class TestTime:
    def test_a_cell_takes_its_audio_the_delays_and_the_overhead(self) -> None:
        cell = plan(scenario(), ITEMS).select("pcm/udp/wifi-lossy/fixed-60ms/anna/0").cells[0]
        assert cell.expected_s == pytest.approx(8.0 + 0.015 + 0.06 + 0.01 + OVERHEAD_S)
        assert cell.timeout_s == 8.0 + 60

    def test_wall_time_shrinks_with_jobs_down_to_the_longest_cell(self) -> None:
        whole = plan(scenario(), ITEMS)
        total = sum(cell.expected_s for cell in whole.cells)
        longest = max(cell.expected_s for cell in whole.cells)
        assert whole.expected_wall_s(1) == pytest.approx(total)
        assert total / 4 - 1e-6 <= whole.expected_wall_s(4) <= total / 4 + longest
        assert whole.expected_wall_s(1000) == pytest.approx(longest)
        assert whole.audio_s == 48 * 8.0 + 48 * 12.0
        with pytest.raises(BadInput, match="at least 1 job"):
            whole.expected_wall_s(0)


def test_the_shipped_scenarios_take_no_longer_than_they_say() -> None:
    from harness.scenario import load

    folder = Path(__file__).parents[1] / "scenarios"
    for name, jobs, limit_s, count in [("smoke", 4, 60, 16), ("matrix", 6, 600, 300)]:
        shipped = load(folder / f"{name}.yaml")
        ids = shipped.corpus[0].items or ()
        items = [ItemRef(i, "librispeech", "speech", f"https://x/{i}", seconds=10.0) for i in ids]
        planned = plan(shipped, items)
        assert len(planned.cells) == count
        assert planned.expected_wall_s(jobs) <= limit_s

"""Cells, their ids, seeds and order."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from harness.assets.items import ItemRef
from harness.errors import BadInput
from harness.plan import OVERHEAD_S, Cell, Plan, SweepPoint, plan
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
    bare = replace(ITEMS[0], silence_ns=0)
    moved = ItemRef("anna", "c", "speech", "https://y/anna", sha256="a" * 64, seconds=8.0)
    other = ItemRef("anna", "c", "speech", "https://x/anna", sha256="c" * 64, seconds=8.0)
    items = (ITEMS[0], moved, other, bare)
    ids = [{cell.cell_id for cell in cells(items=[item])} for item in items]
    assert ids[0] == ids[1]
    assert not ids[0] & ids[2]
    assert not ids[0] & ids[3]


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
    assert first.cell_id == "07c9c8194058a371"


PLAIN = """\
name: t
corpus: [c]
codecs: [{codec: opus, name: o}, g722]
transports: [udp]
networks: [wifi-lossy, edge]
repetitions: 2
"""


class TestControls:
    def test_pcm_in_every_block_and_every_codec_on_the_clean_link(self) -> None:
        found = cells(PLAIN)
        ways = {(cell.codec.name, cell.network.name): cell.control for cell in found}
        assert ways == {
            **{(codec, net): None for codec in ("o", "g722") for net in ("wifi-lossy", "edge")},
            **{("pcm", net): "codec" for net in ("wifi-lossy", "edge")},
            **{(codec, "clean"): "network" for codec in ("o", "g722", "pcm")},
        }
        assert len(found) == len(ways) * 2 * len(ITEMS)
        blocks = defaultdict(set)
        for cell in found:
            blocks[cell.block].add(cell.codec.name)
        assert len(blocks) == 3 * 2 * len(ITEMS)
        assert all(names == {"o", "g722", "pcm"} for names in blocks.values())

    def test_what_the_scenario_has_serves(self) -> None:
        found = cells(TEXT)
        assert {cell.label: cell.control for cell in found} == {
            cell.label: "network" if cell.network.name == "clean"
            else "codec" if cell.codec.name == "pcm"
            else None
            for cell in found
        }  # fmt: skip
        text = PLAIN.replace("[wifi", "[{name: bare, both: {}}, wifi").replace(
            "g722]", "{codec: pcm, name: raw, rate: 48kHz}]"
        )
        names = {(cell.codec.name, cell.network.name) for cell in cells(text)}
        assert len(names) == 2 * 3

    def test_they_can_be_left_out(self) -> None:
        found = cells(PLAIN + "controls: false\n")
        assert {cell.control for cell in found} == {None}
        assert len(found) == 2 * 2 * 2 * len(ITEMS)

    def test_they_change_no_other_cell(self) -> None:
        without = {cell.cell_id: cell for cell in cells(PLAIN + "controls: false\n")}
        with_them = {cell.cell_id: cell for cell in cells(PLAIN)}
        assert without.items() <= with_them.items()

    def test_one_that_is_added_is_the_one_that_would_be_written(self) -> None:
        written = PLAIN.replace("g722]", "g722, pcm]").replace("edge]", "edge, clean]")
        assert {cell.cell_id for cell in cells(PLAIN)} == {cell.cell_id for cell in cells(written)}

    def test_they_follow_transports_and_receivers_of_the_cells_and_no_other_rule(self) -> None:
        text = PLAIN.replace("[udp]", "[udp, tcp]").replace("repetitions: 2", "receivers:"
            " [{}, {device: 5ms, name: r}]") + (
            "include: [{codec: o, transport: udp, receiver: r}, {codec: g722, network: edge,"
            " transport: tcp, receiver: fixed*}]\n"
        )  # fmt: skip
        found = {"/".join(cell.names[:4]) for cell in cells(text) if cell.control}
        assert found == {
            "pcm/udp/wifi-lossy/r",
            "pcm/udp/edge/r",
            "pcm/tcp/edge/fixed-60ms",
            "o/udp/clean/r",
            "g722/tcp/clean/fixed-60ms",
            "pcm/udp/clean/r",
            "pcm/tcp/clean/fixed-60ms",
        }

    def test_a_name_that_is_taken(self) -> None:
        text = PLAIN.replace("name: o}", "name: pcm}").replace(
            "[wifi-lossy,", "[{name: clean, both: {delay: 1ms}},"
        )
        found = cells(text)
        added = {cell.codec.name for cell in found if cell.codec.codec == "pcm"}
        assert added == {"pcm-control"}
        assert {cell.network.name for cell in found if cell.control == "network"} == {
            "clean-control"
        }


class TestSweeps:
    TEXT = """\
name: t
corpus: [c]
codecs: [{codec: opus, name: o}]
transports: [udp]
networks:
  - {name: n, forward: {delay: 5ms, loss: {model: media-time, loss: 1%, burst: 80ms}}}
sweeps:
  - {name: loss, axis: network, entry: n, set: forward.loss.loss, values: [0%, 5%]}
  - {name: rate, axis: codec, entry: o, set: bitrate, values: [8kbit, 16kbit]}
"""

    def test_axes_multiply_and_cells_know_their_points(self) -> None:
        found = cells(self.TEXT, ITEMS[:1])
        points = {cell.label: cell.sweep for cell in found if cell.control is None}
        assert points == {
            f"o@rate={rate}kbit/udp/n@loss={loss}%/fixed-60ms/anna/0": (
                SweepPoint("rate", rate, "kbit/s"),
                SweepPoint("loss", loss, "%"),
            )
            for rate in (8, 16)
            for loss in (0, 5)
        }

    def test_each_block_has_its_controls_and_the_clean_link_comes_once(self) -> None:
        controls = [cell for cell in cells(self.TEXT, ITEMS[:1]) if cell.control]
        assert {cell.label: cell.sweep for cell in controls} == {
            "pcm/udp/n@loss=0%/fixed-60ms/anna/0": (SweepPoint("loss", 0, "%"),),
            "pcm/udp/n@loss=5%/fixed-60ms/anna/0": (SweepPoint("loss", 5, "%"),),
            "pcm/udp/clean/fixed-60ms/anna/0": (),
            "o@rate=8kbit/udp/clean/fixed-60ms/anna/0": (SweepPoint("rate", 8, "kbit/s"),),
            "o@rate=16kbit/udp/clean/fixed-60ms/anna/0": (SweepPoint("rate", 16, "kbit/s"),),
        }
        assert len(controls) == 5

    def test_points_of_a_network_share_chance_but_are_blocks_of_their_own(self) -> None:
        found = [cell for cell in cells(self.TEXT, ITEMS[:1]) if cell.network.name != "clean"]
        assert len({cell.seed for cell in found}) == 1
        assert len({(cell.block, cell.network.name) for cell in found}) == 2
        assert len({cell.block for cell in found}) == 2
        unswept = self.TEXT.partition("sweeps:")[0]
        assert found[0].seed in {cell.seed for cell in cells(unswept, ITEMS[:1])}

    def test_other_values_leave_the_cells_that_stay_alone(self) -> None:
        before = {cell.label: cell.cell_id for cell in cells(self.TEXT)}
        after = {cell.label: cell.cell_id for cell in cells(self.TEXT.replace("0%, 5", "3%, 5"))}
        same = before.keys() & after.keys()
        assert len(same) < len(before)
        assert all(before[label] == after[label] for label in same)


class TestRecordings:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "t.csv").write_text("time_s,delay_ms,loss\n0,10,0\n4,70,0.1\n10,,\n")
        return tmp_path

    def plan(self, trace: str, folder: Path, items: list[ItemRef] = ITEMS) -> Plan:
        network = (
            f"{{name: n, forward: {{delay: 5ms, trace: {{format: csv, file: t.csv{trace}}}}}}}"
        )
        return plan(loads(PLAIN.replace("[wifi-lossy,", f"[{network},"), "s", folder), items)

    def test_an_item_that_is_longer_is_refused_with_the_remedy(self, folder: Path) -> None:
        with pytest.raises(BadInput) as caught:
            self.plan("", folder)
        assert str(caught.value) == (
            "t: network n: expected a recording as long as bert (12s), got 10s from its offset on;"
            " write end: loop or end: stop beside the trace"
        )
        with pytest.raises(BadInput, match=r"anna \(8s\), got 7s.*\n.*bert \(12s\), got 7s"):
            self.plan(", offset: 3s", folder)

    def test_unless_the_scenario_says_what_then(self, folder: Path) -> None:
        for end in ("loop", "stop"):
            self.plan(f", end: {end}", folder)
        self.plan("", folder, ITEMS[:1])
        self.plan("", folder, [replace(ITEMS[1], seconds=None)])

    def test_time_counts_the_longest_delay(self, folder: Path) -> None:
        cell = self.plan("", folder, ITEMS[:1]).select("o/udp/n/fixed-60ms/anna/0").cells[0]
        assert cell.expected_s == pytest.approx(8.0 + 0.075 + 0.06 + 0.01 + OVERHEAD_S)

    def test_the_id_follows_the_recording(self, folder: Path) -> None:
        before = {cell.cell_id for cell in self.plan(", end: loop", folder).cells}
        text = (folder / "t.csv").read_text()
        (folder / "t.csv").write_text(text.replace("70", "71"))
        after = {cell.cell_id for cell in self.plan(", end: loop", folder).cells}
        assert len(before - after) == 3 * 2 * len(ITEMS)


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

    def test_a_link_that_changes_takes_its_longest_delay(self) -> None:
        network = "{name: n, forward: {delay: 5ms, schedule: [{at: 1s, over: 1s, delay: 105ms}]}}"
        cell = plan(scenario(TEXT.replace("wifi-lossy", network)), ITEMS).select(
            "pcm/udp/n/fixed-60ms/anna/0"
        ).cells[0]  # fmt: skip
        assert cell.expected_s == pytest.approx(8.0 + 0.105 + 0.06 + 0.01 + OVERHEAD_S)

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
    for name, jobs, limit_s, count in [
        ("smoke", 4, 60, 16),
        ("matrix", 6, 1_200, 600),
        ("schedule", 6, 120, 60),
        ("sweep", 1, 12_000, 1008),
    ]:
        shipped = load(folder / f"{name}.yaml")
        ids = [name for entry in shipped.corpus for name in entry.items or ()]
        items = [ItemRef(i, "librispeech", "speech", f"https://x/{i}", seconds=10.0) for i in ids]
        planned = plan(shipped, items)
        assert len(planned.cells) == count
        assert planned.expected_wall_s(jobs) <= limit_s

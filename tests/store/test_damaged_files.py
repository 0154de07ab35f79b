"""What a flipped bit, a lost file or a kill does to a run's directory, and how it is put right."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.errors import BadInput, CellFailed
from harness.store import RunStore, load, parts, schema, tables
from tests.store.conftest import packets, row, score, write

CELL_TABLES = tuple(name for name in schema.TABLES if name != "runs")


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at // 8 % len(data)] ^= 1 << at % 8
    path.write_bytes(data)


def of_three(store: RunStore) -> None:
    for cell_id in "abc":
        write(store, cell_id)
        store.write_scores(cell_id, [score()])


@pytest.mark.parametrize("name", [*CELL_TABLES, "runs"])
def test_no_flipped_bit_in_a_table_changes_what_is_read(store: RunStore, name: str) -> None:
    of_three(store)
    store.compact()
    path = store.directory / f"{name}.parquet"
    whole, before = path.read_bytes(), tables.read(path, name)
    found = set()
    for at in range(0, 8 * len(whole), 211):
        flip(path, at)
        try:
            assert tables.read(path, name).equals(before), f"bit {at}"
            found.add("harmless")
        except BadInput:
            found.add("seen")
        path.write_bytes(whole)
    assert found == {"harmless", "seen"}


def test_no_flipped_bit_in_a_part_goes_unseen(store: RunStore) -> None:
    write(store, "a")
    path = store.directory / "parts" / "cells" / "a.arrow"
    whole = path.read_bytes()
    for at in range(0, 8 * len(whole), 401):
        flip(path, at)
        assert parts.stamp_of(path, store.run_id) is None, f"bit {at}"
        with pytest.raises(BadInput, match=r"cannot be read .*--resume DIR"):
            parts.read(path, "packets")
        path.write_bytes(whole)
    assert parts.stamp_of(path, store.run_id) is not None


def test_a_table_says_that_its_bits_were_flipped(store: RunStore) -> None:
    of_three(store)
    store.compact()
    footer = store.directory / "frames.parquet"
    flip(footer, 8 * (footer.stat().st_size - 40))
    with pytest.raises(BadInput, match=r"frames\.parquet: .*--resume DIR .*streams its cells"):
        load(store.directory)


def test_a_kill_while_a_table_is_written_blocks_nobody(store: RunStore) -> None:
    of_three(store)
    scratch = store.directory / "parts" / "tmp"
    (scratch / "1-1-runs.parquet").touch()
    assert len(load(store.directory).cells) == 3
    again = RunStore.open(store.directory)
    assert again.repair() == []
    assert not scratch.exists()
    assert again.finished().keys() == set("abc")


@pytest.mark.parametrize(
    ("kind", "finished", "scored", "again"),
    [("cells", "bc", "bc", "streamed"), ("scores", "abc", "bc", "scored")],
)
def test_a_damaged_part_is_set_aside_and_named(
    store: RunStore, kind: str, finished: str, scored: str, again: str
) -> None:
    of_three(store)
    path = store.directory / "parts" / kind / "a.arrow"
    flip(path, 999)
    run = RunStore.open(store.directory)
    (note,) = run.repair()
    assert str(path) in note
    assert f"{again} again" in note
    assert not path.exists()
    assert len(list((store.directory / "damaged").iterdir())) == 1
    assert (set(run.finished()), run.scored()) == (set(finished), set(scored))
    assert run.repair() == []


def whole_table(store: RunStore, name: str) -> None:
    assert getattr(load(store.directory), name) is not None


@pytest.mark.parametrize("harm", ["flipped", "gone"])
@pytest.mark.parametrize("name", CELL_TABLES)
def test_cells_of_a_damaged_table_are_made_again(store: RunStore, name: str, harm: str) -> None:
    of_three(store)
    store.compact()
    write(store, "d")
    path = store.directory / f"{name}.parquet"
    if harm == "flipped":
        flip(path, 8 * path.stat().st_size // 2 + 3)
    else:
        path.unlink()
    if (name, harm) != ("cells", "gone"):
        with pytest.raises(BadInput, match=rf"{name}\.parquet: .*--resume DIR"):
            whole_table(store, name)
    run = RunStore.open(store.directory)
    notes = run.repair()
    if (name, harm) == ("cells", "gone"):
        assert notes == [], "nothing vouches for what is left"
    else:
        assert [str(path) in note for note in notes] == [True]
    lost = name not in ("scores", "legacy")
    assert set(run.finished()) == set("d" if lost else "abcd")
    assert run.scored() == set()
    for cell_id in "abc":
        write(run, cell_id)
        run.write_scores(cell_id, [score()])
    run.compact()
    whole = load(store.directory)
    assert list(whole.cells.cell_id) == list("abcd")
    assert len(whole.packets) == 4 * len(packets()["seq"])


def test_a_damaged_row_of_the_run_has_a_remedy_that_is_true(store: RunStore) -> None:
    path = store.directory / "runs.parquet"
    flip(path, 8 * path.stat().st_size // 2)
    with pytest.raises(BadInput, match=r"restore it from a copy, or start a new run"):
        RunStore.open(store.directory)


def test_a_run_that_was_removed_is_not_begun_again_in_its_place(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, "a")
    real = Path.mkdir

    def removed(self: Path, *arguments: Any, **options: Any) -> None:
        """The directory goes at the last moment."""
        shutil.rmtree(store.directory, ignore_errors=True)
        real(self, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", removed)
    with pytest.raises(CellFailed, match="was removed while the run went on"):
        write(store, "b")
    assert not store.directory.exists()


@pytest.mark.parametrize("compacted", [False, True])
def test_every_attempt_at_a_cell_is_kept(store: RunStore, compacted: bool) -> None:
    late = {"status": "invalid", "reason": "the sender fell behind", "blame": "machine"}
    for cell_id in "ab":
        write(store, cell_id, **late)
    assert store.disturbed() == {"a", "b"}
    if compacted:
        store.compact()
    again = RunStore.open(store.directory)
    assert again.disturbed() == {"a", "b"}
    again.write_run(again.run_row() | {"sessions": "[{}, {}]"})
    write(again, "a")
    assert again.disturbed() == {"b"}
    again.compact()
    found = load(store.directory).attempts
    assert found.loc[found.cell_id == "a", "attempt"].tolist() == [1, 2]
    assert found.loc[found.cell_id == "a", "status"].tolist() == ["invalid", "ok"]
    assert found.loc[found.cell_id == "a", "session"].tolist() == [0, 2]
    assert found.loc[found.cell_id == "b", "blame"].tolist() == ["machine"]
    assert found.ended_utc.notna().all()


def test_what_was_asked_and_cannot_be_had_is_not_disturbed(store: RunStore) -> None:
    store.write_cell(row("a", status="unsupported", blame="asked"), {}, {}, {})
    write(store, "b", status="invalid", blame="asked")
    store.write_cell(row("c", status="failed", blame="asked"), {}, {}, {})
    assert store.disturbed() == {"c"}, "a failed cell is run again by --resume in any case"

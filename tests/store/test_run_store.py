"""A run's directory under everything that can happen to it between two instructions."""

from __future__ import annotations

import errno
import inspect
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from harness import store as store_room
from harness.errors import BadInput, CellFailed
from harness.store import RunStore, load, parts, run_store, schema
from harness.store.provenance import host_facts, run_facts, versions
from tests.store.conftest import NOW, RATE_HZ, audio, frames, packets, row, score, write


def test_a_new_run_is_named_after_its_scenario_and_time_and_is_the_latest(tmp_path: Path) -> None:
    first = RunStore.create(tmp_path, "smoke", NOW)
    assert first.directory.name == "smoke-20300102-101500"
    assert (tmp_path / "latest").resolve() == first.directory
    again = RunStore.create(tmp_path, "smoke", NOW)
    later = RunStore.create(tmp_path, "../odd name", NOW + timedelta(seconds=1))
    assert len({run.run_id for run in (first, again, later)}) == 3
    assert later.directory.parent == first.directory.parent
    assert (tmp_path / "latest").resolve() == later.directory
    assert not (tmp_path / "latest").readlink().is_absolute()


def test_a_folder_called_latest_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    with pytest.raises(BadInput, match="move it away"):
        RunStore.create(tmp_path, "smoke", NOW)


def test_the_row_of_the_run_survives_being_reopened(store: RunStore) -> None:
    store.write_run(store.run_row() | {"lab": "netns", "jobs": 2, "git_dirty": None, "wall_s": 1.5})
    again = RunStore.open(store.directory)
    assert again.run_id == store.run_id
    assert again.run_row()["started_utc"] == NOW.isoformat()
    runs = again.tables().runs
    assert list(runs.columns) == list(schema.RUNS)
    assert (runs.jobs[0], runs.wall_s[0], runs.lab[0]) == (2, 1.5, "netns")
    assert runs.git_dirty[0] is pd.NA


@pytest.mark.parametrize("compacted", [False, True])
def test_what_is_written_is_what_is_read(store: RunStore, compacted: bool) -> None:
    write(store, "b", t0_ns=2**62 + 1, proof_ok=np.bool_(True), wall_s=np.float64(2.5))
    store.write_cell(row("a", status="failed", reason="it died"), {}, {}, {})
    store.write_scores("b", [score(4.5), score(None, "stoi") | {"reason": "too short"}])
    if compacted:
        store.compact()
    read = load(store.directory)
    assert list(read.cells.cell_id) == ["a", "b"]
    assert list(read.cells.columns) == list(schema.CELLS)
    failed, fine = read.cells.iloc[0], read.cells.iloc[1]
    assert (failed.status, failed.reason) == ("failed", "it died")
    assert failed.t0_ns is pd.NA
    assert pd.isna(failed.audio_media)
    assert (fine.t0_ns, fine.proof_ok, fine.wall_s) == (2**62 + 1, True, 2.5)
    assert list(read.packets.columns) == list(schema.PACKETS)
    assert read.packets.transit_ns.dtype == pd.Int64Dtype()
    assert list(read.packets.transit_ns[:3]) == [2**60 + 1, 2**60 + 2, 2**60 + 3]
    assert read.packets.transit_ns[3] is pd.NA
    assert list(read.packets.fate) == ["played"] * 3 + ["lost"]
    assert list(read.frames.frame) == [0, pd.NA, 2, 3]
    assert list(read.scores.cell_id) == ["b", "b"]
    assert read.scores.value[0] == 4.5
    assert np.isnan(read.scores.value[1])
    assert read.scores.reason[1] == "too short"
    for name, (pcm, rate_hz) in audio().items():
        found, found_hz = soundfile.read(store.directory / fine[f"audio_{name}"], dtype="int16")
        assert found_hz == rate_hz
        np.testing.assert_array_equal(found, pcm)
    assert (store.directory / "parts").exists() != compacted


def test_a_reference_is_stored_once_per_item_and_rate(store: RunStore) -> None:
    for cell_id in ("a", "b"):
        write(store, cell_id)
    other_rate = {**audio(), "reference": (audio()["reference"][0][::2], RATE_HZ // 2)}
    store.write_cell(row("c"), packets(), frames(), other_rate)
    paths = list(load(store.directory).cells.audio_reference)
    assert paths[0] == paths[1] != paths[2]
    assert len(list((store.directory / "audio").glob("reference-*.flac"))) == 2


def test_missing_floats_are_null_in_the_file(store: RunStore) -> None:
    write(store, "a", wall_s=float("nan"))
    store.compact()
    assert pq.read_table(store.directory / "cells.parquet")["wall_s"].to_pylist() == [None]


def test_each_file_says_where_it_comes_from(store: RunStore) -> None:
    facts = {"git_sha": "0123abc", "config_sha256": "feed"}
    store.write_run(store.run_row() | facts)
    write(store, "a")
    store.compact()
    for name in schema.TABLES:
        stamp = pq.read_schema(store.directory / f"{name}.parquet").metadata
        assert stamp == {
            b"run_id": store.run_id.encode(),
            b"git_sha": b"0123abc",
            b"config_sha256": b"feed",
            b"schema_version": str(schema.SCHEMA_VERSION).encode(),
        }


def test_integers_are_delta_coded_and_all_is_zstd(store: RunStore) -> None:
    write(store, "a")
    store.compact()
    group = pq.read_metadata(store.directory / "packets.parquet").row_group(0)
    for index in range(group.num_columns):
        column = group.column(index)
        assert column.compression == "ZSTD"
        if column.physical_type == "INT64":
            assert "DELTA_BINARY_PACKED" in column.encodings


CELL_TABLES = ("cells", "packets", "frames", "scores", "legacy", "attempts")
ALIKE = CELL_TABLES[:-1]
"""All but attempts, which say when a cell ended."""


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups of two or three of these tests' cells, and reads that end within a cell."""
    monkeypatch.setattr(run_store, "GROUP_ROWS", dict.fromkeys(CELL_TABLES, 9))
    monkeypatch.setattr(run_store, "READ_ROWS", 7)


def written_in(order: str, directory: Path, compacted_after: str = "") -> dict[str, bytes]:
    """The files of a run whose cells ended in this order, with compactions in between."""
    run = RunStore.create(directory, "smoke", NOW)
    run._run["run_id"] = "same"
    for cell_id in order:
        write(run, cell_id, reason=f"of {cell_id}")
        run.write_scores(cell_id, [score(float(ord(cell_id)))])
        if cell_id in compacted_after:
            run.compact()
    run.compact()
    return {name: (run.directory / f"{name}.parquet").read_bytes() for name in ALIKE}


@pytest.mark.usefixtures("small_groups")
def test_the_same_cells_make_the_same_bytes_in_whatever_order_they_end(tmp_path: Path) -> None:
    straight = written_in("abcdefgh", tmp_path / "1")
    assert written_in("hcafbged", tmp_path / "2") == straight
    assert written_in("hcafbged", tmp_path / "3", compacted_after="cbe") == straight
    groups = pq.ParquetFile(pa.BufferReader(straight["packets"])).metadata
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [12, 12, 8]


@pytest.mark.usefixtures("small_groups")
def test_cells_are_found_in_whatever_row_group_they_are(store: RunStore) -> None:
    for cell_id in "gacebdfh":
        write(store, cell_id)
        store.write_scores(cell_id, [score()])
    store.compact()
    write(store, "d")
    whole = load(store.directory)
    assert list(whole.cells.cell_id) == list("abcdefgh")
    assert whole.scores.cell_id.tolist() == list("abcefgh")
    for wanted in ("a", "d", "bg", "cdh", "abcdefgh"):
        pd.testing.assert_frame_equal(
            whole.packets_of(wanted),
            whole.packets[whole.packets.cell_id.isin(list(wanted))].reset_index(drop=True),
        )
    assert [batch.cell_id.unique().tolist() for batch in whole.frame_batches()] == [
        ["a", "b", "c"],
        ["d", "e", "f"],
        ["g", "h"],
    ]


@pytest.mark.usefixtures("small_groups")
def test_only_the_row_groups_that_matter_are_read(store: RunStore) -> None:
    for cell_id in "abcdefgh":
        write(store, cell_id)
    store.compact()
    path = store.directory / "packets.parquet"
    data = bytearray(path.read_bytes())
    group = pq.read_metadata(path).row_group(0)
    start = min(
        group.column(i).dictionary_page_offset or group.column(i).data_page_offset
        for i in range(group.num_columns)
    )
    data[start : start + group.total_byte_size // 2] = bytes(group.total_byte_size // 2)
    path.write_bytes(data)
    run = load(store.directory)
    assert len(run.packets_of("gh")) == 8
    with pytest.raises(BadInput, match="cannot be read"):
        run.packets_of("a")


def test_tables_of_the_first_version_are_read(store: RunStore) -> None:
    write(store, "a", control="codec")
    store.compact()
    newer = [name for name, column in schema.CELLS.items() if column.since == 2]
    assert "control" in newer
    for name in schema.TABLES:
        path = store.directory / f"{name}.parquet"
        table = pq.read_table(path)
        pq.write_table(table.drop_columns([c for c in newer if c in table.column_names]), path)
        restamp(path, schema_version="1")
    run = load(store.directory)
    assert list(run.cells.columns) == list(schema.CELLS)
    assert run.cells[newer].isna().all(axis=None)
    assert len(run.packets_of(["a"])) == 4
    again = RunStore.open(store.directory)
    write(again, "b", control="codec")
    again.compact()
    assert load(store.directory).cells.control.fillna("null").tolist() == ["null", "codec"]


def test_parts_of_the_first_version_are_not_overlooked(store: RunStore) -> None:
    (store.directory / "parts" / "cells").mkdir(parents=True)
    (store.directory / "parts" / "cells" / "a.parquet").touch()
    with pytest.raises(BadInput, match="older version of the harness"):
        load(store.directory)


def test_what_was_played_is_stored_once_if_it_is_the_media_track(store: RunStore) -> None:
    tracks = audio()
    store.write_cell(row("a"), packets(), frames(), tracks | {"played": tracks["media"]})
    write(store, "b")
    same, other = load(store.directory).cells[["audio_media", "audio_played"]].to_numpy()
    assert same[0] == same[1]
    assert other[0] != other[1]


DAMAGE: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_cell_with_a_damaged_part_is_not_finished(store: RunStore, damage: str) -> None:
    write(store, "a")
    write(store, "b")
    store.write_scores("a", [score()])
    DAMAGE[damage](store.directory / "parts" / "cells" / "a.arrow")
    again = RunStore.open(store.directory)
    assert again.finished() == {"b": "ok"}
    assert again.scored() == set()
    assert set(again.tables().packets.cell_id) == {"b"}
    write(again, "a")
    again.compact()
    assert RunStore.open(store.directory).finished() == {"a": "ok", "b": "ok"}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_scores_are_to_be_made_again(store: RunStore, damage: str) -> None:
    for cell_id in "ab":
        write(store, cell_id)
        store.write_scores(cell_id, [score()])
    DAMAGE[damage](store.directory / "parts" / "scores" / "a.arrow")
    again = RunStore.open(store.directory)
    assert (again.finished(), again.scored()) == ({"a": "ok", "b": "ok"}, {"b"})
    assert list(again.tables().scores.cell_id) == ["b"]


def test_a_cell_streamed_again_loses_its_scores(store: RunStore) -> None:
    write(store, "a")
    store.write_scores("a", [score()])
    store.compact()
    assert store.scored() == {"a"}
    write(store, "a")
    assert store.scored() == set()
    store.write_scores("a", [score(1.0)])
    store.compact()
    assert list(load(store.directory).scores.value) == [1.0]


def old_figure(value: float) -> dict[str, Any]:
    return {"system": "tcp-esc", "estimator": "send_time", "value": value, "unit": "ms"}


@pytest.mark.parametrize("compacted", [False, True])
def test_older_systems_figures_are_kept_and_replaced_with_the_scores(
    store: RunStore, compacted: bool
) -> None:
    for cell_id in "ba":
        write(store, cell_id)
        store.write_scores(cell_id, [score()], [old_figure(1.0), old_figure(2.0)])
    if compacted:
        store.compact()
    store.write_scores("a", [score()], [old_figure(3.0)])
    read = load(store.directory)
    assert list(read.legacy.columns) == list(schema.LEGACY)
    assert list(zip(read.legacy.cell_id, read.legacy.value, strict=True)) == [
        ("a", 3.0),
        ("b", 1.0),
        ("b", 2.0),
    ]
    write(store, "b")
    assert set(load(store.directory).legacy.cell_id) == {"a"}


def test_a_run_from_before_the_older_systems_figures_is_read_and_goes_on(store: RunStore) -> None:
    for cell_id in "ab":
        write(store, cell_id)
        store.write_scores(cell_id, [score()])
    part = store.directory / "parts" / "scores" / "a.arrow"
    stamp = parts.stamp_of(part, store.run_id)
    assert stamp is not None
    part.write_bytes(parts.to_bytes({"scores": parts.read(part, "scores")}, stamp))
    assert load(store.directory).legacy.empty
    store.compact()
    restamp(store.directory / "cells.parquet", schema_version="2")
    (store.directory / "legacy.parquet").unlink()
    read = load(store.directory)
    assert (list(read.scores.cell_id), len(read.legacy)) == (["a", "b"], 0)


def test_a_run_goes_on_after_compaction(store: RunStore) -> None:
    write(store, "b")
    store.compact()
    again = RunStore.open(store.directory)
    again.write_scores("b", [score()])
    write(again, "a", status="invalid")
    assert again.finished() == {"a": "invalid", "b": "ok"}
    assert again.scored() == {"b"}
    again.compact()
    read = load(store.directory)
    assert list(read.packets.cell_id) == ["a"] * 4 + ["b"] * 4
    assert list(read.packets.seq) == [0, 1, 2, 3] * 2
    assert list(read.scores.cell_id) == ["b"]


@pytest.mark.parametrize("survivors", [("cells", "scores"), ("scores",)])
def test_a_compaction_cut_off_while_removing_parts_loses_nothing(
    store: RunStore, survivors: tuple[str, ...], tmp_path: Path
) -> None:
    write(store, "a")
    store.write_scores("a", [score()])
    for kind in survivors:
        shutil.copytree(store.directory / "parts" / kind, tmp_path / "kept" / kind)
    store.compact()
    before = load(store.directory)
    shutil.copytree(tmp_path / "kept", store.directory / "parts")
    after = load(store.directory)
    for name in schema.TABLES:
        pd.testing.assert_frame_equal(getattr(before, name), getattr(after, name))


@pytest.mark.parametrize("placed", [1, 2, 3])
def test_a_compaction_cut_off_between_tables_loses_nothing(
    store: RunStore, placed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, "a")
    store.compact()
    write(store, "b")
    store.write_scores("b", [score()])
    before = load(store.directory)
    real, done = Path.replace, []

    def replace(self: Path, target: Path) -> Path:
        if len(done) == placed:
            raise KeyboardInterrupt
        done.append(target)
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        store.compact()
    monkeypatch.undo()
    after = load(store.directory)
    for name in schema.TABLES:
        pd.testing.assert_frame_equal(getattr(before, name), getattr(after, name))


KILLED_WRITER = """
import sys
from pathlib import Path
from harness.store import RunStore
from tests.store.conftest import write
store = RunStore.open(Path(sys.argv[1]))
for number in range(10_000):
    write(store, f"{number:05}")
    print(number, flush=True)
"""


def test_what_was_said_to_be_finished_outlives_kill_9(store: RunStore) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", KILLED_WRITER, str(store.directory)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    for line in writer.stdout:
        if int(line) == 5:
            break
    writer.send_signal(signal.SIGKILL)
    said = [5, *map(int, writer.stdout.read().split())]
    writer.wait()
    writer.stdout.close()
    read = load(store.directory)
    assert set(read.cells.cell_id) >= {f"{number:05}" for number in range(said[-1] + 1)}
    assert (read.packets.groupby("cell_id").size() == 4).all()
    assert set(read.packets.cell_id) == set(read.cells.cell_id)


def test_a_full_disk_costs_the_cell_and_says_what_to_do(store: RunStore) -> None:
    write(store, "a")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))  # EFBIG stands in for ENOSPC
    try:
        with pytest.raises(CellFailed, match=r"cannot be written .*make room.*--resume"):
            write(store, "b")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert store.finished() == {"a": "ok"}
    assert list((store.directory / "parts" / "tmp").iterdir()) == []


def test_no_space_is_named(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(CellFailed, match="No space left on device"):
        write(store, "a")


def test_columns_that_the_schema_lacks_are_refused(store: RunStore) -> None:
    with pytest.raises(ValueError, match="no column colour"):
        write(store, "a", colour="red")
    short = packets()
    del short["fate"]
    with pytest.raises(ValueError, match="lacks the columns fate"):
        store.write_cell(row("a"), short, frames(), {})
    with pytest.raises(ValueError, match="int16"):
        store.write_cell(row("a"), {}, {}, {"media": (np.zeros(8), 8000)})
    assert store.finished() == {}


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no runs\.parquet"):
        load(tmp_path)


def restamp(path: Path, **stamp: str) -> None:
    table = pq.read_table(path)
    old = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    pq.write_table(table.replace_schema_metadata(old | stamp), path)


@pytest.mark.parametrize("table", ["runs", "cells", "frames"])
def test_tables_that_cannot_be_trusted_are_refused(store: RunStore, table: str) -> None:
    write(store, "a")
    store.compact()
    path = store.directory / f"{table}.parquet"
    whole = path.read_bytes()

    restamp(path, schema_version=str(schema.SCHEMA_VERSION + 1))
    with pytest.raises(BadInput, match="newer"):
        load(store.directory)
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(BadInput, match="not written by this harness"):
        load(store.directory)
    path.write_bytes(whole[:-9])
    with pytest.raises(BadInput, match="cannot be read"):
        load(store.directory)
    pq.write_table(
        pq.read_table(pa.BufferReader(whole)).drop_columns(
            ["cell_id"] if table != "runs" else ["lab"]
        ),
        path,
    )
    with pytest.raises(BadInput, match="lacks the columns"):
        load(store.directory)


def test_a_table_of_another_run_is_refused(store: RunStore, tmp_path: Path) -> None:
    other = RunStore.create(tmp_path / "other", "smoke", NOW)
    write(other, "a")
    other.compact()
    shutil.copy(other.directory / "cells.parquet", store.directory)
    with pytest.raises(BadInput, match="belongs to run"):
        load(store.directory)


def test_the_room_offers_what_others_use() -> None:
    assert store_room.schema.LATENCY_PARTS
    assert set(inspect.signature(store_room.Tables).parameters) == set(schema.TABLES)


@pytest.mark.parametrize("compacted", [False, True])
def test_long_tables_are_read_by_cell(store: RunStore, compacted: bool) -> None:
    for cell_id in "cab":
        write(store, cell_id)
    store.write_cell(row("d", status="failed"), {}, {}, {})
    if compacted:
        store.compact()
    run = load(store.directory)
    mine = run.packets_of(["c", "a", "d", "nobody"], ["cell_id", "seq"])
    assert mine.columns.tolist() == ["cell_id", "seq"]
    assert list(mine.itertuples(index=False, name=None)) == [(c, i) for c in "ac" for i in range(4)]
    pd.testing.assert_frame_equal(
        run.frames_of(["b"]), run.frames[run.frames.cell_id == "b"].reset_index(drop=True)
    )
    assert list(run.packets_of(["d"]).columns) == list(schema.PACKETS)
    assert run.packets_of([]).transit_ns.dtype == pd.Int64Dtype()
    for batches, whole in (
        (run.packet_batches(), run.packets),
        (run.frame_batches(), run.frames),
    ):
        pd.testing.assert_frame_equal(pd.concat(batches, ignore_index=True), whole)


def test_provenance_names_the_machine_and_what_computed() -> None:
    def absent() -> str:
        raise OSError("no such library")

    facts = run_facts({"libopus": lambda: "1.5.2", "libfoo": absent})
    assert set(facts) == {"host", "versions", "git_sha", "git_dirty"} <= set(schema.RUNS)
    found = json.loads(facts["versions"])
    assert found["libopus"] == "1.5.2"
    assert "libfoo" not in found
    assert {"python", "harness", "pesq", "pystoi", "numpy"} <= set(versions())
    host = host_facts()
    assert {"kernel", "cpu", "cores", "memory_bytes", "boot_id", "time_ns", "governor"} <= set(host)
    assert host["memory_bytes"] > 2**20
    assert host["cpu"]

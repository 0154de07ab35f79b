"""Digests of tables: equal where the values are, different where one is, wherever they lie."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from harness.cli import main
from harness.store import RunStore, run_store
from harness.store.digests import HASHED, Difference, difference, digests
from tests.store.conftest import NOW, audio, frames, packets, row, score


def a_run(directory: Path, order: str = "abcde", **altered: object) -> RunStore:
    """``altered`` columns of packets, for cell ``c``."""
    run = RunStore.create(directory, "smoke", NOW)
    for cell_id in order:
        sent = packets() | (altered if cell_id == "c" else {})
        run.write_cell(
            row(cell_id, reason="né" if cell_id == "d" else None), sent, frames(), audio()
        )
        run.write_scores(cell_id, [score(4.5), score(None, "stoi")])
    return run


def hashes(run: RunStore) -> dict[str, str]:
    return {name: found.sha256 for name, found in digests(run.directory).items()}


def test_equal_values_have_equal_digests_wherever_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = a_run(tmp_path / "parts")
    before = hashes(parts)
    assert len(set(before.values())) == len(HASHED)
    monkeypatch.setattr(run_store, "GROUP_ROWS", dict.fromkeys((*HASHED, "attempts"), 6))
    monkeypatch.setattr(run_store, "READ_ROWS", 3)
    compacted = a_run(tmp_path / "compacted", "ecdab")
    compacted.compact()
    assert hashes(compacted) == before
    for name in HASHED:  # other files of the same values
        path = compacted.directory / f"{name}.parquet"
        pq.write_table(pq.read_table(path), path, row_group_size=5, compression="snappy")
    assert hashes(compacted) == before
    assert difference(parts.directory, compacted.directory) is None


def test_the_digest_is_as_documented(tmp_path: Path) -> None:
    run = RunStore.create(tmp_path, "smoke", NOW)
    run.write_cell(row("a"), {}, {}, {})
    run.write_scores("a", [score(None, "é") | {"lag_ms": 2.5}])

    def column(valid: bytes, data: bytes, lengths: bytes = b"") -> str:
        streams = b"".join(hashlib.sha256(s).digest() for s in (valid, data, lengths))
        return hashlib.sha256(streams).hexdigest()

    found = digests(run.directory)["scores"]
    assert found.columns["metric"] == column(b"\1", "é".encode(), (2).to_bytes(8, "little"))
    assert found.columns["value"] == column(b"\0", bytes(8))
    assert found.columns["lag_ms"] == column(b"\1", np.float64(2.5).tobytes())
    lines = ["scores 1", *(f"{c} {kind} {found.columns[c]}" for c, kind in KINDS.items())]
    assert found.sha256 == hashlib.sha256("\n".join(lines).encode()).hexdigest()


KINDS = {
    **dict.fromkeys(("cell_id", "metric", "mode", "track"), "str"),
    "value": "float",
    **dict.fromkeys(("unit", "reason", "package", "version", "alignment"), "str"),
    **dict.fromkeys(("lag_ms", "confidence", "plain", "spread"), "float"),
    **dict.fromkeys(("reference_sha256", "degraded_sha256"), "str"),
}


def test_the_first_difference_is_named(tmp_path: Path) -> None:
    straight = a_run(tmp_path / "1")
    sizes = packets()["size_bytes"].copy()
    sizes[2] = 99
    other = a_run(tmp_path / "2", size_bytes=sizes)
    other.compact()
    before, after = digests(straight.directory), digests(other.directory)
    assert [name for name in HASHED if before[name] != after[name]] == ["packets"]
    columns = before["packets"].columns
    assert [c for c in columns if columns[c] != after["packets"].columns[c]] == ["size_bytes"]
    found = difference(straight.directory, other.directory)
    assert found == Difference("packets", "c", "size_bytes", 2, 2, 99)


def test_a_null_is_not_a_zero(tmp_path: Path) -> None:
    nothing = np.ma.MaskedArray(np.zeros(4, np.int64), mask=True)
    null, zero = (
        a_run(tmp_path / name, copies=values)
        for name, values in (("null", nothing), ("zero", nothing.data))
    )
    assert digests(null.directory)["packets"] != digests(zero.directory)["packets"]
    found = difference(null.directory, zero.directory)
    assert found == Difference("packets", "c", "copies", 0, None, 0)


def test_a_cell_too_many_and_a_row_too_many_are_differences(tmp_path: Path) -> None:
    whole, less = a_run(tmp_path / "1"), a_run(tmp_path / "2", "abde")
    assert difference(whole.directory, less.directory) == Difference("cells", "c", None, None, 1, 0)
    assert difference(less.directory, whole.directory) == Difference("cells", "c", None, None, 0, 1)
    longer = a_run(tmp_path / "3")
    longer.write_scores("b", [score()] * 3)
    found = difference(whole.directory, longer.directory)
    assert found == Difference("scores", "b", None, None, 2, 3)


def test_the_command_says_whether_runs_are_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, same = a_run(tmp_path / "1"), a_run(tmp_path / "2", "edcba")
    other = a_run(tmp_path / "3", size_bytes=packets()["size_bytes"] + 1)
    assert main(["digest", str(first.directory)]) == 0
    printed = capsys.readouterr().out
    assert all(found in printed for found in hashes(first).values())
    assert main(["digest", str(first.directory), str(same.directory)]) == 0
    assert "2 runs hold the same tables" in capsys.readouterr().out
    assert main(["digest", *(str(run.directory) for run in (first, same, other))]) == 1
    told = capsys.readouterr().err
    assert f"not the same packets as {first.directory}" in told
    assert "table packets, cell c, column size_bytes, row 0: 0 and 1" in told

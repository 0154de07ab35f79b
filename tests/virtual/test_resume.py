"""Runs that are interfered with, in the virtual lab: what goes on, and what is refused."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile

from harness import cli, resume, store, virtual_matrix
from harness import run as run_module
from harness.cell import describe, without_streaming
from harness.errors import BadInput, CellFailed
from harness.plan import Cell
from harness.run import Options, run
from harness.runners import RETRIES
from harness.score.pool import Worker
from tests.labs.conftest import voice
from tests.virtual.test_matrix import Silent

SCENARIO = """\
name: quick
seed: 3
controls: false
compute: zero
metrics: []
corpus:
  - {folder: audio, kind: speech, silence: 0ms}
codecs: [pcm, {codec: g711}]
transports: [udp]
networks:
  - clean
  - {name: lossy, forward: {delay: 20ms, loss: 5%}}
"""


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    """The path of a scenario of 8 cells over two items of a second."""
    (tmp_path / "audio").mkdir()
    for number in (1, 2):
        soundfile.write(tmp_path / "audio" / f"{number}.wav", voice(1, 16_000, number), 16_000)
    path = tmp_path / "quick.yaml"
    path.write_text(SCENARIO)
    return path


def options(path: Path, **changes: object) -> Options:
    defaults = Options(path, out=path.parent / "out", lab="virtual", jobs=1)
    return replace(defaults, **changes)  # type: ignore[arg-type]


def test_what_the_machine_disturbed_is_done_again(
    quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of three tries are lost; then all is well, each try is written down, and the report
    says so."""
    real, tries = virtual_matrix.VirtualMatrix._one, dict[str, int]()

    def unlucky(
        self: virtual_matrix.VirtualMatrix, worker: Worker, cell: Cell
    ) -> virtual_matrix.Done:
        tries[cell.cell_id] = tries.get(cell.cell_id, 0) + 1
        if cell.network.name == "lossy" and tries[cell.cell_id] < 3:
            error = CellFailed("the worker crashed (SIGKILL)")
            result = without_streaming(describe(cell, "virtual", "model"), error)
            self._store.write_cell(result.row, {}, {}, {})
            return virtual_matrix.Done("failed", str(error), "machine")
        return real(self, worker, cell)

    monkeypatch.setattr(virtual_matrix.VirtualMatrix, "_one", unlucky)
    observer = Silent()
    outcome = run(options(quick), observer)
    assert outcome.statuses == {"ok": 8}
    assert outcome.all_well
    assert sum("streamed again" in note for note in observer.notes) == 2
    tables = store.load(outcome.directory)
    counts = tables.attempts.groupby("cell_id")["status"].agg(list)
    assert sorted(counts.tolist()) == [["failed", "failed", "ok"]] * 4 + [["ok"]] * 4
    report = (outcome.directory / "report.html").read_text("utf-8")
    assert "4 of 8 cells were streamed again" in report
    assert "4 of these are ok now" in report


def test_what_stays_disturbed_is_left_after_two_more_tries(
    quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead(self: virtual_matrix.VirtualMatrix, _: Worker, cell: Cell) -> virtual_matrix.Done:
        result = without_streaming(describe(cell, "virtual", "model"), CellFailed("it died"))
        self._store.write_cell(result.row, {}, {}, {})
        return virtual_matrix.Done("failed", "it died", "machine")

    monkeypatch.setattr(virtual_matrix.VirtualMatrix, "_one", dead)
    outcome = run(options(quick, only="pcm/*/clean/*"), Silent())
    assert (outcome.statuses, outcome.all_well) == ({"failed": 2}, False)
    assert len(store.load(outcome.directory).attempts) == 2 * (1 + RETRIES)
    monkeypatch.undo()
    outcome = run(options(quick, only="pcm/*/clean/*", resume=outcome.directory), Silent())
    assert (outcome.statuses, outcome.all_well) == ({"ok": 2}, True)
    last = store.load(outcome.directory).attempts.groupby("cell_id").last()
    assert set(last.attempt) == {2 + RETRIES}
    assert set(last.session) == {2}


def test_each_session_keeps_its_own_provenance(
    quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(options(quick, only="pcm*"), Silent())
    real = run_module.run_facts()
    monkeypatch.setattr(run_module, "run_facts", lambda: real | {"git_sha": "0123abc"})
    run(options(quick, resume=first.directory), Silent())
    row = store.RunStore.open(first.directory).run_row()
    sessions = json.loads(row["sessions"])
    assert [session["git_sha"] for session in sessions] == [real["git_sha"], "0123abc"]
    assert row["git_sha"] == real["git_sha"]
    assert sessions[1]["host"] == json.loads(real["host"])
    report = (first.directory / "report.html").read_text("utf-8")
    assert "made in 2 sessions, not all with the same versions" in report


def test_hosts_are_not_mixed_unless_asked(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(options(quick, only="pcm*"), Silent())
    real = run_module.run_facts()
    host = json.loads(real["host"]) | {"cpu": "another", "cores": 128}
    monkeypatch.setattr(run_module, "run_facts", lambda: real | {"host": json.dumps(host)})
    with pytest.raises(BadInput, match=r"another host \(.*cpu .*; cores .*128 now\).*--other-host"):
        run(options(quick, resume=first.directory), Silent())
    done = run(options(quick, resume=first.directory, other_host=True), Silent())
    assert done.statuses == {"ok": 8}
    assert "not all with the same host" in (done.directory / "report.html").read_text("utf-8")


def test_a_replaced_file_is_another_item(quick: Path) -> None:
    first = run(options(quick, only="*/clean/*"), Silent())
    audio = quick.parent / "audio" / "2.wav"
    before = audio.read_bytes()
    soundfile.write(audio, voice(1, 16_000, 7), 16_000)
    with pytest.raises(BadInput, match=r"other samples of 2 \(.*2\.wav\); put the files back"):
        run(options(quick, resume=first.directory), Silent())
    audio.write_bytes(before)
    assert run(options(quick, resume=first.directory), Silent()).statuses == {"ok": 8}


def test_another_corpus_is_refused(quick: Path) -> None:
    first = run(options(quick, only="*/clean/*"), Silent())
    audio = quick.parent / "audio"
    shutil.copy(audio / "1.wav", audio / "3.wav")
    (audio / "2.wav").unlink()
    with pytest.raises(BadInput, match="another corpus: without 2 now, and with 3"):
        run(options(quick, resume=first.directory), Silent())


def test_cells_of_another_plan_are_refused(quick: Path) -> None:
    first = run(options(quick, only="*/clean/*"), Silent())
    foreign = store.RunStore.open(first.directory)
    foreign.write_cell({"cell_id": "f" * 16, "status": "ok"}, {}, {}, {})
    with pytest.raises(BadInput, match=r"1 cells that this version .* would not make"):
        run(options(quick, resume=first.directory), Silent())


def test_a_run_that_goes_on_is_not_resumed(quick: Path) -> None:
    class Intruder(Silent):
        refused: str = ""

        def step(self, text: str, *, trouble: bool = False) -> None:
            super().step(text, trouble=trouble)
            if not self.refused:
                directory = (quick.parent / "out" / "latest").resolve()
                ended = []
                thread = threading.Thread(target=lambda: ended.append(resumed(directory)))
                thread.start()
                thread.join()
                self.refused = ended[0]

    def resumed(directory: Path) -> str:
        try:
            run(options(quick, resume=directory), Silent())
        except BadInput as error:
            return str(error)
        return "not refused"

    observer = Intruder()
    assert run(options(quick), observer).statuses == {"ok": 8}
    assert "is being written by process" in observer.refused


def test_cells_that_vanished_count(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that is gone when all has streamed is a cell that is missing."""
    real = store.RunStore.repair_parts

    def losing(self: store.RunStore) -> list[str]:
        next((self.directory / "parts" / "cells").iterdir()).unlink()
        return real(self)

    monkeypatch.setattr(store.RunStore, "repair_parts", losing)
    outcome = run(options(quick), Silent())
    assert (outcome.statuses, outcome.all_well) == ({"ok": 7, "missing": 1}, False)


def test_a_directory_that_was_removed_does_not_end_well(
    quick: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    class Remover(cli.Screen):
        def step(self, text: str, *, trouble: bool = False) -> None:
            super().step(text, trouble=trouble)
            steps.append(text)
            if len(steps) == 8:  # no worker writes meanwhile
                shutil.rmtree((quick.parent / "out" / "latest").resolve())

    monkeypatch.setattr(cli, "Screen", Remover)
    out = str(quick.parent / "out")
    code = cli.main(["run", str(quick), "--lab", "virtual", "--jobs", "1", "--out", out])
    assert code == 1
    assert "was removed while the run went on" in capsys.readouterr().err


def test_a_run_of_which_no_cell_could_be_had_does_not_end_well(
    quick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = quick.read_text().replace("[pcm, {codec: g711}]", "[{codec: encodec, weights: real}]")
    quick.write_text(text.replace("compute: zero", "compute: profile"))
    out = str(quick.parent / "out")
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patched:
        patched.setenv("HARNESS_PROFILE", str(_empty_profile(quick.parent)))
        code = cli.main(["run", str(quick), "--lab", "virtual", "--jobs", "1", "--out", out])
    said = capsys.readouterr()
    assert "unsupported" in said.out
    assert "no cell could be run: " in said.err
    assert code == 1


def _empty_profile(folder: Path) -> Path:
    path = folder / "profile.yaml"
    path.write_text("provenance: {}\noverheads_us: {wake: 0, send: 0, receive: 0}\ncodecs: []\n")
    return path


@pytest.fixture
def deaf() -> Iterator[None]:
    """As a shell starts its background jobs: SIGINT is ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("deaf")
def test_a_background_job_obeys_sigterm(quick: Path) -> None:
    running = subprocess.Popen(
        [
            *(sys.executable, "-m", "harness.cli", "run", str(quick), "--lab", "virtual"),
            *("--jobs", "1", "--out", str(quick.parent / "out")),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    for line in running.stderr:
        if line.startswith("[1/8]"):
            break
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 130, said


def test_what_a_run_began_with_may_be_named_again() -> None:
    assert resume.resumed_choice("lab", "auto", "netns") == "netns"
    assert resume.resumed_choice("lab", "netns", "netns") == "netns"
    assert resume.resumed_choice("lab", "docker", None) == "docker"
    with pytest.raises(BadInput, match="--lab docker: this run began with netns"):
        resume.resumed_choice("lab", "docker", "netns")

"""Whole runs in the virtual lab: what a user types, and what a user finds afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import soundfile

from harness import store, virtual_matrix
from harness.errors import BadInput, MachineCannot
from harness.labs import choose
from harness.labs.base import session
from harness.labs.virtual import VirtualLab
from harness.run import Options, Outcome, run
from harness.score.metrics import Score
from harness.virtual.profile import ENVIRONMENT
from tests.conftest import harness
from tests.labs.conftest import voice

SCENARIO = """\
name: small
seed: 3
controls: false
metrics: [pesq-wb, stoi]
legacy: [udp-aac-blocks, tcp-esc]
corpus:
  - {folder: audio, kind: speech}
codecs:
  - pcm
  - {codec: opus, bitrate: 24kbit, fec: true, expected_loss: 10%}
transports: [udp, tcp]
networks:
  - clean
  - {name: lossy, forward: {delay: 20ms, loss: 5%}}
"""


class Silent:
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def phase(self, name: str, total: int) -> None: ...

    def step(self, text: str, *, trouble: bool = False) -> None:
        del trouble
        self.steps.append(text)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of a scenario of 8 cells over one item of 8.5 s."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "audio").mkdir()
    soundfile.write(folder / "audio" / "buzz.wav", voice(8.5, 16_000, 1), 16_000)
    path = folder / "small.yaml"
    path.write_text(SCENARIO)
    return path


def virtual(path: Path, out: Path, **options: Any) -> tuple[Outcome, Silent]:
    observer = Silent()
    return run(Options(path, out=out, **{"lab": "virtual"} | options), observer), observer


@pytest.fixture(scope="module")
def done(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return virtual(small, tmp_path_factory.mktemp("once"), jobs=1)[0]


def tables(outcome: Outcome) -> dict[str, pd.DataFrame]:
    loaded = store.load(outcome.directory)
    return {name: getattr(loaded, name) for name in ("cells", "packets", "frames", "scores")}


def test_what_older_systems_would_have_printed_stands_beside_what_happened(done: Outcome) -> None:
    loaded = store.load(done.directory)
    rows = loaded.legacy.merge(loaded.cells[["cell_id", "network"]], on="cell_id")
    counts = rows.groupby("cell_id")["estimator"].agg(sorted)
    names = ["bandwidth", "bitrate", "latency", "latency", "loss", "send_time"]
    assert counts.tolist() == [names] * 8
    assert rows["value"].notna().eq(rows["reason"].isna()).all()
    slept = rows[(rows["system"] == "udp-aac-blocks") & (rows["estimator"] == "latency")]
    assert set(slept["value"]) == {50.0}
    assert slept["truth"].nunique() > 1
    assert (slept["truth"] > 60).all()


def test_a_run_ends_with_tables_and_a_report(done: Outcome) -> None:
    assert done.statuses == {"ok": 8}
    assert done.report is not None
    assert done.report.stat().st_size > 10_000
    loaded = store.load(done.directory)
    assert list(loaded.runs[["lab", "link"]].iloc[0]) == ["virtual", "model"]
    cells = loaded.cells
    assert set(zip(cells.lab, cells.link, cells.compute, strict=True)) == {
        ("virtual", "model", "profile")
    }
    assert cells.started_utc.isna().all()
    assert cells.wall_s.isna().all()
    assert cells.proof_ok.all()
    scored = loaded.scores[loaded.scores.track != ""]
    assert set(zip(scored.metric, scored["mode"], scored.track, strict=True)) == {
        ("pesq", "wb", "media"),
        ("stoi", "classic", "media"),
    }, "the scenario asks for no others"
    quality = scored[scored.metric == "pesq"].merge(cells, on="cell_id")
    mean = quality.set_index(["codec", "transport", "network"])["value"]
    assert mean["pcm", "udp", "clean"] > 4.5
    assert mean["pcm", "udp", "lossy"] < mean["pcm", "udp", "clean"]
    fates = loaded.packets.merge(cells, on="cell_id").groupby(["network", "transport"]).fate
    lost = fates.apply(lambda fate: (fate == "lost").mean())
    assert 0.01 < lost["lossy", "udp"] < 0.12
    assert lost["lossy", "tcp"] == 0, "TCP sends again"
    parts = list(store.schema.LATENCY_PARTS)
    whole = loaded.frames.dropna(subset=parts)
    assert (whole[parts].sum(axis=1) == whole.mouth_to_ear_ns).all()


def test_two_workers_find_what_one_found_byte_for_byte(
    small: Path, done: Outcome, tmp_path: Path
) -> None:
    again, _ = virtual(small, tmp_path, jobs=2)
    for name, table in tables(done).items():
        pd.testing.assert_frame_equal(table, tables(again)[name])
    one, other = (
        {path.name: path.read_bytes() for path in (run.directory / "audio").iterdir()}
        for run in (done, again)
    )
    assert one == other


def test_a_run_that_was_interrupted_goes_on_to_the_same_tables(
    small: Path, done: Outcome, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "harness.cli", "run", str(small), "--lab", "virtual"]
    running = subprocess.Popen(
        [*command, "--out", str(tmp_path), "--jobs", "1"],
        stderr=subprocess.PIPE,
        text=True,
        # The tests may run in the background of a script, whose jobs ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert running.stderr is not None
    for line in running.stderr:
        if line.startswith("[2/8]"):
            break
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert "--resume" in said
    directory = (tmp_path / "latest").resolve()
    stopped = store.RunStore.open(directory)
    before = stopped.finished().keys() & stopped.scored()  # one may lack its scores yet
    assert 2 <= len(before) < 8

    resumed, observer = virtual(small, tmp_path, lab="auto", resume=directory)
    assert f"{len(before)} cells are finished already" in observer.notes
    assert len(observer.steps) == 8 - len(before)
    for name, table in tables(done).items():
        pd.testing.assert_frame_equal(table, tables(resumed)[name])


def test_a_codec_that_the_profile_does_not_know_is_unsupported(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = tmp_path / "profile.yaml"
    profile.write_text("provenance: {}\noverheads_us: {wake: 0, send: 0, receive: 0}\ncodecs: []\n")
    monkeypatch.setenv(ENVIRONMENT, str(profile))
    outcome, _ = virtual(small, tmp_path, only="pcm/udp/clean/*")
    assert outcome.statuses == {"unsupported": 1}
    reason = store.load(outcome.directory).cells.reason.iloc[0]
    assert "does not know pcm" in reason
    assert "harness profile FILE" in reason


def test_a_worker_that_dies_costs_one_measure(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(virtual_matrix, "run_cell", _die)
    outcome, _ = virtual(small, tmp_path, jobs=1, only="opus*/udp/lossy/*")
    assert outcome.statuses == {"ok": 1}
    scores = store.load(outcome.directory).scores
    assert scores[scores.track == "media"].value.notna().all()
    assert (scores.track == "").any(), "the figures of the network are there too"


def _die(_: object) -> list[Score]:
    os.kill(os.getpid(), signal.SIGKILL)
    return []


@pytest.mark.parametrize("link", ["relay", "netem"])
def test_the_virtual_lab_has_no_other_link(small: Path, tmp_path: Path, link: str) -> None:
    with pytest.raises(BadInput, match=f"--link {link}.*--lab docker or netns"):
        virtual(small, tmp_path, link=link)


def test_auto_falls_back_to_it_and_says_why(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")

    def cannot() -> dict[str, Any]:
        raise MachineCannot("unshare: Operation not permitted")

    monkeypatch.setattr(choose.probe, "on_this_machine", cannot)
    outcome, observer = virtual(small, tmp_path, lab="auto", only="pcm/udp/clean/*")
    row = store.load(outcome.directory).runs.iloc[0]
    assert row.lab == "virtual"
    assert "no Docker engine answers" in row.lab_why
    assert "unshare: Operation not permitted" in row.lab_why
    assert any(note.startswith("lab virtual (auto: docker cannot") for note in observer.notes)


@pytest.mark.netns
def test_auto_takes_namespaces_where_there_are_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    with session("test") as mine:
        lab, why = choose.open_lab("auto", mine, tmp_path, lambda _: None)
    assert lab.name == "netns"
    assert why.startswith("auto: docker cannot run here")


def test_a_lab_asked_for_is_not_probed(tmp_path: Path) -> None:
    with session("test") as mine:
        lab, why = choose.open_lab("virtual", mine, tmp_path, lambda _: None)
    assert isinstance(lab, VirtualLab)
    assert why == "asked for"


def test_the_command_line_knows_it(small: Path, tmp_path: Path) -> None:
    ended = harness(
        *("run", str(small), "--lab", "virtual", "--out", str(tmp_path), "--only", "pcm/udp/clean*")
    )
    assert ended.returncode == 0, ended.stderr
    assert "cells: 1 ok" in ended.stdout
    facts = json.loads(store.load((tmp_path / "latest").resolve()).cells.agent_facts.iloc[0])
    assert facts["link"]["counters"]["in_flight"] == 0

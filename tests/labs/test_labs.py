"""Whole runs through real labs: what a user types, and what a user finds afterwards."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import psutil
import pytest

from harness import run, store
from harness.labs.base import ENV_RUN, LABEL_RUN, Pair
from harness.labs.netns import NetnsLab
from tests.conftest import harness

LABS = [
    pytest.param("netns", marks=pytest.mark.netns),
    pytest.param("docker", marks=pytest.mark.docker),
]
pytestmark = pytest.mark.realtime


def pesq_wb(tables: store.Tables) -> pd.DataFrame:
    scores = tables.scores.merge(tables.cells, on="cell_id")
    chosen = (scores.metric == "pesq") & (scores["mode"] == "wb") & (scores.track == "media")
    return scores[chosen].set_index(["codec", "transport", "network"])["value"]


@pytest.mark.parametrize("lab", LABS)
def test_a_run_ends_with_tables_and_a_report(lab: str, tiny: Path, tmp_path: Path) -> None:
    done = harness("run", str(tiny), "--lab", lab, "--out", str(tmp_path), "--jobs", "4")
    assert done.returncode == 0, done.stderr
    directory = (tmp_path / "latest").resolve()
    assert (directory / "report.html").stat().st_size > 10_000
    tables = store.load(directory)
    assert list(tables.cells.status) == ["ok"] * 8, tables.cells[["status", "reason"]]
    assert set(tables.cells.lab) == {lab}
    quality = pesq_wb(tables)
    assert quality[("pcm", "udp", "clean")] > 4.5
    assert quality[("pcm", "udp", "lossy")] < quality[("pcm", "udp", "clean")]
    fates = tables.packets.merge(tables.cells, on="cell_id").groupby(["network", "transport"]).fate
    lost = fates.apply(lambda fate: (fate == "lost").mean())
    assert lost["clean", "udp"] == 0
    assert 0.01 < lost["lossy", "udp"] < 0.12
    parts = list(store.schema.LATENCY_PARTS)
    whole = tables.frames.dropna(subset=parts)
    assert (whole[parts].sum(axis=1) == whole.mouth_to_ear_ns).all()
    for cell in tables.cells.itertuples():
        ends = json.loads(cell.agent_facts)
        assert ends["sender"]["boot_id"] == ends["receiver"]["boot_id"]


@pytest.mark.parametrize("lab", LABS)
def test_a_killed_run_is_cleaned_up_and_resumed(lab: str, tiny: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "harness.cli", "run", str(tiny), "--lab", lab]
    running = subprocess.Popen(
        [*command, "--out", str(tmp_path), "--jobs", "2"], stderr=subprocess.PIPE, text=True
    )
    assert running.stderr is not None
    for line in running.stderr:
        if line.startswith("[2/8]"):
            break
    running.send_signal(signal.SIGKILL)
    running.wait()
    running.stderr.close()
    directory = (tmp_path / "latest").resolve()
    before = store.RunStore.open(directory).finished()
    assert 2 <= len(before) < 8

    cleaned = harness("clean")
    assert cleaned.returncode == 0, cleaned.stderr
    assert left_of(directory) == []

    again = harness("run", str(tiny), "--lab", lab, "--resume", str(directory), "--jobs", "4")
    assert again.returncode == 0, again.stderr
    planned = harness("plan", str(tiny)).stdout
    after = store.load(directory).cells
    assert len(after) == 8
    assert all(cell_id in planned for cell_id in after.cell_id)
    assert set(before) <= set(after.cell_id)
    assert left_of(directory) == []


@pytest.mark.netns
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_an_endpoint_that_breaks_costs_its_own_cell_an_attempt(
    blow: signal.Signals, tiny: Path, tmp_path: Path
) -> None:
    impatient = tiny.with_name("impatient.yaml")
    impatient.write_text(tiny.read_text() + "timeout: 2s\n")
    running = subprocess.Popen(
        [
            *(sys.executable, "-m", "harness.cli", "run", str(impatient), "--lab", "netns"),
            *("--out", str(tmp_path), "--jobs", "2", "--only", "pcm/*"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    for line in running.stderr:
        if line.startswith("[1/4]"):
            break
    directory = (tmp_path / "latest").resolve()
    run_id = store.RunStore.open(directory).run_id
    sender = next(p for p in psutil.process_iter() if _is_sender_of(p, run_id))
    sender.send_signal(blow)
    _, errors = running.communicate(timeout=120)
    assert running.returncode == 0, errors
    tables = store.load(directory)
    assert set(tables.cells.status) == {"ok"}, tables.cells[["status", "reason"]]
    broken = tables.attempts[tables.attempts.status == "failed"]
    assert broken.attempt.tolist() == [1]
    assert broken.blame.tolist() == ["machine"]
    reason = broken.reason.iloc[0]
    if blow is signal.SIGKILL:
        assert re.search(r"the sender of pair \d died \(.*\): SIGKILL; its last lines: ", reason), (
            reason
        )
    else:
        assert re.search(r"the sender of pair \d did not (answer|take a message) within", reason), (
            reason
        )
    assert left_of(directory) == []


@pytest.mark.netns
def test_cells_that_cannot_be_cost_no_pair(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny.with_name("unsupported.yaml")
    path.write_text(UNSUPPORTED)
    opened = []
    open_pair = NetnsLab.open_pair

    def counted(lab: NetnsLab, index: int) -> Pair:
        opened.append(index)
        return open_pair(lab, index)

    monkeypatch.setattr(NetnsLab, "open_pair", counted)
    outcome = run.run(run.Options(path, tmp_path, lab="netns", jobs=1), Silent())
    assert outcome.statuses == {"unsupported": 2, "ok": 2}
    assert opened == [0]


UNSUPPORTED = """\
name: unsupported
seed: 3
controls: false
metrics: []
corpus:
  - {folder: audio, kind: speech}
codecs:
  - {codec: pcm, name: fits, rate: 16kHz}
  - {codec: pcm, name: too-large, rate: 48kHz}
transports: [rtp]
networks: [clean, {name: far, both: {delay: 20ms}}]
"""


class Silent:
    """Nobody to tell."""

    def note(self, text: str) -> None: ...
    def phase(self, name: str, total: int) -> None: ...
    def step(self, text: str, *, trouble: bool = False) -> None: ...


def _is_sender_of(process: psutil.Process, run_id: str) -> bool:
    try:
        mine = process.environ().get(ENV_RUN) == run_id
        return mine and "sender" in process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


BROADCAST = """\
name: hall
seed: 3
controls: false
metrics: []
corpus:
  - {folder: audio, kind: speech}
codecs: [{codec: opus, bitrate: 32kbit, frame: 60ms}]
transports: [{transport: udp, adapt: {every: 100ms, lowest: 6kbit}}]
networks:
  - {name: near, broadcast: hall, both: {delay: 10ms}}
  - name: narrow
    broadcast: hall
    both: {delay: 10ms}
    forward: {delay: 20ms, rate: {rate: 24kbit, limit: 1514B}}
receivers:
  - {name: deep, jitter_buffer: {mode: fixed, start: 600ms, max: 1s}}
"""


@pytest.mark.parametrize("lab", LABS)
def test_one_sender_serves_receivers_behind_links_of_their_own(
    lab: str, tiny: Path, tmp_path: Path
) -> None:
    path = tiny.with_name("hall.yaml")
    path.write_text(BROADCAST)
    asked = ("run", str(path), "--lab", lab, "--link", "relay", "--jobs", "1", "--out")
    done = harness(*asked, str(tmp_path / "both"))
    assert done.returncode == 0, done.stderr
    both = store.load((tmp_path / "both" / "latest").resolve())
    assert list(both.cells.status) == ["ok"] * 2, both.cells.reason
    frames = both.frames.merge(both.cells[["cell_id", "network"]], on="cell_id")
    frames = frames.pivot(index="frame", columns="network", values=["encode_ns", "target_bps"])
    assert (frames["encode_ns", "near"] == frames["encode_ns", "narrow"]).all(), "encoded once"
    assert frames["target_bps", "near"].iloc[-1] < 20_000, "the narrow link holds the rate down"
    # A receiver by itself has the same sender, which serves and hears the other one too.
    done = harness(*asked, str(tmp_path / "one"), "--only", "*/near/*")
    assert done.returncode == 0, done.stderr
    one = store.load((tmp_path / "one" / "latest").resolve())
    assert list(one.cells.network) == ["near"]
    assert one.frames.target_bps.iloc[-1] < 20_000


@pytest.mark.docker
@pytest.mark.netem
def test_netem_works_on_the_ports_of_containers(tiny: Path, tmp_path: Path) -> None:
    asked = ("run", str(tiny), "--lab", "docker", "--link", "netem", "--only", "pcm/udp/*")
    done = harness(*asked, "--jobs", "1", "--out", str(tmp_path))
    for _ in range(3):  # a virtual machine may be stopped for longer than the limits allow
        if done.returncode == 0:
            break
        done = harness(*asked, "--jobs", "1", "--resume", str(tmp_path / "latest"))
    assert done.returncode == 0, done.stderr
    tables = store.load((tmp_path / "latest").resolve())
    assert list(tables.cells.status) == ["ok"] * 2, tables.cells.reason
    assert set(tables.cells.link) == {"netem"}
    lossy = tables.cells.set_index("network").loc["lossy"]
    assert json.loads(lossy.link_readback)["forward"]["netem"]["delay_ns"] == 20_000_000
    proof = {(f["direction"], f["figure"]): f for f in json.loads(lossy.proof)}
    assert proof["forward", "delay"]["ok"]
    assert proof["forward", "loss"]["ok"]


def left_of(directory: Path) -> list[str]:
    """Processes, containers and networks that carry the run's id."""
    run_id = store.RunStore.open(directory).run_id
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(ENV_RUN) == run_id and process.pid != os.getpid():
                process.wait(timeout=10)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        except psutil.TimeoutExpired:
            found.append(f"process {process.pid}")
    from harness.errors import MachineCannot
    from harness.labs.docker import connect

    try:
        client = connect()
    except MachineCannot:
        return found
    ours = {"label": f"{LABEL_RUN}={run_id}"}
    found += [c.name for c in client.containers.list(all=True, filters=ours)]
    found += [n.name for n in client.networks.list(filters=ours)]
    client.close()
    return found

"""``python -m tests.bench.kills``: kill any process of a run at any time, and see what is left.

A trial starts a run, kills one process of its tree (SIGKILL) at a random instant, goes on with
``--resume`` until the run ends, and then demands that

* no cell that was finished when the blow fell was lost or streamed again,
* every cell is ``ok`` in the end and the exit code 0,
* in the virtual lab every table is, value for value, that of a run which nobody disturbed,
* nothing is left: processes, control directories, containers, networks, half-written files.

``--disk-full`` trials have no room for the compaction instead: the run lies on a small disk (tmpfs;
needs root), which is filled up to a few pages, so that they run out in this table or that.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import soundfile

from harness.errors import EXIT_CELLS, BadInput
from harness.labs.base import control_directories
from harness.labs.leftovers import clean
from harness.store import RunStore, load
from harness.store.digests import digests
from tests.labs.conftest import voice

SCENARIO = """\
name: kills
seed: 3
controls: false
compute: zero
metrics: [stoi]
corpus:
  - {folder: audio, kind: speech, silence: 0ms}
codecs: [pcm, {codec: g711}]
transports: [udp]
networks:
  - clean
  - {name: lossy, forward: {delay: 20ms, loss: 5%}}
receivers:
  - {name: fixed, jitter_buffer: {mode: fixed, start: 60ms}}
"""
ITEMS = 2
CELLS = 2 * 2 * ITEMS
STARTED = 0.9
"""Share of the trials whose run has a directory before the blow may fall: nothing can be lost
before that, and importing takes long."""
RESUMES = 4
"""After which a run that has not ended is stuck."""
TIMEOUT_S = 300.0
SETTLE_S = 15.0
"""For processes to end that notice the death of their parent."""
MARK = "HARNESS_KILLS_TRIAL"
"""Environment variable that every process of a trial has, with the trial's folder."""
WITHOUT_REPORT = """
import sys
from harness import cli, run
run.write_report = lambda directory: None
sys.exit(cli.main(sys.argv[1:]))
"""
"""``harness`` without its slowest part, which reads and writes one file."""


@dataclass
class Trial:
    """What was done to a run, and what is wrong with it."""

    lab: str
    number: int
    victim: str = "nobody"
    after_s: float = 0.0
    finished_before: int = 0
    resumes: int = 0
    problems: list[str] = field(default_factory=list)


def scenario_in(folder: Path) -> Path:
    """The path of a scenario of ``CELLS`` cells over items of a second and more."""
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    for number in range(ITEMS):
        track = voice(1 + 0.3 * number, 16_000, number)
        soundfile.write(folder / "audio" / f"{number}.wav", track, 16_000)
    path = folder / "kills.yaml"
    path.write_text(SCENARIO)
    return path


def soak(
    lab: str, count: int, seed: int, folder: Path, *, disk_full: bool, busy: bool = False
) -> list[Trial]:
    """So many trials, each in a folder of its own below ``folder``; those that went well are
    removed. On a ``busy`` machine cells may end ``invalid``."""
    path = scenario_in(folder)
    began = time.monotonic()
    undisturbed = _Run(path, lab, folder / "undisturbed")
    code = undisturbed.wait()
    whole_s = time.monotonic() - began
    if code and not (busy and code == EXIT_CELLS):
        raise SystemExit(f"a run that nobody disturbed ended with {code}:\n{undisturbed.said()}")
    expected = _tables(undisturbed.directory) if lab == "virtual" else None
    chance = random.Random(seed)
    trials = []
    for number in range(count):
        trial = Trial(lab, number)
        place = folder / f"trial-{number}"
        with contextlib.ExitStack() as stack:
            if disk_full:
                stack.enter_context(_disk(place))
                _fill_disk(trial, path, lab, place, chance)
            else:
                while (whole := _kill_one(trial, path, lab, place, chance, whole_s)) is not None:
                    whole_s = min(whole, whole_s)  # it ended before the blow fell: not a trial
                    shutil.rmtree(place)
            _verify(trial, path, lab, place, expected, busy=busy)
            if disk_full and trial.problems:
                shutil.copytree(place, folder / f"{place.name}-kept", symlinks=True)
        print(
            f"{lab} {number}: {trial.victim} after {trial.after_s:.1f} s,"
            f" {trial.finished_before} of {CELLS} cells finished, {trial.resumes} resumes:"
            f" {'; '.join(trial.problems) or 'all well'}",
            flush=True,
        )
        trials.append(trial)
        if not trial.problems:
            shutil.rmtree(place, ignore_errors=True)
    return trials


FULL_DISK = """
import os, sys
from harness import cli, run
from harness.store import RunStore
run.write_report = lambda directory: None
real = RunStore.compact
def compact(self):
    disk = os.statvfs(self.directory)
    with open({ballast!r}, "wb") as ballast:
        free = disk.f_bavail * disk.f_frsize
        os.posix_fallocate(ballast.fileno(), 0, free - {room})
    real(self)
RunStore.compact = compact
sys.exit(cli.main(sys.argv[1:]))
"""
"""``harness`` whose disk has ``room`` bytes left once compaction begins."""
DISK_BYTES = 64 << 20
PAGE_BYTES = 4096


@contextlib.contextmanager
def _disk(place: Path) -> Iterator[None]:
    """A file system of its own at ``place``; needs root."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "kills", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


class _Run:
    """One process of ``harness run``, its output in a file."""

    def __init__(
        self, path: Path, lab: str, out: Path, resume: Path | None = None, program: str = ""
    ) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._log = out / f"log-{time.monotonic_ns()}.txt"
        self._out = out
        where = ["--resume", str(resume)] if resume else ["--out", str(out)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-c", program or WITHOUT_REPORT),
                    *("run", str(path), "--lab", lab, "--jobs", "2", *where),
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, MARK: str(out)},
                start_new_session=True,
            )

    @property
    def directory(self) -> Path:
        return (self._out / "latest").resolve()

    def wait(self) -> int:
        try:
            return self.process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            return -signal.SIGALRM

    def said(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]


def _kill_one(
    trial: Trial, path: Path, lab: str, place: Path, chance: random.Random, whole_s: float
) -> float | None:
    """Kill a process of a run; how long the run took where it had ended before."""
    began = time.monotonic()
    run = _Run(path, lab, place)
    if chance.random() < STARTED:
        while run.process.poll() is None and not (run.directory / "runs.parquet").exists():
            time.sleep(0.02)
    since = time.monotonic() - began
    trial.after_s = chance.uniform(max(0.2, since), max(whole_s, since))
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.process.wait(trial.after_s - since)
        return time.monotonic() - began
    victim = chance.choice(_tree(run, lab))
    trial.victim = _name(victim)
    with contextlib.suppress(psutil.NoSuchProcess):
        victim.send_signal(signal.SIGKILL)
    run.wait()
    return None


def _tree(run: _Run, lab: str) -> list[psutil.Process]:
    """The run's processes, and those in its containers."""
    own = psutil.Process(run.process.pid)
    found = [own]
    with contextlib.suppress(psutil.NoSuchProcess):
        found += own.children(recursive=True)
    if lab == "docker":
        with contextlib.suppress(BadInput, OSError):
            found += _in_containers(RunStore.open(run.directory).run_id)
    return found


def _in_containers(run_id: str) -> list[psutil.Process]:
    from harness.labs.base import LABEL_RUN
    from harness.labs.docker import connect

    client = connect()
    pids = [
        container.attrs["State"]["Pid"]
        for container in client.containers.list(filters={"label": f"{LABEL_RUN}={run_id}"})
    ]
    client.close()
    return [psutil.Process(pid) for pid in pids if pid and psutil.pid_exists(pid)]


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return []


def _name(process: psutil.Process) -> str:
    words = " ".join(_command(process))
    for mark in (
        "network.agent",
        "endpoint.agent",
        "harness.cli",
        "resource_tracker",
        "spawn_main",
    ):
        if mark in words:
            role = words.partition("--name ")[2].split(" ")[0]
            return f"{mark} {role}".strip()
    return process.name()


def _fill_disk(trial: Trial, path: Path, lab: str, place: Path, chance: random.Random) -> None:
    """Compaction meets the end of the disk, at a place of its choosing."""
    room = chance.randrange(17) * PAGE_BYTES
    trial.victim = f"a disk with {room} B left, at compaction"
    ballast = place / "ballast"
    run = _Run(path, lab, place, program=FULL_DISK.format(ballast=str(ballast), room=room))
    code, said = run.wait(), run.said()
    ballast.unlink()
    if code == 0:
        trial.victim += " (there was room)"
    elif code != 1 or "Traceback" in said or "make room there" not in said:
        trial.problems.append(f"no room ended with {code}: {said[-300:]}")


def _verify(
    trial: Trial,
    path: Path,
    lab: str,
    place: Path,
    expected: dict[str, str] | None,
    *,
    busy: bool,
) -> None:
    directory = (place / "latest").resolve()
    try:
        store = RunStore.open(directory)
    except BadInput as error:
        if (directory / "cells.parquet").exists() or list(directory.glob("parts/*/*.arrow")):
            trial.problems.append(f"it cannot be opened: {error}")
        _nothing_left(trial, directory)
        return  # killed before there was a run: nothing to resume, and nothing lost
    before = {
        cell: status for cell, status in store.finished().items() if cell not in store.disturbed()
    }
    kept = store.scored() if lab == "virtual" else set(before)
    tries = _attempts(directory)
    trial.finished_before = len(before)
    for _ in range(RESUMES):
        trial.resumes += 1
        run = _Run(path, lab, place, resume=directory)
        code = run.wait()
        invalid = "invalid" in RunStore.open(directory).finished().values()
        if code == 0 or (busy and code == EXIT_CELLS and invalid):
            break
    else:
        trial.problems.append(f"resuming ends with {code}: {run.said()[-600:]}")
    after = RunStore.open(directory).finished()
    if lost := before.keys() - after.keys():
        trial.problems.append(f"{len(lost)} finished cells are lost")
    good = {"ok", "invalid"} if busy else {"ok"}
    if bad := {cell: status for cell, status in after.items() if status not in good}:
        trial.problems.append(f"not ok: {Counter(bad.values())}")
    if len(after) != CELLS:
        trial.problems.append(f"{len(after)} of {CELLS} cells")
    again = [
        cell
        for cell, number in _attempts(directory).items()
        if cell in kept and cell in before and number != tries.get(cell)
    ]
    if again:
        trial.problems.append(f"{len(again)} finished cells were streamed again")
    whole = load(directory)
    if set(whole.scores["cell_id"]) != set(whole.cells["cell_id"]):
        trial.problems.append("cells without scores")
    if lost_scores := int((whole.scores["metric"].eq("stoi") & whole.scores["value"].isna()).sum()):
        trial.problems.append(f"{lost_scores} scores have no value")
    if expected is not None and (tables := _tables(directory)) != expected:
        differing = [name for name in tables if tables[name] != expected[name]]
        trial.problems.append(f"other values than undisturbed in {', '.join(differing)}")
    _nothing_left(trial, directory)


def _attempts(directory: Path) -> dict[str, int]:
    return dict(load(directory).attempts.groupby("cell_id").size())


def _tables(directory: Path) -> dict[str, str]:
    return {name: digest.sha256 for name, digest in digests(directory).items()}


def _nothing_left(trial: Trial, directory: Path) -> None:
    """Looked for after ``harness clean``, which a person would call after a kill."""
    try:
        run_id = RunStore.open(directory).run_id
    except BadInput:
        run_id = None
    if run_id is not None:
        clean(dry_run=False, run_id=run_id)
    deadline = time.monotonic() + SETTLE_S
    while (left := sorted(_left(trial, directory, run_id))) and time.monotonic() < deadline:
        time.sleep(0.2)
    trial.problems += [f"left: {thing}" for thing in left]


def _left(trial: Trial, directory: Path, run_id: str | None) -> Iterator[str]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get(MARK) == str(directory.parent):
                yield f"process {process.pid} {_name(process)}"
    if run_id is not None:
        for left in Path(tempfile.gettempdir()).glob(control_directories(run_id)):
            yield f"directory {left}"
        if trial.lab == "docker":
            yield from _left_in_docker(run_id)
    if (directory / "parts").exists():
        yield f"{directory}/parts"
    if (directory / "damaged").exists():
        yield f"{directory}/damaged"


def _left_in_docker(run_id: str) -> Iterator[str]:
    from harness.labs.base import LABEL_RUN
    from harness.labs.docker import connect

    client = connect()
    ours = {"filters": {"label": f"{LABEL_RUN}={run_id}"}}
    yield from (f"container {one.name}" for one in client.containers.list(all=True, **ours))
    yield from (f"network {one.name}" for one in client.networks.list(**ours))
    client.close()


def main() -> int:
    """Run the trials that the command line asks for; 1 where one went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lab", choices=["virtual", "netns", "docker"], default="virtual")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--disk-full", action="store_true", help="no room instead of a kill")
    parser.add_argument(
        "--busy", action="store_true", help="the machine has other work: cells may end invalid"
    )
    parser.add_argument("--keep", type=Path, help="trials that went wrong stay there")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = arguments.keep or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="kills-"))
        )
        folder.mkdir(parents=True, exist_ok=True)
        trials = soak(
            arguments.lab,
            arguments.count,
            arguments.seed,
            folder,
            disk_full=arguments.disk_full,
            busy=arguments.busy,
        )
    wrong = [trial for trial in trials if trial.problems]
    print(
        json.dumps(
            {
                "lab": arguments.lab,
                "trials": len(trials),
                "victims": Counter(trial.victim for trial in trials),
                "resumes": sum(trial.resumes for trial in trials),
                "wrong": len(wrong),
            }
        )
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""Workers that crash, hang and are killed: each costs one score."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import soundfile

from harness.score.pool import Scorer, ScoreTask, score_files
from harness.score.quality import MEASURES
from tests.score import signals
from tests.score.signals import RATE_HZ, measure, speech

FACTS = {"sample_rate_hz": RATE_HZ, "delay_samples": 0}
GOOD = tuple(m for m in MEASURES if m.metric == "stoi")


@pytest.fixture
def cell(tmp_path: Path) -> ScoreTask:
    path = tmp_path / "audio.flac"
    soundfile.write(path, speech(4.0), RATE_HZ)
    return ScoreTask("a", path, path, path, "speech", "none", FACTS, GOOD)


def test_workers_score_as_this_process_does(cell: ScoreTask) -> None:
    cells = [replace(cell, cell_id=str(number)) for number in range(5)]
    with Scorer(2) as scorer:
        futures = [scorer.submit(one) for one in cells]
        assert [future.result() for future in futures] == [score_files(cell)] * 5


def test_each_crash_costs_one_metric(cell: ScoreTask) -> None:
    computed = (
        signals.fine,
        signals.aborts,
        signals.fine,
        signals.segfaults,
        signals.leaves,
        signals.fine,
    )
    bad = replace(cell, measures=tuple(map(measure, computed)))
    with Scorer(1) as scorer:
        during, after = scorer.submit(bad), scorer.submit(replace(bad, measures=bad.measures[:1]))
        assert [score["value"] for score in after.result()] == [3.0]
    scores = during.result()
    assert [score["value"] for score in scores] == [3.0, None, 3.0, None, None, 3.0]
    assert [score["reason"] for score in scores if score["value"] is None] == [
        "the scorer crashed (SIGABRT)",
        "the scorer crashed (SIGSEGV)",
        "the scorer crashed (exit code 3)",
    ]


def test_a_metric_that_hangs_costs_itself(cell: ScoreTask) -> None:
    fine = measure(signals.fine)
    with Scorer(1, timeout_s=2.0) as scorer:
        hanging = replace(cell, measures=(fine, measure(signals.hangs), fine))
        scores = scorer.submit(hanging).result()
    assert [score["value"] for score in scores] == [3.0, None, 3.0]
    assert "took more than 2 s" in str(scores[1]["reason"])


def test_workers_have_one_thread_and_are_deaf_to_ctrl_c(cell: ScoreTask) -> None:
    before = os.environ.get("OMP_NUM_THREADS")
    wanted = replace(cell, measures=(measure(signals.threads), measure(signals.deaf)))
    with Scorer(1) as scorer:
        assert [score["value"] for score in scorer.submit(wanted).result()] == [2.0, 2.0]
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_audio_that_cannot_be_read_is_a_reason(cell: ScoreTask, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.flac"
    damaged.write_bytes(cell.media_path.read_bytes()[:100])
    for path in (damaged, tmp_path / "absent.flac"):
        with Scorer(1) as scorer:
            scores = scorer.submit(replace(cell, media_path=path)).result()
        assert [score["value"] for score in scores] == [None, None]
        assert all("cannot be read" in str(score["reason"]) for score in scores)


def test_leaving_early_ends_the_workers(cell: ScoreTask) -> None:
    endless = replace(cell, measures=(measure(signals.hangs),))
    before = set(psutil.Process().children(recursive=True))
    futures = []

    def interrupted() -> None:
        with Scorer(2) as scorer:
            futures.extend(scorer.submit(one) for one in (cell, endless, endless, endless))
            futures[0].result()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert all(future.done() for future in futures)
    left = set(psutil.Process().children(recursive=True)) - before
    assert not [child for child in left if "spawn_main" in " ".join(child.cmdline())]


KILLED = """
import sys
from concurrent.futures import wait
from pathlib import Path
import psutil, soundfile
from harness.score.pool import Scorer, ScoreTask
from tests.score.signals import RATE_HZ, hangs, measure, speech
if __name__ == "__main__":
    path = Path(sys.argv[1])
    task = ScoreTask("a", path, path, path, "speech", "none",
                     {"sample_rate_hz": RATE_HZ, "delay_samples": 0}, (measure(len),))
    with Scorer(2) as scorer:
        wait([scorer.submit(task), scorer.submit(task)])
        workers = [p.pid for p in psutil.Process().children() if "spawn_main" in str(p.cmdline())]
        print(*workers, flush=True)
        scorer.submit(task).result()
        sys.stdin.read()
"""


def test_workers_do_not_outlive_a_killed_parent(cell: ScoreTask) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(cell.media_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    assert parent.stdin is not None
    workers = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdin.close()
    parent.stdout.close()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not [worker for worker in alive if worker.status() != psutil.STATUS_ZOMBIE]

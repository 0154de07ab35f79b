"""One owner at a time of a run's directory."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import BadInput
from harness.store import owned

OWNER = """
import sys
from pathlib import Path
from harness.store import owned
with owned(Path(sys.argv[1])):
    print("mine", flush=True)
    sys.stdin.read()
"""


def test_a_second_owner_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    first = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdin is not None
    assert first.stdout is not None
    assert first.stdout.readline() == "mine\n"
    words = rf"being written by process {first.pid} on .* since 20.*--resume"
    with pytest.raises(BadInput, match=words), owned(tmp_path):
        pass
    first.send_signal(signal.SIGKILL)
    first.wait()
    first.stdin.close()
    first.stdout.close()
    with owned(tmp_path):
        pass
    with owned(tmp_path):
        pass

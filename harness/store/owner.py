"""One owner at a time of a run's directory, said by name.

The owner holds an flock(2) on a file there. The kernel drops it when the process ends, however it
ends, so that a dead owner keeps nobody out; no process that it starts inherits it.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import BadInput
from harness.store.disk import disk_errors

OWNER = ".owner"


@contextmanager
def owned(directory: Path) -> Iterator[None]:
    """The run in ``directory`` is this process's inside. Raises BadInput, with the owner's name,
    where it is another's."""
    path = directory / OWNER
    with disk_errors(path):
        file = path.open("a+", encoding="utf-8")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise BadInput(
                f"{directory}: is being written by {_in_words(file.read())}; wait until that run"
                " ends, or end it, then go on with: harness run FILE --resume DIR"
            ) from None
        with disk_errors(path):
            file.truncate(0)
            since = datetime.now(UTC).isoformat(timespec="seconds")
            json.dump({"pid": os.getpid(), "host": platform.node(), "since": since}, file)
            file.flush()
        yield


def _in_words(text: str) -> str:
    try:
        owner = json.loads(text)
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"

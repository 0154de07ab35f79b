"""What a lab gives to a run: pairs of endpoints with a link agent between them."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from harness.control import Channel
from harness.errors import HarnessError

PROJECT = "codec-network-harness"
LABEL_RUN = f"{PROJECT}.run"
LABEL_LOCK = f"{PROJECT}.lock"
ENV_RUN = "HARNESS_RUN"
START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 5.0
_LAST_LINES = 5


def agent_title(role: str, index: int) -> str:
    """What messages call an agent."""
    return f"the {role} of pair {index}"


def last_lines(log: str) -> str:
    """The end of an agent's log, for a message of one line."""
    lines = log.strip().splitlines()[-_LAST_LINES:]
    return f"its last lines: {' | '.join(lines) or 'none'}"


@dataclass
class Pair:
    """A warm sender, receiver and link; ``close`` ends all three and frees their network."""

    index: int
    sender: Channel
    receiver: Channel
    link: Channel
    receiver_host: str
    facts: dict[str, dict[str, Any]]
    """Per role, what the agent said of itself: pid, boot_id, time namespace, cpus."""
    resources: ExitStack = field(repr=False)

    def reset(self) -> bool:
        """Bring the three agents back to idle after a cell that ended with an error; False where
        one of them does not get there."""
        try:
            for channel in (self.sender, self.receiver, self.link):
                channel.settle(START_TIMEOUT_S)
            self.sender.call("close")
            self.receiver.call("close")
            self.link.call("clear")
        except HarnessError:
            return False
        return True

    def close(self) -> None:
        self.resources.close()


class Lab(Protocol):
    """Where cells run. ``name`` stands in every row of the results."""

    name: str

    def open_pair(self, index: int) -> Pair:
        """A fresh pair. Raises CellFailed or MachineCannot. May be called from several threads."""
        ...

    def facts(self) -> dict[str, Any]:
        """Engine version, image and base image, for the provenance."""
        ...

    def asset_path(self, path: Path) -> str:
        """Where the endpoints see a file of the asset cache."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Session:
    """One orchestrator's claim on what it makes, alive for as long as its process."""

    run_id: str
    control_dir: Path

    @property
    def lock(self) -> Path:
        return self.control_dir / "lock"

    def labels(self) -> dict[str, str]:
        return {LABEL_RUN: self.run_id, LABEL_LOCK: str(self.lock)}


def control_directories(run_id: str | None = None) -> str:
    """The pattern that the names of control directories match, of one run or of all."""
    # Not all of the id, whose scenario's name may be long: a Unix socket's address is 107 bytes.
    return f"{PROJECT}-*" if run_id is None else f"{PROJECT}-{run_id[-15:]}-*"


@contextlib.contextmanager
def session(run_id: str) -> Iterator[Session]:
    """A control directory under an flock that the kernel drops when the process ends, however."""
    directory = Path(tempfile.mkdtemp(prefix=control_directories(run_id).removesuffix("*")))
    directory.chmod(0o755)
    mine = Session(run_id, directory)
    with mine.lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield mine
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def is_dead(lock: Path) -> bool:
    """True when no living process holds the lock (its file gone, or free to take)."""
    try:
        with lock.open("r") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True

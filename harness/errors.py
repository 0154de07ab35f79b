"""The exceptions of the harness, in one tree, each with the exit code it leads to.

::

    HarnessError                 a person can act on the message: what, where, remedy
    |- BadInput            (2)   a scenario, an audio file, an option is wrong
    |  `- ScenarioError    (2)   every mistake of one scenario file, with its place
    |- AssetError          (2)   a corpus file or weights are missing, damaged or not licensed
    |- MachineCannot       (3)   no lab can run here (no Docker, no namespaces, no rights)
    |- Unsupported               a cell asks what this engine, codec or library cannot do
    |- CellFailed                a cell broke while it ran: crash, time-out, dead container
    `- ReadBackMismatch          the kernel has another qdisc than the one asked for

Exit codes of the command line: 0 all well, 1 some cells failed or were invalid, 2 bad input,
3 this machine cannot, 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

EXIT_OK = 0
EXIT_CELLS = 1
EXIT_BAD_INPUT = 2
EXIT_MACHINE = 3
EXIT_INTERRUPTED = 130


Blame = Literal["machine", "asked"]
"""Why a cell is not ``ok``: the machine disturbed it, so that another try may end well, or what was
asked of it cannot be had here."""


class HarnessError(Exception):
    """Something went wrong that the message explains; ``exit_code`` is the process's, ``blame``
    that of a cell which ends with it."""

    exit_code = EXIT_CELLS
    blame: Blame = "machine"


class BadInput(HarnessError):
    """What the user wrote cannot be used."""

    exit_code = EXIT_BAD_INPUT
    blame = "asked"


class ScenarioError(BadInput):
    """All mistakes of one scenario file; ``str()`` gives one per line."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class AssetError(BadInput):
    """A file that the run needs is missing, damaged, or its licence is not accepted."""


class MachineCannot(HarnessError):
    """This machine lacks something that the run needs; the message names the remedy."""

    exit_code = EXIT_MACHINE


class Unsupported(HarnessError):
    """A cell asks for something that the chosen engine, codec or library cannot do."""

    blame = "asked"


class CellFailed(HarnessError):
    """A cell broke while it ran."""


class ReadBackMismatch(CellFailed):
    """The kernel's qdisc differs from the one that was asked for."""

    blame = "asked"


@contextmanager
def blamed_on(culprit: str) -> Iterator[None]:
    """Failures inside are the culprit's: its name stands before the message."""
    try:
        yield
    except HarnessError as error:
        raise type(error)(f"{culprit}: {error}") from error
    except Exception as error:
        raise CellFailed(f"{culprit}: {type(error).__name__}: {error}") from error

"""Files that are whole or not there, and what a disk says that does not take them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from harness.errors import BadInput, CellFailed


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """What goes wrong inside, as CellFailed with the remedy."""
    try:
        yield
    except OSError as error:
        raise CellFailed(
            f"{path}: cannot be written ({error.strerror or error}); make room there or use"
            " another --out, then go on with: harness run FILE --resume DIR (finished cells are"
            " kept)"
        ) from error


@contextmanager
def placed(directory: Path, path: Path, durable: bool = False) -> Iterator[BinaryIO]:
    """A file to fill: ``path``, in a run's ``directory``, is what it holds when the block ends, or
    stays as it was. Raises CellFailed where the disk does not take it or the directory is gone."""
    scratch = directory / "parts" / "tmp"
    temporary = scratch / f"{os.getpid()}-{threading.get_ident()}-{path.name}"
    try:
        # Never the directory itself: one that somebody removed is not begun anew.
        for folder in (scratch.parent, scratch, path.parent):
            folder.mkdir(exist_ok=True)
        try:
            with temporary.open("w+b") as file:
                yield file
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        if not directory.is_dir():
            raise CellFailed(
                f"{directory}: was removed while the run went on; what it held is lost, start a new"
                " run"
            ) from error
        with disk_errors(path):
            raise


def new_directory(root: Path, stem: str) -> Path:
    """A new folder ``stem``, ``stem-2``, ... below ``root``, which is made if need be.

    Raises CellFailed where the disk does not take it.
    """
    with disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        for name in (stem, *(f"{stem}-{n}" for n in range(2, 1000))):
            try:
                (root / name).mkdir()
            except FileExistsError:
                continue
            return (root / name).resolve()
    raise BadInput(f"{root}: 999 runs named {stem}; use another --out")

"""One thread for numerical libraries: the number of threads decides how their sums are rounded.

OpenBLAS splits a product among its threads, and each split adds in another order. So a score would
depend on the number of cores, and on ``OPENBLAS_NUM_THREADS`` of whoever starts the harness.
Processes that the harness starts have one thread from their environment on
(:data:`ENVIRONMENT`); a library that is loaded already is limited by a call (:func:`one_thread`).
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
"""What a new process needs; libraries read it when they are loaded."""
_MAPS = Path("/proc/self/maps")
_PREFIXES = ("", "scipy_")
_SUFFIXES = ("", "64_")
"""Of OpenBLAS's symbols: as such, and in the wheels of NumPy and SciPy."""
_LOCK = threading.RLock()


@dataclass(frozen=True)
class ThreadPool:
    """The threads of one loaded library: ``count()`` of them, changed by ``limit(n)``."""

    count: Callable[[], int]
    limit: Callable[[int], None]


@contextmanager
def new_processes_with_one_thread() -> Iterator[None]:
    """Start processes inside with one thread per library; the environment is restored."""
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute inside with one thread in every OpenBLAS that this process has loaded.

    The counts are restored. One Python thread at a time is inside, since they are the process's.
    """
    with _LOCK, ExitStack() as stack:
        for pool in blas_threads():
            stack.callback(pool.limit, pool.count())
            pool.limit(1)
        yield


def blas_threads() -> list[ThreadPool]:
    """Of every OpenBLAS that this process has loaded: NumPy's and SciPy's, as a rule."""
    try:
        lines = _MAPS.read_text().splitlines()
    except OSError:
        return []  # not Linux
    paths = {line[line.index("/") :] for line in lines if "openblas" in line and "/" in line}
    return [pool for path in sorted(paths) if (pool := _pool(path)) is not None]


@lru_cache
def _pool(path: str) -> ThreadPool | None:
    try:
        library = ctypes.CDLL(path)
    except OSError:
        return None  # a data file of that name, or a library that was replaced while it is in use
    for prefix in _PREFIXES:
        for suffix in _SUFFIXES:
            name = f"{prefix}openblas_{{}}_num_threads{suffix}"
            try:
                count, limit = library[name.format("get")], library[name.format("set")]
            except AttributeError:
                continue
            count.restype, limit.restype, limit.argtypes = ctypes.c_int, None, [ctypes.c_int]
            return ThreadPool(count, limit)
    return None

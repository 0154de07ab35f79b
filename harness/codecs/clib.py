"""Codecs in C libraries, bound by ctypes: where the library is looked for, and its signatures.

A library is tried in this order: the file named in ``HARNESS_LIB<NAME>`` (that one only, where it
is set), the one that a Python wheel brings, the system's by its sonames.
"""

from __future__ import annotations

import _ctypes
import ctypes
import hashlib
import importlib.metadata
import os
import re
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.errors import Unsupported

Signature = tuple[str, Any, tuple[Any, ...]]
"""Name, result and arguments of a function: ctypes types, None for ``void``."""

PCM = ctypes.c_void_p
"""``short *``: the address of an int16 array, ``array.ctypes.data``."""
STATE = ctypes.c_void_p


@dataclass(frozen=True)
class Wanted:
    """A library that a codec needs."""

    name: str
    """Without ``lib``: ``speex``."""
    sonames: tuple[str, ...]
    """The ABIs that ``functions`` hold for, the best first."""
    remedy: str
    """The command that installs it."""
    functions: tuple[Signature, ...]
    wheel: str = ""
    """Distribution on PyPI whose wheel carries the library; empty where there is none."""

    @property
    def environment(self) -> str:
        """Such as ``HARNESS_LIBSPEEX``."""
        return f"HARNESS_LIB{self.name.upper().replace('-', '_')}"


@dataclass(frozen=True)
class Library:
    c: ctypes.CDLL
    path: Path
    name: str
    """What it is, for the provenance: ``liblc3 of lc3py 1.1.3``, or its file name and the beginning
    of its sha256 (few of these libraries can tell their version)."""


def load(wanted: Wanted) -> Library:
    """The library with its signatures declared; the same object in every call.

    Raises Unsupported, with the remedy, where none can be loaded or the one found lacks a function.
    """
    return _load(wanted, os.environ.get(wanted.environment))


@lru_cache
def _load(wanted: Wanted, chosen: str | None) -> Library:
    wheel = {} if chosen else _in_wheel(wanted)
    candidates = [chosen] if chosen else [*wheel, *wanted.sonames]
    failures = []
    for candidate in candidates:
        try:
            c = declare(ctypes.CDLL(candidate), wanted.functions)
        except (OSError, AttributeError) as error:
            failures.append(f"{candidate}: {error}")
            continue
        path = _file_of(c)
        return Library(c, path, wheel.get(candidate) or _identity(path))
    raise Unsupported(
        f"no lib{wanted.name} ({'; '.join(failures)}); run `{wanted.remedy}`, or name the library"
        f" in {wanted.environment}"
    )


def declare(c: ctypes.CDLL, functions: tuple[Signature, ...]) -> ctypes.CDLL:
    """Set the signatures; raises AttributeError if the library has not all of them."""
    for name, returns, arguments in functions:
        function = getattr(c, name)
        function.restype, function.argtypes = returns, arguments
    return c


def _in_wheel(wanted: Wanted) -> dict[str, str]:
    """Path in the installed wheel -> name and version."""
    try:
        wheel = importlib.metadata.distribution(wanted.wheel) if wanted.wheel else None
    except importlib.metadata.PackageNotFoundError:
        wheel = None
    if wheel is None:
        return {}
    return {
        str(wheel.locate_file(file)): f"lib{wanted.name} of {wanted.wheel} {wheel.version}"
        for file in wheel.files or ()
        if re.fullmatch(rf"lib{re.escape(wanted.name)}(-[0-9a-f]+)?\.so[.0-9]*", file.name)
    }


def _identity(path: Path) -> str:
    return f"{path.name} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"


class _LinkMap(ctypes.Structure):
    """The beginning of ``struct link_map`` (``link.h``)."""

    _fields_ = (("l_addr", ctypes.c_void_p), ("l_name", ctypes.c_char_p))


def _file_of(c: ctypes.CDLL) -> Path:
    """The file that the dynamic linker found, links resolved."""
    own = ctypes.CDLL(None)
    found = ctypes.POINTER(_LinkMap)()
    link_map_request = 2  # RTLD_DI_LINKMAP
    own.dlinfo.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
    own.dlinfo(c._handle, link_map_request, ctypes.byref(found))
    return Path(os.fsdecode(found.contents.l_name)).resolve()


def own(
    owner: object, create: Callable[..., Any], destroy: Callable[[Any], object], *arguments: object
) -> int:
    """A state that the library makes, destroyed with its ``owner``.

    Raises Unsupported where the library makes none.
    """
    state: int | None = create(*arguments)
    if not state:
        raise Unsupported(f"{create.__name__}{arguments}: expected a state, got NULL")
    weakref.finalize(owner, destroy, state)
    return state


def load_privately(owner: object, wanted: Wanted) -> ctypes.CDLL:
    """A second copy of the library whose global variables are ``owner``'s alone.

    For libraries that keep in a global what belongs to a stream (a random generator, say). The
    dynamic linker tells files apart by inode, so the copy is a file in memory; it is unloaded when
    ``owner`` goes. Raises Unsupported as ``load`` does.
    """
    file = os.memfd_create(f"lib{wanted.name}")
    weakref.finalize(owner, os.close, file)
    with os.fdopen(os.dup(file), "wb") as copy:
        copy.write(load(wanted).path.read_bytes())
    # The linker also knows files by name, so the descriptor stays open, and its number taken, until
    # the library is unloaded: finalizers run in the reverse order of their making.
    c = declare(ctypes.CDLL(f"/proc/self/fd/{file}"), wanted.functions)
    weakref.finalize(owner, _ctypes.dlclose, c._handle)
    return c

"""One text per value, for hashing: the same for equal values, on every machine and Python."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, is_dataclass
from pathlib import PurePath

from pydantic import BaseModel

from harness.network.link import Recording


def canonical(value: object) -> str:
    """JSON with sorted keys, quantities in base units (ns, bit/s, bytes, Hz), defaults included."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)


def digest(value: object) -> str:
    """sha256 of the canonical text, in hex."""
    return hashlib.sha256(canonical(value).encode("ascii")).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, Recording):
        # Half a million entries follow from the file; how it was read stands beside the link.
        return {key: getattr(value, key) for key in ("format", "sha256", "duration_ns")}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, PurePath):
        return value.as_posix()
    raise TypeError(f"{type(value).__name__} has no canonical form")

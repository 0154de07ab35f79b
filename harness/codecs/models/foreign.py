"""A tokeniser that runs in a process of its own: the user's checkout, under the user's Python.

Some models are on no package index and want libraries of other versions than ours. The user names a
checkout, weights and, where it is not this one, a Python that can import the checkout; nothing of
it is imported here. ``worker.py`` is the other end: requests and answers over its standard input
and output, one at a time, each a line of JSON (``op``, ``shape``, ``dtype``) and then the bytes of
an array.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from harness.codecs.chunked import Samples
from harness.codecs.models import worker
from harness.codecs.models.bits import Codes
from harness.errors import AssetError, Unsupported


@dataclass(frozen=True)
class Place:
    """The environment variables that say where a user's model is."""

    model: str
    """``worker.MODELS`` knows how to drive it."""
    checkout: str
    weights: str
    python: str
    remedy: str
    """Commands after which the variables can be set."""

    def find(self, environ: Mapping[str, str] = os.environ) -> tuple[str, str, str]:
        """Python, checkout and weights. Raises Unsupported for what is not set or not there."""
        found = []
        for variable in (self.checkout, self.weights):
            path = environ.get(variable)
            if not path:
                raise Unsupported(f"expected {variable} to be set, it is not: {self.remedy}")
            if not Path(path).exists():
                raise Unsupported(f"{variable}: there is no {path}: {self.remedy}")
            found.append(str(Path(path).resolve()))
        return environ.get(self.python) or sys.executable, found[0], found[1]


class ForeignTokeniser:
    """``library`` names what the process loaded, with the sha256 of the weights."""

    def __init__(self, model: str, python: str, checkout: str, weights: str) -> None:
        command = [python, worker.__file__, model, checkout, weights]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=-1
            )
        except OSError as error:
            raise Unsupported(f"cannot start {python}: {error}") from error
        weakref.finalize(self, _end, self._process)
        hello = self._answer()
        self.library = str(hello["library"])

    def encode(self, samples: Samples, codebooks: int) -> Codes:
        return self._call("encode", samples.astype("<f4"), codebooks=codebooks).astype(np.int64)

    def decode(self, codes: Codes) -> Samples:
        return self._call("decode", codes.astype("<i8")).astype(np.float32)

    def _call(self, op: str, array: NDArray[Any], **more: int) -> NDArray[Any]:
        assert self._process.stdin is not None
        try:
            worker.send(self._process.stdin, {"op": op, **more}, array)
        except OSError as error:
            raise Unsupported(f"{self._process.args!r} has ended: {error}") from error
        result: NDArray[Any] = self._answer()["array"]
        return result

    def _answer(self) -> dict[str, Any]:
        stdout: IO[bytes] | None = self._process.stdout
        assert stdout is not None
        try:
            answer = worker.receive(stdout)
        except (EOFError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise Unsupported(
                f"{self._process.args!r} gave no answer; what it wrote to its standard error says"
                f" why ({error})"
            ) from error
        if answer.get("failed") == "weights":
            raise AssetError(answer["reason"])
        if "failed" in answer:
            raise Unsupported(answer["reason"])
        return answer


@lru_cache(maxsize=2)
def tokeniser(model: str, python: str, checkout: str, weights: str) -> ForeignTokeniser:
    """One process for all streams of a model."""
    return ForeignTokeniser(model, python, checkout, weights)


def _end(process: subprocess.Popen[bytes]) -> None:
    """It ends by itself at the end of its input."""
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()
    process.wait()

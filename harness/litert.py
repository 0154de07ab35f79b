"""Networks in TFLite's format, run by LiteRT (the package ai-edge-litert) on one thread.

A streaming network keeps its past in variables of its interpreter. Every stream and every end of it
therefore starts an interpreter of its own, from the same bytes.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.errors import AssetError, Unsupported

REMEDY = "pip install ai-edge-litert"
Shapes = Mapping[str, tuple[int, ...]]
"""Of a signature's inputs, by name."""


class Run(Protocol):
    """One signature of a network, with its state: arrays in, arrays out, both by name."""

    def __call__(self, **inputs: NDArray[Any] | np.generic) -> dict[str, NDArray[Any]]: ...


class Network:
    """A verified network in memory, of which any number of instances can be started."""

    def __init__(self, name: str, path: Path, signatures: Mapping[str, Shapes]) -> None:
        """Read the file; ``signatures`` is what it must take.

        Raises Unsupported where LiteRT is missing, AssetError for a file that is no TFLite model
        or one of another shape.
        """
        self._name = name
        try:
            self._content = path.read_bytes()
            interpreter = self._interpreter()
        except (OSError, ValueError) as error:
            raise AssetError(
                f"{name}: expected a TFLite model in {path}, got {error}; remove the file and fetch"
                f" it anew: harness assets fetch {name} --accept-licence"
            ) from error
        found = {
            key: {
                argument: tuple(int(size) for size in details["shape"])
                for argument, details in interpreter.get_signature_runner(key)
                .get_input_details()
                .items()
            }
            for key in interpreter.get_signature_list()
        }
        wanted = {key: dict(shapes) for key, shapes in signatures.items()}
        if found != wanted:
            raise AssetError(
                f"{name}: expected a network with the signatures {wanted}, got {found} in {path}"
            )

    def start(self, signature: str = "serving_default") -> Run:
        """A fresh instance, its state as at the beginning of a stream."""
        run: Run = self._interpreter().get_signature_runner(signature)
        return run

    def _interpreter(self) -> Any:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise Unsupported(f"{self._name} needs LiteRT ({error}): {REMEDY}") from error
        interpreter = Interpreter(model_content=self._content, num_threads=1)
        interpreter.allocate_tensors()
        return interpreter


def version() -> str:
    """Name and version of the library. Raises Unsupported where it is missing."""
    try:
        return f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}"
    except importlib.metadata.PackageNotFoundError as error:
        raise Unsupported(f"LiteRT is not installed: {REMEDY}") from error

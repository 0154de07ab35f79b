"""Checkpoints into models: tensors only, nothing unpickled, every mismatch named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import AssetError


def read(file: Path) -> dict[str, Any]:
    """What a ``.safetensors`` file or a torch checkpoint holds.

    A torch checkpoint is read with ``weights_only=True``, which refuses whatever is no tensor or
    plain container. Raises AssetError, naming the file, if it is neither or is damaged.
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(file))
        import torch

        return dict(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # neither library names a common base of what damage raises
        raise AssetError(f"{file}: not a checkpoint that can be read: {error}") from error


def fill(model: Any, state: Mapping[str, Any], file: Path, what: str) -> None:
    """Load ``state`` into a torch module; all keys and shapes must be the module's.

    Raises AssetError with the file, ``what`` was expected, and the first keys that do not fit.
    """
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except Exception as error:  # a wrong shape, or a value that is no tensor
        raise AssetError(f"{file}: not a checkpoint of {what}: {error}") from error
    if missing or unexpected:
        raise AssetError(
            f"{file}: not a checkpoint of {what}: missing {_some(missing)},"
            f" unexpected {_some(unexpected)}"
        )


def _some(keys: Sequence[str]) -> str:
    shown = ", ".join(keys[:5]) or "none"
    return shown if len(keys) <= 5 else f"{shown} and {len(keys) - 5} more"

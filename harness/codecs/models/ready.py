"""What codecs of other packages need before a model of theirs can be made."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from harness.errors import AssetError, Unsupported


def weights_file(
    title: str,
    packages: Sequence[str],
    remedy: str,
    weights: Literal["real", "random"],
    asset: str,
    assets: Mapping[str, Path],
) -> Path | None:
    """The file of the codec called ``title``; None for random weights. Also sets torch, which is
    among its packages, to one thread for the whole process, as frames this small want it.

    Raises Unsupported, with ``remedy``, where a package is missing; AssetError where the asset is
    not there.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise Unsupported(f"{title} needs {', '.join(missing)}: {remedy}")
    if weights == "real" and asset not in assets:
        raise AssetError(f"{title} with real weights needs the asset {asset!r}; fetch it")
    import torch

    torch.set_num_threads(1)
    return assets[asset] if weights == "real" else None

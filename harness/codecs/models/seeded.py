"""Weights for tests and timing: random, from a fixed seed, and alive.

Freshly made models damp every signal to a constant, so that every frame would get the same codes.
These weights keep the level from layer to layer instead (He et al., "Delving deep into rectifiers",
2015: standard deviation sqrt(2 / fan-in) before rectifiers).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_BIAS = 0.02


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """torch draws from ``seed`` inside; its global generator is left as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def enliven(model: Any, gain: float = 1.4) -> None:
    """Redraw all convolutions of ``model`` with standard deviation ``gain / sqrt(fan-in)``."""
    import torch
    from torch import nn

    with torch.no_grad():
        for module in model.modules():
            if not isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
                continue
            inputs = module.in_channels * module.kernel_size[0] / module.groups
            if isinstance(module, nn.ConvTranspose1d):
                inputs /= module.stride[0]
            module.weight.normal_(std=gain * inputs**-0.5)
            if module.bias is not None:
                module.bias.normal_(std=_BIAS)

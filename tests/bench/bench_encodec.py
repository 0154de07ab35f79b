"""EnCodec's time per 13.3 ms frame: the harness's streaming layers against the package's model.

A stateless sender runs the package's model on each frame afresh: alone, which is cheapest and
gives wrong codes, or behind the seven frames that its convolutions reach back. Both without
weight normalisation, in one thread, at 6 kbit/s. The kinds take turns in blocks of frames: each
has its own weights in the cache, as in a process of its own, and all see the same busy machine.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from harness import codecs
from harness.codecs import encodec

BLOCKS = 5
FRAMES_PER_BLOCK = 25
CONTEXT = 7


def measure() -> dict[str, str]:
    """Medians over the frames, and ratios of medians."""
    codec = codecs.create("encodec", encodec.Params(weights="random", bitrate=6_000), {})
    model = encodec.offline_model(None)
    model.set_target_bandwidth(6.0)
    rng = np.random.default_rng(1)
    pcm = rng.normal(0, 2_000, (FRAMES_PER_BLOCK + CONTEXT, 320)).astype(np.int16)
    samples = torch.from_numpy(pcm.astype(np.float32) / 32768)

    def stateless(frames: int) -> tuple[Callable[[int], Any], Callable[[int], Any]]:
        chunks = [
            samples[last + 1 - frames : last + 1].reshape(1, 1, -1)
            for last in range(CONTEXT, len(samples))
        ]
        coded = [model.encode(chunk) for chunk in chunks]
        return lambda i: model.encode(chunks[i]), lambda i: model.decode(coded[i])

    encoder, decoder = codec.encoder(), codec.decoder()
    payloads = [codec.encoder().encode(frame) or b"" for frame in pcm[CONTEXT:]]
    with torch.inference_mode():
        kinds = {
            "stateful": (
                lambda i: encoder.encode(pcm[CONTEXT + i]),
                lambda i: decoder.decode(payloads[i]),
            ),
            "alone": stateless(1),
            "7 frames of context": stateless(1 + CONTEXT),
        }
        spent: dict[tuple[str, str], list[float]] = {}
        for _ in range(BLOCKS):
            for kind, pair in kinds.items():
                for direction, code in zip(("encode", "decode"), pair, strict=True):
                    spent.setdefault((direction, kind), []).extend(_times_ms(code))

    median = {key: statistics.median(times) for key, times in spent.items()}
    figures = {f"{way}, {kind} (median)": f"{ms:.2f} ms" for (way, kind), ms in median.items()}
    for (way, kind), ms in median.items():
        if kind != "stateful":
            ratio = ms / median[way, "stateful"]
            figures[f"{way}: {kind} / stateful (aim >= 3)"] = f"{ratio:.1f}"
    return figures


def _times_ms(code: Callable[[int], Any]) -> list[float]:
    times = []
    for frame in range(FRAMES_PER_BLOCK):
        start = time.perf_counter()
        code(frame)
        times.append(1e3 * (time.perf_counter() - start))
    return times

"""Xiph's own ``opus_demo``, compiled from the source of the libopus that the harness loads.

It is linked with that very library, so whatever differs is a difference of the callers.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import harness
from harness.assets import AssetStore
from harness.assets.manifest import Asset
from harness.assets.store import Unreachable
from harness.codecs import opus
from harness.codecs.base import Pcm
from harness.labs import libopus

_CACHE = Path(harness.__file__).parents[1] / ".cache" / "opus-demo"
_SOURCE = f"opus-{libopus.VERSION}"
_COMPILE = ("gcc", "-O2", "-w", "-DENABLE_DRED", "-Iinclude", "-Icelt", "-Isilk", "-Idnn")


@dataclass(frozen=True)
class OpusDemo:
    program: Path

    def encode(self, pcm: Pcm, params: opus.Params) -> list[bytes]:
        """The payloads of ``pcm``, which is a whole number of frames."""
        options = [
            "-e",
            {"voip": "voip", "audio": "audio", "lowdelay": "restricted-lowdelay"}[
                params.application
            ],
            str(params.rate),
            "1",
            str(params.bitrate),
            *("-framesize", f"{params.frame / 1_000_000:g}"),
            *("-complexity", str(params.complexity)),
            *("-loss", str(round(100 * params.expected_loss))),
            *("-dred", str(params.dred // 10_000_000)),
        ]
        if params.fec:
            options.append("-inbandfec")
        if not params.vbr:
            options.append("-cbr")
        elif params.vbr_constraint:
            options.append("-cvbr")
        packets = _packets(self._run(options, pcm.tobytes()))
        # It reads until nothing comes, and codes a frame of silence then.
        assert len(packets) == len(pcm) * 1_000_000_000 // (params.rate * params.frame) + 1
        return packets[:-1]

    def decode(
        self, payloads: Sequence[bytes], lost: set[int], params: opus.Params, complexity: int
    ) -> Pcm:
        """What is heard of the packets that are not ``lost``; a gap at the end is left out."""
        pattern = [int(index in lost) for index in range(len(payloads))]
        options = ["-d", str(params.rate), "1", "-dec_complexity", str(complexity)]
        # No final range (0) is told, so that none is compared.
        coded = b"".join(
            len(payload).to_bytes(4, "big") + bytes(4) + payload for payload in payloads
        )
        return np.frombuffer(self._run(options, coded, pattern), np.int16)

    def _run(self, options: list[str], data: bytes, lost: Sequence[int] = ()) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            read, written, losses = (Path(folder) / name for name in ("in", "out", "lost"))
            read.write_bytes(data)
            losses.write_text("\n".join(map(str, lost)))
            command = [str(self.program), *options]
            if lost:
                command += ["-lossfile", str(losses)]
            subprocess.run(
                [*command, str(read), str(written)],
                cwd=folder,
                check=True,
                capture_output=True,
            )
            return written.read_bytes()


def _packets(file: bytes) -> list[bytes]:
    """Of a file that ``opus_demo -e`` writes: length, final range, payload."""
    packets, at = [], 0
    while at < len(file):
        size = int.from_bytes(file[at : at + 4], "big")
        packets.append(file[at + 8 : at + 8 + size])
        at += 8 + size
    return packets


@functools.cache
def opus_demo() -> OpusDemo:
    """Compiled once per library and source; skips, with the reason, where it cannot be."""
    lib = opus.library()
    if lib.name != f"libopus {libopus.VERSION}" or not opus.has_dred(lib):
        pytest.skip(f"{lib.path} is {lib.name}, not the libopus that `make libopus` builds")
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed: apt-get install gcc libc6-dev")
    made_of = (libopus.SHA256, *_COMPILE, str(lib.path), Path(lib.path).read_bytes())
    folder = _CACHE / hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]
    program = folder / "opus_demo"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            with tarfile.open(_fetched_source()) as packed:
                packed.extractall(scratch, filter="data")
            compile_ = [
                *_COMPILE,
                *("src/opus_demo.c", "-o", "opus_demo", str(lib.path), "-lm"),
                f"-Wl,-rpath,{Path(lib.path).parent}",
            ]
            source = Path(scratch) / _SOURCE
            subprocess.run(compile_, cwd=source, check=True, capture_output=True)
            (source / "opus_demo").replace(program)
    return OpusDemo(program)


def _fetched_source() -> Path:
    reasons = []
    for url in libopus.URLS:
        try:
            return AssetStore.default().fetch(Asset(_SOURCE, url, libopus.SHA256, 0))
        except Unreachable as error:
            reasons.append(str(error))
    pytest.skip("; ".join(reasons))

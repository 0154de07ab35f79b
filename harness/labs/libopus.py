"""libopus 1.5.2 with DRED and deep PLC, built from Debian's source package.

    python3 harness/labs/libopus.py FOLDER [TARBALL]

puts ``libopus.so.0`` and ``libopus.json`` (what it was made of) into FOLDER; half a minute with gcc
and make. Run by ``make libopus`` on the host, by a stage of the image inside it, hence with nothing
but the standard library. No distribution's binary has DRED; the neural networks' weights are part
of the source package.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from http.client import HTTPException
from pathlib import Path

VERSION = "1.5.2"
SHA256 = "65c1d2f78b9f2fb20082c38cbe47c951ad5839345876e46941612ee87f9a7ce1"
"""Of the tarball, as Debian's opus_1.5.2-2.dsc states it; upstream's own release is the same."""
URLS = (
    f"http://deb.debian.org/debian/pool/main/o/opus/opus_{VERSION}.orig.tar.gz",
    f"https://downloads.xiph.org/releases/opus/opus-{VERSION}.tar.gz",
)
CONFIGURE = (
    "--enable-dred",
    "--enable-deep-plc",
    "--enable-osce",
    "--disable-static",
    "--disable-doc",
    "--disable-extra-programs",
    "CFLAGS=-O2",
)
FACTS = {"library": "libopus", "version": VERSION, "sha256": SHA256, "configure": CONFIGURE}
DESCRIPTION = f"libopus {VERSION} {' '.join(CONFIGURE[:3])} (source sha256 {SHA256[:16]})"
_TIMEOUT_S = 60


def build(folder: Path, tarball: Path | None = None) -> Path:
    """The library, built anew into ``folder``; exits with the reason where that fails."""
    for tool in ("gcc", "make"):
        if shutil.which(tool) is None:
            raise _failure(f"{tool} is not installed (apt-get install gcc libc6-dev make)")
    data = _download() if tarball is None else tarball.read_bytes()
    if (got := hashlib.sha256(data).hexdigest()) != SHA256:
        raise _failure(f"expected a source with sha256 {SHA256}, got {got} ({len(data)} bytes)")
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="libopus-", dir=folder) as scratch:
        packed = Path(scratch) / "source.tar.gz"
        packed.write_bytes(data)
        _run(["tar", "-xf", str(packed)], Path(scratch))
        source = Path(scratch) / f"opus-{VERSION}"
        _run(["./configure", *CONFIGURE], source)
        _run(["make", f"-j{os.cpu_count() or 1}"], source)
        made = source / ".libs" / "libopus.so.0"
        stripped = source / "stripped.so"
        _run(["strip", "--strip-unneeded", "-o", str(stripped), str(made.resolve())], source)
        (folder / "libopus.json").write_text(json.dumps(FACTS, indent=2) + "\n", encoding="utf-8")
        # Last, whole or not at all: its presence says that the build went through.
        return stripped.replace(folder / "libopus.so.0")


def _download() -> bytes:
    reasons = []
    for url in URLS:
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
                data: bytes = answer.read()
        except (OSError, HTTPException) as error:
            reasons.append(f"{url}: {error}")
            continue
        if hashlib.sha256(data).hexdigest() == SHA256:
            return data
        reasons.append(f"{url}: {len(data)} bytes with another sha256")
    raise _failure(
        f"its source cannot be downloaded ({'; '.join(reasons)}); give the tarball by name"
    )


def _run(command: list[str], cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-5:]
        raise _failure(f"{command[0]} failed: {' | '.join(said)}")


def _failure(reason: str) -> SystemExit:
    return SystemExit(f"libopus {VERSION} cannot be built: {reason}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python3 libopus.py FOLDER [TARBALL]")
    build(*map(Path, sys.argv[1:]))

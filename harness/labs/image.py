"""The container image: built when its inputs change, found again when they have not.

The base is a digest-pinned official Python image where a registry answers, else one made by
debootstrap; the image carries labels that say which. Packages come from a wheelhouse filled by the
host's pip (with its proxy and certificates), so the build itself needs no network.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests.exceptions

from harness.errors import MachineCannot
from harness.labs.base import PROJECT

ROOT = Path(__file__).resolve().parents[2]
OFFICIAL = "python@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b"
"""python:3.11-slim-bookworm, pinned."""
DEBIAN = "bookworm"
BASE_HOW = f"{PROJECT}.base"
_PULL_TIMEOUT_S = 60


@dataclass(frozen=True)
class ImageFacts:
    """What the run's provenance says of the image."""

    id: str
    tag: str
    base: str
    """How the base was made: ``REPOSITORY@DIGEST`` or ``debootstrap bookworm``."""

    def as_dict(self) -> dict[str, str]:
        return {f"image_{name}": value for name, value in asdict(self).items()}


def ensure_image(client: docker.DockerClient, progress: Callable[[str], None]) -> ImageFacts:
    """The image for these sources, built if need be. Raises MachineCannot with the remedy."""
    tag = f"{PROJECT}:{_inputs_digest()[:16]}"
    try:
        image = client.images.get(tag)
    except docker.errors.ImageNotFound:
        base, how = _base(client, progress)
        progress("image: building (some minutes the first time)")
        image = _build(client, tag, base, how)
    return ImageFacts(image.id, tag, image.labels.get(BASE_HOW, "unknown"))


def _inputs_digest() -> str:
    digest = hashlib.sha256()
    for path in _sources():
        digest.update(f"{path.relative_to(ROOT)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _sources() -> Iterator[Path]:
    for name in ("images/Dockerfile", "images/requirements.txt", "requirements.lock"):
        yield ROOT / name
    for path in sorted((ROOT / "harness").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def _base(client: docker.DockerClient, progress: Callable[[str], None]) -> tuple[str, str]:
    """Image reference of the base and how it was made."""
    progress(f"image: asking for {OFFICIAL}")
    impatient = docker.from_env(timeout=_PULL_TIMEOUT_S)
    try:
        impatient.images.pull(OFFICIAL)
        return OFFICIAL, OFFICIAL
    except (docker.errors.APIError, requests.exceptions.RequestException) as error:
        progress(f"image: no registry answers ({_first_line(error)}); making the base here")
    finally:
        impatient.close()
    tag = f"{PROJECT}-base:{DEBIAN}"
    try:
        client.images.get(tag)
    except docker.errors.ImageNotFound:
        _debootstrap(client, tag, progress)
    return tag, f"debootstrap {DEBIAN}"


def _debootstrap(client: docker.DockerClient, tag: str, progress: Callable[[str], None]) -> None:
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        raise MachineCannot(
            "no image registry answers, and the base cannot be made here: that takes root and"
            " debootstrap (Debian: apt-get install debootstrap); or use --lab netns"
        )
    progress("image: debootstrap (about a minute)")
    with tempfile.TemporaryDirectory(prefix=f"{PROJECT}-base-") as folder:
        root = Path(folder) / "root"
        made = subprocess.run(
            ["debootstrap", "--variant=minbase", "--include=python3", DEBIAN, str(root)],
            capture_output=True,
            text=True,
        )
        if made.returncode != 0:
            raise MachineCannot(f"debootstrap failed: {made.stdout.strip()[-500:]}")
        for waste in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"):
            shutil.rmtree(root / waste, ignore_errors=True)
        archive = Path(folder) / "base.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(root, arcname=".", filter=lambda entry: None if entry.isdev() else entry)
        repository, _, version = tag.partition(":")
        client.api.import_image_from_file(str(archive), repository=repository, tag=version)


def _build(client: docker.DockerClient, tag: str, base: str, how: str) -> Any:
    wheels = _wheelhouse()
    with tempfile.TemporaryDirectory(prefix=f"{PROJECT}-image-") as folder:
        context = Path(folder) / "context.tar"
        with tarfile.open(context, "w") as tar:
            tar.add(ROOT / "images" / "Dockerfile", "Dockerfile")
            tar.add(ROOT / "harness", "harness", filter=_no_caches)
            for wheel in sorted(wheels.glob("*.whl")):
                tar.add(wheel, f"wheelhouse/{wheel.name}")
        with context.open("rb") as archive:
            try:
                image, _ = client.images.build(
                    fileobj=archive,
                    custom_context=True,
                    tag=tag,
                    buildargs={"BASE": base},
                    labels={PROJECT: "image", BASE_HOW: how},
                    rm=True,
                    forcerm=True,
                )
            except docker.errors.BuildError as error:
                log = "".join(str(line.get("stream", "")) for line in error.build_log)
                raise MachineCannot(f"the image does not build: {error}\n{log[-2000:]}") from error
    return image


def _no_caches(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in entry.name else entry


def _wheelhouse() -> Path:
    """A folder with wheels of the agents' packages, in the versions installed here."""
    roots = (ROOT / "images" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    names = [line for line in roots if line and not line.startswith("#")]
    wanted = [f"{name}=={version}" for name, version in sorted(_closure(names).items())]
    key = hashlib.sha256("\n".join(wanted).encode()).hexdigest()[:16]
    folder = ROOT / ".wheelhouse" / key
    if not folder.exists():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        _pip("wheel", "--no-deps", "--wheel-dir", str(part), *wanted)
        _pip("download", "--no-deps", "--dest", str(part), "pip")
        part.rename(folder)
    return folder


def _closure(names: Iterable[str]) -> dict[str, str]:
    """Installed versions of packages and of what they need; local version labels dropped."""
    from packaging.requirements import Requirement

    found: dict[str, str] = {}
    todo = list(names)
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in found:
            continue
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # encodec asks for torchaudio, which has no CPU build and is not needed
        found[name] = package.version.partition("+")[0]
        for line in package.requires or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                todo.append(needed.name)
    return found


def _pip(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "-qq", *arguments],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise MachineCannot(f"pip {arguments[0]} failed: {done.stderr.strip()[-1000:]}")


def _first_line(error: object) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]

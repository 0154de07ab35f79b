"""The container image of the docker lab, built where it is missing.

Four layers, each named by the hash of what it is made of, so that an unchanged one is found again
at once and a changed one is never mistaken for it:

* the base: the digest-pinned official Python image where a registry answers, else a Debian made
  by debootstrap here (which needs root);
* native codec libraries: those of Debian, and a libopus with DRED that a stage compiles. Where the
  engine's containers cannot reach Debian's archive the image does without, says so, and is tried
  again the next time;
* the packages that agents import, installed from a wheelhouse that pip fills on the host, so that
  the host's index, proxy and certificates are the ones that count;
* the harness itself.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests.exceptions
from docker.models.images import Image

import harness
from harness.errors import MachineCannot
from harness.labs import libopus
from harness.labs.base import PROJECT

ROOT = Path(harness.__file__).parents[1]
LABEL_BASE = f"{PROJECT}.base"
LABEL_BASE_HOW = f"{PROJECT}.base-how"
LABEL_NATIVE = f"{PROJECT}.native"
LABEL_PACKAGES = f"{PROJECT}.packages"
LABEL_STAGE = f"{PROJECT}.stage"
_IMAGES = ROOT / "images"
_WHEELHOUSE = ROOT / ".wheelhouse"
_REQUIREMENTS = (
    _IMAGES / "requirements.txt",
    ROOT / "requirements.lock",
    ROOT / "requirements.no-deps.lock",
)
_PYTHON = "3.11"
_COMPILED = "pesq"
"""Comes as source only. The host compiles it, which needs the image's own version of Python."""
_GLIBC_MINORS = range(5, 37)  # Debian 12 has glibc 2.36
_SUITE = "bookworm"
_WITHOUT_NATIVE = "none: "
_REGISTRY_TIMEOUT_S = 20
_BUILD_TIMEOUT_S = 1800
_UNNEEDED = ("./var/cache/*", "./var/lib/apt/lists/*", "./usr/share/doc/*", "./usr/share/man/*",
             "./usr/share/locale/*", "./proc/*", "./sys/*", "./dev/*")  # fmt: skip

Progress = Callable[[str], None]


@dataclass(frozen=True)
class ImageFacts:
    """What a run records of its image."""

    id: str
    tag: str
    packages_id: str
    base: str
    """``name@digest`` where pulled, else the name of what debootstrap made."""
    base_how: str
    native: str
    """Which libopus was compiled, or why the native codec libraries are missing."""

    def as_dict(self) -> dict[str, Any]:
        return {f"image_{key}": value for key, value in asdict(self).items()}


def ensure_image(client: docker.DockerClient, progress: Progress) -> ImageFacts:
    """The image for the harness as it stands, built if need be.

    Raises MachineCannot, with the remedy, where it cannot be built here.
    """
    if not _IMAGES.is_dir():
        raise MachineCannot(
            f"the image is built from a checkout, and {_IMAGES} is not there; install the harness"
            " with pip install -e, or use --lab netns"
        )
    context = _sources()
    tag = f"{PROJECT}:{_digest(context, _packages_context(), _native_context())}"
    with _alone(), _engine_errors():
        image = _find(client, tag)
        if image is None:
            packages = _ensure_packages(client, progress)
            tag = _tag(tag, packages.labels[LABEL_NATIVE])
            image = _find(client, tag)
        if image is None:
            progress("building the image: the harness")
            labels = {LABEL_PACKAGES: packages.id}
            image = _build(client, tag, context, {"PACKAGES": packages.tags[0]}, labels)
    return ImageFacts(
        id=image.id,
        tag=tag,
        packages_id=image.labels[LABEL_PACKAGES],
        base=image.labels[LABEL_BASE],
        base_how=image.labels[LABEL_BASE_HOW],
        native=image.labels[LABEL_NATIVE],
    )


def _ensure_packages(client: docker.DockerClient, progress: Progress) -> Image:
    context = _packages_context()
    tag = f"{PROJECT}-packages:{_digest(context, _native_context())}"
    image = _find(client, tag)
    if image is None:
        base, labels = _ensure_native(client, progress)
        tag = _tag(tag, labels[LABEL_NATIVE])
        image = _find(client, tag)
    if image is None:
        wheelhouse = _ensure_wheelhouse(client, progress)
        progress("building the image: packages from the wheelhouse")
        context |= {
            str(path.relative_to(wheelhouse)): path for path in sorted(wheelhouse.rglob("*.whl"))
        }
        image = _build(client, tag, context, {"BASE": base}, labels)
        _prune(client)
    return image


def _ensure_native(client: docker.DockerClient, progress: Progress) -> tuple[str, dict[str, str]]:
    """The base with the native codec libraries; the bare base, and why, where that fails."""
    context = _native_context()
    tag = f"{PROJECT}-native:{_digest(context)}"
    if (image := _find(client, tag)) is not None:
        return tag, {key: image.labels[key] for key in (LABEL_BASE, LABEL_BASE_HOW, LABEL_NATIVE)}
    base, labels = _ensure_base(client, progress)
    progress(f"building the image: codec libraries, and {libopus.DESCRIPTION}")
    made = labels | {LABEL_NATIVE: libopus.DESCRIPTION}
    try:
        _build(client, tag, context, {"BASE": base}, made)
    except MachineCannot as error:
        reason = f"{_WITHOUT_NATIVE}{error}"
        progress(f"the image goes without native codec libraries: {error}")
        return base, labels | {LABEL_NATIVE: reason}
    finally:
        _prune(client)
    return tag, made


def _tag(tag: str, native: str) -> str:
    """An image without native libraries has a name of its own, not to be taken for a whole one."""
    return f"{tag}-without-native" if native.startswith(_WITHOUT_NATIVE) else tag


def _prune(client: docker.DockerClient) -> None:
    """What a first stage leaves is as large as the image, and no layer of it."""
    client.images.prune({"dangling": True, "label": LABEL_STAGE})


def _ensure_base(client: docker.DockerClient, progress: Progress) -> tuple[str, dict[str, str]]:
    dockerfile = (_IMAGES / "native.Dockerfile").read_text(encoding="utf-8")
    pinned = re.search(r"^ARG BASE=(\S+)$", dockerfile, re.MULTILINE)
    assert pinned is not None
    try:
        if _find(client, pinned[1]) is None:
            _ask_registry(pinned[1])
            progress(f"pulling {pinned[1]}")
            client.images.pull(pinned[1])
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        reason = str(getattr(error, "explanation", None) or error)
    else:
        return pinned[1], {LABEL_BASE: pinned[1], LABEL_BASE_HOW: "pulled by digest"}
    made = f"{PROJECT}-base:debootstrap-{_SUITE}"
    if _find(client, made) is None:
        progress(f"no registry answers ({reason}); making a Debian base by debootstrap")
        _debootstrap(client, made)
    how = f"debootstrap, because no registry answered ({reason})"
    return made, {LABEL_BASE: f"Debian {_SUITE} {_find_id(client, made)}", LABEL_BASE_HOW: how}


def _ask_registry(name: str) -> None:
    """Fails soon where a pull would fail after minutes."""
    client = docker.from_env(timeout=_REGISTRY_TIMEOUT_S)
    try:
        client.api.inspect_distribution(name)
    finally:
        client.close()


def _debootstrap(client: docker.DockerClient, tag: str) -> None:
    program = shutil.which("debootstrap", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None or os.geteuid() != 0:
        raise MachineCannot(
            "no image registry answers, and a base image can be made here only by root with"
            " debootstrap (apt-get install debootstrap); build the image once as root, or"
            " use --lab netns"
        )
    repository, _, version = tag.partition(":")
    with tempfile.TemporaryDirectory(prefix=f"{PROJECT}-base-") as scratch:
        tree, archive = Path(scratch) / "root", Path(scratch) / "root.tar"
        _run([program, "--variant=minbase", "--include=python3", _SUITE, str(tree)])
        excluded = [f"--exclude={pattern}" for pattern in _UNNEEDED]
        _run(["tar", "-C", str(tree), "--numeric-owner", *excluded, "-cf", str(archive), "."])
        with archive.open("rb") as file:
            client.api.import_image_from_file(file, repository=repository, tag=version)


def _ensure_wheelhouse(client: docker.DockerClient, progress: Progress) -> Path:
    """Wheels for the image's Python and machine, whatever the host's are; with a pip to match."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(
        client.version()["Arch"], platform.machine()
    )
    wanted = {path.name: path.read_bytes() for path in _REQUIREMENTS}
    folder = _WHEELHOUSE / f"{_digest(wanted)}-{machine}"
    if folder.is_dir():
        return folder
    progress("filling the wheelhouse of the image")
    target = ["--python-version", _PYTHON, "--implementation", "cp", "--only-binary=:all:"]
    for minor in _GLIBC_MINORS:
        target += ["--platform", f"manylinux_2_{minor}_{machine}"]
    target += ["--platform", f"manylinux2014_{machine}"]
    pip = [sys.executable, "-m", "pip"]
    for old in _WHEELHOUSE.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
    with tempfile.TemporaryDirectory(dir=_WHEELHOUSE) as scratch:
        new = Path(scratch) / "new"
        wheels = str(new / "wheels")
        imported, locked, without_deps = map(str, _REQUIREMENTS)
        _run([*pip, "download", "-qq", *target, "-d", wheels, "-r", imported])
        _run([*pip, "wheel", "-qq", "--no-deps", "-w", wheels, "-r", without_deps])
        if sys.version_info[:2] == tuple(map(int, _PYTHON.split("."))):
            _run([*pip, "wheel", "-qq", "--no-deps", "-w", wheels, "-c", locked, _COMPILED])
        else:
            progress(
                f"the image will stream but not score: {_COMPILED} can be compiled for its Python"
                f" {_PYTHON} by a host with that version only"
            )
        _run([*pip, "download", "-qq", "--no-deps", "-d", str(new / "pip"), "pip"])
        new.rename(folder)
    return folder


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-5:]
        raise MachineCannot(f"{' '.join(command[:4])} ... failed: {' | '.join(said)}")


def _sources() -> dict[str, bytes | Path]:
    """The build context of the upper image; read once, so that hash and content agree."""
    package = ROOT / "harness"
    files = (path for path in sorted(package.rglob("*")) if path.is_file())
    kept = (path for path in files if "__pycache__" not in path.parts)
    context: dict[str, bytes | Path] = {
        str(path.relative_to(ROOT)): path.read_bytes() for path in kept
    }
    return context | {"Dockerfile": (_IMAGES / "Dockerfile").read_bytes()}


def _packages_context() -> dict[str, bytes | Path]:
    context: dict[str, bytes | Path] = {path.name: path.read_bytes() for path in _REQUIREMENTS}
    return context | {"Dockerfile": (_IMAGES / "packages.Dockerfile").read_bytes()}


def _native_context() -> dict[str, bytes | Path]:
    return {
        "libopus.py": Path(libopus.__file__).read_bytes(),
        "Dockerfile": (_IMAGES / "native.Dockerfile").read_bytes(),
    }


def _digest(*contexts: Mapping[str, bytes | Path]) -> str:
    sha = hashlib.sha256()
    for context in contexts:
        for name, content in sorted(context.items()):
            assert isinstance(content, bytes)
            sha.update(f"{name}\0{len(content)}\0".encode() + content)
    return sha.hexdigest()[:16]


def _find(client: docker.DockerClient, tag: str) -> Image | None:
    try:
        return client.images.get(tag)
    except docker.errors.ImageNotFound:
        return None


def _find_id(client: docker.DockerClient, tag: str) -> str:
    return str(client.images.get(tag).id)


def _build(
    client: docker.DockerClient,
    tag: str,
    context: Mapping[str, bytes | Path],
    arguments: dict[str, str],
    labels: dict[str, str],
) -> Image:
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            for name, content in context.items():
                if isinstance(content, Path):
                    archive.add(content, name)
                else:
                    entry = tarfile.TarInfo(name)
                    entry.size, entry.mode = len(content), 0o644
                    archive.addfile(entry, io.BytesIO(content))
        file.seek(0)
        try:
            image, _ = client.images.build(
                fileobj=file,
                custom_context=True,
                tag=tag,
                buildargs=arguments,
                labels=labels,
                rm=True,
                forcerm=True,
                timeout=_BUILD_TIMEOUT_S,
            )
        except docker.errors.BuildError as error:
            log = "".join(line.get("stream", "") for line in error.build_log).strip()
            said = " | ".join(log.splitlines()[-5:])
            raise MachineCannot(f"the image {tag} does not build: {error}: {said}") from error
    return image


@contextmanager
def _alone() -> Iterator[None]:
    """One build at a time in a checkout; the others then find its result."""
    _WHEELHOUSE.mkdir(exist_ok=True)
    with (_WHEELHOUSE / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def _engine_errors() -> Iterator[None]:
    try:
        yield
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        raise MachineCannot(f"Docker failed while the image was made: {error}") from error


def main() -> None:
    """Build the image if need be; its facts as JSON."""
    from harness.labs.docker import connect

    client = connect()
    try:
        facts = ensure_image(client, lambda text: print(text, file=sys.stderr))  # noqa: T201
    finally:
        client.close()
    json.dump(facts.as_dict(), sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()

"""Files by sha256: from the cache, else from a mirror folder, else from their URL.

Nothing is ever handed out whose bytes were not hashed. A download goes to a file of its own and
gets its name only when complete and correct, so a cut-off one is never used; a damaged cache entry
is noticed and fetched again. Where only the beginning of a hash is known, the whole hash of what
came first is kept beside the file (``.sha256``), and nothing else is taken for it afterwards.

Environment: ``HARNESS_CACHE`` (default ``$XDG_CACHE_HOME/codec-network-harness``, below
``~/.cache``); ``HARNESS_MIRROR``, a folder searched by content before any download. A WAV file may
lie there as a FLAC file of the same name that decodes to it, to the byte.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import os
import shutil
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO

import soundfile

from harness.assets import manifest
from harness.assets.manifest import Asset
from harness.errors import AssetError, Unsupported

ENV_CACHE = "HARNESS_CACHE"
ENV_MIRROR = "HARNESS_MIRROR"
MAX_CONTENT_BYTES = 64 << 20
"""Larger files of a mirror, weights for one, are not looked into."""
_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 15.0
_SHA256_DIGITS = 64
_READABLE = 0o644  # the unprivileged user of a container reads weights from the mounted cache

Progress = Callable[[str], None]


class Unreachable(AssetError):
    """Neither cache nor mirror has the file, and the network did not give it."""

    def __init__(self, asset: Asset, reason: object) -> None:
        host = urllib.parse.urlparse(asset.url).hostname
        self.reason = f"{host}: {reason}"
        super().__init__(
            f"{asset.name}: cannot download {asset.url} ({reason}); check the network and its"
            f" proxy, or put the file under its own name (sha256 {asset.sha256}) into a folder and"
            f" set {ENV_MIRROR} to it"
        )


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class _Mirrored:
    """A file of the mirror that holds an asset, with the asset's bytes where they are packed."""

    path: Path
    unpacked: bytes | None = None

    def copy_to(self, file: IO[bytes]) -> None:
        if self.unpacked is not None:
            file.write(self.unpacked)
            return
        with self.path.open("rb") as original:
            shutil.copyfileobj(original, file)

    def __str__(self) -> str:
        return str(self.path)


def _wav_of_flac(path: Path) -> bytes | None:
    """The 16-bit WAV file, with the plain header of 44 bytes, that a FLAC file was made from."""
    wav = io.BytesIO()
    try:
        samples, rate_hz = soundfile.read(path, dtype="int16")
        soundfile.write(wav, samples, rate_hz, format="WAV", subtype="PCM_16")
    except (OSError, soundfile.LibsndfileError):
        return None
    return wav.getvalue()


class AssetStore:
    """Verified files; safe to use from several threads and by several processes."""

    def __init__(self, cache: Path, mirror: Path | None = None) -> None:
        """``cache`` is made when something is stored. Raises AssetError for no such mirror."""
        if mirror is not None and not mirror.is_dir():
            raise AssetError(f"{ENV_MIRROR}: {mirror} is not a folder; correct it or unset it")
        self.cache = cache.absolute()
        self.mirror = mirror
        self._verified: dict[Path, tuple[int, int]] = {}
        self._silent_hosts: set[str] = set()
        self._lock = threading.RLock()

    @classmethod
    def default(cls, environ: Mapping[str, str] = os.environ) -> AssetStore:
        """The store that the environment names."""
        base = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        cache = Path(environ.get(ENV_CACHE) or Path(base) / "codec-network-harness")
        mirror = environ.get(ENV_MIRROR)
        return cls(cache.expanduser(), Path(mirror).expanduser() if mirror else None)

    def path_of(self, asset: Asset) -> Path:
        """Where the cache keeps it; the suffix is the URL's."""
        suffix = Path(urllib.parse.urlparse(asset.url).path).suffix
        return self.cache / "files" / f"{asset.sha256}{suffix}"

    def has(self, asset: Asset) -> bool:
        """Whether the cache holds it, undamaged."""
        path = self.path_of(asset)
        try:
            found = path.stat()
            state = (found.st_mtime_ns, found.st_size)
            if self._verified.get(path) == state:
                return True
            intact = asset.size_bytes in (0, state[1]) and self._is(asset, file_sha256(path))
        except OSError:
            return False
        if intact:
            self._verified[path] = state
        return intact

    def at_hand(self, asset: Asset) -> bool:
        """Whether the cache or the mirror holds it."""
        return self.has(asset) or self._in_mirror(asset) is not None

    def lacks(self, asset: Asset) -> str | None:
        """None where :meth:`fetch` would find the file, else the reason; downloads nothing."""
        if self.at_hand(asset):
            return None
        try:
            with self._open(asset, "HEAD"):
                return None
        except Unreachable as error:
            return error.reason

    def fetch(self, asset: Asset, progress: Progress | None = None) -> Path:
        """The file, in the cache. Raises Unreachable, or AssetError where what came is not it."""
        path = self.path_of(asset)
        with self._lock:
            if self.has(asset):
                return path
            with self._new_file(path) as file:
                source = self._in_mirror(asset)
                if source is not None:
                    source.copy_to(file)
                else:
                    if progress is not None:
                        progress(f"downloading {asset.name} ({asset.size})")
                    self._download(asset, file)
                file.flush()
                got = file_sha256(Path(file.name))
                if not self._is(asset, got):
                    raise AssetError(
                        f"{asset.name}: {source or asset.url} gave {file.tell()} bytes with sha256"
                        f" {got}, expected {self._sha256(asset)} ({asset.size}); the file"
                        f" has changed or a proxy replaced it: get the right one and point"
                        f" {ENV_MIRROR} at its folder"
                    )
            if len(asset.sha256) < _SHA256_DIGITS:
                with self._new_file(self._pin(asset)) as pin:
                    pin.write(got.encode())
            return path

    def _pin(self, asset: Asset) -> Path:
        return self.path_of(asset).with_suffix(".sha256")

    def _sha256(self, asset: Asset) -> str:
        """What its hash must begin with: all of it, once the file has been here."""
        try:
            return self._pin(asset).read_text()
        except FileNotFoundError:
            return asset.sha256

    def _is(self, asset: Asset, sha256: str) -> bool:
        return sha256.startswith(self._sha256(asset))

    def content(self, url: str, sha256: str) -> bytes:
        """The bytes of a small file that a scenario names by URL and sha256.

        A mirror may hold it compressed (``.gz``). Raises Unreachable, AssetError where what came
        is something else.
        """
        name = PurePosixPath(urllib.parse.urlparse(url).path).name or url
        asset = Asset(name, url, sha256, 0)
        path = self.path_of(asset)
        with self._lock:
            if path.exists() and file_sha256(path) == sha256:
                return path.read_bytes()
            found = self._small_in_mirror(sha256)
            if found is None:
                downloaded = io.BytesIO()
                self._download(asset, downloaded)
                found = downloaded.getvalue()
                got = hashlib.sha256(found).hexdigest()
                if got != sha256:
                    raise AssetError(
                        f"{name}: {url} gave {len(found)} bytes with sha256 {got}, expected"
                        f" {sha256}; correct the scenario, or put the right file into a folder and"
                        f" set {ENV_MIRROR} to it"
                    )
            with self._new_file(path) as file:
                file.write(found)
            return found

    def weights(self, name: str) -> Path:
        """Weights whose licence was accepted.

        Raises Unsupported, with the command that helps, where it was not, or where nobody can
        deliver them; AssetError where what is here is damaged.
        """
        asset = self._weights(name).asset
        command = f"harness assets fetch {name} --accept-licence"
        if not self._acceptance(name).exists():
            raise Unsupported(
                f"{name}: the licence of these weights is not accepted yet: {command}"
            )
        try:
            return self.fetch(asset)
        except Unreachable as error:
            raise Unsupported(str(error)) from error

    def accept(self, name: str) -> None:
        """Record that the user accepts what the manifest says of the weights' licence."""
        terms = self._weights(name).terms
        with self._new_file(self._acceptance(name)) as file:
            file.write(terms.encode())

    def is_accepted(self, name: str) -> bool:
        """Whether :meth:`accept` was called for the terms as they stand now."""
        return self._acceptance(name).exists()

    def _weights(self, name: str) -> manifest.Weights:
        try:
            return manifest.weights()[name]
        except KeyError:
            known = ", ".join(manifest.weights())
            raise AssetError(f"expected one of the weights {known}, got {name!r}") from None

    def _acceptance(self, name: str) -> Path:
        terms = hashlib.sha256(self._weights(name).terms.encode()).hexdigest()
        return self.cache / "accepted" / f"{name}-{terms[:16]}.txt"

    @contextmanager
    def _new_file(self, path: Path) -> Iterator[IO[bytes]]:
        """A file that appears under ``path`` whole, or not at all. Raises AssetError (disk)."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                dir=path.parent, prefix=path.name, suffix=".part", delete=False
            ) as file:
                part = Path(file.name)
                try:
                    yield file
                    file.flush()
                    part.chmod(_READABLE)
                    part.replace(path)
                except BaseException:
                    part.unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise AssetError(
                f"cannot store {path}: {error}; free some space or set {ENV_CACHE}"
            ) from error

    @cached_property
    def _mirror_by_size(self) -> dict[int, list[Path]]:
        by_size: dict[int, list[Path]] = defaultdict(list)
        if self.mirror is not None:
            for path in sorted(self.mirror.rglob("*")):
                if path.is_file():
                    by_size[path.stat().st_size].append(path)
        return by_size

    def _in_mirror(self, asset: Asset) -> _Mirrored | None:
        name = PurePosixPath(urllib.parse.urlparse(asset.url).path)
        if asset.size_bytes:
            candidates = self._mirror_by_size.get(asset.size_bytes, [])
        else:
            candidates = self._mirrored_as(name.name)
        for path in candidates:
            if self._is(asset, file_sha256(path)):
                return _Mirrored(path)
        if name.suffix == ".wav":
            for path in self._mirrored_as(f"{name.stem}.flac"):
                data = _wav_of_flac(path)
                if data is not None and self._is(asset, hashlib.sha256(data).hexdigest()):
                    return _Mirrored(path, data)
        return None

    def _mirrored_as(self, name: str) -> list[Path]:
        found = (path for paths in self._mirror_by_size.values() for path in paths)
        return [path for path in found if path.name == name]

    def _small_in_mirror(self, sha256: str) -> bytes | None:
        for size, paths in self._mirror_by_size.items():
            for path in paths if size <= MAX_CONTENT_BYTES else ():
                data = path.read_bytes()
                if hashlib.sha256(data).hexdigest() == sha256:
                    return data
                if path.suffix == ".gz":
                    with suppress(OSError, EOFError, zlib.error), gzip.open(path) as file:
                        data = file.read(MAX_CONTENT_BYTES + 1)
                        if hashlib.sha256(data).hexdigest() == sha256:
                            return data
        return None

    def _open(self, asset: Asset, method: str) -> http.client.HTTPResponse:
        host = urllib.parse.urlparse(asset.url).netloc
        reason: object = "did not answer before"
        if host not in self._silent_hosts:
            request = urllib.request.Request(asset.url, method=method)
            try:
                answer: http.client.HTTPResponse = urllib.request.urlopen(
                    request, timeout=_TIMEOUT_S
                )
                return answer
            except urllib.error.HTTPError as error:
                reason = error
                error.close()
            except (http.client.HTTPException, OSError) as error:
                reason = getattr(error, "reason", error)
                self._silent_hosts.add(host)
        raise Unreachable(asset, reason)

    def _download(self, asset: Asset, file: IO[bytes]) -> None:
        with self._open(asset, "GET") as answer:
            while chunk := self._read(asset, answer):
                file.write(chunk)
            if answer.length:  # read() tells a short body from a whole one in no other way
                raise Unreachable(asset, f"the connection ended {answer.length} bytes early")

    def _read(self, asset: Asset, answer: http.client.HTTPResponse) -> bytes:
        try:
            return answer.read(_CHUNK_BYTES)
        except (http.client.HTTPException, OSError) as error:
            raise Unreachable(asset, error) from error

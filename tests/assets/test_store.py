"""Files by sha256 from cache, mirror and a real HTTP server on the loopback."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from harness.assets import manifest
from harness.assets.manifest import Asset
from harness.assets.store import AssetStore, Unreachable
from harness.errors import AssetError, Unsupported

CONTENT = bytes(range(256)) * 40


class Server(http.server.BaseHTTPRequestHandler):
    """``/short.bin`` promises more than it sends, ``/other.bin`` is another file."""

    requests: list[str]

    def do_GET(self) -> None:
        self.requests.append(self.path)
        if self.path == "/missing.bin":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        sent = {"/short.bin": CONTENT[:1000], "/other.bin": CONTENT[::-1]}.get(self.path, CONTENT)
        self.wfile.write(sent)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def requests() -> list[str]:
    return []


@pytest.fixture
def base(requests: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = type("Handler", (Server,), {"requests": requests})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def asset(base: str, name: str = "whole") -> Asset:
    digest = hashlib.sha256(CONTENT).hexdigest()
    return Asset(name, f"{base}/{name}.bin", digest, len(CONTENT))


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_download_is_kept(base: str, requests: list[str], tmp_path: Path) -> None:
    path = AssetStore(tmp_path).fetch(asset(base))
    assert path.read_bytes() == CONTENT
    assert path.suffix == ".bin"
    assert path.stat().st_mode & 0o044 == 0o044, "a container's user must be able to read it"
    assert AssetStore(tmp_path).fetch(asset(base)) == path
    assert requests == ["/whole.bin"]


@pytest.mark.parametrize("name", ["short", "missing"])
def test_a_broken_download_is_never_used(name: str, base: str, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=rf"cannot download {base}/{name}.bin .*HARNESS_MIRROR"):
        AssetStore(tmp_path).fetch(asset(base, name))
    assert files(tmp_path) == []


def test_another_file_is_refused_by_its_hash(base: str, tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"other: .* gave 10240 bytes with sha256") as caught:
        AssetStore(tmp_path).fetch(asset(base, "other"))
    assert not isinstance(caught.value, Unreachable), "synthetic speech must not hide this"
    assert files(tmp_path) == []


def test_a_damaged_cache_entry_is_replaced(base: str, requests: list[str], tmp_path: Path) -> None:
    store = AssetStore(tmp_path)
    path = store.fetch(asset(base))
    path.write_bytes(CONTENT[:-1] + b"\0")
    assert not store.has(asset(base))
    assert store.fetch(asset(base)).read_bytes() == CONTENT
    assert len(requests) == 2


def test_the_mirror_is_searched_by_content(base: str, requests: list[str], tmp_path: Path) -> None:
    mirror = tmp_path / "mirror" / "deep"
    mirror.mkdir(parents=True)
    (mirror / "same-size").write_bytes(CONTENT[::-1])
    (mirror / "any name").write_bytes(CONTENT)
    store = AssetStore(tmp_path / "cache", tmp_path / "mirror")
    assert store.lacks(asset(base)) is None
    path = store.fetch(asset(base))
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(tmp_path / "cache")
    assert requests == []


@pytest.mark.parametrize("changed", [False, True])
def test_a_wav_file_may_lie_in_the_mirror_as_flac(
    changed: bool, base: str, requests: list[str], tmp_path: Path
) -> None:
    (mirror := tmp_path / "mirror").mkdir()
    samples = np.arange(-500, 500, dtype=np.int16)
    sf.write(wav := tmp_path / "talk.wav", samples, 16000, subtype="PCM_16")
    sf.write(mirror / "talk.flac", samples + changed, 16000, subtype="PCM_16")
    data = wav.read_bytes()
    talk = Asset("talk", f"{base}/talk.wav", hashlib.sha256(data).hexdigest(), len(data))
    store = AssetStore(tmp_path / "cache", mirror)
    assert store.at_hand(talk) is not changed
    if not changed:
        assert store.fetch(talk).read_bytes() == data
        assert requests == []


def beginning(base: str, name: str = "whole") -> Asset:
    """As weights that their publisher names after the first digits of their hash."""
    return Asset(name, f"{base}/{name}.bin", hashlib.sha256(CONTENT).hexdigest()[:8], 0)


def test_the_beginning_of_a_hash_is_held_against_a_download(base: str, tmp_path: Path) -> None:
    store = AssetStore(tmp_path)
    assert store.fetch(beginning(base)).read_bytes() == CONTENT
    assert store.has(beginning(base))
    with pytest.raises(AssetError, match=r"other: .* expected [0-9a-f]{8} \(size unknown\)"):
        AssetStore(tmp_path / "new").fetch(beginning(base, "other"))
    assert files(tmp_path / "new") == []


def test_the_whole_hash_of_what_came_first_is_kept(base: str, tmp_path: Path) -> None:
    """Another file whose hash begins alike is not taken for it."""
    path = AssetStore(tmp_path).fetch(beginning(base))
    kept = path.with_suffix(".sha256")
    assert kept.read_text() == hashlib.sha256(CONTENT).hexdigest()
    path.write_bytes(CONTENT[:-1] + b"\0")
    assert not AssetStore(tmp_path).has(beginning(base))
    kept.write_text(beginning(base).sha256 + 56 * "0")
    with pytest.raises(AssetError, match=r"expected [0-9a-f]{8}0{56}"):
        AssetStore(tmp_path).fetch(beginning(base))


def test_without_a_size_the_mirror_is_searched_by_name(
    base: str, requests: list[str], tmp_path: Path
) -> None:
    mirror = tmp_path / "mirror" / "deep"
    mirror.mkdir(parents=True)
    (mirror / "any name").write_bytes(CONTENT)
    store = AssetStore(tmp_path / "cache", tmp_path / "mirror")
    assert store.fetch(beginning(base)).read_bytes() == CONTENT
    assert requests == ["/whole.bin"]
    (mirror / "whole.bin").write_bytes(CONTENT)
    again = AssetStore(tmp_path / "other cache", tmp_path / "mirror")
    assert again.lacks(beginning(base)) is None
    assert again.fetch(beginning(base)).read_bytes() == CONTENT
    assert requests == ["/whole.bin"]


@pytest.mark.parametrize("compressed", [False, True])
def test_content_named_by_a_scenario_is_found_in_the_mirror(
    compressed: bool, base: str, requests: list[str], tmp_path: Path
) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "trace.gz").write_bytes(gzip.compress(CONTENT) if compressed else CONTENT)
    store, wanted = AssetStore(tmp_path / "cache", mirror), asset(base)
    assert store.content(wanted.url, wanted.sha256) == CONTENT
    assert requests == []
    (mirror / "trace.gz").unlink()
    again = AssetStore(tmp_path / "cache", mirror)
    assert again.content(wanted.url, wanted.sha256) == CONTENT


def test_content_named_by_a_scenario_is_downloaded_once_and_checked(
    base: str, requests: list[str], tmp_path: Path
) -> None:
    store, wanted = AssetStore(tmp_path), asset(base)
    for _ in range(2):
        assert store.content(wanted.url, wanted.sha256) == CONTENT
    assert requests == ["/whole.bin"]
    with pytest.raises(AssetError, match=r"gave 10240 bytes with sha256 \w{64}, expected"):
        store.content(f"{base}/other.bin", "0" * 64)
    with pytest.raises(Unreachable, match="9240 bytes early"):
        store.content(f"{base}/short.bin", "1" * 64)


def test_a_silent_host_is_asked_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        base = f"http://127.0.0.1:{closed.getsockname()[1]}"
    store = AssetStore(tmp_path)
    with pytest.raises(Unreachable, match="refused"):
        store.fetch(asset(base))
    assert "did not answer before" in (store.lacks(asset(base)) or "")


def test_the_environment_names_cache_and_mirror(tmp_path: Path) -> None:
    given = {"HARNESS_CACHE": str(tmp_path / "c"), "HARNESS_MIRROR": str(tmp_path)}
    store = AssetStore.default(given)
    assert (store.cache, store.mirror) == (tmp_path / "c", tmp_path)
    assert AssetStore.default({"XDG_CACHE_HOME": "/x"}).cache == Path("/x/codec-network-harness")
    with pytest.raises(AssetError, match=r"HARNESS_MIRROR: .* is not a folder"):
        AssetStore.default(given | {"HARNESS_MIRROR": str(tmp_path / "none")})


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(AssetError, match=r"cannot store .* free some space"):
        AssetStore(tmp_path / "cache").fetch(asset("http://127.0.0.1:1"))


def test_weights_wait_for_their_licence(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = manifest.Weights(asset(base), "none stated", "someone", "terms")
    monkeypatch.setattr(manifest, "weights", lambda: {"net": known})
    store = AssetStore(tmp_path)
    with pytest.raises(Unsupported, match="harness assets fetch net --accept-licence"):
        store.weights("net")
    store.accept("net")
    assert store.weights("net").read_bytes() == CONTENT
    changed = manifest.Weights(asset(base), "none stated", "someone", "other terms")
    monkeypatch.setattr(manifest, "weights", lambda: {"net": changed})
    assert not store.is_accepted("net"), "new terms are to be accepted anew"
    with pytest.raises(AssetError, match="expected one of the weights net, got 'nat'"):
        store.weights("nat")

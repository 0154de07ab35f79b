"""The image: named by what it is made of, built once, and able to run every agent."""

from __future__ import annotations

import re
from pathlib import Path

import docker
import pytest

from harness import codecs
from harness.errors import MachineCannot
from harness.labs import image, libopus
from harness.labs.docker import connect

WITHOUT_USERS_FILES = (
    *("pcm", "g711", "g722", "opus", "aac", "mp3", "flac", "amr-nb", "sbc", "lc3", "encodec"),
    *("amr-wb", "speex", "gsm", "codec2"),
)
"""Codecs that run in the image as it comes: the package or the library of each is in it."""


def test_the_base_is_pinned_by_digest() -> None:
    dockerfile = (image.ROOT / "images" / "native.Dockerfile").read_text(encoding="utf-8")
    assert re.search(
        r"^ARG BASE=python:3\.11\.\d+-slim-bookworm@sha256:[0-9a-f]{64}$", dockerfile, re.M
    )


def test_a_name_follows_content_and_nothing_else() -> None:
    one: dict[str, bytes | Path] = {"a": b"1", "b": b"2"}
    assert image._digest(one) == image._digest({"b": b"2", "a": b"1"})
    assert image._digest(one) != image._digest({"a": b"12", "b": b""})
    assert image._digest(one) != image._digest({"a": b"1", "c": b"2"})


def test_every_package_of_the_image_is_in_the_lock() -> None:
    wanted, lock, without_deps = (path.read_text(encoding="utf-8") for path in image._REQUIREMENTS)
    locked = set(re.findall(r"^([\w.-]+)==", lock + without_deps, re.M))
    assert set(re.findall(r"^(\w[\w-]*)$", wanted, re.M)) <= locked


def test_outside_a_checkout_the_remedy_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(image, "_IMAGES", tmp_path / "images")
    with pytest.raises(MachineCannot, match=r"pip install -e, or use --lab netns"):
        image.ensure_image(docker.DockerClient("unix:///nowhere", version="1.41"), print)


@pytest.mark.docker
@pytest.mark.slow
def test_the_image_runs_every_codec_without_rights_or_network() -> None:
    client = connect()
    try:
        facts = image.ensure_image(client, print)
        said: list[str] = []
        assert image.ensure_image(client, said.append) == facts
        assert said == [], "found again, not built again"
        assert facts.base
        assert facts.base_how
        assert facts.native == libopus.DESCRIPTION
        code = (
            "import harness.network.link_agent, harness.network.endpoint_setup\n"
            "import harness.endpoint.agent, os\n"
            "from harness import codecs, errors, transports\n"
            "for name in transports.TRANSPORTS:\n"
            "    transports.transport(name)\n"
            "for name in codecs.names():\n"
            "    params = codecs.params_class(name)\n"
            "    given = {'weights': 'random'} if 'weights' in params.model_fields else {}\n"
            "    try:\n"
            "        codecs.create(name, params(**given), {}).encoder()\n"
            "        print(name)\n"
            "    except (errors.Unsupported, errors.AssetError):\n"
            "        pass\n"
            "params = codecs.params_class('opus')(dred='1s', expected_loss='10%')\n"
            "print(codecs.create('opus', params, {}).facts.library.split()[1])\n"
            "print(os.getuid())\n"
        )
        output = client.containers.run(
            facts.id,
            ["-c", code],
            remove=True,
            read_only=True,
            network_mode="none",
            cap_drop=["ALL"],
        )
    finally:
        client.close()
    *found, version, user = output.decode().split()
    assert set(WITHOUT_USERS_FILES) <= set(found) <= set(codecs.names())
    assert (version, user) == (libopus.VERSION, "65534")


@pytest.mark.docker
@pytest.mark.slow
def test_without_debians_archive_the_image_does_without_native_libraries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And nobody takes it for a whole one later."""
    dockerfile = b"ARG BASE\nFROM ${BASE}\nRUN echo the archive does not answer; false\n"
    monkeypatch.setattr(image, "_native_context", lambda: {"Dockerfile": dockerfile})
    client = connect()
    try:
        said: list[str] = []
        base, labels = image._ensure_native(client, said.append)
        assert base == image._ensure_base(client, said.append)[0]
        assert (
            image._find(client, f"{image.PROJECT}-native:{image._digest(image._native_context())}")
            is None
        )
    finally:
        client.close()
    assert re.match(r"none: .*the archive does not answer", labels[image.LABEL_NATIVE])
    assert "goes without native codec libraries" in said[-1]
    assert image._tag("name:1", labels[image.LABEL_NATIVE]) == "name:1-without-native"
    assert image._tag("name:1", libopus.DESCRIPTION) == "name:1"

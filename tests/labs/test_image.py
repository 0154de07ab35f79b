"""The image: named by what it is made of, built once, and able to run every agent."""

from __future__ import annotations

import re
from pathlib import Path

import docker
import pytest

from harness import codecs
from harness.errors import MachineCannot
from harness.labs import image
from harness.labs.docker import connect


def test_the_base_is_pinned_by_digest() -> None:
    dockerfile = (image.ROOT / "images" / "packages.Dockerfile").read_text(encoding="utf-8")
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
    assert set(re.findall(r"^([a-z]\w*)$", wanted, re.M)) <= {name.lower() for name in locked}


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
        code = (
            "import harness.network.link_agent, harness.network.endpoint_setup\n"
            "import harness.endpoint.agent, harness.transports.websocket\n"
            "from harness import codecs\n"
            "for name in codecs.names():\n"
            "    params = codecs.params_class(name)\n"
            "    given = {'weights': 'random'} if 'weights' in params.model_fields else {}\n"
            "    codecs.create(name, params(**given), {}).encoder()\n"
            "    print(name)\n"
            "import os; print(os.getuid())\n"
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
    assert output.decode().split() == [*codecs.names(), "65534"]

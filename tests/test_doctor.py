"""The doctor says what is so, for what is here and for what is taken away."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness import doctor
from harness.errors import EXIT_OK, MachineCannot
from tests.conftest import harness


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, doctor.Finding]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("HARNESS_MIRROR", raising=False)
        patch.setenv("https_proxy", "http://127.0.0.1:9")
        return {finding.name: finding for finding in doctor.diagnose()}


def test_every_capability_is_told(findings: dict[str, doctor.Finding]) -> None:
    named = "Docker root netem tbf relay cores memory disk GPU libopus gcc espeak-ng debootstrap"
    assert {*named.split(), "user namespaces", "real-time priority", "speech corpus"} == {*findings}
    for finding in findings.values():
        assert finding.detail
        assert finding.ok or finding.remedy, f"{finding.name} has no remedy"


def test_what_is_found_is_so(findings: dict[str, doctor.Finding]) -> None:
    assert findings["root"].ok is (True if os.geteuid() == 0 else None)
    assert findings["cores"].detail.split()[0] == str(len(os.sched_getaffinity(0)))
    assert findings["libopus"].detail.startswith("libopus ")


def test_an_unreachable_corpus_is_no_failure(findings: dict[str, doctor.Finding]) -> None:
    corpus = findings["speech corpus"]
    assert corpus.ok is None
    assert "raw.githubusercontent.com" in corpus.detail
    assert "HARNESS_MIRROR" in (corpus.remedy or "")


def test_without_an_engine_docker_has_a_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    found = doctor._docker()
    assert found.ok is False
    assert "docker.io" in (found.remedy or "")


def test_where_no_namespace_can_be_made_engines_are_not_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise MachineCannot("no namespaces here")

    monkeypatch.setattr(doctor.probe, "on_this_machine", refuse)
    found = list(doctor._link_engines())
    assert [finding.name for finding in found] == ["netem", "tbf", "relay"]
    assert all(finding.ok is None for finding in found)


def test_a_child_that_fails_says_why() -> None:
    assert doctor._child("pass") is None
    assert (
        doctor._child("raise OSError(1, 'not permitted')")
        == "PermissionError: [Errno 1] not permitted"
    )
    assert doctor._child("import os; os._exit(7)") == "exit status 7"


def test_the_command_prints_json() -> None:
    done = harness("doctor", "--json")
    assert done.returncode == EXIT_OK
    assert {"name", "ok", "detail", "remedy"} == set(json.loads(done.stdout)[0])

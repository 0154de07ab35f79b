"""``harness codecs``: the table says of every codec what is true of it here."""

from __future__ import annotations

import json

import pytest

from harness import codecs
from harness.cli import main
from harness.errors import EXIT_OK


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """On a machine that has fetched nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_CACHE", str(tmp_path_factory.mktemp("cache")))
        for name in ("HARNESS_ESC", "HARNESS_WAVTOKENIZER"):
            patch.delenv(name, raising=False)
        said = []
        patch.setattr("builtins.print", lambda text: said.append(text))
        assert main(["codecs", "--json"]) == EXIT_OK
    return {row["codec"]: row for row in json.loads(said[0])}


def test_every_codec_is_there_with_its_licence(table: dict[str, dict[str, object]]) -> None:
    assert tuple(table) == codecs.names()
    assert len(table) >= 18
    for row in table.values():
        assert row["title"]
        assert row["bitrates"]
        assert row["code_licence"]
        assert (row["tier"] == "neural") == bool(row["weights_licence"])


def test_what_the_harness_brings_itself_is_available(table: dict[str, dict[str, object]]) -> None:
    own = {
        "pcm",
        "g711",
        "g722",
        "opus",
        "aac",
        "aac-blocks",
        "mp3",
        "flac",
        "amr-nb",
        "sbc",
        "lc3",
    }
    assert {name for name in own if not table[name]["available"]} == set()


def test_declared_delays_are_those_that_are_measured(table: dict[str, dict[str, object]]) -> None:
    here = [row for row in table.values() if row["available"]]
    assert [row["codec"] for row in here if row["delay_holds"] is not True] == []


def test_what_is_missing_has_a_remedy(table: dict[str, dict[str, object]]) -> None:
    missing = {name: str(row["missing"]) for name, row in table.items() if not row["available"]}
    assert {"encodec", "lyra", "esc"} <= missing.keys()
    assert "harness assets fetch encodec-24khz" in missing["encodec"]
    assert "HARNESS_ESC" in missing["esc"]
    commands = ("harness assets fetch", "apt-get install", "pip install", "git clone")
    assert [name for name, why in missing.items() if not any(c in why for c in commands)] == []

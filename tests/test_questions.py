"""What a matrix asks is known before it runs, and so is whether it can be answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.assets.items import ItemRef
from harness.cli import main
from harness.plan import plan
from harness.questions import questions
from harness.scenario import load, loads
from harness.stats.difference import Family

MATRIX = Path(__file__).parents[1] / "scenarios" / "matrix.yaml"
SCENARIO = """\
name: small
corpus: [librispeech]
codecs: [pcm, g711, g722, opus]
transports: [udp, tcp]
networks: [clean, wifi-lossy, plc-short]
"""


def items(count: int) -> list[ItemRef]:
    return [ItemRef(f"u{n}", "folder", "speech", f"/u{n}.wav") for n in range(count)]


def asked(text: str, count: int = 12) -> dict[tuple[str, tuple[str, ...]], Family]:
    wanted = loads(text, "small.yaml", Path())
    return {
        (one.asked, one.networks): one.family
        for one in questions(wanted, plan(wanted, items(count)))
    }


def test_controls_are_neither_candidates_nor_networks_to_win_on() -> None:
    assert asked(SCENARIO) == {
        ("verdict", ("plc-short", "wifi-lossy")): Family(15, 12),
        ("differences to pcm", ("clean", "plc-short", "wifi-lossy")): Family(6, 12),
    }


def test_an_added_control_adds_no_comparison() -> None:
    found = asked(SCENARIO.replace("pcm, ", "") + "baseline: g711\n")
    assert found["verdict", ("plc-short", "wifi-lossy")] == Family(15, 12)
    assert found["differences to g711", ("clean", "plc-short", "wifi-lossy")] == Family(4, 12)


def test_rules_are_counted_as_they_leave_cells() -> None:
    found = asked(SCENARIO + "exclude: [{codec: opus, network: plc-short}]\n")
    assert found["verdict", ("plc-short",)] == Family(6, 12)
    assert found["verdict", ("wifi-lossy",)] == Family(15, 12)


def test_one_network_alone_is_asked_even_if_it_is_clean() -> None:
    found = asked(SCENARIO.replace("clean, wifi-lossy, plc-short", "clean"))
    assert found["verdict", ("clean",)] == Family(15, 12)


def test_the_matrix_has_utterances_enough_however_they_fall() -> None:
    wanted = load(MATRIX)
    for one in questions(wanted, plan(wanted, items(12))):
        assert one.family.surely <= one.family.utterances


def test_check_and_plan_say_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(MATRIX)]) == 0
    told = capsys.readouterr().out
    assert (
        "verdict on each of 4 networks: 28 comparisons need 6 utterances (11 where no two of them"
        " agree), you have 12" in told
    )
    assert "differences to pcm on each of 5 networks: 8 comparisons need 6 utterances" in told

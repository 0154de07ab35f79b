"""The JSON Schema says of shapes what the loader says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from harness.codecs import names
from harness.errors import ScenarioError
from harness.scenario import load, loads, presets, schema

SCENARIOS = Path(__file__).parents[2] / "scenarios"
SHIPPED = sorted(SCENARIOS.glob("*.yaml"))


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    Draft202012Validator.check_schema(schema())
    return Draft202012Validator(schema())


def test_the_shipped_schema_is_current() -> None:
    """If this fails: ``harness schema > scenarios/schema.json``."""
    assert json.loads((SCENARIOS / "schema.json").read_text("utf-8")) == schema()


def test_all_scenarios_are_shipped() -> None:
    assert [path.stem for path in SHIPPED] == [
        "agree",
        "matrix",
        "reference",
        "schedule",
        "smoke",
        "sweep",
    ]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_scenarios(path: Path, validator: Draft202012Validator) -> None:
    text = path.read_text("utf-8")
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    assert load(path).name == path.stem
    validator.validate(yaml.safe_load(text))


def test_the_reference_has_every_key() -> None:
    """Of the schema, and of every codec; in its text, since some can only stand in a comment."""
    text = (SCENARIOS / "reference.yaml").read_text("utf-8")

    def keys(node: object) -> set[str]:
        if isinstance(node, dict):
            properties = node.get("properties", {})
            return set(properties).union(*map(keys, node.values()))
        return set().union(*map(keys, node)) if isinstance(node, list) else set()

    assert {key for key in keys(schema()) if f"{key}:" not in text} == set()
    assert {name for name in names() if f"codec: {name}" not in text} == set()
    assert {name for name in presets() if name not in text and "rfc8868" not in name} == set()


def test_defaults_stand_as_they_are_written(validator: Draft202012Validator) -> None:
    definitions = schema()["$defs"]
    assert definitions["JitterBuffer"]["properties"]["start"]["default"] == "60ms"
    opus = next(s for s in definitions["CodecEntry"]["anyOf"] if s.get("title") == "opus")
    for key, field in opus["properties"].items():
        if "default" in field:
            Draft202012Validator(field).validate(field["default"]), key
    assert validator.is_valid(yaml.safe_load((SCENARIOS / "smoke.yaml").read_text("utf-8")))


BASE = {
    "name": "t",
    "corpus": ["librispeech"],
    "codecs": ["pcm"],
    "transports": ["udp"],
    "networks": ["clean"],
}
LINKS = [
    {"delay": "20ms"},
    {"loss": "2%"},
    {"loss": 0.02},
    {"loss": None},
    {"loss": {"model": "gilbert-elliott", "p": "1%", "r": 0.5}},
    {"loss": {"model": "trace", "lost": [0, 1]}},
    {"delay": "1 ms", "reorder": {"probability": 0.1}},
    {"rate": {"rate": "1mbit", "limit": "10kB"}},
]
BAD_LINKS = [
    {"delay": 20},
    {"delay": "20"},
    {"delay": None},
    {"loss": "2"},
    {"loss": 2},
    {"loss": {"model": "gilbert-elliott", "p": "1%"}},
    {"loss": {"model": "trace", "lost": [2]}},
    {"rate": "1mbit"},
    {"distribution": "gauss"},
    {"limit_packets": 0},
    {"lost": 1},
]


@pytest.mark.parametrize(
    ("changes", "good"),
    [
        *(({"networks": [{"name": "n", "forward": link}]}, True) for link in LINKS),
        *(({"networks": [{"name": "n", "forward": link}]}, False) for link in BAD_LINKS),
        *(({"networks": [name]}, True) for name in presets()),
        ({"networks": [{"preset": "clean"}]}, True),
        ({"networks": [{"preset": "clean", "forward": {}}]}, False),
        ({"networks": [{"name": "n"}]}, False),
        ({"networks": [{"name": "n", "both": {}, "reverse": "same"}]}, True),
        ({"networks": [{"name": "n", "both": {}, "reverse": "equal"}]}, False),
        ({"networks": ["nowhere"]}, False),
        ({"networks": []}, False),
        ({"codecs": list(names())}, True),
        ({"codecs": ["mp7"]}, False),
        ({"codecs": [{"codec": "opus", "bitrate": "24kbit", "name": "x"}]}, True),
        ({"codecs": [{"codec": "opus", "bitrate": 24000}]}, False),
        ({"codecs": [{"codec": "opus", "fec": "yes"}]}, False),
        ({"codecs": [{"codec": "pcm", "bitrate": "24kbit"}]}, False),
        ({"codecs": [{"name": "x"}]}, False),
        ({"codecs": [{"codec": "pcm", "name": "a b"}]}, False),
        ({"transports": [{"transport": "udp", "mtu": "500B"}, "tcp", "websocket"]}, True),
        ({"transports": [{"transport": "udp", "mtu": 500}]}, False),
        ({"transports": ["sctp"]}, False),
        ({"corpus": [{"corpus": "x", "items": ["a"], "limit": 1}]}, True),
        ({"corpus": [{"corpus": "x", "items": []}]}, False),
        ({"corpus": [{"folder": "own", "kind": "music"}]}, True),
        ({"corpus": [{"folder": "own", "kind": "noise"}]}, False),
        ({"receivers": [{}]}, True),
        ({"receivers": [{"jitter_buffer": {"mode": "elastic"}}]}, False),
        ({"exclude": [{"codec": "opus", "utterance": ["a", "b*"]}]}, None),
        ({"include": [{"codec": 1}]}, False),
        ({"seed": "1"}, False),
        ({"repetitions": 0}, False),
        ({"nmae": "x"}, False),
        ({"name": None}, False),
    ],
)
def test_schema_and_loader_agree(
    validator: Draft202012Validator, changes: dict[str, object], good: bool | None
) -> None:
    value = {**BASE, **changes}
    if good is not None:
        try:
            loads(yaml.safe_dump(value), "s.yaml", Path("/nowhere"))
            loaded = True
        except ScenarioError:
            loaded = False
        assert loaded is good
    assert validator.is_valid(value) is (good is not False)

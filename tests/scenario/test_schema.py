"""The JSON Schema says of shapes what the loader says."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from harness.assets.store import ENV_MIRROR
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
        "adaptation",
        "agree",
        "broadcast",
        "deep-plc",
        "jitter-buffers",
        "lyra",
        "matrix",
        "metrics",
        "opus-recovery",
        "protection",
        "reference",
        "schedule",
        "smoke",
        "sweep",
        "tracks",
        "transports",
    ]


def from_mirror(url: str, sha256: str) -> bytes:
    """A recording out of the mirror of sample data, which may keep it compressed."""
    folder = os.environ.get(ENV_MIRROR)
    if folder is None:
        pytest.skip(f"needs {url}, or {ENV_MIRROR} set to a folder that has it")
    name = url.rpartition("/")[2]
    for path in (*Path(folder).rglob(name), *Path(folder).rglob(f"{name}.gz")):
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        if hashlib.sha256(data).hexdigest() == sha256:
            return data
    return pytest.skip(f"{folder} has no {name}")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_scenarios(path: Path, validator: Draft202012Validator) -> None:
    text = path.read_text("utf-8")
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    validator.validate(yaml.safe_load(text))
    assert load(path, from_mirror).name == path.stem


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
SWEEP = {"name": "s", "axis": "network", "entry": "clean", "set": "both.delay"}
HANDOVER = str(SCENARIOS / "traces" / "handover.csv")
LINKS = [
    {"delay": "20ms"},
    {"loss": "2%"},
    {"loss": 0.02},
    {"loss": None},
    {"loss": {"model": "gilbert-elliott", "p": "1%", "r": 0.5}},
    {"loss": {"model": "trace", "lost": [0, 1]}},
    {"delay": "1 ms", "reorder": {"probability": 0.1}},
    {"rate": {"rate": "1mbit", "limit": "10kB"}},
    {"loss": {"model": "media-time", "loss": "10%", "burst": "80ms", "hits": "instant"}},
    {"jitter": "5ms", "coherence": "200ms"},
    {"schedule": [{"at": "5s", "for": "1s", "every": "15s", "loss": "100%"}]},
    {"schedule": [{"at": "5s", "over": "1s", "delay": "20ms", "loss": 0.1}]},
    {"schedule": None, "trace": None},
    {"trace": {"format": "csv", "file": HANDOVER, "end": "loop", "queue": "200ms"}},
    {"trace": {"format": "csv", "file": HANDOVER, "offset": "1s", "queue": "20kB"}},
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
    {"loss": {"model": "media-time", "loss": "10%"}},
    {"jitter": "5ms", "coherence": 200},
    {"schedule": [{"for": "1s", "loss": "100%"}]},
    {"schedule": [{"at": "5s", "schedule": []}]},
    {"schedule": {"at": "5s", "loss": "1%"}},
    {"trace": {"file": HANDOVER}},
    {"trace": {"format": "pcap", "file": HANDOVER}},
    {"trace": {"format": "csv", "file": HANDOVER, "end": "repeat"}},
    {"trace": {"format": "csv", "file": HANDOVER, "queue": 20}},
    {"trace": HANDOVER},
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
        ({"metrics": ["pesq-wb", "stoi"], "controls": False, "compute": "zero"}, True),
        ({"metrics": ["pesq"]}, False),
        ({"metrics": ["stoi", "stoi"]}, False),
        ({"controls": "no"}, False),
        ({"compute": "fast"}, False),
        ({"baseline": "pcm"}, True),
        ({"sweeps": [{**SWEEP, "values": ["1ms", "2ms"]}]}, True),
        ({"sweeps": [{**SWEEP, "values": {"from": "0ms", "to": "9ms", "steps": 4}}]}, True),
        ({"sweeps": [{**SWEEP, "entry": ["clean"], "values": ["1ms"]}]}, True),
        ({"sweeps": [{**SWEEP, "values": []}]}, False),
        ({"sweeps": [{**SWEEP, "values": "1ms"}]}, False),
        ({"sweeps": [{**SWEEP, "values": {"from": "0ms", "to": "9ms", "steps": 1}}]}, False),
        ({"sweeps": [{**SWEEP, "values": [None]}]}, False),
        ({"sweeps": [SWEEP]}, False),
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

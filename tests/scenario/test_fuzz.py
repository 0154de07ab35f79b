"""Whatever the text is, the outcome is a Scenario or a ScenarioError."""

from __future__ import annotations

import contextlib
import copy
import math
import operator
from pathlib import Path

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.assets.items import ItemRef
from harness.errors import BadInput, ScenarioError
from harness.plan import plan
from harness.scenario import Scenario, loads, schema
from harness.scenario.links import presets

SHIPPED = Path(__file__).parents[2] / "scenarios" / "reference.yaml"
quick = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def outcome(text: str) -> Scenario | None:
    try:
        return loads(text, "s.yaml", SHIPPED.parent)
    except ScenarioError as error:
        mistakes = error.mistakes
    assert mistakes
    for line in mistakes:
        assert line.startswith("s.yaml:")
        line.encode()  # can be printed, whatever the file held
    return None


def keys(node: object) -> set[str]:
    if isinstance(node, dict):
        own = set(node.get("properties", ())) if isinstance(node.get("properties"), dict) else set()
        return own.union(*map(keys, node.values()))
    return set().union(*map(keys, node)) if isinstance(node, list) else set()


WORDS = st.sampled_from(
    [*sorted(keys(schema())), *list(presets())[:8], "opus", "pcm", "udp", "tcp", "same", "trace",
     "gilbert-elliott", "20ms", "24kbit", "5%", "1500B", "16kHz", "opus*", "fixed", "media-time",
     "csv", "mahimahi", "traces/handover.csv", "loop", "stop", "0s", "3s", "100%", "network",
     "codec", "receiver", "by-hand", "walk", "drive", "bursty", "forward.delay", "stoi", "zero"]
)  # fmt: skip
SCALARS = (
    WORDS
    | st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=25,
)


@quick
@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    outcome(text)


@quick
@given(st.text(alphabet="{}[],:&*!|>'\"%@`#-?~<=\\U0 \n\tab1.", max_size=60))
def test_any_punctuation(text: str) -> None:
    outcome(text)


@quick
@given(VALUES)
def test_any_structure(value: object) -> None:
    outcome(yaml.safe_dump(value, allow_unicode=True))


def places(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [path]
    children = (
        value.items() if isinstance(value, dict)
        else enumerate(value) if isinstance(value, list)
        else ()
    )  # fmt: skip
    for key, child in children:
        found += places(child, (*path, key))
    return found


REFERENCE = yaml.safe_load(SHIPPED.read_text("utf-8"))
ITEMS = [ItemRef(f"{n}-x", "c", "speech", "http://x", seconds=9.0) for n in (2033, 3080)]


@quick
@given(st.data())
def test_the_reference_with_some_values_replaced(data: st.DataObject) -> None:
    value = copy.deepcopy(REFERENCE)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(value)[1:]))
        parent = value
        for part in path[:-1]:
            parent = parent[part]
        parent[path[-1]] = data.draw(VALUES)
    scenario = outcome(yaml.safe_dump(value))
    if scenario is not None:
        check_plan(scenario)


def check_plan(scenario: Scenario) -> None:
    axes = (scenario.codecs, scenario.transports, scenario.networks, scenario.receivers)
    if math.prod(map(len, axes)) * scenario.repetitions > 2_000:
        return
    with contextlib.suppress(BadInput):
        cells = plan(scenario, ITEMS).cells
        assert cells
        assert len({cell.cell_id for cell in cells}) == len(cells)
        assert all(cell.expected_s > 0 for cell in cells)


TIMES = st.sampled_from([*("1ms", "20ms", "80ms", "800ms", "1s", "3s", "15s") * 3, "0s", "11min"])
SHARES = st.sampled_from(["0%", "0.1%", "5%", "50%", "99%", "100%"])
LOSSES = (
    SHARES
    | st.none()
    | st.fixed_dictionaries({"model": st.just("media-time"), "loss": SHARES, "burst": TIMES})
    | st.fixed_dictionaries({"model": st.just("gilbert-elliott"), "p": SHARES, "r": SHARES})
)
RATES = st.fixed_dictionaries(
    {"rate": st.sampled_from(["1kbit", "64kbit", "1mbit"]), "latency": TIMES}
)
KEYS = {"delay": TIMES, "jitter": TIMES, "coherence": TIMES, "loss": LOSSES, "rate": RATES}
COURSES = (
    st.fixed_dictionaries({}, optional={"for": TIMES})
    | st.fixed_dictionaries({"over": TIMES})
    | st.fixed_dictionaries({"for": TIMES, "every": TIMES})
)
CHANGES = st.builds(
    operator.or_,
    COURSES,
    st.fixed_dictionaries({"at": TIMES, "delay": TIMES}, optional={"loss": LOSSES, "rate": RATES}),
)
TRACES = st.fixed_dictionaries(
    {
        "format": st.sampled_from(["csv", "csv", "csv", "csv", "mahimahi"]),
        "file": st.just("traces/handover.csv"),
    },
    optional={
        "offset": TIMES,
        "end": st.sampled_from(["loop", "stop", "error"]),
        "queue": TIMES | st.sampled_from(["2kB", "1B"]),
    },
)
WRITTEN_LINKS = st.fixed_dictionaries(
    {},
    optional={"delay": TIMES, "loss": LOSSES, "schedule": st.lists(CHANGES, max_size=2)},
) | st.fixed_dictionaries({"trace": TRACES}, optional=KEYS)
NETWORKS = st.fixed_dictionaries(
    {"name": st.sampled_from("abcd"), "both": WRITTEN_LINKS},
    optional={
        "preset": st.sampled_from(["clean", "starlink", "edge"]),
        "forward": WRITTEN_LINKS,
        "reverse": WRITTEN_LINKS | st.just("same"),
    },
)
QUANTITIES = TIMES | SHARES | st.sampled_from(["8kbit", "20kbit", "x"]) | st.integers(-1, 12)
VALUES_OF_ONE_KIND = st.one_of(
    *(st.lists(kind, min_size=1, max_size=3, unique=True) for kind in (TIMES, SHARES, QUANTITIES)),
    *(
        st.fixed_dictionaries({"from": kind, "to": kind, "steps": st.integers(2, 9)})
        for kind in (TIMES, SHARES, QUANTITIES)
    ),
)
SWEEPS = st.fixed_dictionaries(
    {
        "name": st.sampled_from("xy"),
        "axis": st.sampled_from(["network", "codec", "receiver"]),
        "entry": st.sampled_from(["a", "b", "opus", "*", ["a", "b"], "fixed-60ms"]),
        "set": st.sampled_from(
            ["forward.loss", "forward.loss.loss", "both.delay", "forward.schedule.0.at",
             "forward.trace.offset", "bitrate", "complexity", "jitter_buffer.start", "device", "."]
        ),
        "values": VALUES_OF_ONE_KIND,
    }
)  # fmt: skip


@quick
@given(st.lists(NETWORKS, min_size=1, max_size=2), st.lists(SWEEPS, max_size=1), st.booleans())
def test_networks_and_sweeps_that_are_nearly_right(
    networks: list[object], sweeps: list[object], controls: bool
) -> None:
    value = {
        "name": "t",
        "corpus": ["c"],
        "codecs": ["opus", "g722"],
        "transports": ["udp"],
        "networks": networks,
        "sweeps": sweeps,
        "controls": controls,
    }
    scenario = outcome(yaml.safe_dump(value))
    if scenario is not None:
        check_plan(scenario)

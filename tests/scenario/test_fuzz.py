"""Whatever the text is, the outcome is a Scenario or a ScenarioError."""

from __future__ import annotations

import contextlib
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
        return loads(text, "s.yaml", Path("/nowhere"))
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
     "gilbert-elliott", "20ms", "24kbit", "5%", "1500B", "16kHz", "opus*", "fixed"]
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
    value = yaml.safe_load(yaml.safe_dump(REFERENCE))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(value)[1:]))
        parent = value
        for part in path[:-1]:
            parent = parent[part]
        parent[path[-1]] = data.draw(VALUES)
    scenario = outcome(yaml.safe_dump(value))
    if scenario is not None and scenario.repetitions <= 3:
        with contextlib.suppress(BadInput):
            assert plan(scenario, ITEMS).cells

"""A scenario file, read into a frozen, typed matrix or refused with all its mistakes at once.

::

    scenario = load(Path("scenarios/smoke.yaml"))
    scenario.codecs[1].params, scenario.networks[0].pair, scenario.receivers[0].settings
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.errors import ScenarioError
from harness.scenario.canonical import canonical, digest
from harness.scenario.document import MAX_CHARACTERS, DocumentError, parse
from harness.scenario.links import Preset, presets
from harness.scenario.mistakes import is_unknown_key, message_of
from harness.scenario.model import (
    CodecEntry,
    Combination,
    CorpusEntry,
    Metric,
    NetworkEntry,
    ReceiverEntry,
    Rule,
    Scenario,
    config_sha256,
    entry_name,
)
from harness.scenario.recorded import Fetch
from harness.scenario.schema import schema
from harness.scenario.sweeps import SweepEntry, SweepPoint, SweepSpec, base_name, expand
from harness.scenario.transports import TransportEntry

__all__ = [
    "CodecEntry",
    "Combination",
    "CorpusEntry",
    "Fetch",
    "Metric",
    "NetworkEntry",
    "Preset",
    "ReceiverEntry",
    "Rule",
    "Scenario",
    "SweepEntry",
    "SweepPoint",
    "SweepSpec",
    "TransportEntry",
    "base_name",
    "canonical",
    "config_sha256",
    "digest",
    "load",
    "loads",
    "presets",
    "schema",
]


def load(path: Path, fetch: Fetch | None = None) -> Scenario:
    """The scenario in a file, and in the traces that it names (relative to it, or a URL whose
    bytes ``fetch`` gives; without it, a URL is a mistake).

    Raises ScenarioError with every mistake of the file as
    ``FILE:LINE: $.path: expected X, got Y; did you mean "Z"?``.
    """
    try:
        if path.exists() and not path.is_file():
            raise ScenarioError([f"{path}:1: $: expected a file, got something else"])
        with path.open("rb") as file:
            raw = file.read(4 * MAX_CHARACTERS + 1)
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"{path}:{line}: $: expected UTF-8 text, got the byte 0x{raw[error.start]:02x}"
        raise ScenarioError([message]) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise ScenarioError([f"{path}: expected a scenario file: {reason}"]) from None
    return loads(text, str(path), path.parent, fetch)


def loads(text: str, file: str, folder: Path, fetch: Fetch | None = None) -> Scenario:
    """Like ``load``, of a text; ``file`` stands in the messages, ``folder`` is where it lies."""
    try:
        document = parse(text)
    except DocumentError as error:
        raise ScenarioError(
            [f"{file}:{line}: $: {what}" for line, what in error.mistakes]
        ) from None
    found = list(document.mistakes)
    expanded = expand(document.data, entry_name)
    found += [(*document.place(loc), message) for loc, message in expanded.mistakes]
    context: dict[str, Any] = {
        "folder": folder,
        "fetch": fetch,
        "recordings": {},
        "expanded": expanded,
        "points": expanded.names,
    }
    scenario = None
    try:
        scenario = Scenario.model_validate(expanded.data, strict=True, context=context)
    except ValidationError as error:
        for one in error.errors(include_url=False):
            place = expanded.place(one["loc"], is_unknown_key(one))
            found.append((*document.place(place), message_of(one)))
    if scenario is not None and not found:  # a sweep without points must not vanish in silence
        message = "expected an entry of this scenario to sweep, found none"
        found = [
            (*document.place(("sweeps", index, "entry")), message)
            for index, spec in enumerate(scenario.sweep_specs)
            if not spec.entries
        ]
    if found or scenario is None:
        lines = [f"{file}:{line}: {path}: {message}" for line, path, message in sorted(set(found))]
        raise ScenarioError(lines)
    return scenario

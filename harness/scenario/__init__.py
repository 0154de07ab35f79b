"""A scenario file, read into a frozen, typed matrix or refused with all its mistakes at once.

::

    scenario = load(Path("scenarios/smoke.yaml"))
    scenario.codecs[1].params, scenario.networks[0].pair, scenario.receivers[0].settings
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from harness.errors import ScenarioError
from harness.scenario.canonical import canonical, digest
from harness.scenario.document import MAX_CHARACTERS, DocumentError, parse
from harness.scenario.links import Preset, presets
from harness.scenario.mistakes import message_of
from harness.scenario.model import (
    CodecEntry,
    Combination,
    CorpusEntry,
    NetworkEntry,
    ReceiverEntry,
    Rule,
    Scenario,
    TransportEntry,
    config_sha256,
)
from harness.scenario.schema import schema

__all__ = [
    "CodecEntry",
    "Combination",
    "CorpusEntry",
    "NetworkEntry",
    "Preset",
    "ReceiverEntry",
    "Rule",
    "Scenario",
    "TransportEntry",
    "canonical",
    "config_sha256",
    "digest",
    "load",
    "loads",
    "presets",
    "schema",
]


def load(path: Path) -> Scenario:
    """The scenario in a file, and in the loss traces that it names (relative to it).

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
    return loads(text, str(path), path.parent)


def loads(text: str, file: str, folder: Path) -> Scenario:
    """Like ``load``, of a text; ``file`` stands in the messages, ``folder`` is where it lies."""
    try:
        document = parse(text)
    except DocumentError as error:
        raise ScenarioError(
            [f"{file}:{line}: $: {what}" for line, what in error.mistakes]
        ) from None
    found = list(document.mistakes)
    scenario = None
    try:
        scenario = Scenario.model_validate(document.data, strict=True, context={"folder": folder})
    except ValidationError as error:
        for one in error.errors(include_url=False):
            found.append((*document.place(one["loc"]), message_of(one)))
    if found or scenario is None:
        lines = [f"{file}:{line}: {path}: {message}" for line, path, message in sorted(set(found))]
        raise ScenarioError(lines)
    return scenario

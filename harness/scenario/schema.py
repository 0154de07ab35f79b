"""The JSON Schema (draft 2020-12) of a scenario file: completion and checks in an editor.

It describes the shape. What depends on several values at once (a rule that matches nothing, a
queue without a bound) is for ``harness.scenario.load``.
"""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from harness.scenario.model import Scenario


class _AsWritten(GenerateJsonSchema):
    """Defaults as a user would write them (``60ms``), and no titles that repeat the keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        written = super().default_schema(schema)
        inner: Any = schema["schema"]
        while inner and isinstance(written.get("default"), int):
            if inner.get("serialization", {}).get("type") == "function-plain":
                written["default"] = inner["serialization"]["function"](written["default"])
            inner = inner.get("schema")
        return written


def schema() -> dict[str, Any]:
    """What ``scenarios/schema.json`` holds."""
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        **Scenario.model_json_schema(schema_generator=_AsWritten),
    }

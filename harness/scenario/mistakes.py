"""Pydantic's errors in our words: what was expected, what stands there, the nearest valid name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from typing import Any, Self

from pydantic import ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from harness.fields import Frozen
from harness.scenario.document import Loc, show

KNOWN_KEY = "a known key"


def mistake(message: str, *loc: str | int, value: object = None) -> InitErrorDetails:
    """One mistake, to be raised from within a validator by ``refuse``."""
    return {
        "type": PydanticCustomError("mistake", "{message}", {"message": message}),
        "loc": loc,
        "input": value,
    }


def refuse(details: Iterable[InitErrorDetails]) -> ValidationError:
    """What to raise for several mistakes; pydantic puts the place of the whole before theirs."""
    return ValidationError.from_exception_data("scenario", list(details))


def collect(details: list[InitErrorDetails], validate: Callable[[], Any], *loc: str | int) -> Any:
    """``validate()``, or None with its mistakes appended to ``details``, below ``loc``."""
    try:
        return validate()
    except ValidationError as error:
        details += [_again(e, (*loc, *e["loc"])) for e in error.errors(include_url=False)]
    return None


def not_among(what: str, value: object, valid: Iterable[str]) -> str:
    """``expected a codec (aac, opus), got "opsu"; did you mean "opus"?``"""
    names = list(valid)
    listed = ", ".join(names) if len(names) <= 24 else f"{', '.join(names[:24])}, ..."
    return f"expected {what} ({listed}), got {show(value)}{nearest(value, names)}"


def nearest(value: object, valid: Iterable[str]) -> str:
    """``; did you mean "opus"?``, or nothing where no valid name is near."""
    close = difflib.get_close_matches(str(value)[:200], list(valid), n=1, cutoff=0.5)
    return f'; did you mean "{close[0]}"?' if close else ""


class Written(Frozen):
    """Base of what a scenario's author writes: an unknown key names the nearest valid one."""

    @model_validator(mode="wrap")
    @classmethod
    def _name_the_keys(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(value)
        except ValidationError as error:
            fields = [field.alias or name for name, field in cls.model_fields.items()]
            raise refuse(name_the_keys(error, fields)) from None


def name_the_keys(error: ValidationError, fields: Iterable[str]) -> list[InitErrorDetails]:
    """The errors of one mapping, those about its unknown keys with ``fields`` listed."""
    details = []
    for one in error.errors(include_url=False):
        if one["type"] == "extra_forbidden" and len(one["loc"]) == 1:
            key = one["loc"][0]
            details.append(mistake(not_among(KNOWN_KEY, key, fields), key))
        elif one["type"] != "default_factory_not_called":  # only says that there are others
            details.append(_again(one, one["loc"]))
    return details


def _again(error: ErrorDetails, loc: Loc) -> InitErrorDetails:
    """An error as raised, to be raised once more."""
    return mistake(message_of(error), *loc, value=error["input"])


_EXPECTED = {
    "string_type": "a text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "too_short": "at least {min_length} entries",
    "too_long": "at most {max_length} entries",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
}


def is_unknown_key(error: ErrorDetails) -> bool:
    """Whether the mistake is a key that its mapping does not have."""
    return message_of(error).startswith(f"expected {KNOWN_KEY} ")


def message_of(error: ErrorDetails) -> str:
    """What was expected and what was found, without the place."""
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "mistake":
        return str(context["message"])
    if kind in ("value_error", "assertion_error"):
        return str(context["error"]).replace(f"got {value!r}", f"got {show(value)}", 1)
    if kind == "missing":
        return f'expected the key "{error["loc"][-1]}", which is missing'
    if kind == "literal_error":
        names = re.findall(r"'([^']*)'", context["expected"])
        expected = context["expected"].replace("'", '"')
        return f"expected {expected}, got {show(value)}{nearest(value, names)}"
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind].format(**context)}, got {show(value)}"
    return f"{error['msg']}, got {show(value)}"

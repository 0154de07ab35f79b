"""One YAML document as plain data that remembers where every value was written.

The text is read by YAML 1.2's core schema (``no`` is a word, ``12:30`` is a word, ``010`` is ten),
which is also what editors with a JSON Schema assume. Whatever the text is, the outcome is data or
a list of mistakes; anchors and aliases work, merge keys (``<<``) and tags do not.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import yaml

MAX_CHARACTERS = 256 * 1024
"""A scenario is written by hand; the pure Python parser needs seconds for more than this."""
MAX_NODES = 50_000
"""Values of a document with all aliases expanded."""

Loc = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?[0-9]{1,19}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


class WrittenInt(int):
    """A bare number in the file.

    Not ``int`` itself, so that ``harness.fields`` can tell it from a number in base units that a
    Python caller hands over: where a unit is needed, a bare number is a mistake.
    """

    __slots__ = ()


class _CoreLoader(yaml.SafeLoader):
    """SafeLoader with the implicit types of YAML 1.2's core schema; only ever composes nodes."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML fills it per class


for _name, _pattern in {
    "null": re.compile(r"(~|null|Null|NULL|)\Z"),
    "bool": re.compile(r"(true|True|TRUE|false|False|FALSE)\Z"),
    "int": re.compile(_INT.pattern + r"\Z"),
    "float": re.compile(_FLOAT.pattern + r"\Z"),
}.items():
    _CoreLoader.add_implicit_resolver(_TAG + _name, _pattern, None)


class DocumentError(ValueError):
    """The text is not one YAML document of plain data; ``mistakes`` = (1-based line, message)."""

    def __init__(self, mistakes: list[tuple[int, str]]) -> None:
        super().__init__("; ".join(message for _, message in mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True)
class Document:
    """``data`` of dicts, tuples and scalars; ``mistakes`` = (line, path, message) met on the way
    that did not prevent reading the rest (duplicate keys, tags)."""

    data: object
    mistakes: tuple[tuple[int, str, str], ...]
    _root: yaml.Node

    def place(self, loc: Loc) -> tuple[int, str]:
        """1-based line and ``$.path`` of a location; parts that the file does not have (union
        branches of the validator, missing keys, keys within a shorthand) are left out."""
        node, line, path = self._root, _line(self._root), "$"
        for part in loc:
            if isinstance(node, yaml.MappingNode):
                found = [pair for pair in node.value if pair[0].value == part]
                if found:
                    key, node = found[0]
                    line, path = _line(key), _join(path, str(part))
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
                node = node.value[part]
                line, path = _line(node), f"{path}[{part}]"
        return line, path


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if re.fullmatch(r"[\w-]+", key) else f"{path}[{show(key)}]"


def show(value: object) -> str:
    """A value as the user wrote it, roughly, and short enough for a message."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    text = json.dumps(value, ensure_ascii=False, default=str)
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 60 else text[:56] + '..."'


def parse(text: str) -> Document:
    """Read a document. Raises DocumentError where its structure cannot be read at all."""
    if len(text) > MAX_CHARACTERS:
        raise DocumentError(
            [(1, f"expected at most {MAX_CHARACTERS} characters, got {len(text)}; put long loss "
                 "traces into a file of their own")]
        )  # fmt: skip
    try:
        root = _CoreLoader(text).get_single_node()
        if root is None:
            raise DocumentError([(1, "expected a mapping, got an empty file")])
        _check_size(root)
        reader = _Reader()
        data = reader.read(root, "$")
    except DocumentError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(filter(None, (error.context, error.problem)))
        raise DocumentError([(mark.line + 1 if mark else 1, f"not YAML: {problem}")]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"not YAML: the character U+{ord(text[error.position]):04X} is not allowed"
        raise DocumentError([(line, problem)]) from None
    except RecursionError:
        raise DocumentError([(1, "expected a scenario, got lists nested too deeply")]) from None
    except (ValueError, OverflowError, IndexError) as error:
        # PyYAML lets a few of Python's own errors out, such as an escape beyond U+10FFFF.
        raise DocumentError([(1, f"not YAML: {error}")]) from None
    return Document(data, tuple(reader.mistakes), root)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _check_size(root: yaml.Node) -> None:
    sizes: dict[int, int] = {}
    active: set[int] = set()

    def size(node: yaml.Node) -> int:
        if id(node) in active:
            raise DocumentError([(_line(node), "expected plain data, got an alias to itself")])
        if id(node) not in sizes:
            active.add(id(node))
            sizes[id(node)] = 1 + sum(size(child) for child in _children(node))
            active.remove(id(node))
        return sizes[id(node)]

    if size(root) > MAX_NODES:
        raise DocumentError(
            [(1, f"expected at most {MAX_NODES} values, got {size(root)} (aliases expanded)")]
        )


class _Reader:
    def __init__(self) -> None:
        self.mistakes: list[tuple[int, str, str]] = []
        self._read: dict[int, object] = {}

    def read(self, node: yaml.Node, path: str) -> object:
        if id(node) not in self._read:
            self._read[id(node)] = self._fresh(node, path)
        return self._read[id(node)]

    def _fresh(self, node: yaml.Node, path: str) -> object:
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return tuple(self.read(item, f"{path}[{i}]") for i, item in enumerate(node.value))
        if isinstance(node, yaml.ScalarNode):
            kind = node.tag.removeprefix(_TAG)
            if kind == "str":
                return str(node.value)
            if kind == "null":
                return None
            if kind == "bool" and node.value.lower() in ("true", "false"):
                return bool(node.value.lower() == "true")
            if kind == "int" and _INT.fullmatch(node.value):
                return WrittenInt(node.value)
            if kind == "float" and _FLOAT.fullmatch(node.value):
                return float(node.value)
        self._mistake(node, path, f"expected plain data, got the tag {show(node.tag)}")
        return None

    def _mapping(self, node: yaml.MappingNode, path: str) -> dict[str, object]:
        data: dict[str, object] = {}
        lines: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._mistake(key, path, "expected a word as key, got a list or mapping")
            elif key.value == "<<" and key.style is None:
                self._mistake(key, path, 'expected plain keys, got "<<" (no merge keys here)')
            elif key.value in data:
                first = lines[key.value]
                self._mistake(
                    key, _join(path, key.value), f"expected each key once, first on line {first}"
                )
            else:
                lines[key.value] = _line(key)
                data[key.value] = self.read(value, _join(path, key.value))
        return data

    def _mistake(self, node: yaml.Node, path: str, message: str) -> None:
        self.mistakes.append((_line(node), path, message))

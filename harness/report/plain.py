"""A small page in the report's clothes: paragraphs, drawings and tables, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
from markupsafe import Markup


@dataclass(frozen=True)
class Value:
    """An entry of a table: ``below`` stands in small print under it, ``bad`` colours it."""

    text: str
    below: str = ""
    bad: bool = False

    def __str__(self) -> str:
        return f"{self.text} {self.below}".rstrip()


@dataclass(frozen=True)
class Section:
    """``key`` are labels with their colours; the first ``text_columns`` columns are text."""

    title: str
    paragraphs: Sequence[str] = ()
    key: Sequence[tuple[str, str]] = ()
    drawing: Markup | None = None
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str | Value]] = field(default=())
    text_columns: int = 1


def page(
    title: str,
    subtitle: str,
    notices: Sequence[tuple[str, str]],
    sections: Sequence[Section],
) -> str:
    """The HTML; ``notices`` are (``warn`` or ``note``, text). All text is escaped."""
    template = environment().get_template("plain.html.j2")
    return template.render(title=title, subtitle=subtitle, notices=notices, sections=sections)


def environment() -> jinja2.Environment:
    """The templates of this room, escaping, and strict about names."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("harness.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def write(path: Path, text: str) -> Path:
    """Have ``path`` hold ``text``, whole or not at all."""
    whole = path.with_name(f".{path.name}.part")
    whole.write_text(text, encoding="utf-8")
    return whole.replace(path)

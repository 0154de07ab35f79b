"""What is known of every corpus and of all weights: ``manifests/*.yaml``, typed.

A file is named by its URL and identified by its sha256: wherever bytes with that hash lie (cache,
mirror, network), they are the file. Of some weights only the beginning of the hash is known, since
their publisher names the file after it; the store then holds the user to what came first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

import yaml

from harness.assets.items import ItemRef
from harness.units import readable_size

_MANIFESTS = resources.files(__package__) / "manifests"
_WEIGHTS = "weights"


@dataclass(frozen=True)
class Asset:
    """One file, as it is fetched."""

    name: str
    url: str
    sha256: str
    """64 hex digits; only the first of them, 8 at least, where the publisher says no more."""
    size_bytes: int
    """0 where it is not known."""

    @property
    def size(self) -> str:
        """For people."""
        return readable_size(self.size_bytes) if self.size_bytes else "size unknown"


@dataclass(frozen=True)
class Weights:
    """Weights of one model; ``terms`` is what a user accepts before they are fetched."""

    asset: Asset
    licence: str
    attribution: str
    terms: str


@dataclass(frozen=True)
class CorpusManifest:
    """A corpus that is known by name."""

    name: str
    kind: Literal["speech", "music"]
    licence: str
    items: tuple[ItemRef, ...]


@cache
def corpora() -> Mapping[str, CorpusManifest]:
    """All corpora by name."""
    files = (file.name for file in _MANIFESTS.iterdir() if file.name.endswith(".yaml"))
    names = sorted({file.removesuffix(".yaml") for file in files} - {_WEIGHTS})
    return {name: _corpus(name, _read(name)) for name in names}


@cache
def weights() -> Mapping[str, Weights]:
    """All weights by name."""
    return {
        name: Weights(
            asset=Asset(name, entry["url"], entry["sha256"], entry.get("size_bytes", 0)),
            licence=entry["licence"],
            attribution=entry["attribution"],
            terms=entry["terms"],
        )
        for name, entry in _read(_WEIGHTS).items()
    }


def asset_of(item: ItemRef) -> Asset:
    """The file of an item of a corpus that is known by name."""
    assert item.sha256 is not None
    assert item.size_bytes is not None
    return Asset(f"{item.corpus}/{item.id}", item.source, item.sha256, item.size_bytes)


def _read(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((_MANIFESTS / f"{name}.yaml").read_text(encoding="utf-8")))


def _corpus(name: str, content: dict[str, Any]) -> CorpusManifest:
    items = tuple(
        ItemRef(
            id=entry["id"],
            corpus=name,
            kind=content["kind"],
            source=content["base_url"] + entry["path"],
            sha256=entry["sha256"],
            size_bytes=entry["size_bytes"],
            seconds=entry["seconds"],
            speaker=entry.get("speaker"),
            sex=entry.get("sex"),
            language=entry.get("language"),
            licence=content["licence"],
            attribution=content["attribution"],
        )
        for entry in content["items"]
    )
    return CorpusManifest(name, content["kind"], content["licence"], items)

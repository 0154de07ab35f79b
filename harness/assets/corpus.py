"""Which audio a scenario speaks of: corpora by name, folders of own files, and the way out where a
corpus cannot be reached.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import soundfile

from harness.assets import manifest, synthetic
from harness.assets.items import ItemRef
from harness.assets.manifest import Asset, asset_of
from harness.assets.store import AssetStore, Unreachable, file_sha256
from harness.errors import AssetError, BadInput
from harness.units import readable_size

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg")


class Entry(Protocol):
    """What a scenario says of one source of audio: a corpus by name, or a folder."""

    @property
    def corpus(self) -> str | None: ...
    @property
    def items(self) -> Sequence[str] | None: ...
    @property
    def folder(self) -> Path | None: ...
    @property
    def kind(self) -> Literal["speech", "music"]: ...
    @property
    def limit(self) -> int | None: ...
    @property
    def silence(self) -> int: ...


class Observer(Protocol):
    """Who is told of the fetching."""

    def note(self, text: str) -> None: ...
    def phase(self, name: str, total: int) -> None: ...
    def step(self, text: str) -> None: ...


@dataclass(frozen=True)
class Corpus:
    """``warning`` is None, or why quality figures are then for plumbing only."""

    items: tuple[ItemRef, ...]
    warning: str | None = None


class AssetRow(NamedTuple):
    """One line of ``harness assets list``."""

    name: str
    kind: str
    files: int
    size: str
    here: str
    licence: str


def load_corpora(
    entries: Iterable[Entry], base: Path, store: AssetStore, note: Callable[[str], None]
) -> Corpus:
    """Every item that the entries name, fetched; relative folders are relative to ``base``.

    Where neither mirror nor network answers for a speech corpus, synthetic speech takes its place
    and the result carries a warning. Raises BadInput for unknown names, AssetError for files that
    cannot be used.
    """
    items: dict[str, ItemRef] = {}
    missing: list[str] = []
    for entry in entries:
        found = list(_items(entry, base))
        if entry.folder is None:
            try:
                for item in found:
                    store.fetch(asset_of(item), note)
            except Unreachable as error:
                if found[0].kind != "speech":
                    raise
                note(str(error))
                missing.append(found[0].corpus)
                found = list(synthetic.speech(store.cache, len(found)))
        for item in (replace(item, silence_ns=entry.silence) for item in found):
            before = items.setdefault(item.id, item)
            if before.source != item.source:
                raise BadInput(
                    f"two items are called {item.id}: {before.source} and {item.source};"
                    " rename one of the files"
                )
            if before.silence_ns != item.silence_ns:
                raise BadInput(f"{item.id}: expected one silence in a scenario, got two of them")
    warning = (
        f"The corpus {', '.join(missing)} could not be reached: synthetic speech stood in for it,"
        " so quality figures are for plumbing only."
        if missing
        else None
    )
    return Corpus(tuple(items.values()), warning)


def listed(entries: Iterable[Entry], base: Path) -> tuple[ItemRef, ...]:
    """The items that :func:`load_corpora` would fetch, with nothing fetched. Raises BadInput for
    unknown names."""
    found = (
        replace(item, silence_ns=entry.silence) for entry in entries for item in _items(entry, base)
    )
    return tuple({item.id: item for item in found}.values())


def at_hand(items: Iterable[ItemRef], store: AssetStore) -> list[ItemRef]:
    """Those of the items that need no download."""
    return [item for item in items if "://" not in item.source or store.at_hand(asset_of(item))]


def list_assets(store: AssetStore) -> list[AssetRow]:
    """All corpora and weights, and how much of each is here."""
    rows = [
        _row(c.name, c.kind, [asset_of(item) for item in c.items], c.licence, store)
        for c in manifest.corpora().values()
    ]
    for name, entry in manifest.weights().items():
        accepted = "accepted" if store.is_accepted(name) else "not accepted"
        licence = f"{entry.licence} ({accepted})"
        rows.append(_row(name, "weights", [entry.asset], licence, store))
    return rows


def fetch(
    names: Sequence[str], store: AssetStore, observer: Observer, *, accept_licence: bool = False
) -> None:
    """Corpora or weights into the cache; all corpora where no name is given.

    Raises BadInput for an unknown name; AssetError where a file cannot be had, or where weights'
    licence is not accepted (the message says what is known of it).
    """
    assets: list[Asset] = []
    for name in names or manifest.corpora():
        if name in manifest.corpora():
            assets += [asset_of(item) for item in manifest.corpora()[name].items]
        elif name in manifest.weights():
            entry = manifest.weights()[name]
            observer.note(f"{name}: {entry.attribution}. {entry.terms}")
            if accept_licence:
                store.accept(name)
            elif not store.is_accepted(name):
                raise AssetError(f"{name}: to accept this, add --accept-licence")
            assets.append(entry.asset)
        else:
            raise _unknown("a corpus or weights", name, [*manifest.corpora(), *manifest.weights()])
    observer.phase("fetching", len(assets))
    for asset in assets:
        store.fetch(asset)
        observer.step(f"{asset.name} ({asset.size})")


def _items(entry: Entry, base: Path) -> Iterator[ItemRef]:
    found = (
        _of_manifest(entry.corpus, entry.items)
        if entry.corpus is not None
        else _of_folder(base / (entry.folder or ""), entry.kind, entry.limit)
    )
    return iter(found[: entry.limit])


def _of_manifest(name: str, wanted: Sequence[str] | None) -> list[ItemRef]:
    known = manifest.corpora()
    if name not in known:
        raise _unknown("a corpus", name, list(known))
    by_id = {item.id: item for item in known[name].items}
    for item_id in wanted or ():
        if item_id not in by_id:
            raise _unknown(f"an item of {name}", item_id, list(by_id))
    return [by_id[item_id] for item_id in wanted or by_id]


def _of_folder(folder: Path, kind: Literal["speech", "music"], limit: int | None) -> list[ItemRef]:
    if not folder.is_dir():
        raise BadInput(f"{folder}: expected a folder of audio files, there is none")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
    if not paths:
        raise BadInput(f"{folder}: expected WAV, FLAC or OGG files in it, found none")
    return [_own_file(path, folder, kind) for path in paths[:limit]]


def _own_file(path: Path, folder: Path, kind: Literal["speech", "music"]) -> ItemRef:
    try:
        seconds = soundfile.info(path).duration
        digest = file_sha256(path)
    except (OSError, soundfile.SoundFileError) as error:
        raise AssetError(f"{path}: cannot read this audio file: {error}") from error
    name = path.relative_to(folder).with_suffix("").as_posix()
    return ItemRef(
        id=re.sub(r"[^A-Za-z0-9._%+-]", "-", name),
        corpus=str(folder),
        kind=kind,
        source=str(path.absolute()),
        sha256=digest,
        size_bytes=path.stat().st_size,
        seconds=seconds,
    )


def _row(
    name: str, kind: str, assets: Sequence[Asset], licence: str, store: AssetStore
) -> AssetRow:
    here = sum(map(store.has, assets))
    size = sum(asset.size_bytes for asset in assets)
    readable = readable_size(size) if size else "unknown"
    return AssetRow(name, kind, len(assets), readable, f"{here} of {len(assets)}", licence)


def _unknown(what: str, name: str, valid: list[str]) -> BadInput:
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    return BadInput(f'expected {what} ({", ".join(valid)}), got "{name}"{hint}')

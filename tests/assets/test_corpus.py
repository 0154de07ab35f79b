"""Which audio a scenario means: names, folders, mistakes, and the way out without a network."""

from __future__ import annotations

import http.client
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import soundfile

from harness.assets import (
    SILENCE_NS,
    AssetStore,
    fetch,
    list_assets,
    load_corpora,
    manifest,
    prepare_all,
)
from harness.assets.manifest import CorpusManifest
from harness.assets.store import Unreachable
from harness.errors import AssetError, BadInput


@dataclass(frozen=True)
class Entry:
    corpus: str | None = None
    items: tuple[str, ...] | None = None
    folder: Path | None = None
    kind: Literal["speech", "music"] = "speech"
    limit: int | None = None
    silence: int = SILENCE_NS


class Notes(list[str]):
    def note(self, text: str) -> None:
        self.append(text)

    def phase(self, name: str, total: int) -> None:
        self.append(f"{name} {total}")

    def step(self, text: str) -> None:
        self.append(text)


class Offline(AssetStore):
    """A store whose network never answers, on whatever machine the test runs."""

    def _open(self, asset: manifest.Asset, _method: str) -> http.client.HTTPResponse:
        raise Unreachable(asset, "no network")


@pytest.fixture
def store(tmp_path: Path) -> AssetStore:
    return Offline(tmp_path / "cache")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tone = 0.1 * np.sin(np.arange(16_000) / 5)
    (tmp_path / "own" / "sub dir").mkdir(parents=True)
    for name in ("b.wav", "A.FLAC", "sub dir/c.ogg"):
        soundfile.write(tmp_path / "own" / name, tone, 16_000)
    (tmp_path / "own" / "notes.txt").write_text("not audio")
    return tmp_path / "own"


def test_silence_around_items_is_the_entrys(folder: Path, store: AssetStore) -> None:
    own = Entry(folder=folder, silence=0)
    assert {item.silence_ns for item in load_corpora([own], folder, store, print).items} == {0}
    with pytest.raises(BadInput, match="A: expected one silence"):
        load_corpora([own, Entry(folder=folder)], folder, store, print)


def test_a_folder_is_a_corpus(folder: Path, store: AssetStore) -> None:
    loaded = load_corpora([Entry(folder=Path("own"), kind="music")], folder.parent, store, print)
    assert [item.id for item in loaded.items] == ["A", "b", "sub-dir-c"]
    assert loaded.warning is None
    for item in loaded.items:
        assert item.kind == "music"
        assert item.seconds == 1
        assert len(item.sha256 or "") == 64
        assert Path(item.source).is_absolute()
    first = load_corpora([Entry(folder=folder, limit=1)], folder, store, print)
    assert [item.id for item in first.items] == ["A"]


def test_items_with_one_name_are_refused(folder: Path, store: AssetStore) -> None:
    shutil.copy(folder / "b.wav", folder / "b.wave.wav")
    shutil.copy(folder / "b.wav", folder / "b.ogg")
    with pytest.raises(BadInput, match=r"two items are called b: .*b\.ogg and .*b\.wav"):
        load_corpora([Entry(folder=folder)], folder, store, print)


def test_an_entry_given_twice_counts_once(folder: Path, store: AssetStore) -> None:
    loaded = load_corpora([Entry(folder=folder)] * 2, folder, store, print)
    assert len(loaded.items) == 3


def test_mistakes_name_the_nearest(folder: Path, store: AssetStore) -> None:
    with pytest.raises(BadInput, match='got "librispech"; did you mean "librispeech"'):
        load_corpora([Entry("librispech")], folder, store, print)
    with pytest.raises(BadInput, match='did you mean "533-1066-0001"'):
        load_corpora([Entry("librispeech", ("533-1066-001",))], folder, store, print)
    with pytest.raises(BadInput, match="expected a folder of audio files"):
        load_corpora([Entry(folder=folder / "none")], folder, store, print)
    (folder / "empty").mkdir()
    with pytest.raises(BadInput, match="expected WAV, FLAC or OGG files"):
        load_corpora([Entry(folder=folder / "empty")], folder, store, print)
    (folder / "broken.wav").write_text("RIFF")
    with pytest.raises(AssetError, match=r"broken\.wav: cannot read"):
        load_corpora([Entry(folder=folder)], folder, store, print)


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_without_a_network_speech_is_made_and_said_to_be(store: AssetStore) -> None:
    notes = Notes()
    loaded = load_corpora([Entry("librispeech", limit=3)], Path(), store, notes.note)
    assert loaded.warning is not None
    assert "plumbing only" in loaded.warning
    assert any("no network" in note for note in notes)
    assert [item.id for item in loaded.items] == [f"synthetic-0{n}" for n in (1, 2, 3)]
    assert len({item.sha256 for item in loaded.items}) == 3
    for reference in prepare_all(loaded.items, store).values():
        assert reference.warnings == ()
        assert 8 < reference.seconds <= 20
    again = load_corpora([Entry("librispeech", limit=3)], Path(), store, notes.note)
    assert again.items == loaded.items


def test_without_espeak_the_remedy_is_told(
    store: AssetStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AssetError, match="apt-get install espeak-ng"):
        load_corpora([Entry("librispeech")], Path(), store, print)


def test_music_is_never_made_up(store: AssetStore) -> None:
    with pytest.raises(Unreachable, match=r"arovane_beat_a.*no network"):
        load_corpora([Entry("sonic-pi")], Path(), store, print)


def test_fetching_and_listing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A corpus of files made here, found in a mirror by their content."""
    local = load_corpora([Entry(folder=folder)], folder, Offline(tmp_path / "x"), print).items
    corpus = CorpusManifest("tones", "speech", "CC0", local)
    monkeypatch.setattr(manifest, "corpora", lambda: {"tones": corpus})
    store = Offline(tmp_path / "cache", folder)
    (before, *_) = list_assets(store)
    assert (before.name, before.files, before.here) == ("tones", 3, "0 of 3")
    notes = Notes()
    fetch([], store, notes)
    assert notes[0] == "fetching 3"
    assert list_assets(store)[0].here == "3 of 3"
    with pytest.raises(BadInput, match='did you mean "tones"'):
        fetch(["tone"], store, notes)


def test_weights_are_not_fetched_before_their_terms_are_accepted(store: AssetStore) -> None:
    notes = Notes()
    with pytest.raises(AssetError, match="--accept-licence"):
        fetch(["encodec-24khz"], store, notes)
    assert "no licence" in notes[0]
    with pytest.raises(Unreachable):
        fetch(["encodec-24khz"], store, notes, accept_licence=True)
    assert store.is_accepted("encodec-24khz")

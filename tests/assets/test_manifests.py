"""The shipped manifests: complete, pinned, and free of what nobody could fetch."""

from __future__ import annotations

import re

import pytest

from harness.assets import manifest

ITEMS = [item for corpus in manifest.corpora().values() for item in corpus.items]
ASSETS = [*map(manifest.asset_of, ITEMS), *(w.asset for w in manifest.weights().values())]


@pytest.mark.parametrize("asset", ASSETS, ids=lambda asset: asset.name)
def test_every_file_is_pinned(asset: manifest.Asset) -> None:
    if re.fullmatch(r"[0-9a-f]{64}", asset.sha256):
        assert asset.size_bytes > 1000
    else:
        assert re.search(rf"-{asset.sha256}\.th$", asset.url), "the publisher names it so"
        assert re.fullmatch(r"[0-9a-f]{8}", asset.sha256)
    assert asset.url.startswith("https://")
    if "githubusercontent" in asset.url:
        assert re.search(r"/[0-9a-f]{40}/", asset.url), "a branch may change under the hash"


def test_every_item_says_what_it_is() -> None:
    assert len({(item.corpus, item.id) for item in ITEMS}) == len(ITEMS)
    for item in ITEMS:
        assert item.licence
        assert item.attribution
        assert item.seconds is not None
        assert item.seconds > 3.2
        if item.kind == "speech":
            assert item.sex in {"F", "M"}
            assert item.speaker
            assert item.language


def test_the_default_corpus_has_twelve_utterances_of_both_sexes() -> None:
    items = manifest.corpora()["librispeech"].items
    assert len(items) == 12
    speakers = {(item.speaker, item.sex) for item in items}
    assert sum(sex == "F" for _, sex in speakers) == sum(sex == "M" for _, sex in speakers) == 5

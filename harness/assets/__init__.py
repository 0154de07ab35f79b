"""Corpora and weights by URL and sha256, and references made of them."""

from harness.assets.corpus import (
    AssetRow,
    Corpus,
    at_hand,
    fetch,
    list_assets,
    listed,
    load_corpora,
)
from harness.assets.items import SILENCE_NS, ItemRef
from harness.assets.prepare import (
    Prepared,
    prepare,
    prepare_all,
    resampled,
    samples_sha256,
    until,
    without_pesq,
)
from harness.assets.store import AssetStore

__all__ = [
    "SILENCE_NS",
    "AssetRow",
    "AssetStore",
    "Corpus",
    "ItemRef",
    "Prepared",
    "at_hand",
    "fetch",
    "list_assets",
    "listed",
    "load_corpora",
    "prepare",
    "prepare_all",
    "resampled",
    "samples_sha256",
    "until",
    "without_pesq",
]

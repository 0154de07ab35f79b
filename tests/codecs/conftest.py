from __future__ import annotations

from pathlib import Path

import pytest

from harness.assets import AssetStore, Prepared, load_corpora, prepare
from harness.codecs.base import Codec
from harness.scenario import CorpusEntry


@pytest.fixture
def codec(request: pytest.FixtureRequest) -> Codec:
    """One of ``codec_settings.SETTINGS``, made when a test first needs it."""
    return request.param()


@pytest.fixture(scope="session")
def speech() -> list[Prepared]:
    """Two utterances of LibriSpeech; speech by espeak-ng where the corpus is out of reach."""
    store = AssetStore.default()
    entry = CorpusEntry(corpus="librispeech", limit=2)
    return [prepare(item, store) for item in load_corpora((entry,), Path(), store, print).items]

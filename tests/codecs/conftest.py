from __future__ import annotations

import pytest

from harness.codecs.base import Codec


@pytest.fixture
def codec(request: pytest.FixtureRequest) -> Codec:
    """One of ``codec_settings.SETTINGS``, made when a test first needs it."""
    return request.param()

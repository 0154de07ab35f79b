"""The settings at which every codec is held to the contract. A new codec adds its own here."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from harness import codecs
from harness.codecs.base import Codec
from harness.errors import Unsupported
from tests.conftest import real_weights

SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("pcm", {}),
    ("pcm", {"rate": "48kHz", "frame": "2.5ms"}),
    ("pcm", {"frame": "64ms", "framing": "wav"}),
    ("g711", {"law": "mu"}),
    ("g711", {"law": "a", "frame": "10ms"}),
    ("g722", {}),
    ("g722", {"frame": "2.5ms"}),
    ("g722", {"frame": "60ms"}),
    ("aac", {}),
    ("aac", {"rate": "16kHz", "bitrate": "32kbit"}),
    ("aac", {"rate": "44.1kHz", "bitrate": "128kbit"}),
    ("aac", {"rate": "12kHz", "bitrate": "72kbit"}),
    ("aac-blocks", {"rate": "48kHz", "block_samples": 4096, "priming": "trim"}),
    ("mp3", {}),
    ("mp3", {"rate": "44.1kHz", "bitrate": "128kbit"}),
    ("mp3", {"rate": "16kHz", "bitrate": "32kbit", "reservoir": False}),
    ("flac", {}),
    ("flac", {"rate": "44.1kHz", "frame": "10ms", "compression": 8}),
    ("amr-nb", {}),
    ("amr-nb", {"bitrate": "4.75kbit"}),
    ("sbc", {}),
    ("sbc", {"rate": "48kHz", "bitrate": "128kbit"}),
    ("opus", {}),
    ("opus", {"fec": True, "expected_loss": "10%"}),
    ("opus", {"rate": "8kHz", "bitrate": "12kbit", "frame": "60ms"}),
    ("opus", {"rate": "48kHz", "application": "audio", "bitrate": "96kbit", "vbr": False}),
    ("opus", {"rate": "48kHz", "application": "lowdelay", "bitrate": "64kbit", "frame": "5ms"}),
    ("opus", {"rate": "24kHz", "application": "lowdelay", "bitrate": "64kbit", "frame": "2.5ms"}),
    ("opus", {"rate": "48kHz", "bitrate": "40kbit", "frame": "40ms", "complexity": 3}),
    ("lc3", {}),
    ("lc3", {"rate": "8kHz", "frame": "7.5ms", "bitrate": "24kbit"}),
    ("lc3", {"rate": "24kHz", "bitrate": "48kbit"}),
    ("lc3", {"rate": "32kHz", "frame": "5ms", "bitrate": "64kbit"}),
    ("lc3", {"rate": "48kHz", "frame": "2.5ms", "bitrate": "128kbit"}),
    ("speex", {}),
    ("speex", {"rate": "8kHz", "bitrate": "15kbit"}),
    ("speex", {"rate": "32kHz", "bitrate": "29.6kbit", "complexity": 1}),
    ("gsm", {}),
    ("amr-wb", {}),
    ("amr-wb", {"bitrate": "6.6kbit"}),
    ("amr-wb", {"bitrate": "23.85kbit"}),
    ("codec2", {}),
    ("codec2", {"bitrate": "700bit"}),
    ("encodec", {"weights": "random"}),
    ("encodec", {"weights": "random", "bitrate": "1.5kbit"}),
    (
        "encodec-chunks",
        {"weights": "random", "bitrate": "3kbit", "chunk": 2560, "lm": True, "framing": "raw"},
    ),
    ("encodec-48k", {"weights": "random", "bitrate": "24kbit", "chunk": 5120}),
    ("lyra", {}),
    ("lyra", {"bitrate": "3.2kbit"}),
    ("mimi", {"weights": "random"}),
    ("snac", {"weights": "random", "chunk": 2048}),
    ("dac", {"weights": "random", "chunk": "100ms"}),
    ("esc", {"weights": "random", "chunk": 1520, "overlap": 160}),
    ("wavtokenizer", {"weights": "random", "chunk": "100ms"}),
]

PARAMETRIC = frozenset(
    {
        "codec2",
        "dac",
        "encodec",
        "encodec-48k",
        "encodec-chunks",
        "esc",
        "mimi",
        "snac",
        "wavtokenizer",
    }
)
"""Whose output has no waveform to hold against the input."""


def _id(name: str, written: dict[str, Any]) -> str:
    return "-".join([name, *(f"{key}={value}" for key, value in written.items())])


@functools.cache
def _make(index: int) -> Codec:
    name, written = SETTINGS[index]
    return make(name, **written)


def _assets(name: str, written: dict[str, Any]) -> dict[str, Path]:
    module = codecs.module(name)
    return {need: real_weights(need) for need in module.required_assets(module.Params(**written))}


def make(name: str, **written: Any) -> Codec:
    """The codec at settings as a user writes them.

    Skips the test where the codec's library is one that a user installs, and is missing.
    """
    try:
        return codecs.create(name, codecs.params_class(name)(**written), _assets(name, written))
    except Unsupported as error:
        if not codecs.module(name).ABOUT.remedy:
            raise
        pytest.skip(str(error))


def every_setting(*only: str, parametric: bool = True) -> pytest.MarkDecorator:
    """Parametrise ``codec`` over the settings, of the codecs named or of all."""
    return pytest.mark.parametrize(
        "codec",
        [
            pytest.param(functools.partial(_make, index), id=_id(name, written))
            for index, (name, written) in enumerate(SETTINGS)
            if (not only or name in only) and (parametric or name not in PARAMETRIC)
        ],
        indirect=True,
    )

"""The codecs, by name.

To add one, write one file and one line:

1. ``harness/codecs/mycodec.py`` offers what :class:`harness.codecs.base.CodecModule` asks for:

   * ``class Params(base.Params)``: what a scenario may set, with units (``harness.fields``) and
     limits (``harness.codecs.allowed``), so that an illegal setting is a mistake of the scenario
     file and not of a running cell;
   * ``required_assets(params)``: names in the weights manifest, ``()`` for most;
   * ``create(params, assets)``: the configured codec. Import the codec's own library inside it,
     never at the top of the file: scenarios are read on machines without it.

2. One line in :data:`CODECS` below.

The contract (frames, look-ahead L, delay D, who calls what) is in ``base.py``. Everything under
``tests/codecs`` that runs over all codecs takes the new one in by the settings added to
``tests/codecs/codec_settings.py``; ``test_delay.py`` measures the delay that ``facts`` declare.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from harness.codecs.base import Codec, CodecModule, Params
from harness.errors import BadInput

CODECS: dict[str, str] = {
    "pcm": "harness.codecs.pcm",
    "g711": "harness.codecs.g711",
    "g722": "harness.codecs.g722",
    "opus": "harness.codecs.opus",
    "aac": "harness.codecs.aac",
    "aac-blocks": "harness.codecs.aac_blocks",
    "mp3": "harness.codecs.mp3",
    "flac": "harness.codecs.flac",
    "amr-nb": "harness.codecs.amr_nb",
    "sbc": "harness.codecs.sbc",
    "lc3": "harness.codecs.lc3",
    "amr-wb": "harness.codecs.amr_wb",
    "speex": "harness.codecs.speex",
    "gsm": "harness.codecs.gsm",
    "codec2": "harness.codecs.codec2",
    "encodec": "harness.codecs.encodec",
    "encodec-chunks": "harness.codecs.encodec_chunks",
    "encodec-48k": "harness.codecs.encodec_48k",
    "lyra": "harness.codecs.lyra",
    "mimi": "harness.codecs.mimi",
    "snac": "harness.codecs.snac",
    "dac": "harness.codecs.dac",
    "esc": "harness.codecs.esc",
    "wavtokenizer": "harness.codecs.wavtokenizer",
}


def names() -> tuple[str, ...]:
    """All codecs, in the order of the table."""
    return tuple(CODECS)


def module(name: str) -> CodecModule:
    """The codec's file, imported. Raises BadInput, with the nearest name, for an unknown one."""
    if name not in CODECS:
        near = difflib.get_close_matches(name, CODECS, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise BadInput(f"expected one of the codecs {', '.join(CODECS)}, got {name!r}{hint}")
    return cast(CodecModule, importlib.import_module(CODECS[name]))


def params_class(name: str) -> type[Params]:
    """The pydantic class of the codec's parameters. Raises BadInput for an unknown codec."""
    return module(name).Params


def create(name: str, params: Params, assets: Mapping[str, Path]) -> Codec:
    """The configured codec; ``assets`` maps each of its ``required_assets`` to a verified file.

    Raises BadInput for an unknown name, Unsupported where the codec's library is missing or
    cannot do what ``params`` ask, AssetError where weights cannot be used.
    """
    return module(name).create(params, assets)

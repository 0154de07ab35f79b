"""Which libopus is loaded, and the C signatures of its calls."""

from __future__ import annotations

import ctypes
import importlib.util
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import harness
from harness.errors import Unsupported

ENVIRONMENT = "HARNESS_LIBOPUS"
_BUILT = Path(harness.__file__).parents[1] / ".cache" / "native" / "libopus.so.0"


@dataclass(frozen=True)
class Library:
    """One loaded libopus."""

    c: ctypes.CDLL
    path: str

    @property
    def name(self) -> str:
        """Such as ``libopus 1.6.1``."""
        return bytes(self.c.opus_get_version_string()).decode()

    def explain(self, code: int) -> str:
        return bytes(self.c.opus_strerror(code)).decode()

    def check(self, code: int, what: str) -> None:
        if code < 0:
            raise Unsupported(f"{self.name}: {what}: {self.explain(code)}")


@lru_cache
def library() -> Library:
    """libopus: the one named in HARNESS_LIBOPUS, else what ``make libopus`` built in the checkout,
    else the one in PyAV's wheel, else the system's.

    The container image names its own, built from the same source as the checkout's, so host and
    container code with the same one. PyAV's comes before the system's because its version is
    locked with the wheel's. Raises Unsupported, with the remedy, where none can be loaded.
    """
    chosen = os.environ.get(ENVIRONMENT)
    built = [str(_BUILT)] if _BUILT.exists() else []
    candidates = [chosen] if chosen else [*built, *_pyav_libraries(), "libopus.so.0"]
    failures = []
    for path in candidates:
        try:
            return Library(_declared(ctypes.CDLL(path)), path)
        except (OSError, AttributeError) as error:
            failures.append(f"{path}: {error}")
    raise Unsupported(
        f"no libopus ({'; '.join(failures)}); make libopus builds one, the package av and Debian's"
        f" libopus0 have one, and {ENVIRONMENT} can name another"
    )


def _pyav_libraries() -> list[str]:
    spec = importlib.util.find_spec("av")
    if spec is None or spec.origin is None:
        return []
    return [str(path) for path in Path(spec.origin).parents[1].glob("av.libs/libopus-*.so*")]


def _declared(c: ctypes.CDLL) -> ctypes.CDLL:
    """The C signatures of opus.h; raises AttributeError if the library lacks one that 1.3 has."""
    integer, pointer, text = ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p
    samples = size = ctypes.c_int32
    since_1_5 = (
        ("opus_dred_decoder_create", pointer, [pointer]),
        ("opus_dred_decoder_destroy", None, [pointer]),
        ("opus_dred_alloc", pointer, [pointer]),
        ("opus_dred_free", None, [pointer]),
        (
            "opus_dred_parse",
            integer,
            [pointer, pointer, text, size, samples, samples, pointer, integer],
        ),
        ("opus_decoder_dred_decode", integer, [pointer, pointer, samples, pointer, samples]),
    )
    for name, returns, arguments in (
        *(entry for entry in since_1_5 if hasattr(c, entry[0])),
        ("opus_get_version_string", text, []),
        ("opus_strerror", text, [integer]),
        ("opus_encoder_create", pointer, [ctypes.c_int32, integer, integer, pointer]),
        ("opus_encoder_ctl", integer, [pointer, integer]),
        ("opus_encoder_destroy", None, [pointer]),
        ("opus_encode", ctypes.c_int32, [pointer, pointer, integer, text, ctypes.c_int32]),
        ("opus_decoder_create", pointer, [ctypes.c_int32, integer, pointer]),
        ("opus_decoder_ctl", integer, [pointer, integer]),
        ("opus_decoder_destroy", None, [pointer]),
        ("opus_decode", integer, [pointer, text, ctypes.c_int32, pointer, integer, integer]),
        ("opus_packet_get_nb_samples", integer, [text, ctypes.c_int32, ctypes.c_int32]),
        ("opus_packet_parse", integer, [text, ctypes.c_int32, pointer, pointer, pointer, pointer]),
    ):
        function = getattr(c, name)
        function.restype, function.argtypes = returns, arguments
    return c

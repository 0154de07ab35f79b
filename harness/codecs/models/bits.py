"""Codes of a fixed width as bytes: first code first, most significant bit first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int64]


def packed_bytes(codes: int, width: int) -> int:
    """Size of that many codes of ``width`` bits."""
    return -(-codes * width // 8)


def pack(codes: Codes, width: int) -> bytes:
    """All of ``codes``, each in 0...2**width - 1, in C order; zero bits up to the next byte."""
    places = np.arange(width - 1, -1, -1)
    return np.packbits((codes.reshape(-1, 1) >> places & 1).astype(np.uint8)).tobytes()


def unpack(payload: bytes, codes: int, width: int, what: str) -> Codes:
    """The inverse of :func:`pack`, shape (codes,). ``what`` names the payload in errors.

    Raises ValueError on a wrong size or bits in the padding.
    """
    size = packed_bytes(codes, width)
    if len(payload) != size:
        raise ValueError(f"{what} of {len(payload)} bytes, expected {size}")
    bits = np.unpackbits(np.frombuffer(payload, np.uint8))
    if bits[codes * width :].any():
        raise ValueError(f"{what} is damaged: its padding bits are not zero")
    places = np.arange(width - 1, -1, -1)
    unpacked: Codes = (bits[: codes * width].reshape(codes, width).astype(np.int64) << places).sum(
        1
    )
    return unpacked

"""Models that turn a chunk of audio into codes and back, as models of :mod:`..chunked`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from harness.codecs.chunked import Samples
from harness.codecs.models import bits
from harness.codecs.models.bits import Codes


class Tokeniser(Protocol):
    """A neural codec without its container; stateless."""

    def encode(self, samples: Samples, codebooks: int) -> Codes:
        """Codes of the first ``codebooks`` codebooks, shape (codebooks, steps)."""
        ...

    def decode(self, codes: Codes) -> Samples:
        """About the samples that the codes were made of: a few may be missing at the end."""
        ...


@dataclass(frozen=True)
class TokenModel:
    """A tokeniser at one chunk length; a payload is its codes, bit-packed codebook by codebook."""

    tokeniser: Tokeniser
    name: str
    chunk_samples: int
    padded_samples: int
    """What the tokeniser is given: the chunk and zeros after it."""
    steps: int
    """Codes of a codebook in a chunk."""
    code_bits: int
    codebooks: int
    decodable: tuple[int, ...]
    """Numbers of codebooks that a payload may have, told apart by its size."""

    @property
    def payload_bits(self) -> int:
        return self.codebooks * self.steps * self.code_bits

    def with_codebooks(self, numbers: Sequence[int]) -> list[TokenModel]:
        """The same model at other rates."""
        return [replace(self, codebooks=number) for number in numbers]

    def encode(self, samples: Samples) -> bytes:
        padded = np.zeros(self.padded_samples, np.float32)
        padded[: len(samples)] = samples
        return bits.pack(self.tokeniser.encode(padded, self.codebooks), self.code_bits)

    def decode(self, payload: bytes) -> Samples:
        decoded = self.tokeniser.decode(self.codes(payload))[: self.chunk_samples]
        samples = np.zeros(self.chunk_samples, np.float32)
        samples[: len(decoded)] = decoded
        return samples

    def codes(self, payload: bytes) -> Codes:
        """Shape (codebooks, steps). Raises ValueError where the payload is no chunk's."""
        sizes = {
            bits.packed_bytes(number * self.steps, self.code_bits): number
            for number in self.decodable
        }
        number = sizes.get(len(payload), self.codebooks)
        flat = bits.unpack(payload, number * self.steps, self.code_bits, f"{self.name} chunk")
        return flat.reshape(number, self.steps)

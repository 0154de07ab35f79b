"""A small model of our own that stands in where somebody else's weights are not at hand.

It has the interface of a real tokeniser: so many samples a step, so many codebooks, so many vectors
in each. One strided convolution whose kernels are orthonormal, residual vector quantisation, and
the same convolution transposed. What is heard is the input's projection on a few random directions:
of no use to listen to, but each sample is where it belongs, so a delay can be measured.
"""

from __future__ import annotations

from functools import lru_cache

from harness.codecs.chunked import Samples
from harness.codecs.models import seeded
from harness.codecs.models.bits import Codes

_SEED = 19990704
_SHARE = 0.9
"""Spread of a codebook's vectors, as a share of that of the one before it."""


class SmallTokeniser:
    """``hop_samples`` a step; ``width`` directions are kept; ``codebooks`` of ``vectors`` each."""

    def __init__(self, hop_samples: int, width: int, codebooks: int, vectors: int) -> None:
        import torch

        with seeded.drawn_from(_SEED):
            basis, _ = torch.linalg.qr(torch.randn(hop_samples, width))
            books = torch.randn(codebooks, vectors, width)
        spread = 0.2 * _SHARE ** torch.arange(codebooks)
        self._hop = hop_samples
        self._kernels = basis.t().contiguous()[:, None]
        self._books = books * spread[:, None, None]

    def encode(self, samples: Samples, codebooks: int) -> Codes:
        """Samples beyond the last whole step are not coded."""
        import torch
        from torch.nn.functional import conv1d

        with torch.inference_mode():
            heard = torch.from_numpy(samples)[None, None]
            residual = conv1d(heard, self._kernels, stride=self._hop)[0].t()
            codes = []
            for book in self._books[:codebooks]:
                chosen = torch.cdist(residual, book).argmin(1)
                residual = residual - book[chosen]
                codes.append(chosen)
            stacked: Codes = torch.stack(codes).numpy()
        return stacked

    def decode(self, codes: Codes) -> Samples:
        import torch
        from torch.nn.functional import conv_transpose1d

        with torch.inference_mode():
            chosen = torch.from_numpy(codes)
            vectors = self._books[torch.arange(len(codes))[:, None], chosen].sum(0)
            samples: Samples = conv_transpose1d(vectors.t()[None], self._kernels, stride=self._hop)[
                0, 0
            ].numpy()
        return samples


@lru_cache(maxsize=4)
def tokeniser(hop_samples: int, width: int, codebooks: int, vectors: int) -> SmallTokeniser:
    """The model of that shape, made once."""
    return SmallTokeniser(hop_samples, width, codebooks, vectors)

"""Codewords of any number of values: one byte stands for 1 strong or for 16 weak coefficients.

    coefficients, strong to weak │ 1 │ 2   │ 2   │ 3       │ 5             │ 16 …    `sizes`: values of each part
                                   ▼   ▼     ▼     ▼         ▼               ▼
    bytes                          b   b     b     b         b               b

All parts of one size share a codebook, whose values are divided by the coefficients' standard deviations. So there is
little to fit, and little to fit wrongly. The codebooks of sizes 1, 2 … stand side by side in `codewords`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from vidxfer.pipeline.cache.codecs.form import CODEWORD_VALUES, CODEWORDS, PART_MOST
from vidxfer.pipeline.cache.codecs.pq import kmeans, nearest

BITS_OF_PART = 8
RATE_LEAST = 0.25
"""Coefficients that deserve fewer bits get none, as long as others can use them."""

VECTORS_MOST = 12_288
"""Vectors that one codebook is fitted on: about 48 for a codeword. More cost time and gain nothing that shows."""

ROUNDS = 8


def share_parts(variance: Tensor, count: int) -> list[int]:
    """Sizes of up to `count` parts over coefficients [coefficient] whose variance falls; rising but for the last.

    A part covers about as many coefficients as 8 bits suffice for at one level of error.
    """
    rate = (variance.double().clamp_min(1e-30).log2() / 2).tolist()
    low, high = rate[-1] - BITS_OF_PART, rate[0]
    for _ in range(40):
        level = (low + high) / 2
        fits = len(_cut([r - level for r in rate], count + 1)) <= count
        low, high = (low, level) if fits else (level, high)
    sizes = _cut([r - high for r in rate], count)
    left = len(rate) - sum(sizes)
    while left and len(sizes) < count:
        sizes.append(min(PART_MOST, left))
        left -= sizes[-1]
    return sizes


def _cut(rate: Sequence[float], most: int) -> list[int]:
    sizes: list[int] = []
    place = 0
    while place < len(rate) and rate[place] > RATE_LEAST and len(sizes) < most:
        size = min(PART_MOST, max(1, round(BITS_OF_PART / rate[place])), len(rate) - place)
        sizes.append(size)
        place += size
    return sizes


def segments(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """(size, parts) of every run of parts of one size."""
    return [(size, len(list(run))) for size, run in groupby(sizes)]


def book(codewords: Tensor, size: int) -> Tensor:
    """The codebook [codeword value] of parts of one size, out of `codewords` [codeword value]."""
    first = size * (size - 1) // 2
    return codewords[:, first : first + size]


def fit_codewords(values: Tensor, sizes: Sequence[int], seed: int) -> Tensor:
    """Codebooks of all sizes that occur, zeros for the others, of normalised values [track coefficient]."""
    codewords = values.new_zeros(CODEWORDS, CODEWORD_VALUES)
    samples: dict[int, list[Tensor]] = {}
    first = 0
    for size, parts in segments(sizes):
        samples.setdefault(size, []).append(_vectors(values, first, size, parts))
        first += size * parts
    for size, vectors in samples.items():
        sample = torch.cat(vectors)
        sample = sample[:: max(1, len(sample) // VECTORS_MOST)]
        book(codewords, size).copy_(kmeans(sample[:, None], seed=seed, rounds=ROUNDS)[0])
    return codewords


def encode_parts(values: Tensor, sizes: Sequence[int], codewords: Tensor) -> Tensor:
    """Normalised values [track coefficient], strong to weak, to bytes uint8 [track part]."""
    codes, first = [], 0
    for size, parts in segments(sizes):
        chosen = nearest(_vectors(values, first, size, parts)[:, None], book(codewords, size)[None])
        codes.append(chosen.view(len(values), parts))
        first += size * parts
    return torch.cat(codes, dim=1)


def decode_parts(codes: Tensor, sizes: Sequence[int], codewords: Tensor) -> Tensor:
    """The inverse: [... coefficient], as many as the parts cover."""
    values, first = [], 0
    for size, parts in segments(sizes):
        values.append(F.embedding(codes[..., first : first + parts].int(), book(codewords, size)).flatten(-2))
        first += parts
    return torch.cat(values, dim=-1)


def _vectors(values: Tensor, first: int, size: int, parts: int) -> Tensor:
    """[(track part) value] of a run of parts of one size."""
    return values[:, first : first + size * parts].reshape(-1, size)

"""Product quantisation: a token is cut into parts, and each part becomes the number of the nearest of 256 codewords.

    values ─ / gain ─▶ │ part 0 │ part 1 │ …       8 values a part: one byte stands for eight values
                           ▼        ▼
                       nearest of codebook[part]    uint8 [… part]
    scale = <values, codewords> / <codewords, codewords>     the gain that loses least; float16 per token

Codebooks are fitted once per layer and part by k-means on a bounded sample. Everything goes a few parts at a time, so
that the table of distances stays below `DISTANCE_VALUES_MOST` numbers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vidxfer.pipeline.cache.codecs.form import CODEWORDS
from vidxfer.pipeline.cache.codecs.pack import SCALE_LEAST

ROUNDS = 12
"""Of k-means; the error falls by less than a percent per round from about there on."""

DISTANCE_VALUES_MOST = 4_000_000
FLOAT16_MOST = 65504.0


def encode_pq(values: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Finite values [... value] and a codebook [part codeword value] to codes uint8 [... part] and scales [...]."""
    parts, _, size = codebook.shape
    cut = _cut(values.flatten(0, -2), parts, size)
    gain = gain_of(cut.flatten(-2))
    codes = nearest(cut / gain[:, None, None], codebook)
    chosen = codewords_of(codes, codebook)
    whole = cut.flatten(-2)
    scale = (whole * chosen).sum(-1) / chosen.square().sum(-1).clamp_min(torch.finfo(torch.float32).tiny)
    scale = scale.clamp_(SCALE_LEAST, FLOAT16_MOST).half()
    return codes.reshape(*values.shape[:-1], parts), scale.reshape(values.shape[:-1])


def decode_pq(codes: Tensor, scale: Tensor, codebook: Tensor, *, count: int) -> Tensor:
    """The inverse of `encode_pq`, in the codebook's type [... value] with `count` values."""
    return codewords_of(codes, codebook)[..., :count] * scale.to(codebook.dtype).unsqueeze(-1)


def codewords_of(codes: Tensor, codebook: Tensor) -> Tensor:
    """The codewords behind codes [... part], side by side: [... (part value)]."""
    first = torch.arange(len(codebook), device=codes.device, dtype=torch.int32) * CODEWORDS
    return F.embedding(codes.int() + first, codebook.flatten(0, 1)).flatten(-2)


def gain_of(values: Tensor) -> Tensor:
    """Root mean square over the last axis, never zero."""
    return values.square().mean(dim=-1).sqrt().clamp_min(SCALE_LEAST)


def nearest(cut: Tensor, codebook: Tensor) -> Tensor:
    """Number of the nearest codeword, uint8 [token part]; cut [token part value], codebook [part codeword value]."""
    parts = len(codebook)
    codes = torch.empty(cut.shape[:2], dtype=torch.uint8, device=cut.device)
    half_norm = codebook.square().sum(-1) / 2
    tokens_at_once = max(1, min(len(cut), DISTANCE_VALUES_MOST // CODEWORDS))
    parts_at_once = max(1, DISTANCE_VALUES_MOST // CODEWORDS // tokens_at_once)
    for first in range(0, len(cut), tokens_at_once):
        rows = cut[first : first + tokens_at_once]
        for start in range(0, parts, parts_at_once):
            block = slice(start, start + parts_at_once)
            # |x - c|² = |x|² - 2 (x·c - |c|² / 2): the largest bracket is the nearest codeword.
            score = torch.einsum("tpv,pcv->ptc", rows[:, block], codebook[block]).sub_(half_norm[block, None])
            codes[first : first + tokens_at_once, block] = _largest(score).T.to(torch.uint8)
    return codes


def _largest(score: Tensor) -> Tensor:
    """Place of the largest along the last axis; on a CPU NumPy finds it ten times faster than torch."""
    return torch.from_numpy(score.numpy().argmax(-1)) if score.device.type == "cpu" else score.argmax(-1)


def fit_codebook(values: Tensor, size: int, *, seed: int, rounds: int = ROUNDS) -> Tensor:
    """Codewords of one layer, float32 [part codeword value], from a sample [token value] of at least one token.

    The beginning is drawn with `seed`; a codeword that nothing is nearest to is drawn anew among the tokens.
    """
    parts = -(-values.shape[-1] // size)
    cut = _cut(values, parts, size)
    cut = cut / gain_of(cut.flatten(-2))[:, None, None]
    return kmeans(cut, seed=seed, rounds=rounds)


def kmeans(cut: Tensor, *, seed: int, rounds: int = ROUNDS) -> Tensor:
    """256 means of every part, [part codeword value] of vectors [token part value]; see `fit_codebook`."""
    parts, size = cut.shape[1:]
    draw = torch.Generator().manual_seed(seed)
    codebook = _drawn(cut, CODEWORDS, draw)
    for _ in range(rounds):
        codes = nearest(cut, codebook).long()
        flat = (codes + torch.arange(parts, device=cut.device) * CODEWORDS).flatten()
        sums = torch.zeros(parts * CODEWORDS, size, device=cut.device).index_add_(0, flat, cut.flatten(0, 1))
        counts = torch.bincount(flat, minlength=parts * CODEWORDS)
        means = (sums / counts.clamp_min(1).unsqueeze(-1)).view(parts, CODEWORDS, -1)
        empty = (counts == 0).view(parts, CODEWORDS, 1)
        codebook = torch.where(empty, _drawn(cut, CODEWORDS, draw), means)
    return codebook


def _cut(values: Tensor, parts: int, size: int) -> Tensor:
    """Float32 [token part value] of values [token value]; a short last part is filled with zeros."""
    filled = F.pad(values.float(), (0, parts * size - values.shape[-1]))
    return rearrange(filled, "token (part value) -> token part value", part=parts)


def _drawn(cut: Tensor, count: int, draw: torch.Generator) -> Tensor:
    """Tokens drawn at random, without repeats while there are enough: [part codeword value]."""
    picks = torch.randperm(len(cut), generator=draw)
    picks = picks.repeat(-(-count // len(picks)))[:count]
    return rearrange(cut[picks.to(cut.device)], "token part value -> part token value").contiguous()

"""The building blocks of EVL (ECCV 2022), plain form: the memory of a decoder layer, and the layer itself.

    f     [clip frame token channel]        output of one CLIP block
    q, k  [clip frame patch head part]      that block's own queries and keys, computed from the preceding block
    ── neighbour_maps ─▶ maps [clip pair patch patch] ── CrossFrame ─▶ [clip pair patch channel]
    x     [clip channel]                    the video token ── DecoderLayer, over memory [clip item channel] ─▶ x

Source: docs/spec/evl.md §2–4. Parameter names are those of the released checkpoints (§10), so weights need no renaming.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor, nn

from vidxfer.pipeline.heads.dist.parts import quick_gelu


def frozen_names(block: int) -> tuple[str, str, str, str]:
    """open_clip's names of the parameters that compute a CLIP block's queries and keys from its input."""
    prefix = f"visual.transformer.resblocks.{block}."
    return f"{prefix}ln_1.weight", f"{prefix}ln_1.bias", f"{prefix}attn.in_proj_weight", f"{prefix}attn.in_proj_bias"


class FrozenQueryKey(nn.Module):
    """Computes a CLIP block's queries and keys from its input tokens. It is frozen, and no part of the head's weights.

    Args:
        block: number of the CLIP block.
        heads: CLIP's attention heads.
        frozen: CLIP's parameters by name.
    """

    norm_weight: Tensor
    norm_bias: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, block: int, heads: int, frozen: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.heads = heads
        parameters = [frozen[name].detach().float() for name in frozen_names(block)]
        width = parameters[0].shape[0]
        norm, projection = parameters[:2], parameters[2:]
        kept = [*norm, *(rows[: 2 * width] for rows in projection)]  # the last third makes values; nobody reads them
        for name, value in zip(("norm_weight", "norm_bias", "weight", "bias"), kept, strict=True):
            self.register_buffer(name, value, persistent=False)

    @torch.no_grad()
    def forward(self, before: Tensor) -> tuple[Tensor, Tensor]:
        """[clip frame token channel] -> q and k [clip frame patch head part], without CLS; q is not scaled."""
        normed = F.layer_norm(before.float(), self.norm_weight.shape, self.norm_weight, self.norm_bias)
        both = rearrange(
            F.linear(normed, self.weight, self.bias)[:, :, 1:],
            "clip frame patch (two head part) -> two clip frame patch head part",
            two=2,
            head=self.heads,
        )
        return both[0], both[1]


class Maps(NamedTuple):
    """Attention from each patch to the patches of a neighbouring frame, the mean over CLIP's heads.

    Attributes:
        previous: [clip pair query key]; in pair p, frame p + 1 attends to frame p.
        following: the same shape; in pair p, frame p attends to frame p + 1.
    """

    previous: Tensor
    following: Tensor


@torch.no_grad()
def neighbour_maps(q: Tensor, k: Tensor) -> Maps:
    """Queries and keys [clip frame patch head part] -> maps; softmax over the key patches, per head."""
    scale = q.shape[-1] ** -0.5

    def maps(queries: Tensor, keys: Tensor) -> Tensor:
        scores = einsum(queries, keys, "clip pair query head part, clip pair key head part -> clip pair head query key")
        mean: Tensor = (scale * scores).softmax(dim=-1).mean(dim=2)
        return mean

    return Maps(maps(q[:, 1:], k[:, :-1]), maps(q[:, :-1], k[:, 1:]))


class CrossFrame(nn.Module):
    """What a patch gets from its neighbouring frames: a vector per displacement, weighted by CLIP's own attention.

    Args:
        grid: patches along the (height, width) of the picture.
        channels: CLIP's width.
    """

    def __init__(self, grid: tuple[int, int], channels: int) -> None:
        super().__init__()
        rows, columns = grid
        self.grid = grid
        displacements = (2 * rows - 1) * (2 * columns - 1)
        self.w1 = nn.Parameter(torch.zeros(displacements, channels))
        self.w2 = nn.Parameter(torch.zeros(displacements, channels))

    def displacement(self) -> Tensor:
        """Row of a table for each (query patch, key patch): int64 [query key]."""
        rows, columns = self.grid
        patch = torch.arange(rows * columns, device=self.w1.device)
        down = patch[:, None] // columns - patch // columns + rows - 1
        across = patch[:, None] % columns - patch % columns + columns - 1
        return down * (2 * columns - 1) + across

    def forward(self, maps: Maps) -> tuple[Tensor, Tensor]:
        """Maps -> what frames 1 … get from the preceding frame, and what frames 0 … get from the following frame.

        Returns:
            Two tensors [clip pair patch channel].
        """
        rows = self.displacement()

        def taken(table: Tensor, seen: Tensor) -> Tensor:
            return einsum(seen, table[rows], "clip pair query key, query key channel -> clip pair query channel")

        return taken(self.w1, maps.previous), taken(self.w2, maps.following)


class VideoTokenAttention(nn.Module):
    """The video token attends to every item of the memory.

    Args:
        channels: CLIP's width.
        inner: width of queries, keys and values.
        heads: number of attention heads.
    """

    def __init__(self, channels: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(channels, inner)
        self.k_proj = nn.Linear(channels, inner)
        self.v_proj = nn.Linear(channels, inner)
        self.out_proj = nn.Linear(inner, channels)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """Video token [clip channel] and memory [clip item channel], both normed -> [clip channel]."""
        q = rearrange(self.q_proj(x), "clip (head part) -> clip head part", head=self.heads)
        k = rearrange(self.k_proj(memory), "clip item (head part) -> clip item head part", head=self.heads)
        v = rearrange(self.v_proj(memory), "clip item (head part) -> clip item head part", head=self.heads)
        scores = einsum(q * q.shape[-1] ** -0.5, k, "clip head part, clip item head part -> clip head item")
        seen = einsum(scores.softmax(dim=-1), v, "clip head item, clip item head part -> clip head part")
        out: Tensor = self.out_proj(seen.flatten(1))
        return out


class DecoderMlp(nn.Module):
    """Linear, QuickGELU, dropout, Linear: [clip channel] -> same."""

    def __init__(self, channels: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[clip channel] -> same."""
        out: Tensor = self.fc2(self.dropout(quick_gelu(self.fc1(x))))
        return out


class DecoderLayer(nn.Module):
    """Attention of the video token over a memory, then an MLP. Each follows a norm and has a residual."""

    def __init__(self, channels: int, inner: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attn = VideoTokenAttention(channels, inner, heads)
        self.mlp = DecoderMlp(channels, hidden, dropout)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.norm3 = nn.LayerNorm(channels)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """Video token [clip channel], memory [clip item channel] -> video token."""
        x = x + self.attn(self.norm1(x), self.norm3(memory))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out

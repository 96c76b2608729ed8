"""V-JEPA 2's attentive pooler: items attend to items, then one learned query attends to all of them.

    items [clip item channel] ─ depth − 1 × (norm ─ self-attention, norm ─ MLP) ─▶ norm ─▶ keys, values ─┐
    query [1 1 channel], not normed ───────────────────────────────────────────────▶ cross-attention ────┴─ + query
                                                                      ─ norm ─ MLP, + itself ─▶ [clip channel]

No projection follows the cross-attention. Parameters have the released names (docs/spec/more_heads.md §1).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vidxfer.pipeline.heads.single_query import single_query_attention

SPREAD = 0.02
"""Standard deviation of fresh weights."""


class PoolerMlp(nn.Module):
    """Two layers around the exact GELU: [clip item channel] -> same."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[clip item channel] -> same."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class SelfAttention(nn.Module):
    """Every item attends to every item: [clip item channel] -> same."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[clip item channel] -> same."""
        query, key, value = rearrange(
            self.qkv(x), "clip item (three head channel) -> three clip head item channel", three=3, head=self.heads
        )
        seen = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.proj(rearrange(seen, "clip head item channel -> clip item (head channel)"))
        return out


class TokenBlock(nn.Module):
    """Pre-norm self-attention over all items and an MLP, both with a residual: [clip item channel] -> same."""

    def __init__(self, channels: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = SelfAttention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = PoolerMlp(channels, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """[clip item channel] -> same."""
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class PoolerAttention(nn.Module):
    """One query for all clips attends to each clip's items. The heads are concatenated, without a projection."""

    def __init__(self, channels: int, heads: int, fast: bool) -> None:
        super().__init__()
        self.heads, self.fast = heads, fast
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)

    def forward(self, query: Tensor, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        """[1 1 channel], [clip item channel] and the norm of its items -> [clip 1 channel]."""
        query = rearrange(self.q(query), "1 1 (head channel) -> head channel", head=self.heads)
        if self.fast:
            (key, value), (_, bias) = self.kv.weight.chunk(2), self.kv.bias.chunk(2)
            return single_query_attention(query, x, norm, key=key, value=value, value_bias=bias)[:, None]
        keys, values = rearrange(
            self.kv(norm(x)), "clip item (two head channel) -> two clip head item channel", two=2, head=self.heads
        )
        seen = F.scaled_dot_product_attention(query[None, :, None].expand(len(x), -1, -1, -1), keys, values)
        return rearrange(seen, "clip head 1 channel -> clip 1 (head channel)")


class QueryBlock(nn.Module):
    """The query, not normed, attends to the normed items; then an MLP; both with a residual: -> [clip 1 channel]."""

    def __init__(self, channels: int, heads: int, hidden: int, fast: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.xattn = PoolerAttention(channels, heads, fast)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = PoolerMlp(channels, hidden)

    def forward(self, query: Tensor, x: Tensor) -> Tensor:
        """[1 1 channel], [clip item channel] -> [clip 1 channel]."""
        query = query + self.xattn(query, x, self.norm1)
        out: Tensor = query + self.mlp(self.norm2(query))
        return out


class AttentivePooler(nn.Module):
    """All items of a clip to one vector: [clip item channel] -> [clip channel]. The items are not modified.

    Args:
        channels: width of an item.
        depth: number of blocks, the query's block included.
        heads: attention heads of each block.
        hidden: hidden width of an MLP.
        fast: the query attends without a key and a value for each item (single_query.py).
    """

    def __init__(self, channels: int, *, depth: int, heads: int, hidden: int, fast: bool) -> None:
        super().__init__()
        self.query_tokens = nn.Parameter(torch.empty(1, 1, channels))
        self.blocks = nn.ModuleList(TokenBlock(channels, heads, hidden) for _ in range(depth - 1))
        self.cross_attention_block = QueryBlock(channels, heads, hidden, fast)
        self._initialise()

    def _initialise(self) -> None:
        """Normal weights, biases 0. Projections into the residual stream get smaller with depth, as published.

        The query's block is scaled like the last block among the tokens.
        """
        nn.init.normal_(self.query_tokens, std=SPREAD)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=SPREAD)
                nn.init.zeros_(layer.bias)
        among = [block for block in self.modules() if isinstance(block, TokenBlock)]
        added = [
            (number, layer) for number, block in enumerate(among, start=1) for layer in (block.attn.proj, block.mlp.fc2)
        ]
        added.append((max(1, len(among)), self.cross_attention_block.mlp.fc2))
        with torch.no_grad():
            for number, layer in added:
                layer.weight.div_(math.sqrt(2 * number))

    def forward(self, x: Tensor) -> Tensor:
        """[clip item channel] -> [clip channel]."""
        for block in self.blocks:
            x = block(x)
        pooled: Tensor = self.cross_attention_block(self.query_tokens, x)
        return pooled[:, 0]

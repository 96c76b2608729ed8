"""Attentive probe: learned queries attend to every token of every frame. They cannot tell the order of the frames.

    tokens of the last layer [clip frame token channel] ─ one set of frame·token items ─ norm ─┐ keys, values
    queries [query channel], learned ────────────────── cross-attention ──────────────────────┘
                                                        ─▶ + MLP ─▶ mean over queries ─▶ norm ─▶ Linear ─▶ logits

The probe reads the token of every patch, which is far more than a mean embedding. It adds no position in time, so any
order of the frames gives the same logits. Its gain over the linear probe is therefore not due to motion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from vidxfer.pipeline.heads.base import Head, HeadConfig, Needs, Offer
from vidxfer.pipeline.heads.delivered import last_block
from vidxfer.pipeline.heads.family import Family
from vidxfer.pipeline.heads.recipe import Optimiser, Recipe
from vidxfer.pipeline.shapes import ClipBatch

QUERIES = 4
HEAD_CHANNELS = 64
"""Channels of one attention head, as in CLIP. A tower whose width does not divide into these gets one head."""


@dataclass(frozen=True, kw_only=True)
class AttentiveConfig(HeadConfig):
    """The attentive probe has nothing to set."""

    kind: ClassVar[str] = "attentive-probe"

    def needs(self, offer: Offer) -> Needs:
        """See `HeadConfig`."""
        return Needs(layers=(last_block(offer),), sparse_frames=offer.sparse_frames)

    def build(self, offer: Offer) -> Head:
        """See `HeadConfig`."""
        return AttentiveProbe(self, offer)


class AttentiveProbe(Head):
    """One block of cross-attention over all tokens of the last layer that the cache holds, and a linear classifier."""

    def __init__(self, config: AttentiveConfig, offer: Offer) -> None:
        super().__init__()
        self.needs = config.needs(offer)
        channels = offer.channels
        heads = channels // HEAD_CHANNELS if channels % HEAD_CHANNELS == 0 else 1
        self.query_cls_token = nn.Parameter(torch.randn(QUERIES, channels) * 0.02)
        self.norm_tokens = nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.norm_mlp = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))
        self.norm_out = nn.LayerNorm(channels)
        self.classifier = nn.Linear(channels, offer.classes)

    def forward(self, batch: ClipBatch) -> Tensor:
        """Logits [clip class]."""
        assert batch.tokens is not None, "the loader fetches what `needs` declares"
        every = rearrange(batch.tokens, "clip 1 frame token channel -> clip (frame token) channel")
        every = self.norm_tokens(every)
        query = repeat(self.query_cls_token, "query channel -> clip query channel", clip=len(every))
        seen, _ = self.attention(query, every, every, need_weights=False)
        seen = query + seen
        seen = seen + self.mlp(self.norm_mlp(seen))
        logits: Tensor = self.classifier(self.norm_out(seen.mean(dim=1)))
        return logits

    def undecayed(self) -> frozenset[str]:
        """Vectors, and the learned queries."""
        return super().undecayed() | {"query_cls_token"}


FAMILY = Family(
    config=AttentiveConfig,
    recipes=(
        Recipe(
            name="attentive-probe",
            head=AttentiveConfig(),
            optimiser=Optimiser(warmup_from=1e-5),
            epochs=20,
            warmup_epochs=1,
            batch_clips=32,
            learning_rate=1e-3,
            evaluate_every_epochs=10,
            checkpoint_seconds=30.0,
        ),
    ),
)

"""Frame-transformer probe: a small transformer over the frames' embeddings, with or without positions in time.

    embedding [clip frame embed] ─ norm ─ Linear ─ (+ position table over time) ─▶ frames attend to frames, some blocks
                                                              ─▶ mean over frames ─ norm ─ Linear ─▶ logits [clip class]

With `positions` it is the smallest head that sees the order of frames. Without them any order gives the same logits.
The difference in accuracy between the two is the gain from frame order alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.heads.base import Head, HeadConfig, Needs, Offer
from vidxfer.pipeline.heads.family import Family
from vidxfer.pipeline.heads.recipe import Optimiser, Recipe
from vidxfer.pipeline.shapes import ClipBatch


@dataclass(frozen=True, kw_only=True)
class FrameTransformerConfig(HeadConfig):
    """Settings of the frame-transformer probe.

    Attributes:
        channels: width of the transformer.
        blocks: number of transformer blocks.
        attention_heads: of each block.
        positions: a learned table over time, one row per sparse frame.
        dropout: share of the values that a training step leaves out, behind attention and inside the MLP.

    Raises:
        UsageError: sizes that no transformer can have.
    """

    kind: ClassVar[str] = "frame-transformer"

    channels: int = 128
    blocks: int = 2
    attention_heads: int = 4
    positions: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("channels", "blocks", "attention_heads"):
            if getattr(self, name) < 1:
                raise UsageError(f"head.{name}={getattr(self, name)} must be at least 1")
        if self.channels % self.attention_heads:
            raise UsageError(
                f"head.channels={self.channels} does not divide into head.attention_heads={self.attention_heads}"
            )
        if not 0 <= self.dropout < 1:
            raise UsageError(f"head.dropout={self.dropout} must be in [0, 1)")

    @property
    def fixed_frames(self) -> bool:
        """The table has one row per frame."""
        return self.positions

    def needs(self, offer: Offer) -> Needs:
        """See `HeadConfig`."""
        return Needs(embedding=True, sparse_frames=offer.sparse_frames)

    def build(self, offer: Offer) -> Head:
        """See `HeadConfig`."""
        return FrameTransformer(self, offer)


class FrameBlock(nn.Module):
    """Pre-norm self-attention over frames and an MLP, both with a residual: [clip frame channel] -> same."""

    def __init__(self, config: FrameTransformerConfig) -> None:
        super().__init__()
        channels = config.channels
        self.norm_attention = nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(channels, config.attention_heads, batch_first=True)
        self.norm_mlp = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 4 * channels),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(4 * channels, channels),
        )
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[clip frame channel] -> same."""
        normed = self.norm_attention(x)
        seen, _ = self.attention(normed, normed, normed, need_weights=False)
        x = x + self.drop(seen)
        out: Tensor = x + self.mlp(self.norm_mlp(x))
        return out


class FrameTransformer(Head):
    """The probe; see the module. As in the linear probe, its input is standardised over clips and frames."""

    def __init__(self, config: FrameTransformerConfig, offer: Offer) -> None:
        super().__init__()
        self.needs = config.needs(offer)
        self.norm_in = nn.BatchNorm1d(offer.embed, affine=False)
        self.project = nn.Linear(offer.embed, config.channels)
        self.positions: nn.Parameter | None = None
        if config.positions:
            self.positions = nn.Parameter(torch.randn(offer.sparse_frames, config.channels) * 0.02)
        self.blocks = nn.ModuleList(FrameBlock(config) for _ in range(config.blocks))
        self.norm_out = nn.LayerNorm(config.channels)
        self.classifier = nn.Linear(config.channels, offer.classes)

    def forward(self, batch: ClipBatch) -> Tensor:
        """Logits [clip class]."""
        assert batch.embedding is not None, "the loader fetches what `needs` declares"
        frames = nn.functional.normalize(batch.embedding.float(), dim=-1)
        x = self.project(self.norm_in(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]))
        if self.positions is not None:
            x = x + self.positions
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.classifier(self.norm_out(x.mean(dim=1)))
        return logits

    def undecayed(self) -> frozenset[str]:
        """Vectors, and the table over time."""
        return super().undecayed() | ({"positions"} if self.positions is not None else set())


FAMILY = Family(
    config=FrameTransformerConfig,
    recipes=(
        Recipe(
            name="frame-transformer",
            head=FrameTransformerConfig(),
            optimiser=Optimiser(warmup_from=1e-5),
            epochs=40,
            warmup_epochs=2,
            batch_clips=32,
            learning_rate=1e-3,
            evaluate_every_epochs=20,
            checkpoint_seconds=30.0,
        ),
    ),
)

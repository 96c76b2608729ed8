"""V-JEPA 2's attentive probe: tokens attend to tokens, then one learned query attends to all of them.

    tokens of the last layer [clip frame token channel] (+ position table over time) ─ one set of frame·token items
        ─▶ depth − 1 blocks: items attend to items, MLP
        ─▶ one block: the query, as it is, attends to the items' norm (no projection behind); MLP ─▶ Linear ─▶ logits

As published, the probe has no notion of frames: any order of them gives the same logits, at any depth. `positions` adds
a learned row per frame, which the publication does not have. With it the probe sees order (docs/spec/more_heads.md §1).
`AttentiveProbe` (attentive.py) of 0.1.0 is another network: four queries, a projection after attention, a last norm.

Parameters have the released names: `pooler.…` and `linear.…`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

from vidxfer.pipeline.errors import CacheError, UsageError
from vidxfer.pipeline.heads.base import Head, HeadConfig, Needs, Offer
from vidxfer.pipeline.heads.delivered import last_block
from vidxfer.pipeline.heads.family import Family
from vidxfer.pipeline.heads.pooler_net import AttentivePooler
from vidxfer.pipeline.heads.recipe import Optimiser, Recipe
from vidxfer.pipeline.shapes import ClipBatch

FORMS = ("fast", "plain")
"""Two forms of the same function: "plain" makes a key and a value for every token, as released."""
POSITION_SPREAD = 0.5
"""Standard deviation of a fresh table over time, in units of a token's own standard deviation. The weights are drawn
with 0.02. A table of that size is too small beside CLIP's tokens, and a few hundred steps do not enlarge it enough."""


@dataclass(frozen=True, kw_only=True)
class PoolerConfig(HeadConfig):
    """Settings of V-JEPA 2's attentive probe.

    Attributes:
        depth: number of blocks. In the last one the query attends to the tokens, in the others tokens attend to tokens.
        positions: a learned table over time, one row per sparse frame. Each row is added to all tokens of its frame, in
            units of each token's standard deviation. It then has the same relative size for any CLIP.
        attention_heads: of each block; 16 in all released settings, whatever the width.
        mlp_ratio: hidden width of an MLP, as a multiple of the tokens' width.
        form: one of `FORMS`.

    Raises:
        UsageError: sizes that no pooler can have, or an unknown form.
    """

    kind: ClassVar[str] = "attentive-pooler"

    depth: int = 1
    positions: bool = False
    attention_heads: int = 16
    mlp_ratio: float = 4.0
    form: str = "fast"

    def __post_init__(self) -> None:
        for name in ("depth", "attention_heads"):
            if getattr(self, name) < 1:
                raise UsageError(f"head.{name}={getattr(self, name)} must be at least 1")
        if not 0.5 <= self.mlp_ratio < math.inf:
            raise UsageError(f"head.mlp_ratio={self.mlp_ratio} must be a number of at least 0.5")
        if self.form not in FORMS:
            raise UsageError(f"head.form={self.form!r} is none of {', '.join(FORMS)}")

    @property
    def fixed_frames(self) -> bool:
        """The table has one row per frame."""
        return self.positions

    def needs(self, offer: Offer) -> Needs:
        """See `HeadConfig`."""
        return Needs(layers=(last_block(offer),), sparse_frames=offer.sparse_frames)

    def build(self, offer: Offer) -> Head:
        """See `HeadConfig`."""
        return PoolerProbe(self, offer)


class PoolerProbe(Head):
    """The probe; see the module.

    Raises:
        CacheError: the tokens' width does not divide into the attention heads.
    """

    def __init__(self, config: PoolerConfig, offer: Offer) -> None:
        super().__init__()
        self.needs = config.needs(offer)
        channels, heads = offer.channels, config.attention_heads
        if channels % heads:
            fit = [number for number in range(1, 65) if channels % number == 0]
            raise CacheError(
                f"tokens of {channels} channels do not divide into head.attention_heads={heads}: "
                f"set it to one of {', '.join(map(str, fit))}"
            )
        self.positions: nn.Parameter | None = None
        if config.positions:
            self.positions = nn.Parameter(torch.randn(offer.sparse_frames, channels) * POSITION_SPREAD)
        self.pooler = AttentivePooler(
            channels,
            depth=config.depth,
            heads=heads,
            hidden=int(config.mlp_ratio * channels),
            fast=config.form == "fast",
        )
        self.linear = nn.Linear(channels, offer.classes)

    def forward(self, batch: ClipBatch) -> Tensor:
        """Logits [clip class]."""
        assert batch.tokens is not None, "the loader fetches what `needs` declares"
        tokens = rearrange(batch.tokens, "clip 1 frame token channel -> clip frame token channel")
        if self.positions is not None:
            spread = tokens.std(dim=-1, correction=0, keepdim=True)
            tokens = tokens + spread * self.positions[:, None]
        logits: Tensor = self.linear(self.pooler(tokens.flatten(1, 2)))
        return logits

    def undecayed(self) -> frozenset[str]:
        """Vectors, the query and the table over time. The published recipes decay them too (`optimiser.decay`)."""
        own = {"pooler.query_tokens"} | ({"positions"} if self.positions is not None else set())
        return super().undecayed() | own


def _recipe(name: str, learning_rate: float, **settings: int | bool) -> Recipe:
    """As published, except batch size and learning rate. The release trains 20 probes at once to find these, see
    docs/deviations.md."""
    return Recipe(
        name=name,
        head=PoolerConfig(**settings),  # type: ignore[arg-type]
        optimiser=Optimiser(decay="all"),
        epochs=20,
        warmup_epochs=0,
        batch_clips=32,
        learning_rate=learning_rate,
        weight_decay=0.01,
        label_smoothing=0.0,
        evaluate_every_epochs=10,
        checkpoint_seconds=30.0,
    )


FAMILY = Family(
    config=PoolerConfig,
    recipes=(
        _recipe("attentive-d1", 3e-3),
        _recipe("attentive-d1-time", 3e-3, positions=True),
        _recipe("attentive-d4", 1e-3, depth=4),
        _recipe("attentive-d4-time", 1e-3, depth=4, positions=True),
    ),
)

"""A head of one's own that sees tokens alone, and motion in them: the gauge that cannot fall back on pixels.

    tokens [clip layer time token channel] ─ norm, Linear per layer ─▶ patches as unit vectors
        ─ cosine with the places around each, one and two frames later ─ softmax ─▶ where did this patch go?
        ─ mean over time, in fields of the picture ─┐
    mean of the patches, first and last ───┴─▶ MLP ─▶ logits [clip class]

A direction of motion shows in which neighbour a patch resembles a frame later. A head that reads each place by itself
does not see it: EVL's decoder on one block stays at chance, with its table and its convolution over time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vidxfer.pipeline.heads.base import BatchStatistics, Head, HeadConfig, Needs, Offer
from vidxfer.pipeline.shapes import ClipBatch

LAGS = (1, 2)
"""Frames from a patch to where it went."""


@dataclass(frozen=True, kw_only=True)
class TokenMotionConfig(HeadConfig):
    """Settings.

    Attributes:
        directions: that patches are compared by.
        reach: places along an axis that a patch may have moved.
        fields: along each side of the picture; motion is averaged in each.
        hidden, dropout: width of the MLP, and the share dropped in it.
    """

    kind: ClassVar[str] = "token-motion"

    directions: int = 24
    reach: int = 2
    fields: int = 2
    hidden: int = 128
    dropout: float = 0.5

    @property
    def batch_statistics(self) -> BatchStatistics:
        """Shares of shifts differ by little; each is standardised."""
        return "device"

    def needs(self, offer: Offer) -> Needs:
        """Every block that the cache holds."""
        return Needs(layers=tuple(layer for layer in offer.layers if layer >= 0))

    def build(self, offer: Offer) -> Head:
        """See `HeadConfig`."""
        return TokenMotion(self, offer)


class TokenMotion(Head):
    """See the top of this file."""

    near: Tensor
    inside: Tensor

    def __init__(self, config: TokenMotionConfig, offer: Offer) -> None:
        super().__init__()
        self.needs, self.grid = config.needs(offer), offer.grid
        self.fields = config.fields
        layers = len(self.needs.layers)
        self.lags = tuple(lag for lag in LAGS if lag < offer.sparse_frames)
        near, inside = neighbours(offer.grid, config.reach)
        self.register_buffer("near", near, persistent=False)
        self.register_buffer("inside", inside, persistent=False)
        self.inputs = nn.ModuleList(nn.Linear(offer.channels, config.directions) for _ in range(layers))
        self.sharpness = nn.Parameter(torch.full((layers, 1, 1, 1), 8.0))
        seen = layers * (len(self.lags) * near.shape[1] * config.fields**2 + 2 * config.directions)
        self.mlp = nn.Sequential(
            nn.BatchNorm1d(seen, affine=False), nn.Dropout(config.dropout), nn.Linear(seen, config.hidden), nn.GELU(),
            nn.Dropout(config.dropout), nn.Linear(config.hidden, offer.classes),
        )  # fmt: skip

    def forward(self, batch: ClipBatch) -> Tensor:
        """Logits [clip class]."""
        assert batch.tokens is not None, "the loader fetches what `needs` declares"
        patches = batch.tokens[:, :, :, 1:].float()
        normed = F.layer_norm(patches, patches.shape[-1:])
        turned = torch.stack([layer(normed[:, place]) for place, layer in enumerate(self.inputs)], dim=1)
        unit = F.normalize(turned, dim=-1)
        looks = [turned[:, :, end].mean(dim=2).flatten(1) for end in (0, -1)]
        logits: Tensor = self.mlp(torch.cat([*(self._moved(unit, lag) for lag in self.lags), *looks], dim=1))
        return logits

    def _moved(self, unit: Tensor, lag: int) -> Tensor:
        """[clip feature]: the share of each shift in each field, of [clip layer time patch width]."""
        every = unit[:, :, :-lag] @ unit[:, :, lag:].mT
        cosines = every.gather(-1, self.near.expand(*every.shape[:-1], -1))
        shares = (cosines * self.sharpness).masked_fill(~self.inside, -1e4).softmax(dim=-1).mean(dim=2)
        pictures = rearrange(shares, "clip layer (row column) shift -> clip (layer shift) row column", row=self.grid[0])
        return F.adaptive_avg_pool2d(pictures, self.fields).flatten(1)


def neighbours(grid: tuple[int, int], reach: int) -> tuple[Tensor, Tensor]:
    """int64 and bool [patch shift]: the patch at each shift of each patch, and whether the picture has it."""
    rows, columns = (
        axis.flatten() for axis in torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    )
    away = range(-reach, reach + 1)
    places = [(rows + down, columns + right) for down in away for right in away]
    near = [row.clamp(0, grid[0] - 1) * grid[1] + column.clamp(0, grid[1] - 1) for row, column in places]
    inside = [(row >= 0) & (row < grid[0]) & (column >= 0) & (column < grid[1]) for row, column in places]
    return torch.stack(near, dim=1), torch.stack(inside, dim=1)

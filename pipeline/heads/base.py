"""The protocol of a head: what it needs from the loader, and one forward from a batch to logits.

    needs ──▶ the loader fetches exactly that ──▶ ClipBatch ──▶ head(batch) ──▶ logits [clip class]

A head is told once, when it is built, what the cache holds (`HeadInputs`); it never opens anything.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from vidxfer.pipeline.errors import CacheError
from vidxfer.pipeline.shapes import ClipBatch


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a head reads per clip; the loader fetches exactly this.

    Attributes:
        layers: tapped CLIP layers, in the order of the layer axis; empty: no tokens. -1 is the stem.
        embedding: the projected CLIP image embedding of every sparse frame.
        sparse_frames: sparse frames per clip; 0: all that a view holds. A cache may hold a multiple (training/bank.py).
        dense_multiple: dense frames per sparse frame, as normalised pixels; 0: no pixels.
        text: class-name embeddings.
    """

    layers: tuple[int, ...] = ()
    embedding: bool = False
    sparse_frames: int = 0
    dense_multiple: int = 0
    text: bool = False


@dataclass(frozen=True, kw_only=True)
class HeadInputs:
    """Sizes of what a cache (or the online path) delivers.

    Attributes:
        layers: the layers on offer.
        sparse_frames, alpha: frames CLIP saw per view, and dense frames per sparse frame.
        tokens: tokens per frame, CLS included. channels: CLIP width. embed: joint space.
        classes: number of class names.
        image_px: side of the picture.
    """

    layers: tuple[int, ...]
    sparse_frames: int
    alpha: int
    tokens: int
    channels: int
    embed: int
    classes: int
    image_px: int

    @property
    def grid(self) -> int:
        """Patches along one side of the picture."""
        side = math.isqrt(self.tokens - 1)
        if side * side != self.tokens - 1:
            raise CacheError(f"{self.tokens} tokens per frame are not CLS plus a square grid of patches")
        return side

    @property
    def patch_px(self) -> int:
        """Side of one CLIP patch in pixels."""
        return self.image_px // self.grid


class Head(nn.Module, ABC):
    """A temporal head: `needs` declares its input, `forward` maps a batch to logits [clip class]."""

    needs: Needs

    @abstractmethod
    def forward(self, batch: ClipBatch) -> Tensor:
        """Logits [clip class] in float32 or the autocast type."""


def expect_layers(wanted: tuple[int, ...], offered: tuple[int, ...]) -> None:
    """Check that the cache holds every layer a head wants.

    Raises:
        CacheError: names the missing layers and the ones on offer.
    """
    missing = [layer for layer in wanted if layer not in offered]
    if missing:
        raise CacheError(
            f"the head wants CLIP layers {missing}, the cache holds {list(offered)}. "
            "Choose among those (--layers), or extract again with more layers."
        )

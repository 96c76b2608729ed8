"""What is known of a tower without its weights: sizes, and work per frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TowerSizes:
    """Sizes of an image tower; the names are those of `TowerInfo`.

    Attributes:
        channels, tokens, embed, blocks, image_px, class_row, left_out: as there.
        parameters: numbers in the image tower.
        flop: floating-point operations of one frame's forward, 2 per multiply-add.
    """

    channels: int
    tokens: int
    embed: int
    blocks: int
    image_px: int
    class_row: Literal["token", "mean"]
    left_out: int
    parameters: int
    flop: int

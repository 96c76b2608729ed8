"""Which frames: index arithmetic only, no video is opened here.

    edges   e_0 ........ e_1 ........ e_2 ........ … e_T      e_i = i·L/T over L frames
    dense       one index per segment [e_i, e_i+1)            train: drawn; test: a fixed fraction of the way
    sparse      dense[0], dense[alpha], dense[2·alpha], …     what CLIP sees: the first of every alpha dense frames

DiST's segment rule (spec/dist.md §4.1), in float64 with half-to-even rounding.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How views are drawn from a video. Every field changes which pixels CLIP sees.

    Attributes:
        dense_frames: dense frames T per view.
        alpha: every alpha-th dense frame is a sparse frame; dense_frames must be divisible by it.
        image_px: side of the square picture CLIP sees.
        crop_scale, crop_ratio: random resized crop of training views: share of the area, width/height.
        flip_probability, grey_probability: of training views.
        seed: of the training draws; the draw of a view depends on (seed, video id, view number) alone.
    """

    dense_frames: int = 16
    alpha: int = 2
    image_px: int = 224
    crop_scale: tuple[float, float] = (0.4, 1.0)
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    flip_probability: float = 0.5
    grey_probability: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dense_frames < 1 or self.alpha < 1 or self.dense_frames % self.alpha:
            raise ValueError(f"dense_frames={self.dense_frames} must be a positive multiple of alpha={self.alpha}")

    @property
    def sparse_frames(self) -> int:
        """Number of frames CLIP sees per view."""
        return self.dense_frames // self.alpha

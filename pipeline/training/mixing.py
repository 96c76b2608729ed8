"""Mixing the clips of a batch: one draw per step, the partner of clip i is clip n − 1 − i.

    mixup    λ·a + (1 − λ)·b                     λ ~ Beta(mixup_alpha, mixup_alpha)
    CutMix   a, with one box of b pasted in      1 − λ = the box's share of the picture
    targets  λ·y(a) + (1 − λ)·y(b)

"pixels" is the published order: dense frames are mixed before CLIP sees them. Only the online path can do that.
"tokens" is what a cache allows. It is another operation: CLIP is not linear, so tokens of a mixed clip are not mixed
tokens. Its box lies on CLIP's patch grid, and is the same for tokens and pixels. CLS has no position in the picture, so
CLS and the image embedding are mixed with λ. Source: docs/spec/dist.md §3.
The draw depends only on (seed, step). A resumed run, and every device of one run, makes the same draw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.heads.recipe import Mixing
from vidxfer.pipeline.shapes import ClipBatch

_STREAM = 0x6D6978
"""Third number of the seed. It separates these draws from the order of clips, whose seed has two numbers."""


@dataclass(frozen=True, kw_only=True)
class Mix:
    """One draw.

    Attributes:
        share: λ, the weight of the clip itself; for CutMix it is exactly 1 − the box's share of the picture.
        box: (top, bottom, left, right), ends excluded, in units of its grid; None: mixup.
        unit_px: pixels per unit of `box`: 1, or the side of CLIP's patch.
    """

    share: float
    box: tuple[int, int, int, int] | None = None
    unit_px: int = 1

    @property
    def box_px(self) -> tuple[int, int, int, int]:
        """The box in pixels; empty for mixup."""
        top, bottom, left, right = self.box or (0, 0, 0, 0)
        return top * self.unit_px, bottom * self.unit_px, left * self.unit_px, right * self.unit_px


def expect_mixable(mixing: Mixing, *, online: bool) -> None:
    """Check that the values to be mixed exist on this path.

    Raises:
        UsageError: pixels are to be mixed before CLIP, but a cache holds CLIP's outputs.
    """
    if mixing.kind == "pixels" and not online:
        raise UsageError(
            "mixing.kind=pixels mixes pictures before CLIP sees them, and a cache holds CLIP's outputs. "
            "Train with --online, or use mixing.kind=tokens, which is another operation."
        )


def draw_mix(mixing: Mixing, *, image_px: int, patch_px: int, seed: int, step: int) -> Mix | None:
    """The draw of one optimiser step; None: nothing is mixed.

    Args:
        mixing: the settings.
        image_px: side of the picture.
        patch_px: side of CLIP's patch; boxes of "tokens" lie on this grid.
        seed: seed of the run.
        step: number of optimiser steps done before this one.
    """
    if mixing.kind == "none":
        return None
    numbers = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, step, _STREAM])))
    cutmix = mixing.cutmix_alpha > 0 and (mixing.mixup_alpha == 0 or numbers.random() < mixing.cutmix_share)
    alpha = mixing.cutmix_alpha if cutmix else mixing.mixup_alpha
    share = float(numbers.beta(alpha, alpha))
    if not cutmix:
        return Mix(share=share)
    unit_px = patch_px if mixing.kind == "tokens" else 1
    side = image_px // unit_px
    centre = (int(numbers.integers(side)), int(numbers.integers(side)))
    return cut(share, centre, height=side, width=side, unit_px=unit_px)


def cut(share: float, centre: tuple[int, int], *, height: int, width: int, unit_px: int = 1) -> Mix:
    """A CutMix of a drawn λ and centre (row, column). The box is clipped at the edges; its area gives λ."""
    half_height, half_width = (int(side * math.sqrt(1.0 - share)) // 2 for side in (height, width))
    top, bottom = max(0, centre[0] - half_height), min(height, centre[0] + half_height)
    left, right = max(0, centre[1] - half_width), min(width, centre[1] + half_width)
    area = (bottom - top) * (right - left)
    return Mix(share=1.0 - area / float(height * width), box=(top, bottom, left, right), unit_px=unit_px)


def mix_pixels(pixels: Tensor, mix: Mix) -> Tensor:
    """Mixed copies of pictures [clip … height width]. Every clip and frame has the same box or λ."""
    if mix.box is None:
        return _blend(pixels, mix.share)
    top, bottom, left, right = mix.box_px
    mixed = pixels.clone()
    mixed[..., top:bottom, left:right] = pixels[..., top:bottom, left:right].flip(0)
    return mixed


def mix_tokens(tokens: Tensor, mix: Mix) -> Tensor:
    """Mixed copies of tokens [clip layer frame token channel]. The box is in patches. CLS is mixed with λ."""
    if mix.box is None:
        return _blend(tokens, mix.share)
    top, bottom, left, right = mix.box
    side = math.isqrt(tokens.shape[3] - 1)
    patches = torch.arange(side * side, device=tokens.device).reshape(side, side)
    inside = 1 + patches[top:bottom, left:right].flatten()  # token 0 is CLS
    mixed = tokens.clone()
    mixed[:, :, :, inside] = tokens[:, :, :, inside].flip(0)
    mixed[:, :, :, 0] = _blend(tokens[:, :, :, 0], mix.share)
    return mixed


def mix_targets(targets: Tensor, mix: Mix) -> Tensor:
    """Soft targets [clip class], each row mixed with its partner's row. Smoothing was applied before."""
    return _blend(targets, mix.share)


def mix_batch(batch: ClipBatch, mix: Mix) -> ClipBatch:
    """A cached batch with all its values mixed by the same draw. `labels` and `ids` are not changed."""
    return replace(
        batch,
        tokens=None if batch.tokens is None else mix_tokens(batch.tokens, mix),
        embedding=None if batch.embedding is None else _blend(batch.embedding, mix.share),
        dense=None if batch.dense is None else mix_pixels(batch.dense, mix),
        targets=None if batch.targets is None else mix_targets(batch.targets, mix),
    )


def _blend(values: Tensor, share: float) -> Tensor:
    return (values * share).add_(values.flip(0).mul_(1.0 - share))

"""open_clip's own `VisionTransformer`: CLIP's image tower, and CLIPA's, which pools the mean of its patches.

conv1 ─ class_embedding ─ ln_pre (−1) ─ resblocks 0, 1, … ─ ln_post ─ pool ─ proj ─▶ embedding
                                └──────────────┴────┴──▶ tokens
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vidxfer.pipeline.clip.sizes import TowerSizes
from vidxfer.pipeline.clip.tower import Tower, stacked
from vidxfer.pipeline.shapes import STEM, Taps


class VitTower(Tower):
    """A CLIP of open_clip whose image tower is its `VisionTransformer`."""

    @property
    def heads(self) -> int | None:
        """Attention heads of the image tower's blocks; None where they are of another kind (`block_type`)."""
        counts = {
            module.num_heads
            for name, module in self._model.named_modules()
            if name.startswith("visual.transformer.") and isinstance(module, torch.nn.MultiheadAttention)
        }
        return counts.pop() if len(counts) == 1 else None

    def run(self, pixels: Tensor, layers: Sequence[int]) -> Taps:
        """See `run_taps`."""
        return run_taps(self._model.visual, pixels, layers)

    def run_on(self, tokens: Tensor, layer: int) -> Tensor:
        """See `Tower.run_on`."""
        visual = self._model.visual
        for block in visual.transformer.resblocks[layer + 1 :]:
            tokens = block(tokens)
        finished: Tensor = visual.ln_post(tokens)
        return finished


def run_taps(visual: Any, pixels: Tensor, layers: Sequence[int]) -> Taps:
    """Token features of one open_clip VisionTransformer: see `Tower.taps`."""
    blocks = sorted({layer for layer in layers if layer != STEM})
    by_layer: dict[int, Tensor] = {}
    if STEM in layers:
        by_layer[STEM] = visual._embeds(pixels)
    seen = visual.forward_intermediates(
        pixels,
        indices=blocks or [len(visual.transformer.resblocks) - 1],  # an empty list is an error in open_clip
        normalize_intermediates=False,
        output_fmt="NLC",
        output_extra_tokens=True,
    )
    prefixes, patches_of = seen["image_intermediates_prefix"], seen["image_intermediates"]
    for layer, cls, patches in zip(blocks, prefixes, patches_of, strict=bool(blocks)):
        by_layer[layer] = torch.cat([cls, patches], dim=1)
    return stacked(by_layer, seen["image_features"], pixels, layers)


def vit_sizes(visual: Any) -> TowerSizes:
    """What a `VisionTransformer` is like. Its blocks are alike, so the first one stands for all."""
    width, grid = int(visual.class_embedding.shape[0]), visual.grid_size[0]
    blocks, tokens = len(visual.transformer.resblocks), 1 + grid**2
    block = sum(weight.numel() for weight in visual.transformer.resblocks[0].parameters() if weight.ndim == 2)
    per_frame = blocks * (block * tokens + 2 * tokens * tokens * width) + grid**2 * visual.conv1.weight.numel()
    return TowerSizes(
        channels=width,
        tokens=tokens,
        embed=int(visual.output_dim),
        blocks=blocks,
        image_px=int(visual.image_size[0]),
        class_row="token",
        left_out=0,
        parameters=sum(weight.numel() for weight in visual.parameters()),
        flop=2 * (per_frame + width * int(visual.output_dim)),
    )

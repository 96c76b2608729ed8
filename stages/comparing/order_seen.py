"""Can a head tell the order of frames? Asked of the built module, not of its name.

    frames in order ────────────┐
    all of them backwards ──────┼─▶ head, eval ─▶ logits: equal within the noise of float32 ─▶ it is blind to order
    sparse frames changed about ┘

Weights are drawn: a path over time that begins at zero, or that training left there, is a path all the same. A picture
of 2 x 2 patches is enough, and quick; the time axis has its own length.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor

from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.heads.base import Head, Offer
from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.shapes import ClipBatch
from vidxfer.pipeline.training.build import head_of_shapes

GRID = (2, 2)
NOISE = 3e-5
"""Largest change of a logit, over the largest logit, that may be rounding."""


def sees_order(recipe: Recipe, spec: CacheSpec) -> bool:
    """Whether another order of the frames changes what the recipe's head says.

    Raises:
        CacheMismatch, CacheError: the recipe is for another cache than one of this spec.
    """
    return order_effect(recipe, spec) > NOISE


def order_effect(recipe: Recipe, spec: CacheSpec) -> float:
    """Largest change of a logit, over the largest logit, when the frames come in another order."""
    head, shapes = head_of_shapes(recipe, spec, classes=2)
    known = shapes.for_sizes(head.needs)  # CLIP's own weights are drawn too; its number of heads hides no order
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        offer = replace(
            known,
            grid=GRID,
            image_px=GRID[0] * shapes.patch_px,
            text=torch.randn(shapes.classes, shapes.embed),
            frozen={name: torch.randn(by.shape) * by.shape[-1] ** -0.5 for name, by in known.frozen.items()},
        )
        return _effect(recipe.head.build(offer), offer)


@torch.no_grad()
def _effect(head: Head, offer: Offer) -> float:
    for parameter in head.parameters():
        fan_in = parameter[0].numel() if parameter.ndim else 1
        parameter.add_(torch.randn_like(parameter) * fan_in**-0.5)
    head.eval()
    batch = offer.fake_batch(head.needs, clips=1)
    logits = head(batch)
    frames = head.needs.sparse_frames or offer.sparse_frames
    changed = [head(changed_batch) - logits for changed_batch in (_backwards(batch), _changed_about(batch, frames))]
    return float(max(change.abs().max() for change in changed) / logits.abs().max())


def _backwards(batch: ClipBatch) -> ClipBatch:
    return replace(
        batch,
        tokens=None if batch.tokens is None else batch.tokens.flip(2),
        embedding=None if batch.embedding is None else batch.embedding.flip(1),
        dense=None if batch.dense is None else batch.dense.flip(1),
    )


def _changed_about(batch: ClipBatch, frames: int) -> ClipBatch:
    """Every second sparse frame first, then the others, each with the pixels that go with it."""
    order = [*range(1, frames, 2), *range(0, frames, 2)]

    def pixels(dense: Tensor) -> Tensor:
        each = rearrange(dense, "clip (frame near) rgb y x -> clip frame near rgb y x", frame=frames)[:, order]
        return rearrange(each, "clip frame near rgb y x -> clip (frame near) rgb y x")

    return replace(
        batch,
        tokens=None if batch.tokens is None else batch.tokens[:, :, order],
        embedding=None if batch.embedding is None else batch.embedding[:, order],
        dense=None if batch.dense is None else pixels(batch.dense),
    )

"""From a recipe and what a cache holds to a head: the one place where both meet."""

from __future__ import annotations

import torch
from torch import Tensor

from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.errors import CacheMismatch
from vidxfer.pipeline.heads.attentive import AttentiveProbe
from vidxfer.pipeline.heads.base import Head, HeadInputs
from vidxfer.pipeline.heads.dist import DistHead
from vidxfer.pipeline.heads.probe import MeanEmbeddingProbe
from vidxfer.pipeline.training.recipes import Recipe


def head_inputs(spec: CacheSpec, classes: int, recipe: Recipe) -> HeadInputs:
    """Sizes of what a cache of this spec delivers to a head of this recipe, which may see fewer frames."""
    used = recipe.sparse_frames
    return HeadInputs(
        layers=spec.layers,
        sparse_frames=used if used and spec.sparse_frames % used == 0 else spec.sparse_frames,
        alpha=spec.sampling.alpha,
        tokens=spec.tokens,
        channels=spec.channels,
        embed=spec.embed,
        classes=classes,
        image_px=spec.sampling.image_px,
    )


def build_head(recipe: Recipe, inputs: HeadInputs, text: Tensor, logit_scale: float) -> Head:
    """A freshly initialised head; the same seed gives the same weights.

    Args:
        recipe: names the head and its sizes. inputs: what the cache holds.
        text: raw text embeddings [class embed]. logit_scale: CLIP's, exponentiated.

    Raises:
        CacheMismatch: the recipe is for another number of frames or another CLIP.
    """
    expect_made_for(recipe, inputs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        if recipe.head == "probe":
            return MeanEmbeddingProbe(inputs)
        if recipe.head == "attentive-probe":
            return AttentiveProbe(inputs)
        return DistHead(recipe.dist, inputs, text, logit_scale)


def expect_made_for(recipe: Recipe, inputs: HeadInputs) -> None:
    """Check that a cache holds the frames and the CLIP a recipe is for, where the recipe says so.

    Raises:
        CacheMismatch: names each differing field with both values.
    """
    pairs = {
        "dense_frames": (inputs.sparse_frames * inputs.alpha, recipe.dense_frames),
        "sparse_frames": (inputs.sparse_frames, recipe.sparse_frames),
        "clip_channels": (inputs.channels, recipe.clip_channels),
    }
    differing = {name: pair for name, pair in pairs.items() if pair[1] is not None and pair[0] != pair[1]}
    if differing:
        raise CacheMismatch(f"recipe {recipe.name}", dict(differing))


HEAD_FIELDS = ("clip_weights_sha256", "channels", "tokens", "embed", "pixel_mean", "pixel_std", "square_pixels")
SAMPLING_FIELDS = ("alpha", "image_px")
"""What a head depends on; views, codec, videos and the like may differ between training and scoring."""


def expect_same_kind(where: object, found: CacheSpec, trained: CacheSpec, recipe: Recipe) -> None:
    """Check that a cache holds the kind of tokens a head was trained on, and as many frames or a multiple.

    Raises:
        CacheMismatch: names each differing field with both values.
    """
    pairs = {name: (getattr(found, name), getattr(trained, name)) for name in HEAD_FIELDS}
    pairs |= {f"sampling.{n}": (getattr(found.sampling, n), getattr(trained.sampling, n)) for n in SAMPLING_FIELDS}
    used = recipe.sparse_frames or trained.sparse_frames
    if found.sparse_frames % used or (
        recipe.head == "dist" and not recipe.sparse_frames and found.sparse_frames != used
    ):
        pairs["sampling.dense_frames"] = (found.sampling.dense_frames, used * trained.sampling.alpha)
    differing = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if differing:
        raise CacheMismatch(where, differing)

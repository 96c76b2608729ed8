"""The cost of a published configuration: bytes of its cache and number of trainable parameters. Both are computed.

PUBLISHED row ──▶ cache_spec ──▶ bytes per view        offer ──▶ trainable_parameters
"""

from __future__ import annotations

from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.heads.base import Offer
from vidxfer.pipeline.heads.recipe import Published, Recipe
from vidxfer.pipeline.shapes import STEM
from vidxfer.pipeline.training.build import head_of_shapes
from vidxfer.pipeline.training.recipes import named
from vidxfer.pipeline.video.sampling import Sampling


def cache_spec(row: Published, codec: str = "int8", split: str = "train") -> CacheSpec:
    """Settings of a cache with one view per video and every layer that the recipe reads. Only its sizes count."""
    clip = row.clip
    whole = Offer(
        layers=(STEM, *range(clip.blocks)), sparse_frames=row.sparse_frames, alpha=row.alpha, grid=clip.grid,
        channels=clip.width, embed=clip.embed, classes=row.classes, image_px=clip.image_px,
    )  # fmt: skip
    return CacheSpec(
        clip_model=clip.model,
        clip_weights_sha256="0" * 64,
        clip_precision="fp32",
        channels=clip.width,
        tokens=clip.tokens,
        embed=clip.embed,
        layers=named(row.recipe).head.needs(whole).layers,
        pixel_mean=(0.0, 0.0, 0.0),
        pixel_std=(1.0, 1.0, 1.0),
        sampling=Sampling(dense_frames=row.dense_frames, alpha=row.alpha, image_px=clip.image_px),
        view_kind="train" if split == "train" else "test",
        views=1,
        crops=1,
        codec=codec,
        calibration_videos=0 if codec == "float16" else 64,
        dataset="sizes",
        dataset_fingerprint="0",
        split=split,
    )


def trainable_parameters(recipe: Recipe, row: Published) -> int:
    """Number of trainable parameters of a published recipe's head. Nothing is allocated."""
    head, _ = head_of_shapes(recipe, cache_spec(row), classes=row.classes)
    return sum(parameter.numel() for parameter in head.parameters())

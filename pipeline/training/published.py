"""What it takes to run a published configuration: bytes of its cache and numbers to train; computed, never typed.

PUBLISHED row ──▶ cache_spec ──▶ bytes per view        offer ──▶ trainable_parameters
"""

from __future__ import annotations

from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.heads.recipe import Published, Recipe
from vidxfer.pipeline.training.build import head_of_shapes
from vidxfer.pipeline.video.sampling import Sampling


def cache_spec(row: Published, codec: str = "int8", split: str = "train") -> CacheSpec:
    """Settings of a cache of one view per video with every block, for its sizes only."""
    clip = row.clip
    return CacheSpec(
        clip_model=clip.model,
        clip_weights_sha256="0" * 64,
        clip_precision="fp32",
        channels=clip.width,
        tokens=clip.tokens,
        embed=clip.embed,
        layers=tuple(range(clip.blocks)),
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
    """Numbers in a published recipe's head; nothing is allocated."""
    head, _ = head_of_shapes(recipe, cache_spec(row), classes=1)
    return sum(parameter.numel() for parameter in head.parameters())

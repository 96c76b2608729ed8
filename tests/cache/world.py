"""A tiny cache to write and read: random numbers that depend on the row alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidxfer.pipeline.cache.codec import Quantiser
from vidxfer.pipeline.cache.frames import FrameStore
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import create_split
from vidxfer.pipeline.cache.views import as_stored
from vidxfer.pipeline.cache.write.writer import ShardWriter, SplitWriter
from vidxfer.pipeline.errors import VideoError, VideoReason
from vidxfer.pipeline.shapes import View
from vidxfer.pipeline.video.sampling import Sampling

SPEC = CacheSpec(
    clip_model="ViT-tiny",
    clip_weights_sha256="0" * 64,
    clip_precision="fp32",
    channels=6,
    tokens=5,
    embed=4,
    layers=(-1, 3, 7),
    pixel_mean=(0.48145466, 0.4578275, 0.40821073),
    pixel_std=(0.26862954, 0.26130258, 0.27577711),
    sampling=Sampling(dense_frames=4, alpha=2, image_px=32),
    view_kind="train",
    views=2,
    crops=1,
    codec="int8",
    calibration_videos=3,
    dataset="toy",
    dataset_fingerprint="abc",
    split="train",
)
CLASSES = ("pushing, left to right", "„Straße“ öffnen")


def make(
    folder: Path, *, videos: int = 7, shard_videos: int = 3, frames: FrameStore | None = None, **changes: Any
) -> Split:
    """A new split with every row pending. Ids hold blanks, commas and letters from elsewhere."""
    spec = replace(SPEC, **changes)
    layers = len(spec.layers)
    return create_split(
        folder,
        spec,
        video_ids=[f"vidéo {row}, 動画" for row in range(videos)],
        labels=[row % 3 - 1 for row in range(videos)],
        class_names=CLASSES,
        text=np.arange(len(CLASSES) * spec.embed, dtype=np.float32).reshape(len(CLASSES), spec.embed),
        channel_mean=np.linspace(-1, 1, layers * spec.channels, dtype=np.float32).reshape(layers, spec.channels),
        channel_std=np.linspace(0.5, 2, layers * spec.channels, dtype=np.float32).reshape(layers, spec.channels),
        fitted=fitted_of(spec),
        flip_pairs={0: 1, 1: 0},
        shard_videos=shard_videos,
        informs={"vidxfer": "test"},
        frames=frames,
    )


def fitted_of(spec: CacheSpec) -> dict[str, np.ndarray[Any, Any]]:
    """What a codec has beside mean and std, drawn at random: directions at right angles, codewords near the data."""
    rng = np.random.default_rng(1)
    made = {name: rng.normal(size=shape).astype(np.float32) for name, (_, shape) in spec.fitted_shapes.items()}
    if "rotation" in made:
        square = rng.normal(size=(len(spec.layers), spec.channels, spec.channels))
        made["rotation"] = np.linalg.qr(square)[0][:, : made["rotation"].shape[1]].astype(np.float32)
        made["component_std"] = np.abs(made["component_std"]) + 0.5
    return made


def tokens_of(split: Split, row: int) -> torch.Tensor:
    """Float tokens [view layer frame token channel] of a row."""
    spec = split.spec
    shape = (spec.stored_views, len(spec.layers), spec.sparse_frames, spec.tokens, spec.channels)
    return torch.from_numpy(np.random.default_rng(row).normal(size=shape).astype(np.float32))


def content_of(split: Split, row: int) -> tuple[torch.Tensor, torch.Tensor | None, np.ndarray[Any, Any], list[View]]:
    """What `ShardWriter.add` takes for a row."""
    spec = split.spec
    tokens = tokens_of(split, row)
    codes, scale = Quantiser.of(split)(tokens)
    rng = np.random.default_rng(10_000 + row)
    embedding = rng.normal(size=(spec.stored_views, spec.sparse_frames, spec.embed)).astype(np.float32)
    views = [
        as_stored(
            View(
                indices=tuple(sorted(int(i) for i in rng.integers(0, 90, spec.sampling.dense_frames))),
                crop=(float(rng.uniform(0, 9)), float(rng.uniform(0, 9)), 20.5, 31.1),
                resize_first=True,
                flip=bool(rng.integers(2)),
                grey=bool(rng.integers(2)),
            )
        )
        for _ in range(spec.stored_views)
    ]
    return codes, scale, embedding, views


def jpegs_of(split: Split, row: int) -> list[list[bytes]] | None:
    """One file per view and kept frame: bytes of any kind, since the cache does not look into them."""
    if split.frames is None:
        return None
    rng, most = np.random.default_rng(20_000 + row), split.frames.most_bytes
    views, alpha = content_of(split, row)[3], split.spec.sampling.alpha
    kept = [split.frames.kept(view.indices, alpha, 90 + row) for view in views]
    return [[rng.bytes(int(rng.integers(1, most + 1))) for _ in frames] for frames in kept]


def add(shard: ShardWriter, split: Split, row: int) -> None:
    """Store a row's content."""
    add_content(shard, row, content_of(split, row), jpegs_of(split, row))


def add_content(
    shard: ShardWriter, row: int, content: tuple[Any, Any, Any, list[View]], frames: list[list[bytes]] | None = None
) -> None:
    """Store what `content_of` gave for a row."""
    known = {"notes": {"decoder": "pyav-pts"}, "frame_count": 90 + row, "source_px": (40, 60 + row)}
    shard.add(row, *content, **known, frames=frames)


def bad(detail: str = "cut off") -> VideoError:
    """A refused video."""
    return VideoError(VideoReason.DECODE_FAILED, "x.mp4", detail)


def fill(split: Split, *, failing: tuple[int, ...] = ()) -> Split:
    """Write every shard that is pending."""
    with SplitWriter(split) as writer:
        for k in writer.pending():
            with writer.shard(k) as shard:
                for row in shard.rows:
                    if row in failing:
                        shard.fail(row, bad())
                    else:
                        add(shard, split, row)
    return split


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a split's folder, by its path within."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

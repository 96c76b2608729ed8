"""Caches of random tokens and JPEG frames for gpu.py, written by the real writer; no video is needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_frames import texture
from gpu_device import CLASSES, DEVICE
from stored import B16, view_of
from torch import Tensor

from vidxfer.pipeline.cache.codec import Quantiser
from vidxfer.pipeline.cache.codecs.fit import Fitted, Fitting
from vidxfer.pipeline.cache.frames import FrameStore
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import create_split
from vidxfer.pipeline.cache.write.writer import SplitWriter
from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.video.jpeg import encode_frames

SAMPLE_VIDEOS = 8
QUALITY, COLOURS = 90, "4:4:4"


def spec_for(tower: Tower, codec: str = "int8", *, pool: int = 1, small: bool = False) -> CacheSpec:
    """All blocks of a tower at 8 + 16 frames (in small: 4 + 8), one view per video."""
    info, side = tower.info, round((tower.info.tokens - 1) ** 0.5) // pool
    return replace(
        B16, clip_model=info.model, clip_weights_sha256=info.weights_sha256, channels=info.channels,
        tokens=1 + side * side, embed=info.embed, layers=tuple(range(info.blocks)), codec=codec, pool=pool,
        calibration_videos=0 if codec == "float16" else SAMPLE_VIDEOS,
        sampling=replace(B16.sampling, image_px=info.image_px, dense_frames=8 if small else 16),
    )  # fmt: skip


def tokens_like(spec: CacheSpec, seed: int, layers: int = 1) -> Tensor:
    """[layer frame token channel]: a few strong directions, a mean per place, frames that resemble each other."""
    draw = torch.Generator(device=DEVICE).manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, device=DEVICE, generator=draw)

    strength = torch.linspace(3, 0.1, spec.channels, device=DEVICE)
    still, moving = random(layers, 1, spec.tokens, spec.channels), random(layers, spec.sparse_frames, spec.tokens,
                                                                          spec.channels)  # fmt: skip
    return (still + 0.5 * moving) * strength + 1


def fitted(spec: CacheSpec) -> Fitted:
    """A codec fitted on one layer on the device, the same for all layers: what it costs does not depend on that."""
    fitting = Fitting([spec.form], SAMPLE_VIDEOS)
    for seed in range(SAMPLE_VIDEOS):
        fitting.update(tokens_like(spec, seed)[None])
    one = fitting.finish(spec.form, DEVICE)

    def repeated(values: Tensor) -> Tensor:
        return values.expand(len(spec.layers), *values.shape[1:]).contiguous()

    return Fitted(mean=repeated(one.mean), std=repeated(one.std),
                  arrays={name: repeated(values) for name, values in one.arrays.items()})  # fmt: skip


def pictures(count: int, side_px: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 [frame height width rgb], with detail as pictures have it."""
    rng = np.random.default_rng(0)
    made = [texture(rng, max(side_px, 64))[:, :side_px, :side_px] for _ in range(count)]
    return torch.stack(made).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def empty(folder: Path, spec: CacheSpec, videos: int, *, frames: bool, shard_videos: int | None = None) -> Split:
    """A split with every row pending, its codec fitted; `frames`: it keeps dense frames as JPEG."""
    store = FrameStore.at(spec.sampling.image_px, quality=QUALITY, subsampling=COLOURS) if frames else None
    rng = np.random.default_rng(0)
    return create_split(
        folder, spec, video_ids=[f"video {row}" for row in range(videos)],
        labels=[row % CLASSES for row in range(videos)], class_names=[f"class {number}" for number in range(CLASSES)],
        text=rng.normal(size=(CLASSES, spec.embed)), frames=store, shard_videos=shard_videos,
        informs={"logit_scale": 100.0, "clip": {"model": spec.clip_model}, "data": {}, "templates": ["{}"]},
        **fitted(spec).as_arrays(),
    )  # fmt: skip


def filled(split: Split) -> Split:
    """Every row stored: the same codes and JPEGs in each, which no reader notices."""
    spec = split.spec
    quantise = Quantiser.of(split).to(DEVICE)
    codes, scale = quantise(tokens_like(spec, 99, len(spec.layers))[None])
    codes, scale = codes.cpu(), None if scale is None else scale.cpu()
    embedding = np.ones((1, spec.sparse_frames, spec.embed))
    frames = None
    if split.frames is not None:
        shown = pictures(spec.sampling.dense_frames, spec.sampling.image_px)
        frames = [encode_frames(shown, quality=QUALITY, subsampling=COLOURS, most_bytes=split.frames.most_bytes)[0]]
    with SplitWriter(split) as writer:
        for number in writer.pending():
            with writer.shard(number) as shard:
                for row in shard.rows:
                    shard.add(row, codes, scale, embedding, [view_of(spec)], frames=frames,
                              frame_count=spec.sampling.dense_frames)  # fmt: skip
    return split

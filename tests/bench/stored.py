"""Caches of random numbers at published sizes, made by the real writer; and what is in the system's file cache of them.

Numbers do not change how long reading takes; what the disk still has in memory does, so that is asked for, not assumed.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import create_split
from vidxfer.pipeline.cache.write.writer import SplitWriter
from vidxfer.pipeline.shapes import View
from vidxfer.pipeline.video.sampling import Sampling

B16 = CacheSpec(
    clip_model="ViT-B-16-quickgelu",
    clip_weights_sha256="0" * 64,
    clip_precision="fp32",
    channels=768,
    tokens=197,
    embed=512,
    layers=tuple(range(12)),
    pixel_mean=(0.48145466, 0.4578275, 0.40821073),
    pixel_std=(0.26862954, 0.26130258, 0.27577711),
    sampling=Sampling(dense_frames=16, alpha=2, image_px=224),
    view_kind="train",
    views=1,
    crops=1,
    codec="int8",
    calibration_videos=0,
    dataset="random",
    dataset_fingerprint="random",
    split="train",
)
"""ViT-B/16, 8 of 16 frames, all blocks, int8: 14.6 MB per view."""

SMALL = replace(B16, channels=8, tokens=5, embed=4, layers=(0, 1, 2, 3), sampling=replace(B16.sampling, image_px=32))
"""The same with hardly any bytes, so that a test can run what the benchmark runs."""


def made(folder: Path, spec: CacheSpec, *, videos: int, shard_videos: int) -> Split:
    """A split with every row pending."""
    per_layer = (len(spec.layers), spec.channels)
    return create_split(
        folder,
        spec,
        video_ids=[f"video {row}" for row in range(videos)],
        labels=[0] * videos,
        class_names=["one"],
        text=np.ones((1, spec.embed), dtype=np.float32),
        channel_mean=np.zeros(per_layer, dtype=np.float32),
        channel_std=np.ones(per_layer, dtype=np.float32),
        shard_videos=shard_videos,
    )


def view_of(spec: CacheSpec) -> View:
    """A view that is as good as any."""
    side = float(spec.sampling.image_px)
    return View(
        indices=tuple(range(spec.sampling.dense_frames)),
        crop=(0.0, 0.0, side, side),
        resize_first=True,
        flip=False,
        grey=False,
    )


def filled(split: Split) -> Split:
    """Every row stored: one draw of random codes, turned by a different amount for every row."""
    spec, rng = split.spec, np.random.default_rng(0)
    shape = (spec.stored_views, len(spec.layers), spec.sparse_frames, spec.tokens, spec.channels)
    codes = rng.integers(-127, 128, size=shape, dtype=np.int8)
    scale = rng.random(shape[:-1]).astype(np.float16)
    embedding = np.zeros((spec.stored_views, spec.sparse_frames, spec.embed))
    with SplitWriter(split) as writer:
        for number in writer.pending():
            with writer.shard(number) as shard:
                for row in shard.rows:
                    turned = np.roll(codes, row, axis=-1)
                    shard.add(row, turned, scale, embedding, [view_of(spec)] * spec.stored_views)
    return split


def files_below(folder: Path) -> list[Path]:
    """Every file below a folder."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def forget(paths: Iterable[Path]) -> float:
    """Have the system drop files from its cache; returns the share of their pages that is still there."""
    still, pages = 0, 0
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            found = resident(fd, os.fstat(fd).st_size)
        finally:
            os.close(fd)
        still, pages = still + sum(found), pages + len(found)
    return still / max(1, pages)


def resident(fd: int, size_bytes: int) -> bytes:
    """One byte per page of an open file: 1 where it is in memory (mincore)."""
    if not size_bytes:
        return b""
    pages = (ctypes.c_ubyte * -(-size_bytes // mmap.PAGESIZE))()
    with mmap.mmap(fd, size_bytes, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as seen:
        start = ctypes.c_char.from_buffer(seen)
        failed = ctypes.CDLL(None, use_errno=True).mincore(
            ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(size_bytes), pages
        )
        del start
        if failed:
            raise OSError(ctypes.get_errno(), "mincore")
    return bytes(page & 1 for page in pages)


def decoding_gflop(spec: CacheSpec) -> float:
    """Of one view: "klt" stores its class row as it is, the others turn it too."""
    turned = spec.tokens - spec.form.is_klt
    return len(spec.layers) * spec.sparse_frames * turned * spec.form.decoding_operations(spec.channels) / 1e9

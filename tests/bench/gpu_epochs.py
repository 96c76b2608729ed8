"""gpu.py's whole paths: epochs of DiST from a cache and online, and extraction from frames in memory to tokens on disk.

cached   codes, JPEGs ─▶ loader ─▶ dequantised on the device ─▶ head        from memory, and from the disk
frames   JPEGs        ─▶ loader ─▶ CLIP ─────────────────────▶ head
online   frames in memory, no decoding at all ─▶ CLIP ───────▶ head          the baseline, at its best
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from gpu_caches import empty, filled, pictures, spec_for
from gpu_codecs import tower_of
from gpu_device import CUDA, DEVICE, NEEDS_A_CARD, Row, Step, seconds_of, wait
from stored import files_below, forget, view_of

from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.heads.base import Needs
from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.precision import head_precision
from vidxfer.pipeline.shapes import ClipBatch, Video
from vidxfer.pipeline.training.ahead import RawBatch
from vidxfer.pipeline.training.build import build_head
from vidxfer.pipeline.training.loader import Assembler
from vidxfer.pipeline.training.recipes import named
from vidxfer.pipeline.training.shown import with_clip
from vidxfer.pipeline.video.replay import CutFrames, replay
from vidxfer.stages.learning.sources import cached_source
from vidxfer.stages.settings import CacheChoice, ClipChoice, DataSource, ExtractRequest
from vidxfer.stages.shards.encode import Prepared
from vidxfer.stages.shards.extract import extract_shards, task_of

THREADS = max(1, min(12, (os.cpu_count() or 2) - 2))
AIM = 0.9
"""Of extraction against CLIP alone."""


@dataclass(kw_only=True)
class Way:
    """One way to train: batches of one epoch, and what makes them ready for the head."""

    name: str
    split: Split
    step: Step
    batches: Callable[[], Any]
    assemble: Callable[[Any], ClipBatch]

    def epoch(self) -> tuple[float, float]:
        """Seconds of an epoch, and the share of them spent waiting for data."""
        began, waited = time.perf_counter(), 0.0
        with self.batches() as given:
            since = time.perf_counter()
            for raw in given:
                waited += time.perf_counter() - since
                self.step.batch = self.assemble(raw)
                self.step()
                since = time.perf_counter()
        wait()
        seconds = time.perf_counter() - began
        return seconds, waited / seconds


def recipe_for(small: bool) -> Recipe:
    """DiST for any CLIP; in small, its narrow form."""
    recipe = named("dist-ssv2-b16")
    head = replace(recipe.head, integration_channels=64, temporal_channels=32) if small else recipe.head
    return replace(recipe, head=head)


def epochs(folder: Path, small: bool) -> Iterator[Row]:
    """An epoch each way, from memory and from the disk; ratios against online."""
    videos, clips = (8, 2) if small else (96, 16)
    tower = tower_of(folder, small, str(DEVICE))
    online, first = 0.0, True
    stored = (("int8", 1), ("klt4", 1), ("klt1", 1), ("klt1", 2))
    for codec, pool in (one for one in stored if tower.info.grid[0] % one[1] == 0):
        split = filled(empty(folder / f"{codec}-{pool}", spec_for(tower, codec, pool=pool, small=small), videos,
                             frames=True))  # fmt: skip
        plan = [[(row, 0) for row in range(at, at + clips)] for at in range(0, videos, clips)]
        for way in ways(split, tower, recipe_for(small), plan, small=small, all_of_them=first):
            way.epoch()
            for source in ("memory", "disk") if "cached" in way.name else ("memory",):
                still = forget(files_below(split.path)) if source == "disk" else None
                seconds, waiting = way.epoch()
                online = online or seconds
                yield {
                    "way": way.name, "codec": codec if "tokens" in way.name else "", "pooled": pool,
                    "from": source, "clips/s": videos / seconds, "times as fast as online": online / seconds,
                    "share waiting for data": waiting, "share still in the file cache": still,
                }  # fmt: skip
        first = False


def ways(
    split: Split, tower: Tower, recipe: Recipe, plan: list[list[tuple[int, int]]], *, small: bool, all_of_them: bool
) -> Iterator[Way]:
    """Online, cached frames, cached tokens; or the last alone."""
    source = cached_source(split.path.parent, split.spec.split, None, "cache")
    head = build_head(recipe, source.offer(recipe)).to(DEVICE)
    needs = head.needs
    precision = head_precision("auto", DEVICE)
    step = Step(head, None, precision)  # type: ignore[arg-type]  # every batch is given to it
    by_clip = Assembler(source.split, needs, DEVICE, smoothing=0.1, tower=tower)
    frames_alone = replace(with_clip(needs), layers=(), embedding=False, frozen=())

    @contextmanager
    def read(wanted: Needs) -> Iterator[Any]:
        with source.loader(wanted, decode_threads=THREADS, read_threads=min(4, THREADS), device=DEVICE) as loader:
            yield loader.batches(plan)

    if all_of_them:
        yield Way(name="online, frames in memory", split=split, step=step, assemble=by_clip,
                  batches=lambda: in_memory(split, plan))  # fmt: skip
        yield Way(name="cached frames, CLIP online", split=split, step=step, assemble=by_clip,
                  batches=lambda: read(frames_alone))  # fmt: skip
    assemble = source.assembler(needs, DEVICE, smoothing=0.1, precision=precision)
    yield Way(name="cached tokens and frames", split=split, step=step, assemble=assemble, batches=lambda: read(needs))


@contextmanager
def in_memory(split: Split, plan: list[list[tuple[int, int]]]) -> Iterator[Iterator[RawBatch]]:
    """Batches of frames that lie in memory, cut and resized already."""
    sampling, clips = split.spec.sampling, len(plan[0])
    shown = torch.from_numpy(pictures(sampling.dense_frames, sampling.image_px)).permute(0, 3, 1, 2)
    pixels = shown.expand(clips, *shown.shape).contiguous()
    no = torch.zeros(clips, dtype=torch.bool)
    raw = RawBatch(codes=None, embedding=None, dense=CutFrames(pixels=pixels, flip=no, grey=no),
                   labels=torch.zeros(clips, dtype=torch.int64), rows=tuple(range(clips)),
                   ids=tuple(map(str, range(clips)))).pinned()  # fmt: skip
    yield (raw for _ in plan)


def extraction(folder: Path, small: bool) -> Iterator[Row]:
    """CLIP's forward with taps, eager and compiled; and the real extraction of frames in memory, against it."""
    batch, videos = (8, 6) if small else (128, 128)
    tower = tower_of(folder, small, str(DEVICE))
    layers, side = tuple(range(tower.info.blocks)), tower.info.image_px
    frames = torch.randn(batch, 3, side, side, device=DEVICE)
    rate = batch / seconds_of(lambda: tower.taps(frames, layers))
    yield {"what": "CLIP's forward, eager", "arithmetic": tower.info.precision, "frames/s": rate,
           "against CLIP, eager": 1.0, "rates": {"clip_frames_per_second": rate}}  # fmt: skip
    for codec in ("int8", "klt1"):
        split = empty(folder / f"{codec}", spec_for(tower, codec, small=small), videos, frames=False)
        extracted(split, tower, folder, batch, most=1 if small else 32)
        split = empty(folder / f"{codec}-timed", split.spec, videos, frames=False)
        seconds = extracted(split, tower, folder, batch, most=videos)
        found = videos * split.spec.sparse_frames / seconds
        yield {"what": f"extraction to {codec} on the disk", "arithmetic": tower.info.precision, "frames/s": found,
               "against CLIP, eager": found / rate, "aimed at": AIM}  # fmt: skip
    if not CUDA:
        yield {"what": "CLIP's forward, compiled", "frames/s": NEEDS_A_CARD}
        return
    with mock.patch.object(tower, "run", torch.compile(tower.run, dynamic=False)):
        compiled = batch / seconds_of(lambda: tower.taps(frames, layers))
    yield {"what": "CLIP's forward, compiled", "arithmetic": tower.info.precision, "frames/s": compiled,
           "against CLIP, eager": compiled / rate}  # fmt: skip


def extracted(split: Split, tower: Tower, folder: Path, batch_frames: int, *, most: int) -> float:
    """Seconds of extracting the first shards of at least `most` videos: stage one itself, but for opening videos."""
    spec, sampling = split.spec, split.spec.sampling
    shown: Any = pictures(spec.sparse_frames, sampling.image_px)
    seen = replace(view_of(spec), indices=tuple(range(0, sampling.dense_frames, sampling.alpha)))

    def from_memory(video: Video, *_: object, device: torch.device | None = None, **__: object) -> Prepared:
        pixels = replay(np.asarray(shown), seen, device=device, **spec.picture)
        return Prepared(
            views=(view_of(spec),), pixels=pixels[None], decoder="memory", why="frames in memory",
            frame_count=sampling.dense_frames, source_px=shown.shape[1:3], source_file=(0, 0, 0),
        )  # fmt: skip

    videos = {row: Video(id=name, path=folder / name, label=0, split=spec.split)
              for row, name in enumerate(split.video_ids)}  # fmt: skip
    request = ExtractRequest(
        data=DataSource(kind="ssv2", root=None), clip=ClipChoice(), store=CacheChoice(), cache=split.path.parent,
        batch_frames=batch_frames, decode_threads=THREADS,
    )  # fmt: skip
    shards = -(-most // split.shard_videos)
    tasks = [task_of(request, videos, split, shard) for shard in range(min(shards, split.shard_count))]
    began = time.perf_counter()
    with mock.patch("vidxfer.stages.shards.encode.prepare", from_memory):
        extract_shards(tasks, split, tower, lambda: None, lambda sealed: None)
    wait()
    return time.perf_counter() - began

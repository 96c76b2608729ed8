"""What would it cost? Bytes, files and hours before anything is written, and whether a cache pays at all.

    choices ─▶ CacheSpec ─▶ bytes, files ──────────────────────────┐
    a few videos ─ decode ─▶ videos/s ─┐                           ├─▶ table, and one sentence of advice
    random pictures ─ CLIP ─▶ frames/s ┴─▶ hours, break-even GB/s ─┘

A cache pays only while reading a view takes less time than computing it again: the break-even is bytes per view over
CLIP seconds per view, on this device. Nothing is written and no weights are fetched: speed does not depend on them.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from vidxfer.pipeline.cache.layout import SplitLayout
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.clip.load import untrained_tower
from vidxfer.pipeline.clip.tower import ClipTower
from vidxfer.pipeline.datasets.base import Dataset
from vidxfer.pipeline.errors import UsageError, VideoError
from vidxfer.pipeline.training.recipes import Recipe
from vidxfer.stages.describe import describe_split
from vidxfer.stages.encode import prepare
from vidxfer.stages.memory import training_bytes
from vidxfer.stages.progress import Progress, Silent
from vidxfer.stages.settings import CacheChoice, ClipChoice, DataSource

MEASURE_SECONDS = 4.0
"""At most this long per measurement."""


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """What to plan; as `ExtractRequest`. `measure` may be switched off: then there are no hours.

    Attributes:
        recipe: whose training memory is told too; None: not asked.
    """

    data: DataSource
    clip: ClipChoice
    store: CacheChoice
    cache: Path
    splits: tuple[str, ...] = ("train", "val")
    batch_frames: int = 128
    decode_threads: int = 2
    measure: bool = True
    recipe: Recipe | None = None


@dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """One split: videos, stored views per video, bytes per view, of the whole split, its files, and seconds of CLIP."""

    split: str
    videos: int
    views: int
    bytes_per_view: int
    total_bytes: int
    files: int
    clip_tflop: float
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PlanReport:
    """The bill.

    Attributes:
        splits: one each. free_bytes: on the disk of the cache. device: where CLIP would run.
        clip_frames_per_second, decode_videos_per_second: measured here; None: not measured.
        extract_hours: the slower of the two over all splits. break_even_gb_per_second: reading slower than this,
            recomputing is faster. advice: one sentence.
        training_bytes: memory of one step of the recipe's whole batch in float32, from shapes; None: not asked.
    """

    splits: tuple[SplitPlan, ...]
    free_bytes: int
    device: str
    clip_frames_per_second: float | None
    decode_videos_per_second: float | None
    extract_hours: float | None
    break_even_gb_per_second: float | None
    advice: str
    training_bytes: int | None = None


def plan(request: PlanRequest, progress: Progress | None = None) -> PlanReport:
    """Work out the bill; write nothing.

    Raises:
        UsageError, DatasetError: the request or the data set cannot be meant. ClipError: no such model.
    """
    shown = progress or Silent()
    datasets = [request.data.load(split) for split in request.splits]
    tower = untrained_tower(request.clip.model, device=request.clip.device, precision=request.clip.precision)
    specs = [describe_split(request.store, tower.info, dataset) for dataset in datasets]
    plans = tuple(
        _plan_split(request.store, tower, spec, dataset) for spec, dataset in zip(specs, datasets, strict=True)
    )
    clip_rate = decode_rate = hours = break_even = None
    if request.measure:
        with shown.bar("measure", 2, "steps") as bar:
            bar.advance(0, "CLIP forward")
            clip_rate = measure_clip(tower, specs[0], request.batch_frames)
            bar.advance(1, "decoding")
            decode_rate = measure_decode(specs[0], datasets[0], request.decode_threads)
            bar.advance(1)
        frames = sum(one.videos * one.views for one in plans) * specs[0].sparse_frames
        videos = sum(one.videos for one in plans)
        hours = max(frames / clip_rate, videos / decode_rate if decode_rate else 0.0) / 3600
        break_even = plans[0].bytes_per_view / (specs[0].sparse_frames / clip_rate) / 1e9
    free = free_bytes(request.cache)
    return PlanReport(
        splits=plans,
        free_bytes=free,
        device=str(tower.device),
        clip_frames_per_second=clip_rate,
        decode_videos_per_second=decode_rate,
        extract_hours=hours,
        break_even_gb_per_second=break_even,
        advice=advise(plans, free, break_even),
        training_bytes=None
        if request.recipe is None
        else training_bytes(request.recipe, specs[0], len(datasets[0].class_names)),
    )


def _plan_split(choice: CacheChoice, tower: ClipTower, spec: CacheSpec, dataset: Dataset) -> SplitPlan:
    if not len(dataset):
        raise UsageError(f"the {dataset.split} split of {dataset.root} has no videos")
    shard_videos = min(choice.shard_videos or spec.shard_videos_default, len(dataset))
    layout = SplitLayout(spec=spec, videos=len(dataset), classes=len(dataset.class_names), shard_videos=shard_videos)
    frames = len(dataset) * spec.stored_views * spec.sparse_frames
    return SplitPlan(
        split=spec.split,
        videos=len(dataset),
        views=spec.stored_views,
        bytes_per_view=spec.bytes_per_view,
        total_bytes=layout.total_bytes,
        files=layout.shard_count * len(layout.owned) + len(layout.owned) + 2 * len(layout.fixed) + 4,
        clip_tflop=frames * tower.info.flop_per_frame() / 1e12,
        notes=dataset.notes,
    )


def measure_clip(tower: ClipTower, spec: CacheSpec, batch_frames: int) -> float:
    """Frames per second of the tower's forward with all taps, after one warm-up: the best of what fits the time."""
    side = spec.sampling.image_px
    pixels = torch.randn(min(batch_frames, 64), 3, side, side)
    rates: list[float] = []
    end = time.monotonic() + MEASURE_SECONDS
    while len(rates) < 2 or time.monotonic() < end:
        began = time.monotonic()
        tower.taps(pixels, spec.layers)
        if tower.device.type == "cuda":
            torch.cuda.synchronize(tower.device)
        rates.append(len(pixels) / (time.monotonic() - began))
    return max(rates[1:])


def measure_decode(spec: CacheSpec, dataset: Dataset, threads: int) -> float | None:
    """Videos per second through `threads` decoders, over a sample; None when not one of it can be read."""
    from concurrent.futures import ThreadPoolExecutor

    sample = dataset.take(min(32, len(dataset))).videos
    end, began = time.monotonic() + MEASURE_SECONDS, time.monotonic()

    def one(number: int) -> bool:
        if time.monotonic() > end:
            return False
        try:
            prepare(sample[number], spec)
        except VideoError:
            return False
        return True

    with ThreadPoolExecutor(max(1, threads)) as pool:
        done = sum(pool.map(one, range(len(sample))))
    return done / (time.monotonic() - began) if done else None


def free_bytes(cache: Path) -> int:
    """Free bytes on the disk where the cache is, or would be made."""
    folder = cache.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def advise(plans: tuple[SplitPlan, ...], free: int, break_even: float | None) -> str:
    """One sentence: does it fit, and when does it pay."""
    needed = sum(one.total_bytes for one in plans)
    if needed > free:
        return (
            f"It does not fit: {needed / 1e9:,.1f} GB are needed, {free / 1e9:,.1f} GB are free. "
            "Fewer layers (--layers 3,7,11), int8 or fewer views make it smaller."
        )
    if break_even is None:
        return f"It fits: {needed / 1e9:,.2f} GB of {free / 1e9:,.1f} GB free."
    return (
        f"It fits ({needed / 1e9:,.2f} GB of {free / 1e9:,.1f} GB free), and it pays where the disk reads more than "
        f"{break_even:.2g} GB/s per device like this one."
    )

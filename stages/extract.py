"""Stage one: run CLIP once over a few frames of every video and keep the tokens.

    data set ─▶ spec ─▶ (same cache already there? go on with it : calibrate, create) ─▶ shard by shard:
        decode + replay ─▶ CLIP taps ─▶ quantise on the device ─▶ shard file ─▶ ledger line

Ended at any moment, it goes on with the shards that have no ledger line. A video that cannot be read becomes a row with
a reason; the run does not stop for it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from vidxfer.pipeline.cache.codec import Calibration, encode_float16, encode_int8
from vidxfer.pipeline.cache.layout import AnyArray
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import create_split, open_split, splits
from vidxfer.pipeline.cache.summary import bytes_on_disk
from vidxfer.pipeline.cache.writer import SplitWriter
from vidxfer.pipeline.clip.load import load_tower
from vidxfer.pipeline.clip.tower import ClipTower
from vidxfer.pipeline.datasets.base import Dataset
from vidxfer.pipeline.errors import CacheFull, CacheMismatch, UsageError, VideoError
from vidxfer.pipeline.shapes import Video
from vidxfer.pipeline.video.mirror import flip_pairs
from vidxfer.pipeline.video.reader import Decoder
from vidxfer.stages.describe import describe_split
from vidxfer.stages.encode import Encoded, encode_all, prepare_all
from vidxfer.stages.plan import free_bytes
from vidxfer.stages.progress import Bar, Progress, Silent
from vidxfer.stages.settings import CacheChoice, ClipChoice, DataSource, library_versions


@dataclass(frozen=True, kw_only=True)
class ExtractRequest:
    """What to extract, with what, and where to.

    Attributes:
        data, clip, store: see their classes. cache: the cache's folder. splits: which to extract.
        batch_frames: frames CLIP sees at once. decode_threads: videos decoded at the same time.
        decoder: "auto", "decord" or "pyav".
    """

    data: DataSource
    clip: ClipChoice
    store: CacheChoice
    cache: Path
    splits: tuple[str, ...] = ("train", "val")
    batch_frames: int = 128
    decode_threads: int = 2
    decoder: str = "auto"


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """How one split went.

    Attributes:
        videos, stored, resumed: rows; stored in all; of those, stored before this run began.
        failed: id -> reason and detail. decoders: path -> videos decoded by it (over all runs).
        bytes_on_disk: of the whole split. seconds: of this run.
        fingerprint: of the cache's spec. notes: of the data set.
    """

    split: str
    videos: int
    stored: int
    resumed: int
    failed: dict[str, str]
    decoders: dict[str, int]
    bytes_on_disk: int
    seconds: float
    fingerprint: str
    notes: tuple[str, ...]


def extract(request: ExtractRequest, progress: Progress | None = None) -> tuple[SplitReport, ...]:
    """Extract every asked split; go on where an earlier run ended.

    Raises:
        UsageError, DatasetError: the request or the data set cannot be meant.
        ClipError: the tower cannot be loaded.
        CacheMismatch: the cache was made with other settings.
        CacheFull: the disk is too small, said before anything is written, or full in the middle.
    """
    shown = progress or Silent()
    if request.decoder not in get_args(Decoder):
        raise UsageError(f"--decoder {request.decoder!r} is none of {', '.join(get_args(Decoder))}")
    datasets = [request.data.load(split) for split in request.splits]
    for dataset in datasets:
        for note in dataset.notes:
            shown.line(f"{dataset.split}: {note}")
    tower = load_tower(
        request.clip.model, request.clip.pretrained, device=request.clip.device, precision=request.clip.precision
    )
    specs = [describe_split(request.store, tower.info, dataset) for dataset in datasets]
    there = splits(request.cache)
    opened = {
        spec.split: open_checked(request.cache, spec, dataset, request.store.templates)
        for spec, dataset in zip(specs, datasets, strict=True)
        if spec.split in there
    }
    expect_room_for(request.cache, [spec for spec in specs if spec.split not in opened], datasets)
    reports = []
    for dataset, spec in zip(datasets, specs, strict=True):
        split = opened.get(spec.split) or create(request, dataset, spec, tower, shown)
        reports.append(extract_split(request, dataset, split, tower, shown))
    return tuple(reports)


def open_checked(cache: Path, spec: CacheSpec, dataset: Dataset, templates: tuple[str, ...]) -> Split:
    """The split that is there, if it was made with these settings and for these videos.

    Raises:
        CacheMismatch: names each differing field with both values.
    """
    split = open_split(cache, spec.split)
    split.spec.expect_same(spec, split.path)
    known = tuple(split.informs.get("templates", ("{}",)))
    if known != templates:
        raise CacheMismatch(split.path, {"text templates": (known, templates)})
    ids = tuple(video.id for video in dataset.videos)
    if split.video_ids != ids:
        raise CacheMismatch(split.path, {"order of the videos": (split.video_ids[:3], ids[:3])})
    return split


def expect_room_for(cache: Path, specs: list[CacheSpec], datasets: list[Dataset]) -> None:
    """Refuse, before anything is written, what the disk cannot hold.

    Raises:
        CacheFull: says what is needed, what is free, and what makes it smaller.
    """
    videos = {dataset.split: len(dataset) for dataset in datasets}
    needed = sum(spec.bytes_per_view * spec.stored_views * videos[spec.split] for spec in specs)
    free = free_bytes(cache)
    if needed > free:
        raise CacheFull(
            f"{cache} would take {needed / 1e9:.1f} GB, its disk has {free / 1e9:.1f} GB free. Smaller: fewer layers "
            "(--layers 3,7,11), --codec int8, fewer views; or another disk (--cache). `vidxfer plan` shows the sizes."
        )


def create(request: ExtractRequest, dataset: Dataset, spec: CacheSpec, tower: ClipTower, shown: Progress) -> Split:
    """Calibrate the codec where it needs that, and make the empty split."""
    shape = (len(spec.layers), spec.channels)
    mean, std = np.zeros(shape, dtype=np.float32), np.ones(shape, dtype=np.float32)
    if spec.codec == "int8":
        mean, std = calibrate(request, dataset, spec, tower, shown)
    return create_split(
        request.cache,
        spec,
        video_ids=[video.id for video in dataset.videos],
        labels=[-1 if video.label is None else video.label for video in dataset.videos],
        class_names=dataset.class_names,
        text=tower.encode_text(dataset.class_names, request.store.templates).numpy(),
        channel_mean=mean,
        channel_std=std,
        flip_pairs=flip_pairs(dataset.class_names),
        shard_videos=request.store.shard_videos,
        informs={
            **library_versions(),
            "data": request.data.to_dict(),
            "clip": request.clip.to_dict(),
            "logit_scale": tower.info.logit_scale,
            "templates": list(request.store.templates),
        },
    )


def calibrate(
    request: ExtractRequest, dataset: Dataset, spec: CacheSpec, tower: ClipTower, shown: Progress
) -> tuple[AnyArray, AnyArray]:
    """Mean and std per layer and channel over an even sample of the split's videos: float32 [layer channel]."""
    sample = dataset.take(min(len(dataset), spec.calibration_videos)).videos
    sums = Calibration()
    with shown.bar(f"calibrate {spec.split}", len(sample), "videos") as bar:
        for one in _encoded(request, sample, spec, tower):
            if isinstance(one, Encoded):
                sums.update(one.tokens)
            bar.advance()
    mean, std = sums.finish()
    return mean.numpy(), std.numpy()


def extract_split(
    request: ExtractRequest, dataset: Dataset, split: Split, tower: ClipTower, shown: Progress
) -> SplitReport:
    """Write every shard that has no ledger line yet."""
    began = time.monotonic()
    with SplitWriter(split) as writer:
        pending = writer.pending()
        waiting = sum(len(split.layout.rows(shard)) for shard in pending)
        resumed = sum(record.stored for shard, record in split.ledger.finished().items() if shard not in pending)
        total = len(dataset)
        if waiting == 0:
            shown.line(f"{split.spec.split}: all {total} videos were extracted before")
        else:
            with shown.bar(f"extract {split.spec.split}", total, "videos", total - waiting) as bar:
                for shard in pending:
                    extract_shard(request, dataset, split, writer, shard, tower, bar)
    records = split.ledger.finished().values()
    decoders: Counter[str] = Counter()
    for record in records:
        decoders.update(record.notes.get("decoder", {}))
    return SplitReport(
        split=split.spec.split,
        videos=total,
        stored=sum(record.stored for record in records),
        resumed=resumed,
        failed={one.id: f"{one.reason}: {one.detail}" for record in records for one in record.failed},
        decoders=dict(decoders),
        bytes_on_disk=bytes_on_disk(split.path),
        seconds=time.monotonic() - began,
        fingerprint=split.spec.fingerprint,
        notes=dataset.notes,
    )


def extract_shard(
    request: ExtractRequest, dataset: Dataset, split: Split, writer: SplitWriter, shard: int, tower: ClipTower, bar: Bar
) -> None:
    """Write one shard: all its rows, stored or failed with a reason."""
    rows = split.layout.rows(shard)
    videos = [dataset.videos[row] for row in rows]
    quantise = _Quantiser(split, tower)
    with writer.shard(shard) as shard_writer:
        for row, one in zip(rows, _encoded(request, videos, split.spec, tower), strict=True):
            if isinstance(one, VideoError):
                shard_writer.fail(row, one)
            else:
                codes, scale = quantise(one)
                shard_writer.add(
                    row,
                    codes,
                    scale,
                    one.embedding.float().cpu(),
                    one.prepared.views,
                    notes={"decoder": one.prepared.decoder},
                    frame_count=one.prepared.frame_count,
                    source_px=one.prepared.source_px,
                )
            bar.advance()


class _Quantiser:
    """Tokens to codes on the tower's device, with the split's statistics."""

    def __init__(self, split: Split, tower: ClipTower) -> None:
        self.codec = split.spec.codec
        self.mean = torch.from_numpy(split.channel_mean).to(tower.device)
        self.std = torch.from_numpy(split.channel_std).to(tower.device)

    def __call__(self, one: Encoded) -> tuple[Tensor, Tensor | None]:
        if self.codec == "float16":
            return encode_float16(one.tokens).cpu(), None
        codes, scale = encode_int8(one.tokens, self.mean, self.std)
        return codes.cpu(), scale.cpu()


def _encoded(
    request: ExtractRequest, videos: Iterable[Video], spec: CacheSpec, tower: ClipTower
) -> Iterator[Encoded | VideoError]:
    ready = prepare_all(videos, spec, threads=request.decode_threads, decoder=request.decoder)
    return encode_all(ready, spec, tower, batch_frames=request.batch_frames)

"""Stage one: run CLIP once over a few frames of every video and keep the tokens.

    data set ─▶ spec ─▶ (same cache already there? go on with it : calibrate, create) ─▶ shard by shard:
        decode + replay ─▶ CLIP taps ─▶ quantise on the device ─▶ shard file ─▶ ledger line

Ended at any moment, it goes on with the shards that have no ledger line. A video that cannot be read becomes a row with
a reason; the run does not stop for it.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from vidxfer.pipeline.cache.frames import expect_same_frames
from vidxfer.pipeline.cache.remote import local_folder
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import create_split, open_split, splits
from vidxfer.pipeline.cache.summary import bytes_on_disk
from vidxfer.pipeline.cache.writer import SplitWriter
from vidxfer.pipeline.clip.load import load_tower
from vidxfer.pipeline.clip.tower import ClipTower
from vidxfer.pipeline.datasets.base import Dataset
from vidxfer.pipeline.errors import CacheMismatch, UsageError
from vidxfer.pipeline.video.mirror import flip_pairs
from vidxfer.pipeline.video.reader import Decoder
from vidxfer.stages.describe import describe_split, frame_store
from vidxfer.stages.draw import DECODE_IN
from vidxfer.stages.progress import Progress, Silent
from vidxfer.stages.quantise import calibrate
from vidxfer.stages.room import expect_room_for, layout_for
from vidxfer.stages.settings import CacheChoice, ExtractRequest, library_versions
from vidxfer.stages.shards import extract_shard, task_of

__all__ = ["ExtractRequest", "SplitReport", "extract"]


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
        CacheError: the cache is behind a URL.
        CacheFull: the disk is too small, said before anything is written, or full in the middle.
    """
    shown = progress or Silent()
    if request.decoder not in get_args(Decoder):
        raise UsageError(f"--decoder {request.decoder!r} is none of {', '.join(get_args(Decoder))}")
    if request.decode_in not in DECODE_IN:
        raise UsageError(f"--decode-in {request.decode_in!r} is none of {', '.join(DECODE_IN)}")
    local_folder(request.cache)
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
        spec.split: open_checked(request.cache, spec, dataset, request.store)
        for spec, dataset in zip(specs, datasets, strict=True)
        if spec.split in there
    }
    expect_room_for(
        request.cache,
        [
            layout_for(
                spec,
                len(dataset),
                shard_videos=request.store.shard_videos,
                frames=frame_store(request.store, spec.sampling.image_px),
            )
            for spec, dataset in zip(specs, datasets, strict=True)
            if spec.split not in opened
        ],
    )
    reports = []
    for dataset, spec in zip(datasets, specs, strict=True):
        split = opened.get(spec.split) or create(request, dataset, spec, tower, shown)
        reports.append(extract_split(request, dataset, split, tower, shown))
    return tuple(reports)


def open_checked(cache: Path, spec: CacheSpec, dataset: Dataset, store: CacheChoice) -> Split:
    """The split that is there, if it was made with these settings and for these videos.

    Raises:
        CacheMismatch: names each differing field with both values. CacheError: dense frames are wanted, it keeps none.
    """
    split = open_split(cache, spec.split)
    split.spec.expect_same(spec, split.path)
    expect_same_frames(split.path, split.frames, frame_store(store, spec.sampling.image_px))
    known = tuple(split.informs.get("templates", ("{}",)))
    if known != store.templates:
        raise CacheMismatch(split.path, {"text templates": (known, store.templates)})
    ids = tuple(video.id for video in dataset.videos)
    if split.video_ids != ids:
        raise CacheMismatch(split.path, {"order of the videos": (split.video_ids[:3], ids[:3])})
    return split


def create(request: ExtractRequest, dataset: Dataset, spec: CacheSpec, tower: ClipTower, shown: Progress) -> Split:
    """Calibrate the codec where it needs that, and make the empty split."""
    fitted = calibrate(request, dataset, spec, tower, shown)
    return create_split(
        request.cache,
        spec,
        video_ids=[video.id for video in dataset.videos],
        labels=[-1 if video.label is None else video.label for video in dataset.videos],
        class_names=dataset.class_names,
        text=tower.encode_text(dataset.class_names, request.store.templates).numpy(),
        **fitted.as_arrays(),
        flip_pairs=flip_pairs(dataset.class_names),
        shard_videos=request.store.shard_videos,
        informs={
            **library_versions(),
            "data": request.data.to_dict(),
            "clip": request.clip.to_dict(),
            "logit_scale": tower.info.logit_scale,
            "templates": list(request.store.templates),
        },
        factors=dataset.factors,
        frames=frame_store(request.store, spec.sampling.image_px),
    )


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
                    writer.begin(shard)
                    task = task_of(request, dataset, split, shard)
                    writer.record(extract_shard(task, split, tower, bar.advance))
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

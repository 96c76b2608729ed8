"""More videos for a cache that is there: appended behind its rows, extracted as its own were.

    cache ─▶ its settings, its CLIP ─▶ same? ─▶ videos of the data set that the cache has not ─▶ grow.py ─▶ their shards
                                       │ no: each field with both values                        (finished shards stay)
                                       └─▶ CacheMismatch

Classes are matched by name: those the cache knows keep their numbers, others get the next ones. Ended at any moment,
the same command goes on; with the cache's first data set it finishes what `extract` left pending.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vidxfer.pipeline.cache.grow import Addition, grow
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import open_split, splits
from vidxfer.pipeline.cache.writer import SplitWriter
from vidxfer.pipeline.clip.load import load_tower
from vidxfer.pipeline.clip.tower import ClipTower
from vidxfer.pipeline.datasets.base import Dataset
from vidxfer.pipeline.errors import CacheError, CacheMismatch, UsageError
from vidxfer.pipeline.shapes import Video
from vidxfer.pipeline.video.mirror import flip_pairs
from vidxfer.stages.progress import Progress, Silent
from vidxfer.stages.room import expect_room_for, layout_for
from vidxfer.stages.settings import CacheChoice, ClipChoice, DataSource, ExtractRequest
from vidxfer.stages.shards.extract import ShardTask, task_of
from vidxfer.stages.spread.choice import EngineChoice
from vidxfer.stages.spread.engines import engine_for


@dataclass(frozen=True, kw_only=True)
class AddRequest:
    """What to add to which cache.

    Attributes:
        data: the data set; videos that the cache has are left as they are. cache: its folder.
        splits: which; None: all of the cache's.
        asked: settings a person named, under their dotted names; they must be the cache's.
        model, pretrained: CLIP, where it has moved; None: as the cache remembers. device: of the tower.
        batch_frames, decode_threads, decoder, engine: as for extraction.
    """

    data: DataSource
    cache: Path
    splits: tuple[str, ...] | None = None
    asked: Mapping[str, object] = field(default_factory=dict)
    model: str | None = None
    pretrained: str | None = None
    device: str = "auto"
    batch_frames: int = 128
    decode_threads: int = 2
    decoder: str = "auto"
    engine: EngineChoice = field(default_factory=EngineChoice)


@dataclass(frozen=True, kw_only=True)
class AddReport:
    """How one split went.

    Attributes:
        added: videos that are new. known: of the data set, that the cache had. new_classes: names that are new.
        stored: videos of the whole split with tokens. failed: id -> reason, of the shards written now.
        pending: shards of other data sets that are still to be extracted. fingerprint: of the grown split.
    """

    split: str
    added: int
    known: int
    new_classes: tuple[str, ...]
    stored: int
    failed: dict[str, str]
    pending: int
    fingerprint: str


def add(request: AddRequest, progress: Progress | None = None) -> tuple[AddReport, ...]:
    """Add what is new, extract what is pending of this data set.

    Raises:
        CacheError: no cache there, or views are asked for. CacheMismatch: other settings, labels or CLIP.
        UsageError, DatasetError: no such split, or the data set cannot be meant. CacheFull: the disk is too small.
    """
    shown, there = progress or Silent(), splits(request.cache)
    if not there:
        raise CacheError(f"no cache at {request.cache}: no */zarr.json there. `vidxfer extract` makes one.")
    wanted = request.splits or tuple(there)
    if unknown := [name for name in wanted if name not in there]:
        raise UsageError(f"{request.cache} has no split {unknown[0]!r}; it has {', '.join(there)}")
    opened = [open_split(request.cache, name) for name in wanted]
    for split in opened:
        expect_asked(split, request.asked)
    datasets = [request.data.load(name) for name in wanted]
    clip = clip_of(request, opened[0])
    tower = load_tower(clip.model, clip.pretrained, device=clip.device, precision=clip.precision)
    for split in opened:
        expect_tower(split, tower)
    return tuple(
        _add_split(request, clip, tower, split, dataset, shown) for split, dataset in zip(opened, datasets, strict=True)
    )


def expect_asked(split: Split, asked: Mapping[str, object]) -> None:
    """Check that settings a person named are the cache's.

    Raises:
        CacheMismatch: names each that is not. CacheError: more views are asked for, with what to do instead.
    """
    mine = split.spec.passport["tokens"]
    differing = {name: (mine[name], value) for name, value in asked.items() if mine[name] != value}
    if "views" in differing and split.spec.view_kind == "test":
        del differing["views"]  # --views is about training views
    if set(differing) == {"views"}:
        found, wanted = differing["views"]
        raise CacheError(
            f"{split.path} has {found} views per video, {wanted} are asked for: views lie inside the finished shards, "
            "which are never rewritten. `vidxfer extract` with the wanted --views and another --cache makes them; view "
            "n depends on seed, video and n alone, so the first ones come out as they are here."
        )
    if differing:
        raise CacheMismatch(split.path, dict(differing))


def clip_of(request: AddRequest, split: Split) -> ClipChoice:
    """The CLIP that the cache was made with, in its arithmetic, unless the request names another place or device."""
    known = split.informs["clip"]
    return ClipChoice(
        model=request.model or known["model"],
        pretrained=request.pretrained or known["pretrained"],
        device=request.device,
        precision=split.spec.clip_precision,
    )


def expect_tower(split: Split, tower: ClipTower) -> None:
    """Check that a tower gives the tokens that the split holds.

    Raises:
        CacheMismatch: names each field in which it differs.
    """
    info = tower.info
    same = replace(
        split.spec,
        clip_weights_sha256=info.weights_sha256,
        clip_precision=info.precision,  # type: ignore[arg-type]  # checked by the spec
        channels=info.channels,
        tokens=info.tokens,
        embed=info.embed,
        pixel_mean=info.pixel_mean,
        pixel_std=info.pixel_std,
    )
    split.spec.expect_same(same, split.path)


def _add_split(
    request: AddRequest, clip: ClipChoice, tower: ClipTower, split: Split, dataset: Dataset, shown: Progress
) -> AddReport:
    videos = {video.id: video for video in dataset.videos}
    addition = addition_of(split, dataset, request.data, tower)
    known_classes = len(split.class_names)
    if addition.video_ids:
        layout = layout_for(split.spec, len(addition.video_ids), shard_videos=split.shard_videos, frames=split.frames)
        expect_room_for(request.cache, [layout])
    with SplitWriter(split) as writer:
        if addition.video_ids:
            split = grow(writer, addition)
        pending = writer.pending()
        ours = [k for k in pending if all(split.video_ids[row] in videos for row in split.layout.rows(k))]
        tasks = tasks_of(request, clip, split, ours, videos)
        waiting = sum(task.count for task in tasks)
        if tasks:
            with (
                engine_for(tasks[0].request, shown) as engine,
                shown.bar(f"add to {split.spec.split}", waiting, "videos") as bar,
            ):
                engine.run(split, tasks, bar, writer.adopt)
    records = split.ledger.finished()
    return AddReport(
        split=split.spec.split,
        added=len(addition.video_ids),
        known=len(dataset) - len(addition.video_ids),
        new_classes=split.class_names[known_classes:],
        stored=sum(record.stored for record in records.values()),
        failed={one.id: f"{one.reason}: {one.detail}" for k in ours if k in records for one in records[k].failed},
        pending=len(pending) - len(ours),
        fingerprint=split.spec.fingerprint,
    )


def tasks_of(
    request: AddRequest, clip: ClipChoice, split: Split, shards: list[int], videos: Mapping[str, Video]
) -> list[ShardTask]:
    """One task per shard, as extraction would make it."""
    asked = ExtractRequest(
        data=request.data,
        clip=clip,
        store=CacheChoice(),  # not asked again: the split's own settings are what a task follows
        cache=request.cache,
        splits=(split.spec.split,),
        batch_frames=request.batch_frames,
        decode_threads=request.decode_threads,
        decoder=request.decoder,
        engine=request.engine,
    )
    by_row = {row: videos[split.video_ids[row]] for shard in shards for row in split.layout.rows(shard)}
    return [task_of(asked, by_row, split, shard) for shard in shards]


def addition_of(split: Split, dataset: Dataset, data: DataSource, tower: ClipTower) -> Addition:
    """What of a data set is new to a split, in the split's class numbers.

    Raises:
        CacheMismatch: a video that is there has another label here, or the data set says other factors of classes.
    """
    names = (*split.class_names, *[name for name in dataset.class_names if name not in split.class_names])
    number = {name: at for at, name in enumerate(names)}
    labels = {
        video.id: -1 if video.label is None else number[dataset.class_names[video.label]] for video in dataset.videos
    }
    there = dict(zip(split.video_ids, split.labels.tolist(), strict=True))
    for name, label in labels.items():
        if there.get(name, label) != label:
            shown = [names[one] if one >= 0 else "no label" for one in (there[name], label)]
            raise CacheMismatch(split.path, {f"label of {name}": (shown[0], shown[1])})
    new = tuple(video.id for video in dataset.videos if video.id not in there)
    fresh = names[len(split.class_names) :]
    if fresh and set(split.factors) != set(dataset.factors):
        raise CacheMismatch(split.path, {"factors of classes": (sorted(split.factors), sorted(dataset.factors))})
    at = {name: place for place, name in enumerate(dataset.class_names)}
    factors = {
        name: (*values, *[dataset.factors[name][at[one]] for one in fresh]) for name, values in split.factors.items()
    }
    templates = tuple(split.informs.get("templates", ("{}",)))
    empty = np.zeros((0, split.spec.embed), dtype=np.float32)
    source: dict[str, Any] = data.to_dict()
    return Addition(
        video_ids=new,
        labels=[labels[name] for name in new],
        class_names=names,
        text=tower.encode_text(fresh, templates).numpy() if fresh else empty,
        flip_pairs=flip_pairs(names) if fresh else split.flip_pairs,
        factors=factors,
        dataset=dataset.name,
        dataset_fingerprint=dataset.fingerprint,
        data=source,
    )

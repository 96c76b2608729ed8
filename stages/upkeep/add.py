"""More videos, or more training views, for a cache that is there: extracted with its own settings and its own CLIP.

    cache ─▶ its settings, its CLIP ─▶ same? (addition.py) ─┬▶ new videos: rows behind the others (write/grow.py)
                                                            └▶ new views: a part beside the first (write/more_views.py)
    what is pending of this data set ─▶ shards, as extraction makes them ─▶ new views that are whole are joined

Finished shards stay as they are. Classes are matched by name: those the cache knows keep their numbers, others get the
next ones. Ended at any moment, the same command goes on; with the cache's first data set it finishes what `extract`
left pending. Until the last shard of new views is there, the cache is the one it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from vidxfer.pipeline.cache.read.wanted import open_splits
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.cache.write.grow import Addition, grow
from vidxfer.pipeline.cache.write.more_views import (
    begin_views,
    begun_views,
    expect_same_files,
    join_views,
    views_to_add,
)
from vidxfer.pipeline.cache.write.writer import SplitWriter
from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.datasets.base import Dataset
from vidxfer.pipeline.errors import CacheBusy
from vidxfer.pipeline.shapes import Video
from vidxfer.stages.engine import EngineChoice
from vidxfer.stages.progress import Progress, Silent, say
from vidxfer.stages.remembered import remembered_clip, tower_of_caches
from vidxfer.stages.room import expect_room_for, layout_for
from vidxfer.stages.settings import CacheChoice, ClipChoice, DataSource, ExtractRequest
from vidxfer.stages.shards.extract import ShardTask, task_of
from vidxfer.stages.spread.engines import engine_for
from vidxfer.stages.upkeep.addition import addition_of, expect_asked, views_wanted
from vidxfer.stages.versions import library_versions


@dataclass(frozen=True, kw_only=True)
class AddRequest:
    """What to add to which cache.

    Attributes:
        data: the data set; videos that the cache has are left as they are.
        cache: its folder.
        splits: which; None: all of the cache's.
        views: how many training views every video is to have; None: as many as the cache has.
        asked: settings a person named, under their dotted names; they must be the cache's.
        model, pretrained: CLIP, where it has moved; None: as the cache remembers.
        device: of the tower.
        batch_frames, decode_threads, decoder, engine: as for extraction.
    """

    data: DataSource
    cache: Path
    splits: tuple[str, ...] | None = None
    views: int | None = None
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
        added: videos that are new.
        known: of the data set, that the cache had.
        new_classes: names that are new.
        views: per video, that count now.
        views_added: of those, by this run.
        views_pending: that do not count yet.
        stored: videos of the whole split with tokens.
        failed: id -> reason, of the shards written now.
        left: part and shard -> why no worker could finish it; still pending.
        pending: shards of other data sets that are still to be extracted.
        fingerprint: of the grown split.
    """

    split: str
    added: int
    known: int
    new_classes: tuple[str, ...]
    views: int
    views_added: int
    views_pending: int
    stored: int
    failed: dict[str, str]
    left: dict[str, str]
    pending: int
    fingerprint: str


def add(request: AddRequest, progress: Progress | None = None) -> tuple[AddReport, ...]:
    """Add what is new, extract what is pending of this data set.

    Raises:
        CacheError: no cache there, or videos are other files than when their first views were extracted.
        CacheMismatch: other settings, labels or CLIP. CacheBusy: another process writes or has just added.
        UsageError, DatasetError: no such split, or the data set cannot be meant. CacheFull: the disk is too small.
    """
    shown = progress or Silent()
    opened = open_splits(request.cache, request.splits)
    for split in opened:
        expect_asked(split, request.asked)
        views_wanted(split, begun_views(split), request.views)
    datasets = [request.data.load(split.path.name) for split in opened]
    clip = remembered_clip(
        opened[0].informs["clip"],
        opened[0].spec.clip_precision,
        device=request.device,
        model=request.model,
        pretrained=request.pretrained,
    )
    tower = tower_of_caches(opened, clip)
    return tuple(
        _add_split(request, clip, tower, split, dataset, shown) for split, dataset in zip(opened, datasets, strict=True)
    )


def _add_split(
    request: AddRequest, clip: ClipChoice, tower: Tower, split: Split, dataset: Dataset, shown: Progress
) -> AddReport:
    videos = {video.id: video for video in dataset.videos}
    addition = addition_of(split, dataset, request.data, tower)
    with ExitStack() as stack:
        writers = [stack.enter_context(SplitWriter(part)) for part in split.parts]
        say(shown, split.led_elsewhere)
        coming = _grown(request, split, addition, writers, stack)
        whole = open_split(request.cache, split.spec.split)
        joining = coming if _asks_for(request, whole) else None
        todo = writers if joining is None else [*writers, joining]
        own_shards = [
            [k for k in part_writer.pending() if all(whole.video_ids[row] in videos for row in whole.layout.rows(k))]
            for part_writer in todo
        ]
        tasks_of_parts = [
            _tasks(request, clip, part_writer.split, shards, videos)
            for part_writer, shards in zip(todo, own_shards, strict=True)
        ]
        left = _extracted(todo, tasks_of_parts, shown)
        pending = {shard for part_writer in todo for shard in part_writer.pending()} - {
            k for shards in own_shards for k in shards
        }
        for writer in writers[1:]:
            expect_same_files(writers[0].split, writer)
        if joining is not None and not joining.pending():
            join_views(writers[0], joining)
        failed = {
            failure.id: f"{failure.reason}: {failure.detail}"
            for part_writer, shards in zip(todo, own_shards, strict=True)
            for k, record in part_writer.split.ledger.finished().items()
            for failure in (record.failed if k in shards else ())
        }
    after = open_split(request.cache, split.spec.split)
    begun = begun_views(after)
    return AddReport(
        split=split.spec.split,
        added=len(addition.video_ids),
        known=len(dataset) - len(addition.video_ids),
        new_classes=after.class_names[len(split.class_names) :],
        views=after.spec.stored_views,
        views_added=after.spec.views - split.spec.views,
        views_pending=0 if begun is None else begun.spec.views,
        stored=sum(record.stored for record in after.finished().values()),
        failed=failed,
        left=left,
        pending=len(pending),
        fingerprint=after.spec.fingerprint,
    )


def _asks_for(request: AddRequest, split: Split) -> bool:
    """Whether more training views are asked for than count."""
    return split.spec.view_kind == "train" and (request.views or 0) > split.spec.views


def _grown(
    request: AddRequest, split: Split, addition: Addition, writers: list[SplitWriter], stack: ExitStack
) -> SplitWriter | None:
    """Add rows and begin views, once there is room; returns the writer of views that do not count yet, if any are.

    Raises:
        CacheBusy: another process has added to the split since it was opened. CacheFull: the disk is too small.
    """
    now, begun = open_split(request.cache, split.spec.split), begun_views(split)
    if (now.video_ids, now.more_views) != (split.video_ids, split.more_views):
        raise CacheBusy(f"{split.path}: another process has added to it meanwhile. Run the same command again.")
    views, videos = views_wanted(split, begun, request.views), len(addition.video_ids)
    begins = begun is None and views > split.spec.views
    sizes = [(split.spec, videos)] * bool(videos)
    if begins:
        sizes.append((views_to_add(split, views).spec, split.video_count + videos))
    kept = {"shard_videos": split.shard_videos, "frames": split.frames, "identities": split.identities}
    layouts = [layout_for(spec, count, **kept) for spec, count in sizes]  # type: ignore[arg-type]  # as the split has it
    expect_room_for(request.cache, layouts)
    coming = None if begun is None else stack.enter_context(SplitWriter(begun))
    if videos:  # in the first part last: it says which rows count
        for writer in reversed([*writers, coming]):
            if writer is not None:
                grow(writer, addition)
    if not begins:
        return coming
    grown_split = open_split(request.cache, split.spec.split)
    return stack.enter_context(SplitWriter(begin_views(grown_split, views, library_versions())))


def _extracted(writers: list[SplitWriter], tasks_of_parts: list[list[ShardTask]], shown: Progress) -> dict[str, str]:
    """Run the tasks of each part; returns what no worker could finish."""
    left: dict[str, str] = {}
    if not any(tasks_of_parts):
        return left
    request = next(task.request for tasks in tasks_of_parts for task in tasks)
    with engine_for(request, shown) as engine:
        for writer, tasks in zip(writers, tasks_of_parts, strict=True):
            if tasks:
                title, waiting = writer.split.spec.title, sum(task.count for task in tasks)
                with shown.bar(f"add to {title}", waiting, "videos") as bar:
                    unfinished = engine.run(writer.split, tasks, bar, writer.adopt)
                left |= {f"{title}, shard {shard}": why for shard, why in unfinished.items()}
    return left


def _tasks(
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

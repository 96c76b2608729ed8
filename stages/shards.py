"""One function extracts one shard, in whatever process it runs.

    ShardTask ─▶ decode + replay ─▶ CLIP taps ─▶ quantise on the device ─▶ shard files ─▶ ShardRecord
    (a few kB)                                                                            (about 1 kB)

The process that hands out tasks holds the split's lock and writes the ledger line; whoever runs a task writes the
shard's files and nothing else. Consequence: a task that dies, or runs twice, loses minutes and no content.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vidxfer.pipeline.cache.frames import FrameStore
from vidxfer.pipeline.cache.ledger import ShardRecord
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.writer import ShardWriter
from vidxfer.pipeline.clip.tower import ClipTower
from vidxfer.pipeline.datasets.base import Dataset
from vidxfer.pipeline.errors import CacheError, VideoError
from vidxfer.pipeline.shapes import Video
from vidxfer.stages.encode import Prepared, encode_videos
from vidxfer.stages.quantise import Quantiser
from vidxfer.stages.settings import ExtractRequest


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """What a process must be told to extract one shard.

    Attributes:
        request: the whole request. split, cache_id: name and identity of the split. shard: its number.
        videos: of its rows, in order; sent along, so that no worker scans the data set and all see the same one.
    """

    request: ExtractRequest
    split: str
    cache_id: str
    shard: int
    videos: tuple[Video, ...]


def task_of(request: ExtractRequest, dataset: Dataset, split: Split, shard: int) -> ShardTask:
    """The task of one shard of a split."""
    rows = split.layout.rows(shard)
    return ShardTask(
        request=request,
        split=split.spec.split,
        cache_id=split.cache_id,
        shard=shard,
        videos=tuple(dataset.videos[row] for row in rows),
    )


def extract_shard(task: ShardTask, split: Split, tower: ClipTower, advance: Callable[[], None]) -> ShardRecord:
    """Write one shard: all its rows, stored or failed with a reason; `advance` is called after each.

    Raises:
        CacheBusy: another process writes the same shard. CacheFull: the disk cannot hold it.
    """
    quantise = Quantiser(split, tower)
    with ShardWriter(split, task.shard) as writer:
        ready = encode_videos(task.videos, split.spec, tower, task.request, split.frames)
        for row, video, one in zip(writer.rows, task.videos, ready, strict=True):
            if isinstance(one, VideoError):
                writer.fail(row, one)
            else:
                codes, scale = quantise(one)
                writer.add(
                    row,
                    codes,
                    scale,
                    one.embedding.float().cpu(),
                    one.prepared.views,
                    notes=notes_of(video, one.prepared, split.frames),
                    frame_count=one.prepared.frame_count,
                    source_px=one.prepared.source_px,
                    frames=one.prepared.jpegs,
                )
            advance()
    if writer.record is None:
        raise CacheError(f"shard {task.shard} of {split.path} ended without a record")
    return writer.record


def notes_of(video: Video, prepared: Prepared, store: FrameStore | None) -> dict[str, str]:
    """What the ledger keeps of how a video was read: the path; why; and, off the fast path, of which video it is said.

    The last two are one text with a tab between them, so that counts by reason can be had from it. Videos with dense
    frames that took a lower quality than asked are counted by that quality.
    """
    why = f"{prepared.decoder}: {prepared.why}"
    notes = {"decoder": prepared.decoder, "why": why if prepared.decoder == "decord" else f"{why}\t{video.id}"}
    if store is not None and prepared.frame_quality != store.quality:
        notes["frames lowered"] = f"quality {prepared.frame_quality}"
    return notes

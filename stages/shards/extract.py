"""One function extracts one shard, in whatever process it runs.

    ShardTask ─▶ decode + replay ─▶ CLIP taps ─▶ quantise on the device ─▶ files beside the split ─▶ SealedShard
    (a few kB)                                                                                       (about 1 kB)

The process that hands out tasks holds the split's lock, moves the files in and writes the ledger line; whoever runs a
task writes into a folder of its own and nothing else. Consequence: a task that dies, or runs twice, loses minutes and
no content.

A task with an `old` record makes the failed rows of a finished shard again. Where all fail again only their reasons are
new; else the other rows' bytes are taken over, each compared with its checksum.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice

from vidxfer.pipeline.cache.frames import FrameStore
from vidxfer.pipeline.cache.ledger import Failure, ShardRecord
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.write.shard_writer import ShardWriter
from vidxfer.pipeline.cache.write.staging import SealedShard, seal, staging_folder
from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.errors import VideoError
from vidxfer.pipeline.shapes import Video
from vidxfer.pipeline.video.container import SQUARE
from vidxfer.pipeline.video.reader import NO_DECORD
from vidxfer.pipeline.writing import remove
from vidxfer.stages.settings import ExtractRequest
from vidxfer.stages.shards.behind import Behind
from vidxfer.stages.shards.encode import Encoded, Prepared, encode_all, prepare_videos
from vidxfer.stages.shards.quantise import Quantised, SplitQuantiser

OPEN_SHARDS_MOST = 3
"""Begun and not yet durable: each holds a dozen open files, and the disk may be far slower than videos are refused."""

RowResult = tuple[int, Encoded | VideoError]
"""A row, and what became of its video."""


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """What a process must be told to extract one shard.

    Attributes:
        request: the whole request; its cache is the folder in which `split` lies.
        split, cache_id: name and identity of the split, or of a part of its views.
        shard: its number.
        rows, videos: what to extract, in order; the videos are sent along, so that no worker scans the data set and
            all see the same one.
        attempt: names this attempt; its folder begins with it.
        old: the ledger line of the finished shard whose failed rows are tried again; None: the shard is made whole.
    """

    request: ExtractRequest
    split: str
    cache_id: str
    shard: int
    rows: tuple[int, ...]
    videos: tuple[Video, ...]
    attempt: str
    old: ShardRecord | None = None

    @property
    def count(self) -> int:
        """Videos to extract."""
        return len(self.rows)

    def again(self, request: ExtractRequest) -> ShardTask:
        """The same task as another attempt."""
        return replace(self, request=request, attempt=_new_attempt(self.shard))


def task_of(
    request: ExtractRequest,
    videos: Sequence[Video] | Mapping[int, Video],
    split: Split,
    shard: int,
    old: ShardRecord | None = None,
) -> ShardTask:
    """The task of one shard of a split; `videos` by row."""
    failed = {failure.id for failure in old.failed} if old else set()
    rows = tuple(row for row in split.layout.rows(shard) if old is None or split.video_ids[row] in failed)
    return ShardTask(
        request=replace(request, cache=split.path.parent),
        split=split.path.name,
        cache_id=split.cache_id,
        shard=shard,
        rows=rows,
        videos=tuple(videos[row] for row in rows),
        attempt=_new_attempt(shard),
        old=old,
    )


def extract_shard(task: ShardTask, split: Split, tower: Tower, advance: Callable[[], None]) -> SealedShard:
    """Write one shard: all its rows, stored or failed with a reason; `advance` is called after each.

    Raises:
        CacheFull: the disk cannot hold it. CacheCorrupt: rows that were to be taken over are damaged.
    """
    sealed: list[SealedShard] = []
    extract_shards([task], split, tower, advance, sealed.append)
    return sealed[0]


def extract_shards(
    tasks: Sequence[ShardTask],
    split: Split,
    tower: Tower,
    advance: Callable[[], None],
    done: Callable[[SealedShard], None],
) -> None:
    """Write shards one after another; `done` gets each in this thread, `advance` is called after each video.

    Three things go on at once: videos of this shard and the next are decoded, CLIP runs over a group, and what CLIP
    said before is written and made durable behind it. The bytes are those of one thing at a time. Raises as
    `extract_shard`; a shard that is not finished then leaves nothing.
    """
    waiting: deque[Future[SealedShard]] = deque()

    def hand_over(*, leave: int | None = None) -> None:
        while waiting and (waiting[0].done() or (leave is not None and len(waiting) > leave)):
            done(waiting.popleft().result())

    def advanced() -> None:
        advance()
        hand_over()

    videos = chain.from_iterable(task.videos for task in tasks)
    request = tasks[0].request
    with (
        closing(prepare_videos(videos, split.spec, request, split.frames, tower.device)) as ready,
        ExitStack() as open_shards,
    ):
        with Behind() as behind:
            quantise = SplitQuantiser(split, tower.device)
            for task in tasks:
                hand_over(leave=OPEN_SHARDS_MOST - 1)
                encoded_videos = encode_all(
                    islice(ready, task.count), split.spec, tower, batch_frames=request.batch_frames
                )
                results = _counted(zip(task.rows, encoded_videos, strict=True), advanced)
                waiting.append(_begun(task, split, results, quantise, behind, open_shards))
        hand_over(leave=0)


def _begun(
    task: ShardTask,
    split: Split,
    results: Iterator[RowResult],
    quantise: SplitQuantiser,
    behind: Behind,
    open_shards: ExitStack,
) -> Future[SealedShard]:
    """Run CLIP over one shard and hand everything over to be written; the shard is finished when the future is."""
    failed: dict[int, VideoError] = {}
    if task.old is not None:
        for row, outcome in results:
            if not isinstance(outcome, VideoError):
                results = chain([(row, outcome)], results)
                break
            failed[row] = outcome
        else:
            return behind.do(partial(SealedShard, record=_with_reasons(task.old, split, failed), folder=None))
    shard = open_shards.enter_context(ExitStack())  # empty once the shard is finished; else the run's end undoes it
    writer = shard.enter_context(_own_folder(split, task))
    for row, error in failed.items():
        behind.do(partial(writer.fail, row, error))
    if task.old is not None:
        behind.do(partial(writer.copy, [row for row in writer.rows if row not in task.rows], task.old))
    videos = dict(zip(task.rows, task.videos, strict=True))
    for row, outcome in results:
        if isinstance(outcome, VideoError):
            behind.do(partial(writer.fail, row, outcome))
        else:
            _add_behind(row, outcome, notes_of(videos[row], outcome.prepared, split.frames), writer, quantise, behind)
    return behind.do(partial(_finished, shard, writer, split))


def _add_behind(
    row: int, encoded: Encoded, notes: Mapping[str, str], writer: ShardWriter, quantise: SplitQuantiser, behind: Behind
) -> None:
    """Hand over what is stored of one video, and nothing that holds more memory than that."""
    codes = quantise(encoded.tokens)
    prepared, jpegs = encoded.prepared, encoded.prepared.jpegs
    size_bytes = sum(part.nbytes for part in codes if part is not None)
    size_bytes += sum(len(jpeg) for view in jpegs or () for jpeg in view)
    add = partial(
        writer.add,
        row,
        *codes,
        encoded.embedding.float().cpu().clone(),
        prepared.views,
        notes=notes,
        frame_count=prepared.frame_count,
        source_px=prepared.source_px,
        source_file=prepared.source_file,
        frames=jpegs,
    )
    behind.do(partial(_add, add, quantise, codes), size_bytes)


def _add(add: Callable[[], None], quantise: SplitQuantiser, codes: Quantised) -> None:
    add()
    quantise.give_back(codes)


def _finished(shard: ExitStack, writer: ShardWriter, split: Split) -> SealedShard:
    shard.close()
    assert writer.record is not None
    return seal(split, writer.folder, writer.record)


def notes_of(video: Video, prepared: Prepared, store: FrameStore | None) -> dict[str, str]:
    """What the ledger keeps of how a video was read: path, libraries, why, and where it is unusual, which video.

    The last two are one text with a tab between them, so that counts by reason can be had from it. Unusual is what was
    not asked for, or not tried first. Videos whose pixels are not square are counted by their aspect, and those with
    dense frames that took a lower quality than asked by that quality.
    """
    why = f"{prepared.decoder}: {prepared.why}"
    unusual = prepared.why.startswith(NO_DECORD) or ";" in prepared.why
    notes = {"decoder": prepared.decoder, "why": f"{why}\t{video.id}" if unusual else why}
    if prepared.version:
        notes["decoder version"] = prepared.version
    if prepared.pixel_aspect != SQUARE:
        notes["pixel aspect"] = prepared.pixel_aspect
    if store is not None and prepared.frame_quality != store.quality:
        notes["frames lowered"] = f"quality {prepared.frame_quality}"
    return notes


@contextmanager
def _own_folder(split: Split, task: ShardTask) -> Iterator[ShardWriter]:
    """A writer into a folder of this execution; nothing of it stays after an error."""
    folder = staging_folder(split, task.attempt)
    try:
        with ShardWriter(split, task.shard, folder) as writer:
            yield writer
    except BaseException:
        remove(folder)
        raise


def _counted(results: Iterator[RowResult], advance: Callable[[], None]) -> Iterator[RowResult]:
    for result in results:
        yield result
        advance()


def _with_reasons(old: ShardRecord, split: Split, failed: dict[int, VideoError]) -> ShardRecord:
    """The record of a shard whose files stay, with what was seen this time."""
    reasons = [Failure(id=split.video_ids[row], reason=e.reason.value, detail=e.detail) for row, e in failed.items()]
    return replace(old, failed=tuple(reasons))


def _new_attempt(shard: int) -> str:
    return f"{shard}-{uuid.uuid4().hex[:8]}"

"""Stage one: run CLIP once over a few frames of every video and keep the tokens.

    data set ─▶ splits opened or made (prepare.py) ─▶ one task per shard without a ledger line
        ─▶ an engine runs them, here or on other machines (spread/, shards/) ─▶ shard moved in ─▶ ledger line

Ended at any moment, it goes on with the shards that have no ledger line. A video that cannot be read becomes a row with
a reason; the run does not stop for it. This process alone holds the splits' locks and writes their ledgers.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import get_args

from vidxfer.pipeline.cache.read.summary import held_bytes
from vidxfer.pipeline.cache.remote import local_folder
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import open_split, splits
from vidxfer.pipeline.cache.write.more_views import expect_same_files
from vidxfer.pipeline.cache.write.writer import SplitWriter
from vidxfer.pipeline.datasets.base import Dataset
from vidxfer.pipeline.disk import expect_no_run
from vidxfer.pipeline.draw import DECODE_IN
from vidxfer.pipeline.errors import ClusterError, UsageError
from vidxfer.pipeline.video.reader import Decoder
from vidxfer.pipeline.video.window import ENDS_BEHIND
from vidxfer.stages.candidates import CodecChoice, choice_of
from vidxfer.stages.describe import notes_of_spec
from vidxfer.stages.engine import EngineChoice
from vidxfer.stages.progress import Progress, Silent, say
from vidxfer.stages.settings import ExtractRequest
from vidxfer.stages.shards.extract import ShardTask, task_of
from vidxfer.stages.spread.engines import Engine, engine_for

__all__ = ["ExtractRequest", "SplitReport", "extract"]


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """How one split went.

    Attributes:
        videos, stored, resumed: rows; stored in all; of those, stored before this run began.
        failed: id -> reason and detail.
        left: shard -> why no worker could finish it; they are still pending.
        decoders: path -> videos decoded by it (over all runs).
        pixel_aspects: the same of pixels that are not square.
        bytes_on_disk: of the whole split.
        seconds: of this run.
        fingerprint: of the cache's spec.
        notes: of the data set.
        codec_choice: how "auto" chose the codec.
    """

    split: str
    videos: int
    stored: int
    resumed: int
    failed: dict[str, str]
    left: dict[int, str]
    decoders: dict[str, int]
    pixel_aspects: dict[str, int]
    bytes_on_disk: int
    seconds: float
    fingerprint: str
    notes: tuple[str, ...]
    codec_choice: CodecChoice | None = None


def extract(request: ExtractRequest, progress: Progress | None = None) -> tuple[SplitReport, ...]:
    """Extract every asked split; go on where an earlier run ended.

    Raises:
        UsageError, DatasetError: the request or the data set cannot be meant.
        ClipError: the tower cannot be loaded.
        CacheMismatch: the cache was made with other settings.
        CacheError: the cache is behind a URL.
        CacheFull: the disk is too small, said before anything is written, or full in the middle.
        CacheBusy: another process extracts into this cache. ClusterError: the cluster is gone or unfit.
    """
    shown = progress or Silent()
    if request.decoder not in get_args(Decoder):
        raise UsageError(f"--decoder {request.decoder!r} is none of {', '.join(get_args(Decoder))}")
    if request.decode_in not in DECODE_IN:
        raise UsageError(f"--decode-in {request.decode_in!r} is none of {', '.join(DECODE_IN)}")
    expect_no_run(local_folder(request.cache))
    datasets = [request.data.load(split) for split in request.splits]
    for dataset in datasets:
        for note in dataset.notes:
            shown.line(f"{dataset.split}: {note}")
    reports = []
    with engine_for(request, shown) as engine:
        made = engine.prepare(datasets)
        for dataset in datasets:
            split = open_made(request, dataset, made[dataset.split])
            named = replace(request.store, codec=split.spec.codec, loss=None)
            for note in notes_of_spec(split.spec, named):
                shown.line(f"{dataset.split}: {note}")
            reports.append(extract_split(request, dataset, split, engine, shown))
    return tuple(reports)


def slurm_script(choice: EngineChoice) -> str:
    """The job script that an extraction on Slurm would submit.

    Raises:
        UsageError: no jobs are asked for, or dask-jobqueue is not installed.
    """
    from vidxfer.stages.spread.private import of_files
    from vidxfer.stages.spread.slurm import job_script

    if choice.slurm is None:
        raise UsageError("--slurm-dry-run goes with --slurm JOBS")
    return job_script(choice.slurm, of_files(choice.tls))


def open_made(request: ExtractRequest, dataset: Dataset, cache_id: str) -> Split:
    """The split that was prepared, as this process sees it.

    Raises:
        ClusterError: it sees another one, or none.
    """
    if dataset.split in splits(request.cache):
        split = open_split(request.cache, dataset.split)
        if split.cache_id == cache_id and split.video_ids == tuple(video.id for video in dataset.videos):
            return split
    raise ClusterError(
        f"{request.cache / dataset.split}: a worker prepared this split, but here another one or none is seen. Workers "
        "and the process that leads them must see the same --cache and the same videos under the same paths."
    )


def extract_split(
    request: ExtractRequest, dataset: Dataset, split: Split, engine: Engine, shown: Progress
) -> SplitReport:
    """Write every shard that has no ledger line yet, and with `retry_failed` those with failed videos again."""
    began = time.monotonic()
    name, total = split.spec.split, len(dataset)
    with ExitStack() as stack:
        writers = [stack.enter_context(SplitWriter(part)) for part in split.parts]
        say(shown, split.led_elsewhere)
        todo = [tasks_of(request, dataset, writer) for writer in writers]
        unfinished = {task.shard for tasks in todo for task in tasks if task.old is None}
        resumed = sum(record.stored for shard, record in split.finished().items() if shard not in unfinished)
        left: dict[int, str] = {}
        for writer, tasks in zip(writers, todo, strict=True):
            if tasks:
                waiting = sum(task.count for task in tasks)
                with shown.bar(f"extract {writer.split.spec.title}", total, "videos", total - waiting) as bar:
                    left |= engine.run(writer.split, tasks, bar, writer.adopt)
        for writer in writers[1:]:
            expect_same_files(writers[0].split, writer)
        if not any(todo):
            shown.line(f"{name}: all {total} videos were extracted before")
    records = split.finished().values()
    decoders, aspects, behind = Counter[str](), Counter[str](), list[str]()
    for record in records:
        decoders.update(record.notes.get("decoder", {}))
        aspects.update(record.notes.get("pixel aspect", {}))
        behind += [why.rpartition("\t")[2] for why in record.notes.get("why", {}) if ENDS_BEHIND in why]
    if behind:
        shown.line(
            f"{name}: {len(behind)} videos of which {ENDS_BEHIND} ({', '.join(behind[:3])}): are these its frames?"
        )
    return SplitReport(
        split=name,
        videos=total,
        stored=sum(record.stored for record in records),
        resumed=resumed,
        failed={failure.id: f"{failure.reason}: {failure.detail}" for record in records for failure in record.failed},
        left=left,
        decoders=dict(decoders),
        pixel_aspects=dict(aspects),
        bytes_on_disk=held_bytes(split),
        seconds=time.monotonic() - began,
        fingerprint=split.spec.fingerprint,
        notes=dataset.notes,
        codec_choice=choice_of(split),
    )


def tasks_of(request: ExtractRequest, dataset: Dataset, writer: SplitWriter) -> list[ShardTask]:
    """What is to be done in a split, or in one part of its views: pending shards, and failed videos where asked."""
    split, pending = writer.split, writer.pending()
    finished = split.ledger.finished()
    again = {shard for shard, record in finished.items() if request.retry_failed and record.failed} - set(pending)
    tasks = [task_of(request, dataset.videos, split, shard) for shard in pending]
    return tasks + [task_of(request, dataset.videos, split, shard, finished[shard]) for shard in sorted(again)]

"""Who reads the videos of a check: child processes of this one, or the workers of a dask cluster with theirs.

here       a few videos ahead ─▶ guard ─▶ one line each, as they are done
cluster    batches of videos ─▶ workers, each with a guard of its own ─▶ their lines; a lost batch is given again
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from vidxfer.pipeline.errors import ClusterError, VideoError, VidxferError
from vidxfer.pipeline.shapes import Video
from vidxfer.pipeline.video.examine import Examined, examine
from vidxfer.pipeline.video.guard import Guard, shared_guard
from vidxfer.pipeline.video.reader import Decoder
from vidxfer.stages.spread.clusters import RESOURCES, Cluster

WAITING_PER_PROCESS = 4
"""Videos waiting per process: enough that none is idle, few enough that a stop is quick."""

BATCH_VIDEOS, BATCHES_PER_WORKER, LOSSES_MOST = 32, 2, 3
WAIT_SECONDS, RESULT_SECONDS = 2.0, 60.0

Line = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class How:
    """How a video is read: packets only or all of it, by which decoder, so many at a time in one process."""

    quick: bool
    decoder: Decoder
    processes: int


def key_of(video: Video, how: How) -> Line:
    """What a line is about, and what must be the same for it to hold."""
    try:
        status = video.path.stat()
        seen: list[Any] = [status.st_size, status.st_mtime_ns]
    except (OSError, ValueError):
        seen = []
    return {
        "split": video.split,
        "id": video.id,
        "path": str(video.path),
        "seen": [*seen, video.start_seconds, video.end_seconds, *([str(video.frames)] if video.frames else [])],
        "quick": how.quick,
        "asked": how.decoder,
    }


def lines_here(videos: Sequence[Video], how: How, guard: Guard) -> Iterator[Line]:
    """The line of each video, in the order in which they are done."""
    coming = iter(videos)
    running: dict[Future[Examined], Video] = {}
    while True:
        for video in islice(coming, guard.processes * WAITING_PER_PROCESS - len(running)):
            future = guard.submit(video.path, examine, video, quick=how.quick, decoder=how.decoder)
            running[future] = video
        if not running:
            return
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            yield {**key_of(running.pop(future), how), **_outcome(future)}


def _outcome(future: Future[Examined]) -> Line:
    try:
        return {"reason": None, "detail": None, **asdict(future.result())}
    except VideoError as error:
        return {"reason": error.reason.value, "detail": error.detail}


def lines_of(videos: Sequence[Video], how: How) -> list[Line]:
    """What a worker does with a batch."""
    return list(lines_here(videos, how, shared_guard(how.processes)))


@dataclass(frozen=True, kw_only=True)
class _Batch:
    videos: tuple[Video, ...]
    losses: int = 0


def lines_from(cluster: Cluster, videos: Sequence[Video], how: How) -> Iterator[Line]:
    """As `lines_here`, from the workers of a cluster, which must see the videos at the same paths.

    Raises:
        ClusterError: the scheduler is gone, or the workers that had one batch died again and again.
    """
    starts = range(0, len(videos), BATCH_VIDEOS)
    waiting = deque(_Batch(videos=tuple(videos[start : start + BATCH_VIDEOS])) for start in starts)
    running: dict[str, _Batch] = {}
    ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
    while waiting or running:
        while waiting and len(running) < BATCHES_PER_WORKER * max(1, cluster.workers()):
            batch = waiting.popleft()
            future = cluster.client.submit(lines_of, batch.videos, how, pure=False, resources=RESOURCES)
            running[future.key] = batch
            future.add_done_callback(ended.put)
            del future  # its callback holds it; released results are forgotten by the scheduler
        try:
            ended_future = ended.get(timeout=WAIT_SECONDS)
        except queue.Empty:
            cluster.look_after()
            continue
        batch = running.pop(ended_future.key)
        if ended_future.status == "finished":
            yield from ended_future.result(timeout=RESULT_SECONDS)
            continue
        waiting.append(_again(cluster, ended_future, batch))


def _again(cluster: Cluster, ended_future: Any, batch: _Batch) -> _Batch:
    """The batch once more, unless trying again is no use."""
    if ended_future.status == "cancelled":
        raise cluster.lost()
    error = ended_future.exception(timeout=RESULT_SECONDS)
    if isinstance(error, VidxferError):
        raise error
    if batch.losses == LOSSES_MOST:
        raise ClusterError(
            f"{LOSSES_MOST + 1} workers were lost with the batch that begins with {batch.videos[0].id!r}: "
            f"{type(error).__name__}: {error}. What was read is kept; the same command goes on."
        )
    return _Batch(videos=batch.videos, losses=batch.losses + 1)

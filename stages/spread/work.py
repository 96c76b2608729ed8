"""What runs inside a dask worker: the tower and the opened split are kept between tasks, and small events tell how far.

    prepare_on_worker(request, run) ──▶ name -> cache_id of every split
    run_task(task, run)             ──▶ SealedShard            events: (attempt, videos done), a few per second at most

Consequence: a worker loads CLIP once per extraction, and nothing large passes the scheduler in either direction.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from vidxfer.pipeline.cache.read.agree import expect_tower
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.store import open_split
from vidxfer.pipeline.cache.write.staging import SealedShard
from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.errors import ClusterError, VidxferError
from vidxfer.stages.settings import ClipChoice, ExtractRequest
from vidxfer.stages.shards.extract import ShardTask, extract_shard
from vidxfer.stages.shards.prepare import prepare_splits

SAY_SECONDS = 0.5
"""Between two events of one worker."""


@lru_cache(maxsize=1)
def _tower(clip: ClipChoice, run: str) -> Tower:
    """This process's tower; another run reads the weights again, since they may have changed."""
    return clip.load()


@lru_cache(maxsize=4)
def _split(cache: Path, name: str, run: str) -> Split:
    return open_split(cache, name)


def prepare_on_worker(request: ExtractRequest, run: str) -> dict[str, str]:
    """`prepare_splits` in a worker, which has the device."""
    datasets = [request.data.load(split) for split in request.splits]
    with _replaced_after_surprise():
        return prepare_splits(request, datasets, _tower(request.clip, run), _Told(run))


def run_task(task: ShardTask, run: str) -> SealedShard:
    """`extract_shard` in a worker.

    Raises:
        ClusterError: this worker sees another cache than the process that sent the task.
        CacheMismatch: this worker has other weights, or computes in another precision.
    """
    split = _split(task.request.cache, task.split, run)
    if split.cache_id != task.cache_id:
        raise ClusterError(
            f"a worker sees another cache at {split.path} than the process that leads it. They must share that folder."
        )
    tower = _tower(task.request.clip, run)
    expect_tower(split, tower.info)
    teller = _Teller(run, {"kind": "videos", "attempt": task.attempt})
    with _replaced_after_surprise():
        return extract_shard(task, split, tower, teller.advance)


@contextmanager
def _replaced_after_surprise() -> Iterator[None]:
    """A CUDA error spoils its whole process: after whatever was not foreseen, a new one takes this one's place."""
    from distributed import get_worker

    worker = get_worker()
    try:
        yield
    except VidxferError:
        raise
    except BaseException:
        worker.loop.add_callback(worker.close_gracefully, restart=True)
        raise


class _Teller:
    """Sends how many are done, not too often."""

    def __init__(self, run: str, event: dict[str, Any]) -> None:
        from distributed import get_worker

        self._worker, self._run, self._event = get_worker(), run, event
        self._done, self._said = 0, time.monotonic()

    def advance(self, done: int = 1, note: str | None = None) -> None:
        """`done` more; a bar's note is not sent."""
        self._done += done
        if time.monotonic() - self._said >= SAY_SECONDS:
            self.say()

    def say(self, **more: Any) -> None:
        """Send it now."""
        self._said = time.monotonic()
        self._worker.log_event(self._run, {**self._event, "done": self._done, **more})


class _Told:
    """A `Progress` whose bars and lines are shown by the process that leads."""

    def __init__(self, run: str) -> None:
        self._run = run

    @contextmanager
    def bar(self, title: str, total: int, unit: str, done: int = 0) -> Iterator[_Teller]:
        """Shown far away."""
        teller = _Teller(self._run, {"kind": "bar", "title": title, "total": total, "unit": unit})
        teller.say(open=True)
        yield teller
        teller.say(open=False)

    def line(self, text: str) -> None:
        """Shown far away."""
        _Teller(self._run, {"kind": "line", "text": text}).say()

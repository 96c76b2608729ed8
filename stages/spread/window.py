"""Shards to the workers of a dask cluster, and back come records of about a kilobyte.

    tasks ─▶ a window of two per worker ─▶ submit ─┬─▶ SealedShard ─▶ done(…): moved in, ledger line
                   ▲                               ├─▶ an error for people (disk full) ─▶ raised, the rest is dropped
                   └──── another attempt ◀─────────┴── the worker died, or failed ─▶ … ─▶ too often: left, and named

Dask moves tasks and notices deaths. This file decides whether a task is tried again: dask suspects every task that was
*assigned* to a dead worker, the waiting ones too. A task that had begun has left a folder. A shard on which a worker
died is tried again with every video decoded in a process of its own. A video that kills its decoder then becomes a row
with a reason, and does not kill worker after worker.
"""

from __future__ import annotations

import queue
import uuid
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.write.staging import SealedShard, sealed_by, was_begun
from vidxfer.pipeline.datasets.base import Dataset
from vidxfer.pipeline.errors import ClusterError, VidxferError
from vidxfer.stages.progress import Bar, Progress
from vidxfer.stages.settings import DataSource, ExtractRequest
from vidxfer.stages.shards.extract import ShardTask
from vidxfer.stages.spread.clusters import RESOURCES, Cluster
from vidxfer.stages.spread.work import prepare_on_worker, run_task

TASKS_PER_WORKER = 2
"""One that runs and one that waits: a worker never idles, and few innocent tasks wait on one that dies."""

WAIT_SECONDS = 1.0
RESULT_SECONDS = 60.0


@dataclass
class Given:
    """A task that some worker has, and how many of its videos were said to be done."""

    task: ShardTask
    future: Any
    said: int = 0


class Spread:
    """The engine that hands out tasks to a cluster."""

    def __init__(self, cluster: Cluster, request: ExtractRequest, shown: Progress) -> None:
        self._cluster, self._client, self._shown = cluster, cluster.client, shown
        self._request = _from_anywhere(request)
        self._losses_most = request.engine.losses_most
        self._run = f"vidxfer-{uuid.uuid4().hex[:12]}"
        self._events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._client.subscribe_topic(self._run, lambda event: self._events.put(event[1]))

    def prepare(self, datasets: Sequence[Dataset]) -> dict[str, str]:
        """As `Engine.prepare`, on a worker."""
        why = ""
        for _ in range(self._losses_most + 1):
            future = self._submit("prepare", prepare_on_worker, self._request)
            bars: dict[str, _FarBar] = {}
            try:
                while (event := self._next()).get("attempt") != "prepare":
                    self._show(event, bars)
            finally:
                for bar in bars.values():
                    bar.close()
            made, why = self._outcome(future)
            if made is not None:
                return dict(made)
            self._request = _careful(self._request, True)
        raise ClusterError(f"no worker could prepare the cache: {why}")

    def run(
        self, split: Split, tasks: Sequence[ShardTask], bar: Bar, done: Callable[[SealedShard], None]
    ) -> dict[int, str]:
        """As `Engine.run`; a shard is left when `losses_most` further attempts ended like the first."""
        waiting = deque(replace(task, request=_from_anywhere(task.request)) for task in tasks)
        running: dict[str, Given] = {}
        losses, left = Counter[int](), dict[int, str]()
        while waiting or running:
            while waiting and len(running) < TASKS_PER_WORKER * max(1, self._cluster.workers()):
                task = waiting.popleft()
                running[task.attempt] = Given(task, self._submit(task.attempt, run_task, task))
            event = self._next()
            assigned = running.get(event.get("attempt", ""))
            if assigned is None:  # nothing new, or news of an attempt that is over
                continue
            shard = assigned.task.shard
            if event["kind"] == "videos":
                bar.advance(event["done"] - assigned.said)
                assigned.said = event["done"]
                continue
            del running[assigned.task.attempt]
            sealed, why = self._outcome(assigned.future)
            sealed = sealed or sealed_by(split, assigned.task.attempt)
            bar.advance((assigned.task.count if sealed else 0) - assigned.said)
            if sealed is not None:
                done(sealed)
                continue
            losses[shard] += 1
            if losses[shard] > self._losses_most:
                left[shard] = why
                self._shown.line(f"shard {shard} is left: {why}")
            else:
                waiting.append(
                    assigned.task.again(_careful(assigned.task.request, was_begun(split, assigned.task.attempt)))
                )
        return left

    def _submit(self, attempt: str, function: Callable[..., Any], argument: Any) -> Any:
        future = self._client.submit(
            function, argument, self._run, key=f"{self._run}-{attempt}-{uuid.uuid4().hex[:8]}", pure=False,
            resources=RESOURCES,
        )  # fmt: skip
        future.add_done_callback(lambda _: self._events.put({"kind": "ended", "attempt": attempt}))
        return future

    def _next(self) -> dict[str, Any]:
        """The next event, or {} after a while without one."""
        try:
            return self._events.get(timeout=WAIT_SECONDS)
        except queue.Empty:
            self._cluster.look_after()
            return {}

    def _outcome(self, future: Any) -> tuple[Any, str]:
        """The result of an ended future, or why there is none.

        Raises:
            VidxferError: as the worker raised it. ClusterError: the scheduler is gone.
        """
        from distributed import KilledWorker
        from distributed.client import FutureCancelledError

        try:
            if future.status == "finished":
                return future.result(timeout=RESULT_SECONDS), ""
            error = future.exception(timeout=RESULT_SECONDS)
        except FutureCancelledError as lost:
            raise self._cluster.lost() from lost
        except (TimeoutError, OSError) as silent:
            return None, f"its worker fell silent when it had finished ({type(silent).__name__})"
        if isinstance(error, VidxferError):
            raise error
        if isinstance(error, KilledWorker):
            return None, f"the worker {error.last_worker.address} died or was lost while it ran"
        return None, f"a worker failed: {type(error).__name__}: {error}"

    def _show(self, event: dict[str, Any], bars: dict[str, _FarBar]) -> None:
        """Show a line or a bar of a worker."""
        kind = event.get("kind")
        if kind == "line":
            self._shown.line(event["text"])
        elif kind == "bar":
            title = event["title"]
            if title not in bars:
                bars[title] = _FarBar(self._shown, title, event["total"], event["unit"])
            bars[title].show(event["done"], event.get("open", True))


class _FarBar:
    """A bar whose work is done elsewhere."""

    def __init__(self, shown: Progress, title: str, total: int, unit: str) -> None:
        self._stack, self._said = ExitStack(), 0
        self._bar = self._stack.enter_context(shown.bar(title, total, unit))

    def show(self, done: int, is_open: bool) -> None:
        """Move the bar; close it with the last event."""
        self._bar.advance(done - self._said)
        self._said = done
        if not is_open:
            self.close()

    def close(self) -> None:
        """The last of it; again: nothing."""
        self._stack.close()


def _from_anywhere(request: ExtractRequest) -> ExtractRequest:
    """The request with whole paths: a worker has another working folder."""
    data = DataSource.from_dict(request.data.to_dict())
    clip = replace(request.clip, **request.clip.to_dict())  # type: ignore[arg-type]  # the fields of ClipChoice
    return replace(request, data=data, clip=clip, cache=request.cache.expanduser().absolute())


def _careful(request: ExtractRequest, begun: bool) -> ExtractRequest:
    """How to try again after a worker died: if the task had begun, video by video, each decoded in a child process."""
    return replace(request, decode_in="processes", decode_threads=1) if begun else request

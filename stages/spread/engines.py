"""Who runs the tasks of an extraction: this process, or the workers of a cluster.

with engine_for(request, shown) as engine:
    engine.prepare(datasets)               every split is there
    engine.run(split, tasks, bar, done)    done(sealed shard) for each, in any order
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.write.staging import SealedShard
from vidxfer.pipeline.datasets.base import Dataset
from vidxfer.stages.progress import Bar, Progress
from vidxfer.stages.settings import ExtractRequest
from vidxfer.stages.shards.extract import ShardTask, extract_shards
from vidxfer.stages.shards.prepare import prepare_splits


class Engine(Protocol):
    """Runs tasks."""

    def prepare(self, datasets: Sequence[Dataset]) -> dict[str, str]:
        """See to it that every split is there; returns name -> `cache_id`."""

    def run(
        self, split: Split, tasks: Sequence[ShardTask], bar: Bar, done: Callable[[SealedShard], None]
    ) -> dict[int, str]:
        """Run the tasks of one split, hand each sealed shard to `done`; returns shard -> why it could not be made."""


class Inline:
    """One task after another in this process, on one device."""

    def __init__(self, request: ExtractRequest, shown: Progress) -> None:
        clip = request.clip
        self._request, self._shown = request, shown
        self._tower = clip.load()

    def prepare(self, datasets: Sequence[Dataset]) -> dict[str, str]:
        """As `Engine.prepare`."""
        return prepare_splits(self._request, datasets, self._tower, self._shown)

    def run(
        self, split: Split, tasks: Sequence[ShardTask], bar: Bar, done: Callable[[SealedShard], None]
    ) -> dict[int, str]:
        """As `Engine.run`; an error ends it, so that no shard is left."""
        extract_shards(tasks, split, self._tower, bar.advance, done)
        return {}


@contextmanager
def engine_for(request: ExtractRequest, shown: Progress) -> Iterator[Engine]:
    """The engine that the request names, for as long as the block lasts.

    Raises:
        UsageError: the request names two, or devices that are not there. ClusterError: no cluster answers.
    """
    if request.engine.name == "inline":
        yield Inline(request, shown)
        return
    from vidxfer.stages.spread.clusters import connected
    from vidxfer.stages.spread.window import Spread

    with connected(request.engine, request.clip.device, shown) as cluster:
        yield Spread(cluster, request, shown)

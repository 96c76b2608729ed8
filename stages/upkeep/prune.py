"""A smaller cache from a larger one: fewer layers or training views, without CLIP, without videos, without loss.

    SRC/train ─▶ the kept codes as they are ─▶ DST/train        equal to what an extraction of just those would hold

Only the first views can be kept: view n is drawn from (seed, video, n), so they are the views of an extraction with
fewer. Views that were added later come out in one part with the first ones. The views of a validation split are spread
over the whole video and depend on how many there are: they stay. Ended at any moment, the same command goes on. The
source is not changed; remove it when the new cache verifies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vidxfer.pipeline.cache.read.plain import open_reader
from vidxfer.pipeline.cache.read.summary import held_bytes
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.write.writer import SplitWriter
from vidxfer.pipeline.errors import UsageError
from vidxfer.stages.progress import Progress, Silent, say
from vidxfer.stages.upkeep.made_of import open_sources, to_write
from vidxfer.stages.upkeep.recode import RecodeRequest, new_spec, open_target, recode_shard
from vidxfer.stages.upkeep.rewrite import as_they_are, rewrite_shard


@dataclass(frozen=True, kw_only=True)
class PruneRequest:
    """What to keep of which cache.

    Attributes:
        source, target: folders.
        layers: to keep; None: all.
        views: of training splits, the first so many; None: all.
        splits: which; None: all that are there.
    """

    source: Path
    target: Path
    layers: tuple[int, ...] | None = None
    views: int | None = None
    splits: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class PruneReport:
    """How one split went: what is kept, videos stored, and bytes on disk before and after."""

    split: str
    layers: tuple[int, ...]
    views: int
    stored: int
    bytes_before: int
    bytes_after: int


def prune(request: PruneRequest, progress: Progress | None = None) -> tuple[PruneReport, ...]:
    """Write the smaller cache, or go on with it.

    Raises:
        UsageError: a layer or a view is not there, or the target is the source.
        CacheIncomplete: the source has pending shards. CacheMismatch: the target is another cache.
    """
    asked = RecodeRequest(source=request.source, target=request.target, layers=request.layers)
    pairs = open_sources(
        request.source, request.target, request.splits, lambda split: _kept(request, split, new_spec(split.spec, asked))
    )
    return tuple(_prune_split(asked, source, spec, progress or Silent()) for source, spec in pairs)


def _kept(request: PruneRequest, source: Split, spec: CacheSpec) -> CacheSpec:
    if request.views is None or spec.view_kind != "train":
        return spec
    if not 1 <= request.views <= spec.views:
        raise UsageError(f"--views {request.views}: {source.path} has {spec.views}, of which the first can be kept")
    return replace(spec, views=request.views)


def _prune_split(asked: RecodeRequest, source: Split, spec: CacheSpec, shown: Progress) -> PruneReport:
    name = spec.split
    with open_reader(source) as reader:
        target = open_target(asked, source, spec, reader, shown)
        say(shown, target.led_elsewhere)
        with SplitWriter(target) as writer:
            pending = to_write(source, writer)
            left = sum(len(target.layout.rows(shard)) for shard in pending)
            with shown.bar(f"prune {name}", target.video_count, "videos", target.video_count - left) as bar:
                for shard in pending:
                    if spec.views == source.spec.views:  # all but the tokens is taken over byte for byte
                        recode_shard(reader, target, writer, shard, torch.device("cpu"), bar)
                        continue
                    with writer.shard(shard) as shard_writer:
                        rewrite_shard(reader, target, shard_writer, bar, as_they_are)
    return PruneReport(
        split=name,
        layers=spec.layers,
        views=spec.stored_views,
        stored=sum(record.stored for record in target.ledger.finished().values()),
        bytes_before=held_bytes(source),
        bytes_after=held_bytes(target),
    )

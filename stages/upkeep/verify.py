"""Is the cache on disk what extraction wrote? Every byte of every finished shard is read and compared.

    split by split: states ─▶ files' lengths and index ─▶ every chunk's crc32c ─▶ damage by file, video, view, layer
                                         drop_damaged: the shard's mark is taken back ◀─┘ extract then makes it anew

Consequence: a cache that passes can be trained on. A cache with pending shards may be sound and is not whole: both are
reported.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from vidxfer.pipeline.cache.ledger import ShardRecord
from vidxfer.pipeline.cache.metadata import expect_described
from vidxfer.pipeline.cache.read.check import damage_of, unreadable_states
from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.read.wanted import open_splits
from vidxfer.pipeline.cache.shard import REMEDY
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.write.frozen import read_frozen
from vidxfer.pipeline.cache.write.more_views import begun_views
from vidxfer.pipeline.cache.write.writer import SplitWriter
from vidxfer.stages.progress import Bar, Progress, Silent, say


@dataclass(frozen=True, kw_only=True)
class VerifyRequest:
    """What to check.

    Attributes:
        cache: its folder.
        splits: which; None: all that are there.
        drop_damaged: take back the marks of damaged shards, so that the next extraction makes them again.
        read_threads: reads at the same time.
    """

    cache: Path
    splits: tuple[str, ...] | None = None
    drop_damaged: bool = False
    read_threads: int = 2


@dataclass(frozen=True, kw_only=True)
class Damage:
    """A shard that is not what its ledger line says: what was found, and whether its mark was taken back."""

    shard: int
    found: tuple[str, ...]
    dropped: bool


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """One split, or one part of its views where some were added later.

    Attributes:
        split: its name, and the part's views.
        shards: of the split.
        checked: finished ones, which were read.
        pending: the others.
        stored, failed: videos of the checked shards that have tokens, and that were refused by extraction.
        bytes: that were read.
        damage: by shard.
        seconds: it took.
    """

    split: str
    shards: int
    checked: int
    pending: int
    stored: int
    failed: int
    bytes: int
    damage: tuple[Damage, ...]
    seconds: float


def verify(request: VerifyRequest, progress: Progress | None = None) -> tuple[VerifyReport, ...]:
    """Read all that is finished; change nothing unless `drop_damaged`.

    Raises:
        CacheError: no cache there, or fixed arrays, descriptions, CLIP's parameters or the ledger cannot be read.
        UsageError: no such split.
        CacheBusy: damage was found, but extraction is writing the split whose marks are to be taken back.
    """
    opened = open_splits(request.cache, request.splits)
    for split in {split.frozen: split for split in opened}.values():  # mostly one file for all splits
        read_frozen(split)
    parts = [part for split in opened for part in (*split.parts, begun_views(split)) if part is not None]
    return tuple(verify_split(part, request, progress or Silent()) for part in parts)


def verify_split(split: Split, request: VerifyRequest, shown: Progress) -> VerifyReport:
    """Check one split, or one part of its views, shard by shard."""
    began = time.monotonic()
    expect_described(split.path)
    records = split.ledger.finished()
    with shown.bar(f"verify {split.spec.title}", len(records), "shards") as bar:
        damage = find_damage(split, records, request.read_threads, bar)
    if damage and request.drop_damaged:
        say(shown, split.led_elsewhere)
        with SplitWriter(split) as writer:
            for shard, lines in damage.items():
                writer.drop(shard, lines[0])
    return VerifyReport(
        split=split.spec.title,
        shards=split.shard_count,
        checked=len(records),
        pending=split.shard_count - len(records),
        stored=sum(record.stored for record in records.values()),
        failed=sum(len(record.failed) for record in records.values()),
        bytes=sum(record.bytes for record in records.values()),
        damage=tuple(
            Damage(shard=shard, found=tuple(lines), dropped=request.drop_damaged) for shard, lines in damage.items()
        ),
        seconds=time.monotonic() - began,
    )


def find_damage(split: Split, records: dict[int, ShardRecord], threads: int, bar: Bar) -> dict[int, list[str]]:
    """Shard -> what is wrong with it, in the order of shards; whole shards are not in it."""
    unreadable = unreadable_states(split)
    damage: dict[int, list[str]] = {}
    bytes_read = 0
    with CacheReader(split, threads=threads, without=unreadable, direct=True) as reader:  # the disk, not memory
        for shard, record in sorted(records.items()):
            lines = [unreadable[shard]] if shard in unreadable else damage_of(reader, shard, record)
            if lines:
                damage[shard] = [line.removesuffix(REMEDY).rstrip() for line in lines]
            bytes_read += record.bytes
            damaged = f", {len(damage)} damaged" if damage else ""
            bar.advance(1, f"{bytes_read / 1e9:.2f} GB{damaged}")
    return damage

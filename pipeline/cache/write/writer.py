"""Marking: one owner per split, data before its mark.

SplitWriter (one per split, holds the lock)        ShardWriter (one per shard, in any process: shard_writer.py)
  pending() ──▶ shards to do                          add(row, …) / fail(row, error) for every row
  shard(k) ──────────────────────────────────▶        all files: index, fsync, rename; `state` last
  record(…) ◀─────────── ShardRecord ──────────       record
  adopt(…) ◀──────────── SealedShard ──────────       written beside the split: staging.py
  ledger line
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from vidxfer.pipeline.cache.ledger import ShardRecord
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.cache.write.shard_writer import ShardWriter
from vidxfer.pipeline.cache.write.staging import SealedShard, adopt, recover, sweep_staged
from vidxfer.pipeline.disk import FolderLock, disk_errors
from vidxfer.pipeline.errors import CacheError
from vidxfer.pipeline.writing import folder_below, sweep_parts

__all__ = ["ShardWriter", "SplitWriter"]


class SplitWriter:
    """The one process that may mark shards of a split, or of one of the parts of its views, as finished.

    Raises:
        CacheBusy: on entering, when another process writes this split; names its pid.
        CacheError: on entering, when the folder cannot be written.
        PathError: on entering, when its lock or its ledger is a link, or a part of its views lies behind one.
    """

    def __init__(self, split: Split) -> None:
        if split.more:
            raise ValueError(f"{split.path} has {len(split.parts)} parts: each is written by itself")
        self.split = split
        self._lock = FolderLock(split.lock_path)

    def __enter__(self) -> Self:
        if self.split.cache_folder != self.split.path.parent:
            with disk_errors(self.split.path, 0), folder_below(self.split.path, self.split.cache_folder):
                pass  # the split itself may be a link to another disk, a part within the cache may not
        self._lock.__enter__()
        try:
            self.split.ledger.expect_writable()
            with disk_errors(self.split.path, 0):
                sweep_parts(self.split.path)
                recover(self.split)
        except BaseException:
            self._lock.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            sweep_staged(self.split, keep_sealed=True)
        finally:
            self._lock.__exit__()

    def pending(self) -> list[int]:
        """Shards still to be written: no ledger line, or a file is missing or has the wrong length."""
        finished, layout = self.split.ledger.finished(), self.split.layout
        shards = range(layout.shard_count)
        return [k for k in shards if k not in finished or not self._is_whole(finished[k])]

    @contextmanager
    def shard(self, shard: int) -> Iterator[ShardWriter]:
        """Write a shard in this process and mark it as finished."""
        self.begin(shard)
        with ShardWriter(self.split, shard) as writer:
            yield writer
        if writer.record is None:
            raise CacheError(f"shard {shard} ended without a record")
        self.record(writer.record)

    def adopt(self, sealed: SealedShard) -> None:
        """Put a shard that was written elsewhere in its place and mark it as finished."""
        adopt(self.split, sealed)

    def begin(self, shard: int) -> None:
        """Take back the mark of a shard that is about to be written again; to be called before another process does."""
        if shard in self.split.ledger.finished():
            self.split.ledger.drop(shard, "written again")

    def drop(self, shard: int, why: str) -> None:
        """Take back the mark of a damaged shard, so that it is pending again."""
        self.split.ledger.drop(shard, why)

    def record(self, record: ShardRecord) -> None:
        """Mark a shard that a `ShardWriter`, here or in another process, has finished."""
        self.split.ledger.append(record)

    def _is_whole(self, record: ShardRecord) -> bool:
        layout, shard = self.split.layout, record.shard
        for array in layout.arrays_of(record.crc32c):
            file = self.split.path / array.key(shard)
            if not file.is_file() or file.stat().st_size != layout.file_bytes(array, shard, record.bytes):
                return False
        return True

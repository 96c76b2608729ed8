"""Which shards are finished, and why videos failed: one JSON line per shard, beside the split's folder.

    {"shard": 3, "first_row": 192, "last_row": 255, "stored": 63, "failed": [{"id": …, "reason": …, "detail": …}], …}
    {"shard": 3, "dropped": "crc32c of tokens/c/3/… is wrong"}

The line is the mark: it is written after every byte of the shard is durable. For one shard the last line wins. A torn
last line is what a crash leaves behind; it is ignored, and cut off before the next line is written. Lines of another
split that once had the same name (another `cache_id`) do not count.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from crc32c import crc32c

from vidxfer.pipeline.cache.disk import disk_errors, sync_folder, write_all
from vidxfer.pipeline.errors import CacheCorrupt

CHECK = "line_crc32c"
"""Key of a line's own checksum; optional: older lines have none."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A video that could not be stored: its id, a `VideoReason` code, and what was seen."""

    id: str
    reason: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """What is known of a finished shard. Crosses process borders: the task that wrote the shard hands it back.

    Attributes:
        shard, first_row, last_row: which rows, both ends included.
        stored: number of stored videos.
        failed: the others.
        bytes: of all files of the shard.
        crc32c: per array, of its index (sharded) or its rows.
        notes: counts of what was noted per row, e.g. {"decoder": {"decord": 60, "pyav-pts": 3}}.
        seconds: from opening the shard to its last byte.
    """

    shard: int
    first_row: int
    last_row: int
    stored: int
    failed: tuple[Failure, ...]
    bytes: int
    crc32c: Mapping[str, int]
    notes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class _Known:
    """Lines that were taken apart: their bytes, how many they are, and what they say."""

    raw: bytes = b""
    lines: int = 0
    records: Mapping[int, ShardRecord] = field(default_factory=dict)


class Ledger:
    """The ledger of one split.

    Args:
        path: the file; it need not exist.
        cache_id: identity of the split whose lines count.
        shards: how many the split has, as its opener sees it; lines of later ones belong to videos added since.
    """

    def __init__(self, path: Path, cache_id: str, shards: int | None = None) -> None:
        self.path = path
        self._cache_id = cache_id
        self._shards = shards
        self._known = _Known()

    def finished(self) -> dict[int, ShardRecord]:
        """The record of each finished shard. Asked again, it takes apart only the lines that have come since.

        Raises:
            CacheCorrupt: a line other than the last is not JSON; names the line.
        """
        whole = self._whole_lines()
        known = self._known if whole.startswith(self._known.raw) else _Known()
        fresh = [line + b"\n" for line in whole[len(known.raw) :].split(b"\n")[:-1]]
        records = dict(known.records)
        for number, line in enumerate(fresh, start=known.lines + 1):
            try:
                entry = json.loads(line)
                shard = int(entry["shard"])
                if CHECK in entry and entry.pop(CHECK) != _check_of(entry):
                    raise ValueError("the line does not match its crc32c")
                if entry["cache_id"] != self._cache_id or (self._shards is not None and shard >= self._shards):
                    continue
                if "dropped" in entry:
                    records.pop(shard, None)
                    continue
                records[shard] = self.record_of(entry)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise CacheCorrupt(
                    f"{self.path}, line {number}: not a line of a ledger ({type(error).__name__}: {error}). "
                    "Remove that line: `vidxfer extract` then makes its shard again."
                ) from error
        self._known = _Known(raw=whole, lines=known.lines + len(fresh), records=records)
        return dict(records)

    def failures(self) -> list[Failure]:
        """The failed videos of all finished shards, in the order of their rows."""
        records = self.finished()
        return [failure for shard in sorted(records) for failure in records[shard].failed]

    def append(self, record: ShardRecord) -> None:
        """Mark a shard as finished; returns when the mark is durable."""
        self._append(self.line_of(record, self._cache_id))

    def drop(self, shard: int, why: str) -> None:
        """Take the mark back: the shard counts as never written."""
        self._append(_line({"cache_id": self._cache_id, "shard": shard, "dropped": why}))

    @staticmethod
    def line_of(record: ShardRecord, cache_id: str) -> str:
        """The line that marks a shard of the split `cache_id` as finished."""
        entry = asdict(replace(record, crc32c=dict(record.crc32c), notes=dict(record.notes)))
        return _line({"cache_id": cache_id, **entry})

    @staticmethod
    def record_of(entry: Mapping[str, Any]) -> ShardRecord:
        """The inverse of `line_of`, once it is parsed.

        Raises:
            ValueError, KeyError, TypeError: it is no such line.
        """
        fields = {name: value for name, value in entry.items() if name not in ("cache_id", CHECK)}
        failed = tuple(Failure(**failure) for failure in fields.pop("failed"))
        return ShardRecord(**fields, failed=failed)

    def _append(self, text: str) -> None:
        line = text.encode("utf-8", "backslashreplace")  # a detail may hold a path that is not UTF-8
        with disk_errors(self.path, len(line)):
            is_new = not self.path.exists()
            whole_bytes = len(self._whole_lines())
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                os.ftruncate(fd, whole_bytes)
                write_all(fd, line, whole_bytes)  # one call; half a line, if the disk fills up, counts as torn
                os.fsync(fd)
            finally:
                os.close(fd)
            if is_new:
                sync_folder(self.path.parent)

    def _whole_lines(self) -> bytes:
        """All lines but a torn last one."""
        raw = self.path.read_bytes() if self.path.exists() else b""
        whole = raw[: raw.rfind(b"\n") + 1]
        last = whole.rfind(b"\n", 0, -1) + 1
        return whole if _is_json(whole[last:]) else whole[:last]

    def __getstate__(self) -> dict[str, Any]:
        """Another process reads the file itself."""
        return {**self.__dict__, "_known": _Known()}


def merged(records: Sequence[ShardRecord]) -> ShardRecord:
    """One record of a shard whose views lie in several parts: a video that failed in any of them has failed.

    Checksums, notes and times are the first part's; the bytes are all.
    """
    first, *others = records
    if not others:
        return first
    failed = {one.id: one for record in reversed(records) for one in record.failed}
    rows = first.last_row - first.first_row + 1
    return replace(
        first, failed=tuple(failed.values()), stored=rows - len(failed), bytes=sum(record.bytes for record in records)
    )


def _line(entry: dict[str, Any]) -> str:
    return json.dumps({**entry, CHECK: _check_of(entry)}, ensure_ascii=False) + "\n"


def _check_of(entry: dict[str, Any]) -> int:
    """crc32c of an entry without its own checksum, as JSON gives it back."""
    return int(crc32c(json.dumps(json.loads(json.dumps(entry)), sort_keys=True).encode()))


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True

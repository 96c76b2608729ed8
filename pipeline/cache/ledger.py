"""The ledger: which shards are finished, and why videos failed. One JSON line per shard, beside the split's folder.

    {"shard": 3, "first_row": 192, "last_row": 255, "stored": 63, "failed": [{"id": …, "reason": …, "detail": …}], …}
    {"shard": 3, "dropped": "crc32c of tokens/c/3/… is wrong"}

The line is the mark: it is written after every byte of the shard is durable. For one shard the last line wins. A torn
last line is what a crash leaves behind; it is ignored, and cut off before the next line is written. Lines of another
split that once had the same name (another `cache_id`) do not count.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from crc32c import crc32c

from vidxfer.pipeline.cache.remote import is_remote, read_whole
from vidxfer.pipeline.disk import disk_errors, write_all
from vidxfer.pipeline.errors import CacheCorrupt
from vidxfer.pipeline.reading import lines, opened, parsed
from vidxfer.pipeline.writing import open_growing, sync_folder

CHECK = "line_crc32c"
"""Key of a line's own checksum; optional: older lines have none."""

MOST_RECORD_BYTES, MOST_REMOTE_BYTES, BLOCK_BYTES = 64 << 20, 256 << 20, 1 << 20
LINES_PER_SHARD, LINES_AT_LEAST = 1000, 100_000
"""A ledger has no more lines than these say together: no shard is written so often."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A video that could not be stored: its id, a `VideoReason` code, and a detail for people."""

    id: str
    reason: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """The record of a finished shard. The task that wrote the shard returns it, also to another process.

    Attributes:
        shard: number of the shard.
        first_row: first row of the shard.
        last_row: last row of the shard, included.
        stored: number of stored videos.
        failed: the videos that could not be stored.
        bytes: bytes of all files of the shard.
        crc32c: array -> crc32c of its index (sharded arrays) or of its rows.
        notes: counts of the notes per row, e.g. {"decoder": {"decord": 60, "pyav-pts": 3}}.
        seconds: time from opening the shard to its last byte.
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
    """The lines that were parsed: their bytes, the crc32c of these bytes, their number, and their records."""

    bytes: int = 0
    crc32c: int = 0
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
            CacheCorrupt: a line other than the last is not JSON, or there is more than a ledger can hold; names it.
        """
        with self._opened() as file:
            known = self._known if _crc_of_first(file, self._known.bytes) == self._known.crc32c else _Known()
            file.seek(known.bytes)
            records, seen_bytes, crc, number = dict(known.records), known.bytes, known.crc32c, known.lines
            for line in self._whole_lines(file, known.lines):
                number += 1
                self._take(line, number, records)
                seen_bytes, crc = seen_bytes + len(line), crc32c(line, crc)
        self._known = _Known(bytes=seen_bytes, crc32c=crc, lines=number, records=records)
        return dict(records)

    def _take(self, line: bytes, number: int, records: dict[int, ShardRecord]) -> None:
        """Put down what one line says."""
        try:
            entry = parsed(line)
            shard = int(entry["shard"])
            if CHECK in entry and entry.pop(CHECK) != _check_of(entry):
                raise ValueError("the line does not match its crc32c")
            if entry["cache_id"] != self._cache_id or (self._shards is not None and shard >= self._shards):
                return
            if "dropped" in entry:
                records.pop(shard, None)
                return
            records[shard] = self.record_of(entry)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CacheCorrupt(
                f"{self.path}, line {number}: not a line of a ledger ({type(error).__name__}: {error}). "
                "Remove that line: `vidxfer extract` then makes its shard again."
            ) from error

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

    def expect_writable(self) -> None:
        """Check, before work is done, that a line can be written. Raises PathError: it is a link or the like."""
        with disk_errors(self.path, 0), suppress(FileNotFoundError):
            os.close(open_growing(self.path, make=False))

    def _append(self, text: str) -> None:
        line = text.encode("utf-8", "backslashreplace")  # a detail may hold a path that is not UTF-8
        self.finished()  # how many bytes are whole lines
        with disk_errors(self.path, len(line)):
            is_new = not self.path.exists()
            fd = open_growing(self.path)
            try:
                os.ftruncate(fd, self._known.bytes)
                write_all(fd, line, self._known.bytes)  # one call; half a line, if the disk fills up, counts as torn
                os.fsync(fd)
            finally:
                os.close(fd)
            if is_new:
                sync_folder(self.path.parent)

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        """The file, or nothing to read where it is not there."""
        with ExitStack() as stack:
            try:
                if is_remote(self.path):
                    file: BinaryIO = io.BytesIO(read_whole(self.path, most=MOST_REMOTE_BYTES))
                else:
                    file = stack.enter_context(opened(self.path, error=CacheCorrupt))
            except FileNotFoundError:
                file = io.BytesIO()
            yield file

    def _whole_lines(self, file: BinaryIO, before: int) -> Iterator[bytes]:
        """The lines from here on, but for a torn last one; `before`: how many lie before them."""
        most = None if self._shards is None else LINES_PER_SHARD * self._shards + LINES_AT_LEAST
        held = b""
        stored_lines = lines(file, self.path, most=MOST_RECORD_BYTES, before=before, error=CacheCorrupt)
        for number, line in enumerate(stored_lines, before + 1):
            if most is not None and number > most:
                raise CacheCorrupt(f"{self.path}: more than {most} lines, for {self._shards} shards. Is it a ledger?")
            if not line.endswith(b"\n"):
                break
            if held:
                yield held
            held = line
        if held and _is_json(held):
            yield held

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
    failed = {failure.id: failure for record in reversed(records) for failure in record.failed}
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
        parsed(line)
    except ValueError:
        return False
    return True


def _crc_of_first(file: BinaryIO, size_bytes: int) -> int | None:
    """crc32c of the first bytes of a file, block by block; None where there are fewer."""
    crc = 0
    while size_bytes:
        block = file.read(min(size_bytes, BLOCK_BYTES))
        if not block:
            return None
        crc, size_bytes = int(crc32c(block, crc)), size_bytes - len(block)
    return crc

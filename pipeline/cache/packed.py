"""The file of dense frames in a shard: compressed chunks one behind the other, and how one of them is read.

    frames/c/<shard>/0/0/0
    ┌──────────────┬───┬────────────────┬───┬─ ─ ─┬──────────────────────┬───┐
    │ zstd(rows)   │crc│ zstd(rows)     │crc│     │ (offset, bytes) × S  │crc│      in the order of the slots
    └──────────────┴───┴────────────────┴───┴─ ─ ─┴──────────────────────┴───┘

A chunk that comes before its turn waits in memory, so a file's bytes do not depend on the order of arrival. zstd is
there for the zeros between the JPEGs; the tables that each of them repeats (about 5 %) go with them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs.zstd import Zstd

from vidxfer.pipeline.cache.frames import pack
from vidxfer.pipeline.cache.layout import CRC_BYTES, AnyArray, ArrayLayout
from vidxfer.pipeline.cache.remote import Place, is_remote
from vidxfer.pipeline.cache.rows import Rows
from vidxfer.pipeline.cache.shard import ABSENT, REMEDY, _PartFile, crc_of, parse_index, read_index
from vidxfer.pipeline.disk import write_all
from vidxfer.pipeline.errors import CacheCorrupt, CacheError
from vidxfer.pipeline.reading import open_regular

ZSTD_LEVEL = 1
UNKNOWN_BYTES = 1 << 62
"""Length of a file behind a URL, where nobody asks for it: a chunk that is not there is found when it is read."""

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Index = np.ndarray[Any, np.dtype[np.uint64]]


class PackedFile(_PartFile):
    """The file of a packed array while it is being written.

    Args:
        array: the layout; a chunk is one (video, view).
        final: the file's path in the end.
        rows: videos in this shard.

    Attributes:
        file_bytes: length so far.
    """

    def __init__(self, array: ArrayLayout, final: Path, rows: int) -> None:
        super().__init__(array, final)
        self.file_bytes = 0
        self._index = np.full((array.slots, 2), ABSENT, dtype="<u8")
        self._waiting: dict[int, list[bytes]] = {}  # by row of the shard; empty: the video has failed
        self._next, self._rows = 0, rows

    def write(self, place: int, views: Sequence[Bytes]) -> None:
        """Take the chunks of one row of the shard, one per view, each [kept byte]."""
        chunks = []
        for view in views:
            if view.shape != (self.array.chunk_shape or ())[2:]:
                raise ValueError(f"{self.array.name}: a chunk is {self.array.chunk_shape}, not {view.shape}")
            chunks.append(bytes(Zstd(level=ZSTD_LEVEL).encode(np.ascontiguousarray(view))))
        self._take(place, chunks)

    def copy(self, places: Sequence[int], source: Path) -> None:
        """Take the chunks of some rows over from another file of the same shard, byte for byte.

        Raises:
            CacheCorrupt: that file is missing or damaged.
        """
        index = _index_of(source, self.array)
        for place in places:
            slots = [self.array.slot(place, view) for view in range(self.array.grid[1])]
            self._take(place, [bytes(_stored(source, index[slot], f"{source}: slot {slot}")) for slot in slots])

    def skip(self, place: int) -> None:
        """Note that a row of the shard has no frames."""
        self._take(place, [])

    def _take(self, place: int, chunks: list[bytes]) -> None:
        self._waiting[place] = chunks
        while self._next in self._waiting:
            for view, chunk in enumerate(self._waiting.pop(self._next)):
                payload = chunk + crc_of(chunk)
                write_all(self._fd, payload, self.file_bytes)
                self._index[self.array.slot(self._next, view)] = (self.file_bytes, len(payload))
                self.file_bytes += len(payload)
            self._next += 1

    def finish(self) -> int:
        """Write the index, make the file durable and give it its name; returns the index's crc32c."""
        if self._next != self._rows:
            raise ValueError(f"{self.array.name}: row {self._next} of {self._rows} of the shard was never told of")
        entries = self._index.tobytes()
        crc = crc_of(entries)
        write_all(self._fd, entries + crc, self.file_bytes)
        self.file_bytes += self.array.index_bytes
        return self._publish(crc)


class FrameReader:
    """Reads the JPEGs of stored views, one positional read each, wherever the split lies; safe in several threads.

    Args:
        rows: a reader of the split (any kind).

    Raises:
        CacheError: the split keeps no dense frames.
    """

    def __init__(self, rows: Rows) -> None:
        if rows.split.frames is None:
            raise CacheError(f"{rows.split.path} keeps no dense frames. `vidxfer extract --with-frames` stores them.")
        self._rows, self._split = rows, rows.split
        self._indices: dict[Path, Index] = {}
        self._scratch = threading.local()

    def kept(self, row: int, view: int) -> tuple[int, ...]:
        """The source frames whose JPEGs are kept of a stored view: the dense ones, then others of its windows."""
        split = self._split
        assert split.frames is not None, "asked in the constructor"
        indices = self._rows.view(row, view).indices
        return split.frames.kept(indices, split.spec.sampling.alpha, self._rows.source_of(row)[0])

    def files(self, row: int, view: int, frames: Sequence[int] | None = None) -> list[Bytes]:
        """The JPEG of each kept frame of a stored view, uint8 [byte]; `frames`: only these, by place among `kept`.

        Raises:
            CacheIncomplete: the row is not stored.
            CacheCorrupt: a file is missing or cut off, or what it holds does not match its crc32c.
        """
        self._rows.expect_stored([row])
        shard, place = divmod(row, self._split.shard_videos)
        lengths = self._rows.frame_lengths(row, view)
        number, within = self._split.part_of(view)
        part = self._split.parts[number]
        array = part.layout.owned["frames"]
        path = part.path / array.key(shard)
        where = f"{path}: video {self._split.video_ids[row]}, view {view}"
        kept = self._unpacked(self._chunk(path, array, array.slot(place, within), where), array, where)
        count = len(self.kept(row, view))
        if lengths[:count].min() < 1 or lengths.max() > kept.shape[1] or lengths[count:].any():
            raise CacheCorrupt(
                f"{where}: frames of {lengths.min()} to {lengths.max()} bytes cannot be, {count} of them. {REMEDY}"
            )
        wanted = range(count) if frames is None else frames
        return [kept[frame, : lengths[frame]].copy() for frame in wanted]

    def _chunk(self, path: Path, array: ArrayLayout, slot: int, where: str) -> memoryview:
        if path not in self._indices:
            self._indices[path] = _index_of(path, array)
        return _stored(path, self._indices[path][slot], where)

    def _unpacked(self, chunk: memoryview, array: ArrayLayout, where: str) -> Bytes:
        """uint8 [kept byte] in a buffer that this thread's next call overwrites: fresh memory would cost more."""
        if not hasattr(self._scratch, "rows"):
            self._scratch.rows = np.empty((array.chunk_shape or ())[2:], dtype=np.uint8)
        rows: Bytes = self._scratch.rows
        try:
            Zstd().decode(chunk, out=rows)
        except (RuntimeError, ValueError) as error:
            raise CacheCorrupt(f"{where}: zstd cannot unpack it ({error}). {REMEDY}") from error
        return rows


def _index_of(path: Place, array: ArrayLayout) -> Index:
    if is_remote(path):
        with _named(path):
            return parse_index(path.read_end(array.index_bytes), UNKNOWN_BYTES, array, str(path))
    with _opened(Path(path)) as fd:
        return read_index(fd, array, str(path))


def _stored(path: Place, entry: Index, where: str) -> memoryview:
    """One chunk as it lies on disk, without its crc, which was compared; `entry`: its offset and length."""
    offset, length = (int(number) for number in entry)
    if offset == ABSENT:
        raise CacheCorrupt(f"{where}: stored, but absent from the shard's index. {REMEDY}")
    if is_remote(path):
        with _named(path):
            raw = path.read_part(offset, length)
    else:
        with _opened(Path(path)) as fd:
            raw = os.pread(fd, length, offset)
    if len(raw) != length:
        raise CacheCorrupt(f"{where}: the file ends before the chunk. {REMEDY}")
    chunk = memoryview(raw)[:-CRC_BYTES]
    if raw[-CRC_BYTES:] != crc_of(chunk):
        raise CacheCorrupt(f"{where}: the bytes do not match their crc32c. {REMEDY}")
    return chunk


@contextmanager
def _named(path: Place) -> Iterator[None]:
    """What the operating system says about a shard's file, as errors of ours."""
    try:
        yield
    except FileNotFoundError as error:
        raise CacheCorrupt(f"{path}: the file is missing though its shard is finished. {REMEDY}") from error
    except OSError as error:
        raise CacheCorrupt(f"{path}: cannot be read ({os.strerror(error.errno or 0)}). {REMEDY}") from error


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    with _named(path):
        fd = open_regular(path, error=CacheCorrupt, remedy=REMEDY)
        try:
            yield fd
        finally:
            os.close(fd)


def packed_views(views: Sequence[Sequence[bytes]], most_bytes: int, rows: int) -> tuple[list[Bytes], AnyArray]:
    """One video's JPEGs, [view][kept], as chunks for `PackedFile.write` and int32 [view kept] for `frame_bytes`."""
    packed = [pack(files, most_bytes, rows) for files in views]
    return [rows for rows, _ in packed], np.array([lengths for _, lengths in packed], dtype=np.int32)

"""The bytes of a file that belongs to a shard: chunks, checksums, index. Knows zarr's format, not zarr.

A sharded file is written slot by slot at fixed places, never held in memory; its index and the index's crc come last.
See layout.py for the drawing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from crc32c import crc32c

from vidxfer.pipeline.cache.layout import CRC_BYTES, MOST_BYTES, AnyArray, ArrayLayout
from vidxfer.pipeline.cache.remote import Place, read_whole
from vidxfer.pipeline.disk import open_owned_part, part_of, publish, write_all
from vidxfer.pipeline.errors import CacheCorrupt
from vidxfer.pipeline.reading import open_regular
from vidxfer.pipeline.writing import let_go

ABSENT = 2**64 - 1
"""Offset and length of a chunk that was never written (Zarr v3, sharding codec)."""

SYNC_BYTES = 64 << 20
"""Bytes after which written data is sent to the disk. The end of a shard then waits only for a few bytes."""

REMEDY = "`vidxfer cache verify --drop-damaged` takes damaged shards back; `vidxfer extract` then makes them again."


def crc_of(payload: bytes | memoryview | AnyArray) -> bytes:
    """The crc32c as it stands on disk: 4 bytes, little-endian."""
    return int(crc32c(payload)).to_bytes(CRC_BYTES, "little")


class _PartFile:
    """A shard's file while it is being written. The process that opened it owns the shard: see `open_owned_part`."""

    def __init__(self, array: ArrayLayout, final: Path) -> None:
        self.array = array
        self._final = final
        self._folder = final.parents[len(array.shape) + 1]  # what the array's key begins from
        self._fd = open_owned_part(final, self._folder)

    def _publish(self, crc: bytes) -> int:
        publish(self._fd, self._final, self._folder)
        self.close()
        return int.from_bytes(crc, "little")

    def close(self) -> None:
        """Close the file. An unfinished file is removed."""
        if self._fd < 0:
            return
        let_go(self._fd, part_of(self._final), below=self._folder)
        self._fd = -1


class ShardFile(_PartFile):
    """One array's file of one shard while it is being written. Holds the index, no data.

    Args:
        array: the layout.
        final: the file's path in the end.
        rows: videos in this shard.
    """

    def __init__(self, array: ArrayLayout, final: Path, rows: int) -> None:
        super().__init__(array, final)
        self._rows = rows
        self._index = np.full((array.slots, 2), ABSENT, dtype="<u8")
        self._unsynced_bytes = 0

    def write(self, chunk: AnyArray, *place: int) -> None:
        """Write the chunk at `place` (row within the shard, view ...); it has the array's chunk shape.

        Raises:
            ValueError: the chunk has another length than the layout says.
        """
        array = self.array
        payload = np.ascontiguousarray(chunk, dtype=array.numpy_dtype)
        if payload.nbytes != array.chunk_bytes:
            raise ValueError(f"{array.name}: a chunk has {array.chunk_bytes} bytes, not {payload.nbytes}")
        raw = payload.reshape(-1).view(np.uint8)
        slot = array.slot(*place)
        offset = array.offset(slot)
        write_all(self._fd, raw.data, offset)
        write_all(self._fd, crc_of(raw), offset + array.chunk_bytes)
        self._index[slot] = (offset, array.chunk_bytes + CRC_BYTES)
        self._unsynced_bytes += array.chunk_bytes
        if self._unsynced_bytes >= SYNC_BYTES:
            os.fdatasync(self._fd)
            self._unsynced_bytes = 0

    def copy(self, places: Sequence[int], source: Path) -> None:
        """Take over the chunks of some rows from another file of the same layout.

        Raises:
            CacheCorrupt: it cannot be opened, is cut off, or a chunk does not match its crc32c.
        """
        array = self.array
        chunk_bytes, per_row = array.chunk_bytes + CRC_BYTES, array.slots // array.file_shape[0]
        try:
            fd = open_regular(source, exactly=array.file_bytes(self._rows), error=CacheCorrupt, remedy=REMEDY)
        except FileNotFoundError as error:
            raise CacheCorrupt(f"{source}: the file is missing though its shard is finished. {REMEDY}") from error
        try:
            index = read_index(fd, array, str(source))
            for slot in (place * per_row + inner for place in places for inner in range(per_row)):
                raw = os.pread(fd, chunk_bytes, int(index[slot, 0])) if index[slot, 0] != ABSENT else b""
                if len(raw) != chunk_bytes or raw[-CRC_BYTES:] != crc_of(raw[:-CRC_BYTES]):
                    raise CacheCorrupt(f"{source}: slot {slot} does not match its crc32c. {REMEDY}")
                write_all(self._fd, raw, array.offset(slot))
                self._index[slot] = (array.offset(slot), chunk_bytes)
        finally:
            os.close(fd)

    def finish(self) -> int:
        """Write the index, make the file durable and give it its name; returns the index's crc32c."""
        entries = self._index.tobytes()
        crc = crc_of(entries)
        write_all(self._fd, entries + crc, self.array.file_bytes(self._rows) - self.array.index_bytes)
        return self._publish(crc)


class PlainFile(_PartFile):
    """The file of an array that is not sharded: the shard's rows, written whole at the end."""

    def __init__(self, array: ArrayLayout, final: Path) -> None:
        super().__init__(array, final)
        self.values = np.zeros(array.file_shape, dtype=array.numpy_dtype)

    def finish(self) -> int:
        """Write rows and crc, make the file durable and give it its name; returns the crc32c."""
        payload = self.values.tobytes()
        crc = crc_of(payload)
        write_all(self._fd, payload + crc, 0)
        return self._publish(crc)


def read_index(fd: int, array: ArrayLayout, where: str) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """The index of a sharded file: offset and length per slot, uint64 [slot 2].

    Raises:
        CacheCorrupt: the file is too short, the index's crc is wrong, or an entry points outside the file.
    """
    if array.index_bytes > MOST_BYTES:
        raise CacheCorrupt(f"{where}: its index would have {array.index_bytes} bytes, expected at most {MOST_BYTES}")
    data_bytes = os.fstat(fd).st_size - array.index_bytes
    return parse_index(os.pread(fd, array.index_bytes, max(data_bytes, 0)), data_bytes, array, where)


def parse_index(raw: bytes, data_bytes: int, array: ArrayLayout, where: str) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """The index out of its bytes, for a file that has `data_bytes` before it. As `read_index`."""
    if data_bytes < 0 or len(raw) != array.index_bytes:
        raise CacheCorrupt(f"{where}: the file is cut off ({max(data_bytes + array.index_bytes, 0)} bytes). {REMEDY}")
    if raw[-CRC_BYTES:] != crc_of(raw[:-CRC_BYTES]):
        raise CacheCorrupt(f"{where}: the index at the end does not match its crc32c. {REMEDY}")
    index = np.frombuffer(raw[:-CRC_BYTES], dtype="<u8").reshape(array.slots, 2).astype(np.uint64)
    present = index[index[:, 0] != ABSENT]
    wrong_length = array.packed_bytes is None and bool((present[:, 1] != array.chunk_bytes + CRC_BYTES).any())
    wrong_length |= bool((present[:, 1] > np.uint64(array.most_chunk_bytes)).any())
    too_long = (present > np.uint64(data_bytes)).any() or (present.sum(axis=1) > np.uint64(data_bytes)).any()
    if wrong_length or too_long:
        raise CacheCorrupt(f"{where}: the index points outside the file. {REMEDY}")
    return index


def read_plain(path: Place, array: ArrayLayout) -> AnyArray:
    """The rows in a file that is not sharded, as an array of the layout's file shape.

    Raises:
        CacheCorrupt: the file is missing, no regular file, has another length, or does not match its crc32c.
    """
    expected = array.chunk_bytes + CRC_BYTES
    if expected > MOST_BYTES:
        raise CacheCorrupt(f"{path}: the layout says {expected} bytes, expected at most {MOST_BYTES}. {REMEDY}")
    try:
        raw = read_whole(path, exactly=expected, remedy=REMEDY)
    except FileNotFoundError as error:
        raise CacheCorrupt(f"{path}: the file is missing though its shard is finished. {REMEDY}") from error
    if raw[-CRC_BYTES:] != crc_of(raw[:-CRC_BYTES]):
        raise CacheCorrupt(f"{path}: the file does not match its crc32c. {REMEDY}")
    values: AnyArray = np.frombuffer(raw[:-CRC_BYTES], dtype=array.numpy_dtype).reshape(array.file_shape)
    return values

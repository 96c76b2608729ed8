"""Open files of a reader: each with its shard's index, the least recently used closed again.

    (array, shard) ──▶ descriptor + index, or ──open──▶ ... ; a file in use is never closed

Opening costs a round trip on a network disk; a cache of thousands of shards has more files than a process may open.
Indices stay: 16 bytes per chunk, 46 MB for 240,000 videos of 12 layers.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import resource
import weakref
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from vidxfer.pipeline.cache.layout import ArrayLayout, SplitLayout
from vidxfer.pipeline.cache.shard import REMEDY, read_index
from vidxfer.pipeline.errors import CacheCorrupt, PathError
from vidxfer.pipeline.reading import open_regular, opened

OPEN_FILES_MOST = 256
ALIGNED_BYTES = 4096  # O_DIRECT: offset, length and memory are multiples of it

Offsets = np.ndarray[Any, np.dtype[np.uint64]]


@dataclass(eq=False)
class OpenFile:
    """A shard's file of one array: where its chunks begin, by slot, and how many reads are using it."""

    path: Path
    fd: int
    direct: bool
    offsets: Offsets
    users: int = field(default=0)


class OpenFiles:
    """Up to `OPEN_FILES_MOST` files at once, and a quarter of what this process may open. Thread-safe.

    Args:
        direct: read past the system's file cache (O_DIRECT), where the file system can.
    """

    def __init__(self, *, direct: bool) -> None:
        self._direct = direct
        self._lock = Lock()
        self._open: OrderedDict[Path, OpenFile] = OrderedDict()
        self._indices: dict[Path, Offsets] = {}
        self._most = min(OPEN_FILES_MOST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        weakref.finalize(self, _close_all, self._open)  # a reader that nobody closed

    def take(self, folder: Path, layout: SplitLayout, array: ArrayLayout, shard: int) -> OpenFile:
        """The file of an array's shard, for use until `give_back`; `folder`, `layout`: of the split.

        Raises:
            CacheCorrupt: it is missing, has another length, or its index is damaged. PathError: it cannot be opened.
        """
        path = folder / array.key(shard)
        with self._lock:
            file = self._open.get(path)
            if file is None:
                file = self._open[path] = self._opened(path, array, array.file_bytes(len(layout.rows(shard))))
            file.users += 1
            self._open.move_to_end(path)
            if len(self._open) > self._most:
                idle = [key for key, file in self._open.items() if not file.users]
                for key in idle[: len(self._open) - self._most]:
                    os.close(self._open.pop(key).fd)
        return file

    def give_back(self, file: OpenFile) -> None:
        """End one use."""
        with self._lock:
            file.users -= 1

    def close(self) -> None:
        """Close every file; they are opened again when they are wanted again."""
        with self._lock:
            _close_all(self._open)

    def _opened(self, path: Path, array: ArrayLayout, file_bytes: int) -> OpenFile:
        bounds: dict[str, Any] = {"exactly": file_bytes, "error": CacheCorrupt, "remedy": REMEDY}
        try:
            if path not in self._indices:
                with opened(path, **bounds) as file:
                    self._indices[path] = np.ascontiguousarray(read_index(file.fileno(), array, str(path))[:, 0])
            direct = self._direct and array.name == "tokens"
            fd, direct = _open_direct(path, bounds) if direct else (open_regular(path, **bounds), False)
        except FileNotFoundError as error:
            raise CacheCorrupt(f"{path}: the file is missing though its shard is finished. {REMEDY}") from error
        return OpenFile(path=path, fd=fd, direct=direct, offsets=self._indices[path])


def _open_direct(path: Path, bounds: dict[str, Any]) -> tuple[int, bool]:
    """A descriptor, and whether it reads past the file cache: not every file system can, and some say so only later."""
    if hasattr(os, "O_DIRECT"):
        fd = open_regular(path, **bounds)
        try:
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_DIRECT)
            with mmap.mmap(-1, ALIGNED_BYTES) as first:
                os.preadv(fd, [first], 0)
        except OSError as error:
            os.close(fd)
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise PathError(f"{path}: cannot be read ({os.strerror(error.errno or 0)})") from error
        else:
            return fd, True
    return open_regular(path, **bounds), False


def _close_all(files: OrderedDict[Path, OpenFile]) -> None:
    while files:
        os.close(files.popitem()[1].fd)

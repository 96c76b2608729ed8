"""The same reads through zarr-python: for stores behind a URL, and the proof that a cache needs none of our code.

    local folder                                       ──▶ CacheReader, past the file cache where memory cannot hold it
    anything else zarr-python opens (s3, http, memory) ──▶ ZarrReader

2-4 times slower on a local disk. Basic slices only: list and `oindex` selections of sharded arrays read 0.015 GB/s and
exhaust the memory (zarr 3.1.6). zarr reads what is missing as zeros, so each shard's index is read and checked first.
"""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from itertools import pairwise
from threading import Lock
from typing import Any

import numpy as np
from zarr.core.buffer import default_buffer_prototype

from vidxfer.pipeline.cache.layout import AnyArray, ArrayLayout
from vidxfer.pipeline.cache.read.batch import Codes, Places, TokenReader
from vidxfer.pipeline.cache.read.reader import CacheReader
from vidxfer.pipeline.cache.remote import is_remote, open_group, store_errors
from vidxfer.pipeline.cache.shard import ABSENT, REMEDY, parse_index
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.errors import CacheCorrupt, CacheError
from vidxfer.pipeline.reading import opened

REMOTE_THREADS = 8
"""Clips fetched at the same time where each request has a long way."""


DIRECT_THREADS = 4
"""Reads at the same time past the file cache: they wait for the disk, not for a core."""


def open_reader(split: Split, *, layers: Sequence[int] | None = None, threads: int = 2) -> TokenReader:
    """The reader for where a split lies; its `how` says which was chosen.

    A local split of which an epoch reads more than this machine's memory is read past the system's file cache: nothing
    of it would still be there when it is wanted again, and filling the cache takes the CPU as long as everything else.

    Args:
        layers: what will be read of it; None: all.
        threads: concurrent reads of local files; at least `DIRECT_THREADS` past the file cache, and at least
            `REMOTE_THREADS` from behind a URL.
    """
    if is_remote(split.path):
        return ZarrReader(split, threads=max(threads, REMOTE_THREADS))
    epoch_bytes = split.layout.owned["tokens"].file_bytes(split.shard_videos) * split.shard_count
    kept = len(split.spec.layer_positions(layers)) / len(split.spec.layers)
    if epoch_bytes * kept > memory_bytes():
        return CacheReader(split, threads=max(threads, DIRECT_THREADS), direct=True)
    return CacheReader(split, threads=threads)


def memory_bytes() -> int:
    """Memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class ZarrReader(TokenReader):
    """Reads a split, wherever it lies, through zarr-python.

    Args:
        split: the split.
        threads: clips fetched at the same time.
        without: as for `CacheReader`.
    """

    def __init__(self, split: Split, *, threads: int = 2, without: Container[int] = ()) -> None:
        super().__init__(split, without=without)
        self._threads = threads
        groups = [open_group(part.path) for part in split.parts]
        names = [name for name in ("tokens", "scale", "embedding") if name in split.layout.owned]
        self._arrays: list[dict[str, Any]] = [  # of each part; opening one reads its metadata
            {name: group[name] for name in names} for group in groups
        ]
        self._lock = Lock()
        self._checked: dict[tuple[int, str, int], AnyArray] = {}
        self.how = f"zarr-python, {threads} clips at a time"

    def close(self) -> None:
        """End the reading threads."""
        if "_pool" in self.__dict__:
            self._pool.shutdown()
            del self.__dict__["_pool"]

    def embedding(self, rows: Sequence[int], views: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """float32 [clip frame embed], as `CacheReader.embedding`."""
        self.expect_stored(rows)
        self._expect_views(rows, views)
        spec = self.split.spec
        embedding = np.empty((len(rows), spec.sparse_frames, spec.embed), dtype=np.float16)
        for out, row, view in zip(embedding, rows, views, strict=True):
            self._take("embedding", (int(row), int(view)), out)
        return embedding.astype(np.float32)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._threads, thread_name_prefix="zarr-read")

    def _fill(
        self,
        part: Codes,
        rows: Sequence[int],
        views: Sequence[int],
        positions: Sequence[int],
        frames: Places | None,
    ) -> None:
        targets = {"tokens": part.codes.numpy()}
        if part.scale is not None:
            targets["scale"] = part.scale.numpy()
        list(self._pool.map(partial(self._clip, targets, rows, views, positions, frames), range(len(rows))))

    def _clip(
        self,
        targets: dict[str, AnyArray],
        rows: Sequence[int],
        views: Sequence[int],
        positions: Sequence[int],
        frames: Places | None,
        clip: int,
    ) -> None:
        row, view = int(rows[clip]), int(views[clip])
        for name, target in targets.items():
            for first, end in _stretches(positions):
                place = (row, view, slice(positions[first], positions[end - 1] + 1))
                if frames is None:
                    self._take(name, place, target[clip, first:end])
                else:
                    whole = np.empty((end - first, *self._arrays[0][name].shape[3:]), dtype=target.dtype)
                    self._take(name, place, whole)
                    np.take(whole, np.asarray(frames[clip], dtype=np.int64), axis=1, out=target[clip, first:end])

    def _take(self, name: str, place: tuple[Any, ...], out: AnyArray) -> None:
        """Read a basic selection into contiguous memory."""
        row, view = place[:2]
        self._expect_present(name, row, view, place[2] if len(place) > 2 else slice(0, 1))
        where = f"{self.split.path}/{name}: video {self.split.video_ids[row]}, view {view}"
        try:
            part, within = self.split.part_of(view)
            chosen = (row, within, *place[2:])
            self._arrays[part][name].get_basic_selection(chosen, out=default_buffer_prototype().nd_buffer(out))
        except ValueError as error:  # zarr-python's word for a crc that differs
            raise CacheCorrupt(f"{where}: {error}. {REMEDY}") from error
        except store_errors() as error:
            raise CacheError(f"{where}: cannot be read ({type(error).__name__}: {error})") from error

    def _expect_present(self, name: str, row: int, view: int, layers: slice) -> None:
        part, number = self.split.part_of(view)
        array = self.split.parts[part].layout.owned[name]
        shard, within = divmod(row, self.split.shard_videos)
        with self._lock:
            if (part, name, shard) not in self._checked:
                self._checked[part, name, shard] = self._index(self.split.parts[part], array, shard)
        single = name == "embedding"  # its chunks have no layer
        slots = [
            array.slot(within, number, *(() if single else (layer,))) for layer in range(layers.start, layers.stop)
        ]
        if (self._checked[part, name, shard][slots] == ABSENT).any():
            path = self.split.parts[part].path
            where = f"{path}/{array.key(shard)}: video {self.split.video_ids[row]}, view {view}"
            raise CacheCorrupt(f"{where}: stored, but absent from the shard's index. {REMEDY}")

    def _index(self, part: Split, array: ArrayLayout, shard: int) -> AnyArray:
        """Offsets by slot of one shard's file."""
        path = part.path / array.key(shard)
        data_bytes = array.file_bytes(len(part.layout.rows(shard))) - array.index_bytes
        try:
            if is_remote(path):
                raw = path.read_end(array.index_bytes)
            else:
                file_bytes = data_bytes + array.index_bytes
                with opened(path, exactly=file_bytes, error=CacheCorrupt, remedy=REMEDY) as file:
                    file.seek(data_bytes)
                    raw = file.read()
        except FileNotFoundError as error:
            raise CacheCorrupt(f"{path}: the file is missing though its shard is finished. {REMEDY}") from error
        offsets: AnyArray = parse_index(raw, data_bytes, array, str(path))[:, 0]
        return offsets


def _stretches(positions: Sequence[int]) -> list[tuple[int, int]]:
    """[first, end) of neighbouring positions: 0 1 2 5 6 -> (0, 3), (3, 5)."""
    breaks = [i for i in range(1, len(positions)) if positions[i] != positions[i - 1] + 1]
    edges = [0, *breaks, len(positions)]
    return [(first, end) for first, end in pairwise(edges) if end > first]

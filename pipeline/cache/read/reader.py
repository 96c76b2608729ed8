"""Reading: exactly the chunks that are asked for, straight into the batch's buffer.

    rows, views, layers ──▶ (file, offset) per chunk ──▶ sorted, neighbours joined ──▶ preadv from a few threads
                                                              chunk│crc│chunk│crc │ ──▶ buffer, crc32c compared

Up to the system call everything is arithmetic on whole arrays: a batch of 32 clips and 12 layers is 768 chunks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cached_property, partial
from typing import Any

import numpy as np

from vidxfer.pipeline.cache.layout import AnyArray, ArrayLayout
from vidxfer.pipeline.cache.read.batch import Codes, Places, TokenReader
from vidxfer.pipeline.cache.read.files import OpenFile, OpenFiles
from vidxfer.pipeline.cache.read.runs import ChunkRun, Wanted, read_run, runs_of
from vidxfer.pipeline.cache.remote import local_folder
from vidxfer.pipeline.cache.shard import ABSENT, REMEDY
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.errors import CacheCorrupt

SHARDS_AT_ONCE = 64  # in use: up to twice as many files


class CacheReader(TokenReader):
    """Reads a split in a local folder with positional reads.

    Args:
        split: the split; see `open_split`.
        threads: concurrent reads, 2 to 4; the caller's is one of them.
        verify: compare every chunk's crc32c (0.1 CPU-seconds per GB).
        without: finished shards that are left out, as `check.unreadable_states` names them.
        direct: read tokens past the system's file cache (O_DIRECT): less work for the CPU, and nothing stays in memory
            for the next epoch. Where the file system cannot, it is read as usual.
    """

    def __init__(
        self,
        split: Split,
        *,
        threads: int = 2,
        verify: bool = True,
        without: Container[int] = (),
        direct: bool = False,
    ) -> None:
        super().__init__(split, without=without)
        self._threads = threads
        self._verify = verify
        self._folders = [local_folder(part.path) for part in split.parts]
        self._files = OpenFiles(direct=direct)
        self.how = f"own reads, {threads} threads" + (", past the file cache" if direct else "")

    def close(self) -> None:
        """End the reading threads and close the files; reading again opens them again."""
        if "_pool" in self.__dict__:
            self._pool.shutdown()
            del self.__dict__["_pool"]
        self._files.close()

    def embedding(self, rows: Sequence[int], views: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """float32 [clip frame embed]: the projected CLIP image embeddings of one view per clip. Raises as `read`."""
        self.expect_stored(rows)
        self._expect_views(rows, views)
        spec = self.split.spec
        embedding = np.empty((len(rows), spec.sparse_frames, spec.embed), dtype=np.float16)
        if len(rows):
            self._fetch({"embedding": embedding}, np.asarray(rows), [np.asarray(views)], None)
        return embedding.astype(np.float32)

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
        layers = len(positions)
        each = None if frames is None else np.repeat(np.asarray(frames, dtype=np.int64), layers, axis=0)
        inner = [np.repeat(np.asarray(views), layers), np.tile(np.asarray(positions), len(rows))]
        self._fetch(targets, np.repeat(np.asarray(rows), layers), inner, each)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max(1, self._threads - 1), thread_name_prefix="cache-read")

    def _fetch(
        self, targets: dict[str, AnyArray], rows: AnyArray, inner: list[AnyArray], frames: AnyArray | None
    ) -> None:
        """Fill each array with the chunks at (row, view …), in that order; few shards are in use at a time."""
        wanted = {name: self._wanted(name, target, rows, inner, frames) for name, target in targets.items()}
        part_of = np.searchsorted(self.split.first_views, inner[0], side="right") - 1
        within = [inner[0] - self.split.first_views[part_of], *inner[1:]]
        shard_of = part_of * self.split.shard_count + rows // self.split.shard_videos
        shards = np.unique(shard_of).tolist()
        for first in range(0, len(shards), SHARDS_AT_ONCE):
            in_use: list[OpenFile] = []
            try:
                runs: deque[ChunkRun] = deque()
                for name in targets:
                    for shard in shards[first : first + SHARDS_AT_ONCE]:
                        part, number = divmod(shard, self.split.shard_count)
                        layout = self.split.parts[part].layout
                        array = layout.owned[name]
                        in_use.append(self._files.take(self._folders[part], layout, array, number))
                        places = np.flatnonzero(shard_of == shard)
                        offsets = self._offsets(array, in_use[-1], wanted[name], places, rows, within)
                        runs += runs_of(wanted[name], in_use[-1], places, offsets)
                self._read_all(runs)
            finally:
                for file in in_use:
                    self._files.give_back(file)

    def _wanted(
        self, name: str, target: AnyArray, rows: AnyArray, inner: list[AnyArray], frames: AnyArray | None
    ) -> Wanted:
        raw = target.reshape(-1).view(np.uint8)
        return Wanted(
            target=raw.data,
            chunk_bytes=self.split.layout.owned[name].chunk_bytes,
            place_bytes=len(raw) // len(rows),
            frames=frames,
            stored_frames=self.split.spec.sparse_frames,
            where=partial(self._where, name, rows, inner),
            verify=self._verify,
        )

    def _offsets(
        self,
        array: ArrayLayout,
        file: OpenFile,
        wanted: Wanted,
        places: AnyArray,
        rows: AnyArray,
        inner: list[AnyArray],
    ) -> AnyArray:
        """int64 [place]: where in the file each place's chunk begins."""
        within = rows[places] % self.split.shard_videos
        slots = np.ravel_multi_index((within, *(axis[places] for axis in inner)), array.grid[: 1 + len(inner)])
        offsets = file.offsets[slots]
        if (absent := np.flatnonzero(offsets == ABSENT)).size:
            where = wanted.where(int(places[absent[0]]))
            raise CacheCorrupt(f"{where}: stored, but absent from the shard's index. {REMEDY}")
        return offsets.astype(np.int64)

    def _read_all(self, runs: deque[ChunkRun]) -> None:
        """All runs, from several threads that each take the next one; the first error ends them all."""

        def work() -> None:
            while True:
                try:
                    run = runs.popleft()
                except IndexError:
                    return
                try:
                    read_run(run)
                except BaseException:
                    runs.clear()
                    raise

        others = min(self._threads, len(runs)) - 1
        futures = [self._pool.submit(work) for _ in range(others)]
        try:
            work()
        finally:
            wait(futures)  # all of them, before the files are given back
        for future in futures:
            future.result()

    def _where(self, name: str, rows: AnyArray, inner: list[AnyArray], place: int) -> str:
        """File, video, view and layer of a place, for people."""
        row = int(rows[place])
        part = self.split.parts[self.split.part_of(int(inner[0][place]))[0]]
        path = part.path / part.layout.owned[name].key(row // part.shard_videos)
        words = f"{path}: video {self.split.video_ids[row]}, view {inner[0][place]}"
        return words + (f", layer {self.split.spec.layers[inner[1][place]]}" if len(inner) > 1 else "")

"""Reading: exactly the chunks that are asked for, straight into the batch's buffer.

    rows, views, layers ──▶ (file, offset) per chunk ──▶ sorted, neighbours joined ──▶ preadv from a few threads
                                                              chunk│crc│chunk│crc │ ──▶ buffer, crc32c compared

Files are opened per call: a cache has more files than a process may hold open.
"""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from vidxfer.pipeline.cache.layout import AnyArray, ArrayLayout
from vidxfer.pipeline.cache.rows import Rows
from vidxfer.pipeline.cache.runs import Piece, read_run, runs_of
from vidxfer.pipeline.cache.shard import ABSENT, REMEDY, read_index
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.errors import CacheCorrupt, CacheError
from vidxfer.pipeline.shapes import _PrintsShapes, expect

SHARDS_AT_ONCE = 64  # open files: up to twice as many


@dataclass(frozen=True, repr=False, kw_only=True)
class Codes(_PrintsShapes):
    """Tokens of a batch as they are stored; a `Dequantiser` makes them numbers.

    Attributes:
        codes: int8 or float16 [clip layer frame token channel].
        scale: float16 [clip layer frame token]; None for float16 codes.
    """

    codes: Tensor
    scale: Tensor | None

    def __post_init__(self) -> None:
        seen = expect("codes", self.codes, "clip layer frame token channel")
        if self.scale is not None:
            del seen["channel"]
            expect("scale", self.scale, "clip layer frame token", **seen)


class CacheReader(Rows):
    """Reads a split with positional reads. Safe to use from several threads; close it, or use it in a `with` block.

    Args:
        split: the split; see `open_split`.
        threads: concurrent reads, 2 to 4.
        verify: compare every chunk's crc32c (0.1 CPU-seconds per GB).
        without: finished shards that are left out, as `check.unreadable_states` names them.
    """

    def __init__(self, split: Split, *, threads: int = 2, verify: bool = True, without: Container[int] = ()) -> None:
        super().__init__(split, without=without)
        self._threads = threads
        self._verify = verify
        self._indices: dict[tuple[str, int], np.ndarray[Any, np.dtype[np.uint64]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the reading threads."""
        if "_pool" in self.__dict__:
            self._pool.shutdown()
            del self.__dict__["_pool"]

    def buffer(self, clips: int, layers: Sequence[int] | None = None) -> Codes:
        """A buffer for batches of up to `clips` clips, pinned where there is a GPU; reuse saves page faults."""
        spec = self.split.spec
        shape = (clips, len(spec.layer_positions(layers)), spec.sparse_frames, spec.tokens, spec.channels)
        pinned = torch.cuda.is_available()
        if spec.codec == "float16":
            return Codes(codes=torch.empty(shape, dtype=torch.float16, pin_memory=pinned), scale=None)
        return Codes(
            codes=torch.empty(shape, dtype=torch.int8, pin_memory=pinned),
            scale=torch.empty(shape[:-1], dtype=torch.float16, pin_memory=pinned),
        )

    def read(
        self,
        rows: Sequence[int],
        views: Sequence[int],
        layers: Sequence[int] | None = None,
        *,
        out: Codes | None = None,
    ) -> Codes:
        """Read one view per clip.

        Args:
            rows, views: row and stored view of each clip.
            layers: layer numbers in the order wanted; None for all.
            out: a `buffer` with room for as many clips; the result is its first part and is overwritten by the next
                read into it. None allocates.

        Raises:
            CacheIncomplete: a row is not stored.
            CacheCorrupt: a file is missing or cut off, or a chunk does not match its crc32c.
            CacheError: a layer is not in the cache.
        """
        self.expect_stored(rows)
        self._expect_views(rows, views)
        positions = self.split.spec.layer_positions(layers)
        full = self.buffer(len(rows), layers) if out is None else out
        if full.codes.shape[0] < len(rows) or full.codes.shape[1] != len(positions):
            raise ValueError(f"the buffer holds {tuple(full.codes.shape)}, needed [{len(rows)} {len(positions)} ...]")
        part = Codes(codes=full.codes[: len(rows)], scale=None if full.scale is None else full.scale[: len(rows)])
        targets = {"tokens": part.codes.numpy()}
        if part.scale is not None:
            targets["scale"] = part.scale.numpy()
        places = [(row, view, p) for row, view in zip(rows, views, strict=True) for p in positions]
        self._fetch(targets, places)
        return part

    def embedding(self, rows: Sequence[int], views: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """float32 [clip frame embed]: the projected CLIP image embeddings of one view per clip. Raises as `read`."""
        self.expect_stored(rows)
        self._expect_views(rows, views)
        spec = self.split.spec
        found = np.empty((len(rows), spec.sparse_frames, spec.embed), dtype=np.float16)
        self._fetch({"embedding": found}, list(zip(rows, views, strict=True)))
        return found.astype(np.float32)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._threads, thread_name_prefix="cache-read")

    def _fetch(self, targets: dict[str, AnyArray], places: Sequence[tuple[int, ...]]) -> None:
        """Fill each array with the chunks at `places` (row, view ...), in that order; few shards are open at a time."""
        by_shard: dict[int, list[int]] = {}
        for i, place in enumerate(places):
            by_shard.setdefault(int(place[0]) // self.split.shard_videos, []).append(i)
        shards = sorted(by_shard)
        for first in range(0, len(shards), SHARDS_AT_ONCE):
            with ExitStack() as files:
                pieces: list[Piece] = []
                for shard in shards[first : first + SHARDS_AT_ONCE]:
                    for name, target in targets.items():
                        pieces += self._pieces(name, shard, target, places, by_shard[shard], files)
                self._read_runs(runs_of(pieces))

    def _pieces(
        self,
        name: str,
        shard: int,
        target: AnyArray,
        places: Sequence[tuple[int, ...]],
        wanted: Sequence[int],
        files: ExitStack,
    ) -> list[Piece]:
        """What is to be read from one file: the places numbered `wanted`, each into its part of `target`."""
        array = self.split.layout.owned[name]
        raw, chunk_bytes = target.reshape(-1).view(np.uint8).data, array.chunk_bytes
        fd, first_row = self._open(array, shard, files), shard * self.split.shard_videos
        offsets = self._indices[name, shard]
        pieces = []
        for i in wanted:
            row, *inner = places[i]
            piece = Piece(
                fd=fd,
                offset=int(offsets[array.slot(int(row) - first_row, *inner), 0]),
                target=raw[i * chunk_bytes : (i + 1) * chunk_bytes],
                split=self.split,
                array=array,
                row=int(row),
                inner=inner,
            )
            if piece.offset == ABSENT:
                raise CacheCorrupt(f"{piece.where}: stored, but absent from the shard's index. {REMEDY}")
            pieces.append(piece)
        return pieces

    def _read_runs(self, runs: Sequence[Sequence[Piece]]) -> None:
        if len(runs) == 1:
            read_run(runs[0], self._verify)
            return
        futures = [self._pool.submit(read_run, run, self._verify) for run in runs]
        wait(futures)  # all of them, before the files are closed
        for future in futures:
            future.result()

    def _open(self, array: ArrayLayout, shard: int, files: ExitStack) -> int:
        """Open a shard's file, and read its index the first time."""
        path = self.split.path / array.key(shard)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            files.callback(os.close, fd)
            if (array.name, shard) not in self._indices:
                self._indices[array.name, shard] = read_index(fd, array, str(path))
        except FileNotFoundError as error:
            raise CacheCorrupt(f"{path}: the file is missing though its shard is finished. {REMEDY}") from error
        except OSError as error:
            raise CacheError(f"{path}: cannot be read ({os.strerror(error.errno or 0)})") from error
        return fd

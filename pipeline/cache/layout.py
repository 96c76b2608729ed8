"""Where each number of a split lies on disk: shapes, files, slots and bytes. Arithmetic only.

    tokens/c/<shard>/0/0/0/0/0      one file = shard_videos × all views × all layers

      slot 0          slot 1                   slot n-1      index
    ┌─────────┬───┬─────────┬───┬─ ─ ─ ─ ─┬─────────┬───┬──────────────────────┬───┐
    │ chunk   │crc│ chunk   │crc│         │ chunk   │crc│ (offset, bytes) × S  │crc│
    └─────────┴───┴─────────┴───┴─ ─ ─ ─ ─┴─────────┴───┴──────────────────────┴───┘

A chunk's slot follows from (video, view, layer) alone, so a file's bytes do not depend on the order in which its videos
arrived, and its length is known beforehand. Slots of failed videos are holes whose index entry says "absent". Arrays
that are not sharded hold the rows of one shard per file, padded with zeros, with one crc behind them.

Dense frames are `packed`: compressed chunks of any length, one behind the other in the order of the slots. The index
says where; the length of the file follows from the shard's ledger line (`SplitLayout.file_bytes`).
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from vidxfer.pipeline.cache.frames import FrameStore
from vidxfer.pipeline.cache.spec import CacheSpec

PENDING, STORED, FAILED = 0, 1, 2
"""Values of the `state` array."""

MAY_LACK = ("source_file",)
"""Arrays that came after 0.1.0. A shard that it wrote has no file of them, and no ledger line counts their bytes: from
those and the other files 0.1.0 finds the length of the dense frames' file."""

GAP = 3
"""State of a row between two extents, which holds no video. It exists only in memory."""

MOST_BYTES = 1 << 30
"""Largest array that is read whole, and largest index. A file with larger sizes is no cache of ours."""

CRC_BYTES = 4
INDEX_ENTRY_BYTES = 16

AnyArray = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class ArrayLayout:
    """One array of a split.

    Attributes:
        name, dtype, axes, shape: as zarr knows them; numbers are little-endian, the fill value is zero.
        file_shape: the part of the array that one file holds.
        chunk_shape: for sharded arrays the part that one slot holds; else None.
        packed_bytes: chunks are compressed, and this is about what one takes; None: they are as long as their numbers.
    """

    name: str
    dtype: str
    axes: str
    shape: tuple[int, ...]
    file_shape: tuple[int, ...]
    chunk_shape: tuple[int, ...] | None = None
    packed_bytes: int | None = None

    @property
    def codecs(self) -> tuple[str, ...]:
        """Zarr's codecs of one checksummed unit."""
        return ("bytes", "crc32c") if self.packed_bytes is None else ("bytes", "zstd", "crc32c")

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The element type in the byte order of the disk."""
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one checksummed unit, unpacked and without its crc."""
        return prod(self.chunk_shape or self.file_shape) * self.numpy_dtype.itemsize

    @property
    def most_chunk_bytes(self) -> int:
        """Bytes that one slot can take on disk, crc included; zstd adds a little to what it cannot pack."""
        return self.chunk_bytes + CRC_BYTES + (0 if self.packed_bytes is None else self.chunk_bytes // 256 + 1024)

    @cached_property
    def grid(self) -> tuple[int, ...]:
        """Slots per file along each axis."""
        inner = self.chunk_shape or self.file_shape
        return tuple(outer // part for outer, part in zip(self.file_shape, inner, strict=True))

    @property
    def slots(self) -> int:
        """Slots per file."""
        return prod(self.grid)

    @property
    def index_bytes(self) -> int:
        """Bytes of the index at the end of a sharded file, its crc included."""
        return self.slots * INDEX_ENTRY_BYTES + CRC_BYTES if self.chunk_shape else 0

    def slot(self, *place: int) -> int:
        """The slot, in C order, of the chunk at `place` (row within the shard, then view, layer ...)."""
        slot = 0
        for i, parts in enumerate(self.grid):  # numpy's ravel_multi_index is ten times slower, and this runs per chunk
            slot = slot * parts + (place[i] if i < len(place) else 0)
        return slot

    def offset(self, slot: int) -> int:
        """Byte at which a slot begins."""
        return slot * (self.chunk_bytes + CRC_BYTES)

    def key(self, shard: int) -> str:
        """The shard's file, relative to the split's folder."""
        return "/".join([self.name, "c", str(shard), *["0"] * (len(self.shape) - 1)])

    def file_bytes(self, rows: int) -> int:
        """Length of the file of a shard that has `rows` videos; of a packed array about that."""
        if self.chunk_shape is None:
            return self.chunk_bytes + CRC_BYTES
        if self.packed_bytes is not None:
            chunks = self.slots // self.file_shape[0] * rows
            return chunks * (self.packed_bytes + CRC_BYTES) + self.index_bytes
        return self.offset(self.slots // self.file_shape[0] * rows) + self.index_bytes


@dataclass(frozen=True, kw_only=True)
class SplitLayout:
    """All arrays of a split.

    Attributes:
        spec: the cache's settings.
        videos, classes: rows of the split, classes of the data set.
        shard_videos: rows per shard; the last shard may have fewer.
        extents: (first row, end) of each run of rows that hold videos; None: all rows do. Videos that came later begin
            at a shard of their own, so that no finished shard is touched; the rows before it are a gap.
        frames: how dense frames are kept; None: they are not.
        identities: for each video stands which file it was read from (video/identity.py).
    """

    spec: CacheSpec
    videos: int
    classes: int
    shard_videos: int
    extents: tuple[tuple[int, int], ...] | None = None
    frames: FrameStore | None = None
    identities: bool = False

    def __post_init__(self) -> None:
        if self.videos < 1 or self.shard_videos < 1:
            raise ValueError(f"videos={self.videos} and shard_videos={self.shard_videos} must be at least 1")
        next_row = 0
        for first_row, end in self.extents or ((0, self.videos),):
            if first_row != next_row or end <= first_row:
                raise ValueError(f"extents={self.extents}: expected one that begins at row {next_row} and is not empty")
            next_row = self.next_shard_row(end)
        if end != self.videos:
            raise ValueError(f"extents={self.extents} end at row {end}, but there are {self.videos} rows")

    @property
    def shard_count(self) -> int:
        """Number of shards."""
        return -(-self.videos // self.shard_videos)

    def next_shard_row(self, row: int) -> int:
        """`row`, or the first row of the next shard where `row` is not the first of its own."""
        return -(-row // self.shard_videos) * self.shard_videos

    def rows(self, shard: int) -> range:
        """The rows of a shard that hold videos: its first ones, since every extent begins with a shard."""
        if not 0 <= shard < self.shard_count:
            raise ValueError(f"shard {shard} does not exist: there are {self.shard_count}")
        first_row, ends = shard * self.shard_videos, [end for _, end in self.extents or ((0, self.videos),)]
        return range(first_row, min(first_row + self.shard_videos, next(end for end in ends if end > first_row)))

    def shard_bytes(self, shard: int) -> int:
        """Bytes of all files of one shard; with dense frames about that."""
        rows = len(self.rows(shard))
        return sum(array.file_bytes(rows) for array in self.owned.values() if array.name not in MAY_LACK)

    def file_bytes(self, array: ArrayLayout, shard: int, written_bytes: int) -> int:
        """Length of an array's file of a finished shard; all its files have `written_bytes`, as the ledger says."""
        rows = len(self.rows(shard))
        if array.packed_bytes is None:
            return array.file_bytes(rows)
        counted = [owned for owned in self.owned.values() if owned.packed_bytes is None and owned.name not in MAY_LACK]
        return written_bytes - sum(owned.file_bytes(rows) for owned in counted)

    def arrays_of(self, written: Container[str]) -> list[ArrayLayout]:
        """The arrays of which a finished shard has a file; `written`: those with a checksum in its ledger line."""
        return [array for array in self.owned.values() if array.name not in MAY_LACK or array.name in written]

    @property
    def total_bytes(self) -> int:
        """Bytes of all files of all shards; with dense frames about that."""
        total = 0
        for first_row, end in self.extents or ((0, self.videos),):
            first, last = first_row // self.shard_videos, (end - 1) // self.shard_videos
            total += self.shard_bytes(first) * (last - first) + self.shard_bytes(last)
        return total

    @property
    def fixed_bytes(self) -> int:
        """Bytes of the arrays that are written once, when the split is made."""
        return sum(array.chunk_bytes for array in self.fixed.values())

    @property
    def inodes(self) -> int:
        """Files and folders of the finished split, with what lies beside it."""
        folders = sum(len(array.shape) - 1 for array in self.owned.values()) * self.shard_count
        arrays = len(self.owned) * (3 + self.shard_count)  # its folder, "c", zarr.json, one file per shard
        fixed = sum(3 + len(array.shape) for array in self.fixed.values())  # as above, folders within "c", one file
        return folders + arrays + fixed + 4 + 4  # video_id; the group, its zarr.json, ledger and lock

    @cached_property
    def owned(self) -> dict[str, ArrayLayout]:
        """The arrays written shard by shard; `state` is the last, because it is written last."""
        spec, videos, views = self.spec, self.videos, self.spec.stored_views
        layers, frames = len(spec.layers), spec.sparse_frames
        form, scale = spec.form, spec.form.scale_shape(spec.channels)
        per_token = (videos, views, layers, frames, form.code_tokens(spec.tokens, spec.channels))
        plain_codes = spec.codec in ("int8", "float16")
        sharded = [
            ("tokens", form.code_dtype, f"video view layer frame token {'channel' if plain_codes else 'code'}",
             (*per_token, form.code_width(spec.channels)), 3),
            ("scale", "float16", "video view layer frame token" + " group" * len(scale or ()),
             (*per_token, *(scale or ())), 3),
            ("embedding", "float16", "video view frame embed", (videos, views, frames, spec.embed), 2),
        ]  # fmt: skip
        plain = [
            ("frame_index", "int32", "video view dense", (videos, views, spec.sampling.dense_frames)),
            ("crop", "float32", "video view box", (videos, views, 4)),
            ("resize_first", "bool", "video view", (videos, views)),
            ("flip", "bool", "video view", (videos, views)),
            ("grey", "bool", "video view", (videos, views)),
            ("frame_count", "int32", "video", (videos,)),
            ("source_px", "int32", "video side", (videos, 2)),
            *[("source_file", "int64", "video part", (videos, 3))] * self.identities,
            ("state", "uint8", "video", (videos,)),
        ]
        dense, kept_axis = (videos, views, 0), ""
        if self.frames is not None:
            dense = (videos, views, self.frames.most_kept(spec.sampling.dense_frames, spec.sampling.alpha))
            kept_axis = "kept" if self.frames.window else "dense"
            plain[:0] = [("frame_bytes", "int32", f"video view {kept_axis}", dense)]
        arrays = [
            self._array(name, dtype, axes, shape, single=single)
            for name, dtype, axes, shape, single in sharded
            if name != "scale" or scale is not None
        ]
        if self.frames is not None:
            shape = (*dense, self.frames.most_bytes)
            kept = self._array("frames", "uint8", f"video view {kept_axis} byte", shape, single=2)
            arrays.append(replace(kept, packed_bytes=self.frames.expected_bytes(dense[-1], spec.sampling.image_px)))
        arrays += [self._array(name, dtype, axes, shape, single=0) for name, dtype, axes, shape in plain]
        return {array.name: array for array in arrays}

    @cached_property
    def fixed(self) -> dict[str, ArrayLayout]:
        """The arrays written once, when the split is made; each is one file."""
        layers = len(self.spec.layers)
        arrays = [
            ("channel_mean", "float32", "layer channel", (layers, self.spec.channels)),
            ("channel_std", "float32", "layer channel", (layers, self.spec.channels)),
            *[("text", "float32", "class embed", (self.classes, self.spec.embed))] * (not self.spec.textless),
            ("label", "int32", "video", (self.videos,)),
            *((name, "float32", axes, shape) for name, (axes, shape) in self.spec.fitted_shapes.items()),
        ]
        return {name: ArrayLayout(name=name, dtype=d, axes=a, shape=s, file_shape=s) for name, d, a, s in arrays}

    def _array(self, name: str, dtype: str, axes: str, shape: tuple[int, ...], *, single: int) -> ArrayLayout:
        """`single` leading axes have length 1 in a chunk; 0 means not sharded."""
        array = ArrayLayout(name=name, dtype=dtype, axes=axes, shape=shape, file_shape=(self.shard_videos, *shape[1:]))
        return replace(array, chunk_shape=(1,) * single + shape[single:]) if single else array

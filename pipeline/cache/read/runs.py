"""Positional reads: neighbouring chunks in one system call, each checked against the crc32c behind it.

    offsets ── sorted, neighbours joined ──▶ runs

    preadv ──▶ piece 0 │crc│ piece 1 │crc│ ...        straight: pieces go to the batch's buffer, crcs to a scratch one
    pread  ──▶ ...piece 0 crc piece 1 crc... ──copy   through scratch: some frames of a chunk, or past the file cache

A crc covers a chunk, so a chunk of which some frames are wanted is read and checked whole. Without checking, only the
wanted frames are read.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import local
from typing import Any

import numpy as np
from crc32c import crc32c

from vidxfer.pipeline.cache.layout import CRC_BYTES, AnyArray
from vidxfer.pipeline.cache.read.files import ALIGNED_BYTES, OpenFile
from vidxfer.pipeline.cache.shard import REMEDY
from vidxfer.pipeline.errors import CacheCorrupt

RUN_BYTES_MOST = 16 << 20  # one thread's stretch of a file: long ones let the system read ahead
CALL_BYTES_MOST = 1 << 20  # of one system call (or one chunk): checked while it is still in the CPU's cache
DIRECT_BYTES_MOST = 4 << 20  # of one call past the file cache: nothing is read ahead there
CALL_PIECES_MOST = 256  # two buffers each; Linux takes 1024 per call

_scratch = local()


@dataclass(frozen=True, kw_only=True, eq=False)
class Wanted:
    """Chunks of one array that a batch wants.

    Attributes:
        target: uint8, the batch's memory; place i begins at i * place_bytes.
        chunk_bytes: of a chunk on disk, without its crc.
        place_bytes: of what is kept of it.
        frames: int64 [place frame]: which frames of a chunk are kept; None: all.
        stored_frames: frames of a chunk.
        where: says which chunk place i is, for people.
        verify: compare crcs.
    """

    target: memoryview
    chunk_bytes: int
    place_bytes: int
    frames: AnyArray | None
    stored_frames: int
    where: Callable[[int], str]
    verify: bool

    def kept(self, place: int) -> memoryview:
        """The memory of one place."""
        return self.target[place * self.place_bytes : (place + 1) * self.place_bytes]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ChunkRun:
    """Neighbouring chunks of one file: the first begins at `offset`; `places` says where each goes."""

    file: OpenFile
    wanted: Wanted
    offset: int
    places: list[int]


def runs_of(wanted: Wanted, file: OpenFile, places: AnyArray, offsets: AnyArray) -> list[ChunkRun]:
    """Chunks of one file sorted by offset, neighbours joined up to the two limits.

    Args:
        places: int64 [chunk], where each goes.
        offsets: int64 [chunk], where each begins in the file.
    """
    stride = wanted.chunk_bytes + CRC_BYTES
    most = max(1, RUN_BYTES_MOST // stride)
    order = np.argsort(offsets, kind="stable")
    sorted_offsets, sorted_places = offsets[order], places[order]
    starts = np.flatnonzero(np.diff(sorted_offsets, prepend=-1 - stride) != stride)
    runs = []
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        for first in range(start, end, most):
            part = sorted_places[first : min(first + most, end)].tolist()
            runs.append(ChunkRun(file=file, wanted=wanted, offset=int(sorted_offsets[first]), places=part))
    return runs


def read_run(run: ChunkRun) -> None:
    """Read the chunks of one run into their places and, where asked, check each.

    Raises:
        CacheCorrupt: the disk cannot read, the file ends too early, or a crc32c differs; names the chunk.
    """
    wanted, stride = run.wanted, run.wanted.chunk_bytes + CRC_BYTES
    if wanted.frames is not None and not wanted.verify and not run.file.direct:
        _read_frames(run, wanted.frames)
        return
    through_scratch = wanted.frames is not None or run.file.direct
    call_bytes = DIRECT_BYTES_MOST if run.file.direct else CALL_BYTES_MOST
    most = max(1, min(call_bytes // stride, CALL_PIECES_MOST))
    for first in range(0, len(run.places), most):
        part = replace(run, offset=run.offset + first * stride, places=run.places[first : first + most])
        if through_scratch:
            _read_through_scratch(part)
        else:
            _read_straight(part)


def _read_straight(run: ChunkRun) -> None:
    wanted = run.wanted
    crcs = memoryview(bytearray(CRC_BYTES * len(run.places)))
    buffers: list[memoryview] = []
    for i, place in enumerate(run.places):
        buffers += [wanted.kept(place), crcs[CRC_BYTES * i : CRC_BYTES * (i + 1)]]
    _preadv(run, buffers, run.offset)
    for i in range(len(run.places) if wanted.verify else 0):
        _expect_crc(run, i, buffers[2 * i], buffers[2 * i + 1])


def _read_through_scratch(run: ChunkRun) -> None:
    wanted, stride = run.wanted, run.wanted.chunk_bytes + CRC_BYTES
    first = run.offset - run.offset % ALIGNED_BYTES if run.file.direct else run.offset
    end = run.offset + stride * len(run.places)
    asked = -(-(end - first) // ALIGNED_BYTES) * ALIGNED_BYTES if run.file.direct else end - first
    scratch = _scratch_of(asked)
    _preadv(run, [scratch[:asked]], first, at_least=end - first)
    for i, place in enumerate(run.places):
        begin = run.offset - first + i * stride
        chunk = scratch[begin : begin + wanted.chunk_bytes]
        if wanted.verify:
            _expect_crc(run, i, chunk, scratch[begin + wanted.chunk_bytes : begin + stride])
        if wanted.frames is None:
            wanted.kept(place)[:] = chunk
        else:
            by_frame = np.frombuffer(chunk, dtype=np.uint8).reshape(wanted.stored_frames, -1)
            kept: AnyArray = np.frombuffer(wanted.kept(place), dtype=np.uint8).reshape(-1, by_frame.shape[1])
            np.take(by_frame, wanted.frames[place], axis=0, out=kept, mode="clip")


def _read_frames(run: ChunkRun, frames: AnyArray) -> None:
    """Only the wanted frames, each by itself: nothing is checked, and nothing else is read."""
    frame_bytes = run.wanted.chunk_bytes // run.wanted.stored_frames
    for i, place in enumerate(run.places):
        kept, offset = run.wanted.kept(place), run.offset + i * (run.wanted.chunk_bytes + CRC_BYTES)
        for position, frame in enumerate(frames[place].tolist()):
            _preadv(run, [kept[position * frame_bytes : (position + 1) * frame_bytes]], offset + frame * frame_bytes)


def _preadv(run: ChunkRun, buffers: Sequence[memoryview], offset: int, *, at_least: int | None = None) -> None:
    """Fill the buffers from `offset` on; with `at_least`, a file may end after so many bytes."""
    left = list(buffers)
    wanted_bytes = sum(map(len, left)) if at_least is None else at_least
    while wanted_bytes > 0:  # one call may read less than it was asked for
        try:
            read_bytes = os.preadv(run.file.fd, left, offset)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise CacheCorrupt(f"{run.wanted.where(run.places[0])}: cannot be read ({reason}). {REMEDY}") from error
        if not read_bytes:
            raise CacheCorrupt(f"{run.wanted.where(run.places[0])}: the file ends before the chunk. {REMEDY}")
        offset += read_bytes
        wanted_bytes -= read_bytes
        if wanted_bytes <= 0:
            return
        while left and read_bytes >= len(left[0]):
            read_bytes -= len(left.pop(0))
        if read_bytes:
            left[0] = left[0][read_bytes:]


def _expect_crc(run: ChunkRun, i: int, chunk: memoryview, crc: memoryview) -> None:
    if crc32c(chunk) != int.from_bytes(crc, "little"):
        raise CacheCorrupt(f"{run.wanted.where(run.places[i])}: the bytes do not match their crc32c. {REMEDY}")


def _scratch_of(size_bytes: int) -> memoryview:
    """This thread's own memory, aligned for O_DIRECT, grown when it must be and never given back."""
    held: Any = getattr(_scratch, "memory", None)
    if held is None or len(held) < size_bytes:
        held = _scratch.memory = mmap.mmap(-1, size_bytes)
    return memoryview(held)

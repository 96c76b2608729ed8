"""Positional reads: neighbouring chunks in one system call, each checked against the crc32c behind it.

preadv ──▶ piece 0 │crc│ piece 1 │crc│ ...      pieces go to the batch's buffer, crcs to a scratch one
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from vidxfer.pipeline.cache.layout import CRC_BYTES, ArrayLayout
from vidxfer.pipeline.cache.shard import REMEDY, crc_of
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.errors import CacheCorrupt

RUN_BYTES_MOST = 4 << 20  # large enough for the disk's full rate, small enough to checksum from the CPU's cache
RUN_PIECES_MOST = 256  # two buffers each; Linux takes 1024 per call


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One chunk to be read: from `offset` of the open file `fd` into `target`; the rest names it in errors."""

    fd: int
    offset: int
    target: memoryview
    split: Split
    array: ArrayLayout
    row: int
    inner: Sequence[int]

    @property
    def where(self) -> str:
        """File, video, view and layer, for people."""
        path = self.split.path / self.array.key(self.row // self.split.shard_videos)
        words = f"{path}: video {self.split.video_ids[self.row]}, view {self.inner[0]}"
        return words + (f", layer {self.split.spec.layers[self.inner[1]]}" if len(self.inner) > 1 else "")


def runs_of(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Pieces sorted by file and offset, neighbours joined up to the two limits."""
    runs: list[list[Piece]] = []
    end, joined_bytes = (-1, -1), 0
    for piece in sorted(pieces, key=lambda piece: (piece.fd, piece.offset)):
        piece_bytes = len(piece.target) + CRC_BYTES
        joined_bytes += piece_bytes
        if (piece.fd, piece.offset) != end or joined_bytes > RUN_BYTES_MOST or len(runs[-1]) == RUN_PIECES_MOST:
            runs.append([])
            joined_bytes = piece_bytes
        runs[-1].append(piece)
        end = (piece.fd, piece.offset + piece_bytes)
    return runs


def read_run(run: Sequence[Piece], verify: bool) -> None:
    """Read the pieces of one run and, with `verify`, check each.

    Raises:
        CacheCorrupt: the disk cannot read, the file ends too early, or a crc32c differs; names the piece.
    """
    crcs = memoryview(bytearray(CRC_BYTES * len(run)))
    buffers: list[memoryview] = []
    for i, piece in enumerate(run):
        buffers += [piece.target, crcs[CRC_BYTES * i : CRC_BYTES * (i + 1)]]
    offset = run[0].offset
    while buffers:  # one call may read less than it was asked for
        try:
            read_bytes = os.preadv(run[0].fd, buffers, offset)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise CacheCorrupt(f"{run[0].where}: cannot be read ({reason}). {REMEDY}") from error
        if not read_bytes:
            raise CacheCorrupt(f"{run[0].where}: the file ends before the chunk. {REMEDY}")
        offset += read_bytes
        while buffers and read_bytes >= len(buffers[0]):
            read_bytes -= len(buffers.pop(0))
        if read_bytes:
            buffers[0] = buffers[0][read_bytes:]
    for i, piece in enumerate(run if verify else ()):
        if crc_of(piece.target) != crcs[CRC_BYTES * i : CRC_BYTES * (i + 1)]:
            raise CacheCorrupt(f"{piece.where}: the bytes do not match their crc32c. {REMEDY}")

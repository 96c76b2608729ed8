"""Where the samples of an mp4 or mov lie: its tables are read, not its samples.

    moov ─▶ trak ─▶ stsz sizes, stsc samples per chunk, stco/co64 chunks ─▶ the first sample that ends behind the file
    moof ─▶ traf ─▶ tfhd, trun: the same for the samples of one fragment

Sound whose samples are all of one size is not looked at: how many bytes those take depends on its codec.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

TABLE_BYTES_MOST = 1 << 26
"""A moov or moof beyond that is not read; nothing is then known of its samples."""

BOXES_MOST = 100_000
INT64 = np.dtype(np.int64)


@dataclass(frozen=True, kw_only=True)
class Box:
    """Type, first byte, first byte of the content, and the end that it states, which may lie behind the data's."""

    kind: bytes
    start: int
    content: int
    end: int


@dataclass(kw_only=True)
class Track:
    """A track on the way through the tables: what it shows, its default size, and how many samples were counted."""

    pictures: bool
    sound: bool
    default_bytes: int = 0
    counted: int = 0


@dataclass(kw_only=True)
class Samples:
    """What the tables say so far.

    Attributes:
        file_bytes: length of the file.
        known: whether any sample was found.
        lost: the first one beyond the end, in words.
    """

    file_bytes: int
    known: bool = False
    lost: str | None = None
    tracks: dict[int, Track] = field(default_factory=dict)

    def lose(self, track: Track, number: int, end: int) -> None:
        """Note that sample `number`, counted from 0, ends behind the file; the first picture noted stays."""
        if self.lost is None or (track.pictures and not self.lost.startswith("picture")):
            sample_kind = "picture" if track.pictures else "a sample of another stream than the pictures,"
            where = f"number {number + 1} in the order of its bytes,"
            self.lost = f"{sample_kind} {where} ends at byte {end}, the file at byte {self.file_bytes}: cut off"


def boxes(data: bytes, start: int, end: int) -> Iterator[Box]:
    """The boxes one behind the other between two bytes; the last may state an end behind them."""
    for _ in range(BOXES_MOST):
        if start + 8 > end:
            return
        size, kind, content = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8], start + 8
        if size == 1:
            size, content = int.from_bytes(data[start + 8 : start + 16], "big"), start + 16
        size = size or end - start  # 0: to the end
        if size < content - start:
            return
        yield Box(kind=kind, start=start, content=content, end=start + size)
        start += size


def read_box(file: BinaryIO, start: int, end: int) -> bytes | None:
    """The bytes of a box; None where they are too many to be read."""
    if end - start > TABLE_BYTES_MOST:
        return None
    file.seek(start)
    return file.read(end - start)


def take_moov(moov: bytes, samples: Samples) -> None:
    """Find the samples that a whole moov lists, and what it says of fragments."""
    content = next(boxes(moov, 0, len(moov))).content
    for box in boxes(moov, content, len(moov)):
        if box.kind == b"trak":
            _take_track(moov[box.content : box.end], samples)
    for box in boxes(moov, content, len(moov)):
        for inner in boxes(moov, box.content, min(box.end, len(moov))) if box.kind == b"mvex" else ():
            if inner.kind == b"trex" and inner.end - inner.content >= 24:
                number, _, _, size = struct.unpack_from(">4I", moov, inner.content + 4)
                if number in samples.tracks:
                    samples.tracks[number].default_bytes = size


def _take_track(trak: bytes, samples: Samples) -> None:
    tables = dict(_leaves(trak, 0, len(trak)))
    header, handler = tables.get(b"tkhd", b""), tables.get(b"hdlr", b"")[8:12]
    if len(header) < 24:
        return
    number = int.from_bytes(header[20:24] if header[0] == 1 else header[12:16], "big")
    track = Track(pictures=handler == b"vide", sound=handler == b"soun")
    samples.tracks[number] = track
    one_bytes, sizes, count = _sizes(tables)
    track.counted = count
    if not count or (track.sound and sizes is None):
        return
    offsets, first, end = _chunks(tables, count)
    if not len(offsets):
        return
    samples.known = True
    ends = np.arange(0) if sizes is None else np.concatenate([np.zeros(1, INT64), np.cumsum(sizes, dtype=INT64)])
    chunk_bytes = (end - first) * one_bytes if sizes is None else ends[end] - ends[first]
    outside = np.flatnonzero((offsets + chunk_bytes > samples.file_bytes) & (chunk_bytes > 0))
    if len(outside):
        chunk = int(outside[0])
        offset, begin, stop = int(offsets[chunk]), int(first[chunk]), int(end[chunk])
        if sizes is None:
            within = max(0, samples.file_bytes - offset) // one_bytes
            samples.lose(track, begin + within, offset + (within + 1) * one_bytes)
        else:
            last_bytes = offset + ends[begin + 1 : stop + 1] - ends[begin]
            within = int(np.flatnonzero(last_bytes > samples.file_bytes)[0])
            samples.lose(track, begin + within, int(last_bytes[within]))


def _leaves(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    for box in boxes(data, start, end):
        if box.kind in (b"mdia", b"minf", b"stbl"):
            yield from _leaves(data, box.content, min(box.end, end))
        elif box.kind != b"stsd":
            yield box.kind, data[box.content : min(box.end, end)]


def _sizes(tables: dict[bytes, bytes]) -> tuple[int, np.ndarray[tuple[int], np.dtype[np.int64]] | None, int]:
    """(bytes of every sample or 0, bytes of each or None, how many) of a track."""
    table = tables.get(b"stsz", b"")
    if len(table) >= 12:
        sample_bytes, count = struct.unpack_from(">2I", table, 4)
        if sample_bytes:
            return sample_bytes, None, count
        sizes = _numbers(table[12:], ">u4")[:count]
        return 0, sizes, len(sizes)
    table = tables.get(b"stz2", b"")
    if len(table) < 12:
        return 0, None, 0
    bits, count = table[7], int.from_bytes(table[8:12], "big")
    if bits == 4:
        packed = _numbers(table[12:], ">u1")
        sizes = np.repeat(packed, 2)[:count] >> np.tile([4, 0], len(packed))[:count] & 15
    else:
        sizes = _numbers(table[12:], ">u2" if bits == 16 else ">u1")[:count]
    return 0, sizes, len(sizes)


def _chunks(tables: dict[bytes, bytes], count: int) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], ...]:
    """(first byte, first sample, end sample) of each chunk that holds one of `count` samples."""
    wide = b"co64" in tables
    offsets = _numbers(tables.get(b"co64" if wide else b"stco", b"")[8:], ">u8" if wide else ">u4")
    table = _numbers(tables.get(b"stsc", b"")[8:], ">u4")
    entries = table[: len(table) // 3 * 3].reshape(-1, 3)
    bounds = np.append(np.clip(entries[:, 0] - 1, 0, len(offsets)), len(offsets))
    if not len(entries) or (np.diff(bounds) < 0).any():
        return offsets[:0], offsets[:0], offsets[:0]
    offsets = offsets[bounds[0] :]
    end = np.minimum(np.cumsum(np.repeat(entries[:, 1], np.diff(bounds)), dtype=INT64), count)
    first = np.concatenate([np.zeros(1, INT64), end[:-1]])[: len(end)]
    return offsets[end > first], first[end > first], end[end > first]


def _numbers(table: bytes, kind: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    dtype = np.dtype(kind)
    return np.frombuffer(table, dtype, len(table) // dtype.itemsize).astype(INT64)


def take_moof(moof: bytes, start: int, samples: Samples) -> None:
    """Find the samples of one fragment, whose moof begins at byte `start` of the file."""
    content = next(boxes(moof, 0, len(moof))).content
    reached = start  # where the samples of the track before end
    for traf in boxes(moof, content, len(moof)):
        if traf.kind != b"traf":
            continue
        inner = list(boxes(moof, traf.content, min(traf.end, len(moof))))
        header = next((moof[box.content : box.end] for box in inner if box.kind == b"tfhd"), b"")
        if len(header) < 8:
            continue
        flags, number = struct.unpack_from(">2I", header)
        track = samples.tracks.get(number)
        if track is None:
            continue
        given = dict(_flagged(header[8:], flags, {0x1: 8, 0x2: 4, 0x8: 4, 0x10: 4}))
        base = given.get(0x1, start if flags & 0x20000 else reached)
        reached = base
        for box in inner:
            if box.kind == b"trun":
                reached = _take_run(moof[box.content : box.end], base, reached, given.get(0x10), track, samples)


def _take_run(run: bytes, base: int, reached: int, size: int | None, track: Track, samples: Samples) -> int:
    """Take one trun; returns where its samples end."""
    if len(run) < 8:
        return reached
    flags, count = struct.unpack_from(">2I", run)
    offset = 8
    if flags & 0x1:
        reached = base + int.from_bytes(run[offset : offset + 4], "big", signed=True)
        offset += 4
    offset += 4 * bool(flags & 0x4)
    columns = [bit for bit in (0x100, 0x200, 0x400, 0x800) if flags & bit]
    one_bytes = track.default_bytes if size is None else size
    if 0x200 in columns:
        sizes = _numbers(run[offset:], ">u4")[columns.index(0x200) :: len(columns)][:count]
        ends = reached + np.cumsum(sizes, dtype=INT64)
        outside = np.flatnonzero(ends > samples.file_bytes)
        within, reached = (int(outside[0]) if len(outside) else None), int(ends[-1]) if len(ends) else reached
        end = int(ends[within]) if within is not None else reached
    else:
        whole = (samples.file_bytes - reached) // one_bytes if one_bytes else count
        within = max(0, whole) if whole < count else None
        end = reached + ((within or 0) + 1) * one_bytes
        reached += count * one_bytes
    samples.known = samples.known or bool(count)
    if within is not None:
        samples.lose(track, track.counted + within, end)
    track.counted += count
    return reached


def _flagged(data: bytes, flags: int, widths: dict[int, int]) -> Iterator[tuple[int, int]]:
    """(flag, value) of each field whose flag is set, in order."""
    offset = 0
    for flag, width in widths.items():
        if flags & flag:
            yield flag, int.from_bytes(data[offset : offset + width], "big")
            offset += width

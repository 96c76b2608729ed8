"""Is the file all there? Read from its outermost boxes, without decoding: a container says how long it should be.

    mov, mp4       box size | type | …     a sample that ends behind the end of the file (boxes.py): cut off
                                           without tables of samples, an mdat, moov or moof that does
    matroska       EBML header | Segment size | …    a Segment of known size that does: cut off; up to 64 bytes are
                                           miscounted where its last element ends with the file
    avi            RIFF size                         the same, from 64 bytes on

A box that states too many bytes misses nothing while every sample lies inside the file.
A demuxer reads such a file up to the cut and then reports a normal end, so that frames would be missing in silence.
Not seen here: a cut file that does not state its size (MPEG-TS, a live recording), and holes inside the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from vidxfer.pipeline.video.boxes import Samples, boxes, read_box, take_moof, take_moov

FIRST_BOXES = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}
BOXES_THAT_COUNT = {b"mdat", b"moov", b"moof"}
BOXES_LOOKED_AT = 100_000
SLACK_BYTES = 64
"""Some writers miscount the header; so little is no cut where no track, cluster or sample is."""

TAKES: dict[bytes, Callable[[bytes, int, Samples], None]] = {
    b"moov": lambda table, start, samples: take_moov(table, samples),
    b"moof": take_moof,
}

EBML_ID, SEGMENT_ID = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def cut_off(path: Path) -> str | None:
    """Say what is missing at the end of the file, or None where nothing is known to be. Knows formats by their bytes.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        file_bytes = os.fstat(file.fileno()).st_size
        head = file.read(4096)
        if head[4:8] in FIRST_BOXES:
            return _mp4(file, file_bytes)
        if head[:4] == EBML_ID:
            return _matroska(file, head, file_bytes)
        if head[:4] == b"RIFF":
            return _avi(head, file_bytes)
    return None


def _mp4(file: BinaryIO, file_bytes: int) -> str | None:
    """By its samples where its tables say where they lie, else by its boxes."""
    over, samples = None, Samples(file_bytes=file_bytes)
    for kind, start, end in _outermost(file, file_bytes):
        if end > file_bytes and kind in BOXES_THAT_COUNT:
            over = kind, start, end
            if kind != b"moov" or not _lists_all(read_box(file, start, file_bytes), end - file_bytes):
                break
        if kind in TAKES and (table := read_box(file, start, min(end, file_bytes))):
            TAKES[kind](table, start, samples)
    if samples.lost is not None:
        return samples.lost
    if over is None or (over[0] != b"moof" and samples.known):
        return None
    return _missing(f"its {over[0].decode()} box", over[2], file_bytes)


def _outermost(file: BinaryIO, file_bytes: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, first byte, stated end) of each box, as far as boxes follow each other."""
    start = 0
    for _ in range(BOXES_LOOKED_AT):
        file.seek(start)
        head = file.read(16)
        if len(head) < 8:
            return
        box_bytes = int.from_bytes(head[:4], "big")
        if box_bytes == 1:
            box_bytes = int.from_bytes(head[8:16], "big")
        end = start + box_bytes if box_bytes else file_bytes  # 0: to the end of the file
        if 0 < box_bytes < 8:
            return
        yield head[4:8], start, end
        start = end


def _lists_all(moov: bytes | None, missing_bytes: int) -> bool:
    """Whether a moov without its last bytes still has every track: they were of no track, or are miscounted."""
    if not moov:
        return False
    inner = list(boxes(moov, next(boxes(moov, 0, len(moov))).content, len(moov)))
    cut = [box.kind for box in inner if box.end > len(moov)]
    return bool(inner) and not {b"trak", b"mvex"} & set(cut) and (bool(cut) or missing_bytes <= SLACK_BYTES)


def _matroska(file: BinaryIO, head: bytes, file_bytes: int) -> str | None:
    header_bytes, used = _ebml_size(head, 4)
    segment = 4 + used + (header_bytes or 0)
    if header_bytes is None or head[segment : segment + 4] != SEGMENT_ID:
        return None
    segment_bytes, used = _ebml_size(head, segment + 4)
    first = segment + 4 + used
    end = first + (segment_bytes or 0)
    if segment_bytes is None or end <= file_bytes:
        return None
    if end <= file_bytes + SLACK_BYTES and _elements_end(file, first, file_bytes) == file_bytes:
        return None
    return _missing("its Segment", end, file_bytes)


def _elements_end(file: BinaryIO, start: int, file_bytes: int) -> int | None:
    """Where the last element of a Segment ends; None where one does not say."""
    for _ in range(BOXES_LOOKED_AT):
        if start >= file_bytes:
            return start
        file.seek(start)
        head = file.read(12)
        id_bytes = 9 - head[0].bit_length() if head[0] else 8
        size, used = _ebml_size(head, id_bytes)
        if size is None:
            return None
        start += id_bytes + used + size
    return None


def _ebml_size(head: bytes, offset: int) -> tuple[int | None, int]:
    """(value, bytes used) of a variable-length EBML size; None for "unknown", all ones."""
    if offset >= len(head) or head[offset] == 0:
        return None, 1
    used = 9 - head[offset].bit_length()
    value = int.from_bytes(head[offset : offset + used], "big") & ((1 << (7 * used)) - 1)
    return (None if value == (1 << (7 * used)) - 1 else value), used


def _avi(head: bytes, file_bytes: int) -> str | None:
    end = 8 + int.from_bytes(head[4:8], "little")
    return _missing("its RIFF list", end, file_bytes) if end > file_bytes + SLACK_BYTES else None


def _missing(part: str, end: int, file_bytes: int) -> str:
    return f"{part} ends at byte {end}, the file at byte {file_bytes}: cut off"

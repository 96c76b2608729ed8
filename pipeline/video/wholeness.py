"""Is the file all there? Read from its outermost boxes, without decoding: a container says how long it should be.

    mov, mp4       box size | type | …     an mdat, moov or moof that ends behind the end of the file: cut off
    matroska       EBML header | Segment size | …                    a Segment of known size that does: cut off
    avi            RIFF size                                          the same

A demuxer reads such a file up to the cut and then reports a normal end, so that frames would be missing in silence.
Not seen here: a cut file that does not state its size (MPEG-TS, a live recording), and holes inside the file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

FIRST_BOXES = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}
BOXES_THAT_COUNT = {b"mdat", b"moov", b"moof"}
BOXES_LOOKED_AT = 100_000
AVI_SLACK_BYTES = 64
"""Some writers miscount the header; so little is no cut."""

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
            return _matroska(head, file_bytes)
        if head[:4] == b"RIFF":
            return _avi(head, file_bytes)
    return None


def _mp4(file: BinaryIO, file_bytes: int) -> str | None:
    start = 0
    for _ in range(BOXES_LOOKED_AT):
        file.seek(start)
        head = file.read(16)
        if len(head) < 8:
            return None
        box_bytes, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if box_bytes == 1:
            box_bytes = int.from_bytes(head[8:16], "big")
        if box_bytes < 8:  # 0 means up to the end of the file; anything else is no box
            return None
        start += box_bytes
        if start > file_bytes and kind in BOXES_THAT_COUNT:
            return _missing(f"its {kind.decode()} box", start, file_bytes)
    return None


def _matroska(head: bytes, file_bytes: int) -> str | None:
    header_bytes, used = _ebml_size(head, 4)
    segment = 4 + used + (header_bytes or 0)
    if header_bytes is None or head[segment : segment + 4] != SEGMENT_ID:
        return None
    segment_bytes, used = _ebml_size(head, segment + 4)
    end = segment + 4 + used + (segment_bytes or 0)
    if segment_bytes is None or end <= file_bytes:
        return None
    return _missing("its Segment", end, file_bytes)


def _ebml_size(head: bytes, at: int) -> tuple[int | None, int]:
    """(value, bytes used) of a variable-length EBML size; None for "unknown", all ones."""
    if at >= len(head) or head[at] == 0:
        return None, 1
    used = 9 - head[at].bit_length()
    value = int.from_bytes(head[at : at + used], "big") & ((1 << (7 * used)) - 1)
    return (None if value == (1 << (7 * used)) - 1 else value), used


def _avi(head: bytes, file_bytes: int) -> str | None:
    end = 8 + int.from_bytes(head[4:8], "little")
    return _missing("its RIFF list", end, file_bytes) if end > file_bytes + AVI_SLACK_BYTES else None


def _missing(what: str, end: int, file_bytes: int) -> str:
    return f"{what} ends at byte {end}, the file at byte {file_bytes}: cut off"

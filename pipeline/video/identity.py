"""Is it still the same file: its length and a hash of its first and last bytes, never its name or its date.

    file       bytes | the first 8 KiB … the last 8 KiB ─▶ SHA-256 ─▶ 63 bits
    pictures   bytes of all | names and sizes              ─▶ the same

Two reads, so that it may be asked of every video in every training. Other bytes in the middle of a file of the same
length are not seen: what a video that is encoded again looks like is other at its ends, where its index lies.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from vidxfer.pipeline.errors import VideoError, VideoReason
from vidxfer.pipeline.video.container import check_regular

END_BYTES = 8 * 2**10


def identity_of(path: Path) -> tuple[int, int]:
    """Bytes and hash of a video file, or of a folder of pictures.

    Raises:
        VideoError: it cannot be read.
    """
    try:
        if path.is_dir():
            with os.scandir(path) as entries:
                files = sorted((entry.name, entry.stat().st_size) for entry in entries if entry.is_file())
            text = "".join(f"{size} {name}\0" for name, size in files)
            return sum(size for _, size in files), _hash(os.fsencode(text))
        check_regular(path)
        with path.open("rb") as file:
            file_bytes = os.fstat(file.fileno()).st_size
            ends = file.read(END_BYTES)
            file.seek(max(len(ends), file_bytes - END_BYTES))
            return file_bytes, _hash(ends + file.read(END_BYTES))
    except OSError as error:
        raise VideoError(VideoReason.UNREADABLE, path, error.strerror or str(error)) from error


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big") >> 1

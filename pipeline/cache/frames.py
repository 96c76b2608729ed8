"""Frames in a cache: which frames of each view are stored, where, and in how many bytes. Arithmetic only.

    frames        [video view kept byte] uint8     each frame's JPEG at the start of its row, zeros behind it
    frame_bytes   [video view kept]      int32     how many of the row's bytes are the JPEG's

    a row     │ff d8 … JPEG … ff d9│0 0 0 0 0 0 0 …│        most_bytes long
    a chunk   one (video, view): its rows, zstd, crc32c: zeros take no room on disk
    its rows  the dense frames, as in the view; then those of the windows that are none of them, ascending; then zeros

A JPEG is the view's crop at CLIP's size, in colour and unmirrored: the flags `flip` and `grey` stand beside it.
Consequence: plain arrays that any Zarr reader opens, and one positional read per view.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args

import numpy as np

from vidxfer.pipeline.errors import CacheError, CacheMismatch
from vidxfer.pipeline.shapes import WindowEnds
from vidxfer.pipeline.typed import checked
from vidxfer.pipeline.video.sampling import window_indices

HEADER_BYTES = 4096
"""Bytes reserved for tables and headers, in addition to the bytes of a frame's pixels."""

BYTES_PER_PIXEL = {1: 0.046, 25: 0.097, 50: 0.139, 75: 0.199, 90: 0.33, 95: 0.47, 100: 1.094}
"""Upper quarter over frames of ten real videos at 224 px and 4:4:4, by quality; between them a line. For plans only."""

TABLES_BYTES = 623
"""Of those, what each JPEG has of tables and headers, however small its picture."""

SHARE_OF_444 = {"4:4:4": 1.0, "4:2:2": 0.887, "4:2:0": 0.815}
"""What other colour resolutions take of that, measured likewise at quality 90."""


@dataclass(frozen=True, kw_only=True)
class FrameStore:
    """How a split keeps frames. No part of the spec: a token does not depend on it.

    Attributes:
        quality: of the JPEGs, 1 to 100.
        subsampling: their colour resolution: "4:4:4", "4:2:2" or "4:2:0".
        most_bytes: that one frame may have; one that does not fit is encoded at a lower quality.
        window: source frames that are kept around each sparse frame, an odd number; 0: the dense frames alone.
        window_ends: what windows have beyond the ends of the video.
    """

    quality: int
    subsampling: str
    most_bytes: int
    window: int = 0
    window_ends: WindowEnds = "clamp"

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality={self.quality} must lie in 1..100")
        if self.subsampling not in SHARE_OF_444:
            raise ValueError(f"subsampling={self.subsampling!r} must be one of {', '.join(SHARE_OF_444)}")
        if self.most_bytes < 1:
            raise ValueError(f"most_bytes={self.most_bytes} must be at least 1")
        if self.window and (self.window < 3 or self.window % 2 == 0):
            raise ValueError(
                f"window={self.window} must be 0 or an odd number from 3 on: CLIP's frame is in the middle"
            )
        if self.window_ends not in get_args(WindowEnds):
            raise ValueError(f"window_ends={self.window_ends!r} must be one of {', '.join(get_args(WindowEnds))}")

    @classmethod
    def at(cls, image_px: int, **settings: Any) -> FrameStore:
        """A store for pictures of `image_px`: a frame may take as many bytes as its pixels, and a header."""
        return cls(most_bytes=3 * image_px * image_px + HEADER_BYTES, **settings)

    def __str__(self) -> str:
        words = [f"JPEG, quality {self.quality}"]
        words += [self.subsampling] * (self.subsampling != "4:4:4")
        words += [f"windows of {self.window}{' wrapped' * (self.window_ends == 'wrap')}"] * bool(self.window)
        return ", ".join(words)

    def kept(self, indices: Sequence[int], alpha: int, frame_count: int) -> tuple[int, ...]:
        """The source frames whose JPEGs stand in the rows of a view, in the order of the rows.

        Args:
            indices: dense frames of the view.
            alpha: dense frames per sparse one.
            frame_count: of the video.
        """
        if not self.window:
            return tuple(indices)
        around = window_indices(indices[::alpha], self.window, frame_count, self.window_ends)
        return (*indices, *sorted(set(around) - set(indices)))

    def most_kept(self, dense_frames: int, alpha: int) -> int:
        """Rows of every view: as many frames as it can have. In windows that overlap each frame is kept once."""
        return dense_frames + dense_frames // alpha * max(self.window - 1, 0)

    def holds_windows(self, window_frames: int, ends: WindowEnds) -> bool:
        """Whether such windows are among the kept frames: larger ones hold smaller ones, wrapped ones clamped ones."""
        return window_frames <= max(self.window, 1) and (window_frames == 1 or ends in ("clamp", self.window_ends))

    def expected_bytes(self, frames: int, image_px: int) -> int:
        """About how many bytes the JPEGs of so many frames take; an estimate for plans."""
        known = sorted(BYTES_PER_PIXEL)
        per_pixel = np.interp(self.quality, known, [BYTES_PER_PIXEL[quality] for quality in known])
        per_pixel = (per_pixel - TABLES_BYTES / 224**2) * SHARE_OF_444[self.subsampling]
        return int(frames * (TABLES_BYTES + per_pixel * image_px * image_px))

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the split's attributes."""
        later = {"window": 0, "window_ends": "clamp"}  # left out at what caches of 0.1.0 have
        return {"format": "jpeg", **{k: value for k, value in asdict(self).items() if value != later.get(k)}}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> FrameStore:
        """The inverse of `to_dict`.

        Raises:
            CacheError: a key is unknown or missing, or frames are kept in a format of a later vidxfer.
        """
        known = {field.name for field in fields(cls)} | {"format"}
        present = set(stored) | {"window", "window_ends"} if isinstance(stored, Mapping) else set()
        if not isinstance(stored, Mapping) or present != known or stored["format"] != "jpeg":
            raise CacheError(
                f"the cache's dense frames are not kept as this version of vidxfer knows it: found "
                f"{str(stored)[:200]}, "
                f"expected {', '.join(sorted(known))} with format 'jpeg'. Use the version that made the cache."
            )
        try:
            kept: FrameStore = checked(
                {name: value for name, value in stored.items() if name != "format"}, cls, "frames"
            )
            return kept
        except ValueError as error:
            raise CacheError(f"the cache's settings of dense frames are invalid: {error}") from error


def expect_same_frames(where: object, stored: FrameStore | None, wanted: FrameStore | None) -> None:
    """Check that a cache keeps the frames that a run asks for. wanted=None accepts any.

    Raises:
        CacheMismatch: other settings, named with both values. CacheError: the cache keeps none.
    """
    if wanted is None or stored == wanted:
        return
    if stored is None:
        raise CacheError(
            f"{where} was made without dense frames, and they can be stored only while a shard is written. Continue "
            "without --with-frames (training then decodes the videos), or extract into another folder (--cache)."
        )
    ours, theirs = asdict(stored), asdict(wanted)
    raise CacheMismatch(where, {f"frames.{k}": (ours[k], theirs[k]) for k in ours if ours[k] != theirs[k]})


def pack(files: Sequence[bytes], most_bytes: int, rows: int) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], list[int]]:
    """The JPEGs of one view as uint8 [kept byte], and the length of each; of `rows` the last ones may be empty.

    Raises:
        ValueError: a file is empty or has more than `most_bytes` bytes.
    """
    lengths = [len(file) for file in files]
    if min(lengths) < 1 or max(lengths) > most_bytes:
        raise ValueError(
            f"frames have {min(lengths)} to {max(lengths)} bytes, the place of each holds 1 to {most_bytes}"
        )
    packed = np.zeros((rows, most_bytes), dtype=np.uint8)
    for row, file in zip(packed[: len(files)], files, strict=True):
        row[: len(file)] = np.frombuffer(file, dtype=np.uint8)
    return packed, lengths + [0] * (rows - len(files))

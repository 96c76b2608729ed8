"""A folder of numbered pictures is a video too: the same interface, the same promise.

    img_00001.jpg img_00002.jpg … img_00054.jpg ──▶ frame 0 1 … 53, in the order of the numbers, not of the letters

Rules. Numbers may start anywhere and have any width, but have no gaps and no repeats: a missing picture is an error,
never a neighbour. Pictures share one name around the number; optical flow beside them (flow_x_00001.jpg, x_00001.jpg)
is left out, hidden files too. All pictures that are read have the size of the first. They are turned as their EXIF
orientation says, as picture viewers do. Damage is seen as far as libjpeg and libpng see it: a cut-off file always, a
flipped byte inside a JPEG often not, because JPEG has no checksum. There are no time stamps: a part of
a folder is cut by the nominal clock of `FRAME_FOLDER_FPS`, which lists with an offset use.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vidxfer.pipeline.errors import VideoError, VideoReason
from vidxfer.pipeline.shapes import FRAME_FOLDER_FPS, Frames
from vidxfer.pipeline.video.container import SQUARE, Deadline, Limits, check_picture, check_regular, one_line
from vidxfer.pipeline.video.window import Window

NAME = re.compile(r"(?P<before>.*?)(?P<number>\d+)(?P<after>\.(?:jpe?g|png|webp|bmp))", re.IGNORECASE)
FLOW = re.compile(r"(flow|[xy]_|[uv]_)", re.IGNORECASE)
MODES = {"RGB", "L", "P", "CMYK", "YCbCr", "RGBA", "1", "LA"}
"""Pillow's modes with at most 8 bits per colour."""

SHOWN = 5


class PictureFolder:
    """The pictures of one folder by frame number, with the interface of `VideoSource`.

    Attributes:
        why: one line: how the frames were found.
        height, width: of the upright pictures, in pixels.
    """

    decoder = "pictures"
    pixel_aspect = SQUARE
    quarter_turns = 0

    def __init__(self, folder: Path, limits: Limits, window: Window | None = None) -> None:
        """List the folder and read the first picture's size.

        Raises:
            VideoError: no pictures, gaps in their numbers, several series, fewer pictures than the window means, or a
                first picture that cannot be read.
        """
        self._folder, self._limits = folder, limits
        deadline = Deadline(folder, limits)
        self._names = _within(folder, _series(folder, limits, deadline), window or Window())
        self.why = f"{len(self._names)} pictures from {self._names[0]} to {self._names[-1]}"
        self.height, self.width = self._pixels(0).shape[:2]

    @property
    def frame_count(self) -> int:
        """Number of pictures."""
        return len(self._names)

    @property
    def version(self) -> str:
        """Of Pillow."""
        import PIL

        return f"Pillow {PIL.__version__}"

    def read(self, indices: Sequence[int]) -> Frames:
        """Decode pictures by number from 0, in any order; repeated ones once.

        Raises:
            ValueError: no index, or one outside 0 … frame_count-1.
            VideoError: a picture is damaged, of another size, or no regular file.
        """
        numbers = [int(index) for index in indices]
        if not numbers or min(numbers) < 0 or max(numbers) >= self.frame_count:
            shown = f"{min(numbers)} … {max(numbers)}" if numbers else "none"
            raise ValueError(f"{self._folder}: frames {shown} asked for, it has 0 … {self.frame_count - 1}")
        deadline = Deadline(self._folder, self._limits)
        pixels = np.empty((len(numbers), self.height, self.width, 3), np.uint8)
        first: dict[int, int] = {}
        for place, number in enumerate(numbers):
            deadline.check()
            if number in first:
                pixels[place] = pixels[first[number]]
                continue
            first[number] = place
            picture = self._pixels(number)
            if picture.shape[:2] != (self.height, self.width):
                detail = (
                    f"{self._names[0]} has {self.width} x {self.height} px, "
                    f"{self._names[number]} {picture.shape[1]} x {picture.shape[0]} px"
                )
                raise VideoError(VideoReason.CHANGING_SIZE, self._folder, detail)
            pixels[place] = picture
        return Frames(
            pixels=pixels,
            indices=np.array(numbers, np.int64),
            pts_seconds=np.full(len(numbers), np.nan),
            decoder=self.decoder,
        )

    def decode_all(self) -> None:
        """Decode every picture once and keep none.

        Raises:
            VideoError: as `read`.
        """
        for number in range(self.frame_count):
            self.read([number])

    def _pixels(self, number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """uint8 [height width rgb] of one picture, upright."""
        from PIL import Image, ImageOps

        path = self._folder / self._names[number]
        check_regular(path)
        try:
            with Image.open(path) as picture:
                check_picture(path, picture.height, picture.width, self._limits)
                if picture.mode not in MODES:
                    detail = f"{path.name}: {picture.mode} pixels, expected 8 bits per colour"
                    raise VideoError(VideoReason.DECODE_FAILED, self._folder, detail)
                return np.array(ImageOps.exif_transpose(picture).convert("RGB"))
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise VideoError(VideoReason.TOO_LARGE, path, one_line(error)) from error
        except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow raises for damage
            raise VideoError(VideoReason.DECODE_FAILED, path, one_line(error)) from error


def _series(folder: Path, limits: Limits, deadline: Deadline) -> list[str]:
    """The names of the pictures in the order of their numbers."""
    pictures = _numbered(folder, limits, deadline)
    if not pictures:
        raise VideoError(VideoReason.NOT_REGULAR, folder, "a directory without numbered pictures, not a regular file")
    kinds = sorted({before for _, before, _ in pictures})
    if len(kinds) > 1:
        shown = ", ".join(f"{kind}…" for kind in kinds[:SHOWN])
        raise VideoError(VideoReason.NOT_A_VIDEO, folder, f"{len(kinds)} series of pictures in one folder: {shown}")
    pictures.sort()
    numbers = [number for number, _, _ in pictures]
    if len(set(numbers)) < len(numbers):
        twice = next(number for place, number in enumerate(numbers[1:]) if number == numbers[place])
        names = ", ".join(name for number, _, name in pictures if number == twice)
        raise VideoError(VideoReason.NOT_A_VIDEO, folder, f"number {twice} twice: {names}")
    if numbers[-1] - numbers[0] + 1 > len(numbers):
        missing = _missing(numbers)
        more = numbers[-1] - numbers[0] + 1 - len(numbers) - len(missing)
        detail = f"pictures {numbers[0]} to {numbers[-1]}, missing: {', '.join(map(str, missing))}"
        raise VideoError(VideoReason.MISSING_FRAMES, folder, detail + (f" and {more} more" if more else ""))
    return [name for _, _, name in pictures]


def _within(folder: Path, names: list[str], window: Window) -> list[str]:
    """The pictures of a stretch of the nominal clock, or of their numbers counted from 0."""
    first = math.ceil((window.start_seconds or 0.0) * FRAME_FOLDER_FPS)
    wanted = 0 if window.end_seconds is None else math.ceil(window.end_seconds * FRAME_FOLDER_FPS)
    if window.frames is not None:
        first, wanted = window.frames.start, window.frames.end or 0
    inside = [name for place, name in enumerate(names) if window.holds(place / FRAME_FOLDER_FPS, place)]
    if wanted > len(names) or not inside:
        detail = f"{len(names)} pictures, asked for those from {first} up to {wanted or 'the end'}"
        raise VideoError(VideoReason.BAD_SEGMENT, folder, detail)
    return inside


def _missing(numbers: list[int]) -> list[int]:
    """The first few numbers that are not there."""
    missing: list[int] = []
    for number, after in pairwise(numbers):
        missing += range(number + 1, min(after, number + 1 + SHOWN))
        if len(missing) >= SHOWN:
            break
    return missing[:SHOWN]


def _numbered(folder: Path, limits: Limits, deadline: Deadline) -> list[tuple[int, str, str]]:
    """(number, name before it, whole name) of each picture in the folder, in no order."""
    pictures = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                deadline.check()
                match = NAME.fullmatch(entry.name)
                if match is None or entry.name.startswith(".") or FLOW.match(match["before"]):
                    continue
                pictures.append((int(match["number"]), match["before"], entry.name))
                if len(pictures) > limits.frames:
                    raise VideoError(VideoReason.TOO_LARGE, folder, f"more than {limits.frames} pictures")
    except OSError as error:
        raise VideoError(VideoReason.UNREADABLE, folder, error.strerror or str(error)) from error
    return pictures

"""From a path to an open container, or to a typed reason: the only place that opens a video with FFmpeg.

    path ──▶ os.stat: a regular file? ──▶ all there? ──▶ av.open ──▶ streams.best("video") ──▶ Opened

A named pipe or a device would hang a decoder, so nothing but a regular file is ever opened. FFmpeg reads local files
only (a playlist that names a web address is refused), and its messages are kept off the terminal.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidxfer.pipeline.errors import VideoError, VideoReason
from vidxfer.pipeline.video.wholeness import cut_off

if TYPE_CHECKING:
    import av.container
    import av.video.stream

SQUARE = "1:1"
"""Aspect of one pixel, width to height, as reports show it."""

STILL_PICTURES = ("image2", "webp_pipe", "png_pipe", "tty", "lavfi", "concat", "hls", "dash")
"""Formats that are one picture, or a list that points to other files."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one video may cost; beyond it, it is refused instead of stopping a run.

    Attributes:
        seconds: wall time of opening, and of each reading.
        picture_px: height times width.
        frames: number of frames.
    """

    seconds: float = 60.0
    picture_px: int = 7680 * 4320
    frames: int = 500_000


class Deadline:
    """A moment after which one video has taken too long."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path, self._seconds = path, limits.seconds
        self._end = time.monotonic() + limits.seconds

    def check(self) -> None:
        """Raise VideoError TOO_SLOW once the time is over."""
        if time.monotonic() > self._end:
            raise VideoError(VideoReason.TOO_SLOW, self._path, f"not done after {self._seconds:g} seconds")


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An open file and the stream that players would show.

    Attributes:
        square_pixels: pictures are resized so that their pixels are square.
    """

    path: Path
    container: av.container.InputContainer
    stream: av.video.stream.VideoStream
    limits: Limits
    square_pixels: bool = False

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec, as in "h264"."""
        return str(self.stream.codec_context.codec.canonical_name)

    @property
    def pixel_aspect(self) -> Fraction:
        """Width over height of one stored pixel, as the container or else the codec states it; 1 where neither does."""
        return self.stream.sample_aspect_ratio or Fraction(1)

    def square_width(self, width: int) -> int | None:
        """Width of the stored picture once its pixels are square: width x aspect; None where it stays as it is."""
        if not self.square_pixels or self.pixel_aspect == 1:
            return None
        return max(1, round(width * self.pixel_aspect))


def check_regular(path: Path) -> None:
    """Raise VideoError unless `path` leads to a regular, readable, non-empty file. Opens nothing."""
    try:
        status = path.stat()
    except OSError as error:
        raise VideoError(_os_reason(error), path, error.strerror or str(error)) from error
    except ValueError as error:  # a NUL in the path
        raise VideoError(VideoReason.MISSING, path, str(error)) from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
        raise VideoError(VideoReason.NOT_REGULAR, path, f"{kind}, not a regular file")
    if status.st_size == 0:
        raise VideoError(VideoReason.EMPTY, path, "0 bytes")
    if not os.access(path, os.R_OK):
        raise VideoError(VideoReason.UNREADABLE, path, "no permission to read it")


def _os_reason(error: OSError) -> VideoReason:
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
        return VideoReason.MISSING
    return VideoReason.NOT_REGULAR if error.errno == errno.ELOOP else VideoReason.UNREADABLE


@contextmanager
def opened(path: Path, limits: Limits, *, square_pixels: bool = False) -> Iterator[Opened]:
    """Open a video for demuxing and decoding with one thread; close it at the end.

    Raises:
        VideoError: every reason of a path or container that cannot be used, and TOO_LARGE.
    """
    import av

    check_regular(path)
    _check_whole(path)
    absolute = str(path.absolute())  # starts with a slash, so it cannot be taken for a protocol
    try:
        container = av.open(
            absolute,
            metadata_errors="ignore",
            options={"protocol_whitelist": "file"},
            timeout=(limits.seconds, limits.seconds),
        )
    except (av.error.FFmpegError, OSError, UnicodeError) as error:
        raise VideoError(_open_reason(error), path, f"FFmpeg cannot open it: {one_line(error)}") from error
    try:
        stream = _best_stream(path, container, limits)
        yield Opened(path=path, container=container, stream=stream, limits=limits, square_pixels=square_pixels)
    finally:
        container.close()


def opened_again(video: Opened) -> AbstractContextManager[Opened]:
    """The same video from its beginning, with a decoder of its own."""
    return opened(video.path, video.limits, square_pixels=video.square_pixels)


def _check_whole(path: Path) -> None:
    try:
        missing = cut_off(path)
    except OSError as error:
        raise VideoError(_os_reason(error), path, error.strerror or str(error)) from error
    if missing is not None:
        raise VideoError(VideoReason.DECODE_FAILED, path, missing)


def _open_reason(error: BaseException) -> VideoReason:
    import av

    if isinstance(error, av.error.ExitError):
        return VideoReason.TOO_SLOW
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EIO, errno.EMFILE, errno.ENFILE):
        return VideoReason.UNREADABLE
    return VideoReason.NOT_A_VIDEO


def _best_stream(path: Path, container: Any, limits: Limits) -> Any:
    import av.stream

    names = container.format.name.split(",")
    if any(name.endswith("_pipe") or name in STILL_PICTURES for name in names):
        raise VideoError(VideoReason.NOT_A_VIDEO, path, f"{container.format.name}: a still picture or a list of files")
    stream = container.streams.best("video")
    if stream is None:
        kinds = ", ".join(sorted({other.type for other in container.streams})) or "none"
        raise VideoError(VideoReason.NO_VIDEO_STREAM, path, f"its streams: {kinds}")
    if stream.disposition & av.stream.Disposition.attached_pic:
        raise VideoError(VideoReason.NO_VIDEO_STREAM, path, "its only picture is a cover")
    if stream.codec_context is None:
        raise VideoError(VideoReason.NO_DECODER, path, "this FFmpeg has no decoder for its codec")
    check_picture(path, stream.codec_context.height, stream.codec_context.width, limits)
    # One video, one core: videos are what is spread over cores. But FFmpeg's vp8 reports damage only with two threads.
    stream.codec_context.thread_count = 2 if stream.codec_context.codec.canonical_name == "vp8" else 1
    return stream


def check_picture(path: Path, height: int, width: int, limits: Limits) -> None:
    """Raise VideoError TOO_LARGE where the picture has more pixels than allowed."""
    if height * width > limits.picture_px:
        raise VideoError(
            VideoReason.TOO_LARGE, path, f"{width} x {height} px, more than {limits.picture_px} px are not read"
        )


def demux_error(path: Path, error: BaseException) -> VideoError:
    """The VideoError for an error while packets were read."""
    import av

    reason = VideoReason.TOO_SLOW if isinstance(error, av.error.ExitError) else VideoReason.DECODE_FAILED
    return VideoError(reason, path, f"reading packets stopped: {one_line(error)}")


def one_line(error: BaseException) -> str:
    """The error's kind and first line, without the path that FFmpeg repeats."""
    text = (getattr(error, "strerror", None) or str(error)).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__

"""Which stretch of a file is the video: by seconds, or by frame numbers, whatever counted them.

    seconds 2 to 3           start ≤ t < end, t from the first time stamp of the file
    frames 50 up to 75       frames 50 to 74 in presentation order
    … counted at 5 fps       another rate than the video's: 9.9 s to 14.9 s, half a frame early on both sides

Consequence: frame numbers mean frames wherever the list counted those of the file; a list that counted frames extracted
at another rate must say which (fps), and then means time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from vidxfer.pipeline.errors import VideoError, VideoReason
from vidxfer.pipeline.shapes import FrameSpan

SECONDS_PAST_END = 5.0
"""How far behind a segment's end decoding goes on where time stamps may jump back."""

SAME_RATE = 0.01
"""Share by which a list's frames per second may differ from the video's and still mean the video's own frames."""

SECONDS_BEHIND = 1.0
ENDS_BEHIND = f"the segment ends more than {SECONDS_BEHIND:g} s behind the video's end"
"""Part of `VideoSource.why`: probably the list counts other frames or seconds than the video has."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """A stretch of a video, start included, end not: seconds from the start of the file, or frames; None is open."""

    start_seconds: float | None = None
    end_seconds: float | None = None
    frames: FrameSpan | None = None

    @classmethod
    def of(cls, path: Path, start_seconds: float | None, end_seconds: float | None, frames: FrameSpan | None) -> Window:
        """A window that holds some time.

        Raises:
            VideoError: BAD_SEGMENT, it holds none. ValueError: both seconds and frames are given.
        """
        if frames is not None and (start_seconds, end_seconds) != (None, None):
            raise ValueError(f"{path}: a segment in seconds and in frames; give one of them")
        for seconds in (start_seconds, end_seconds):
            if seconds is not None and not math.isfinite(seconds):
                raise VideoError(VideoReason.BAD_SEGMENT, path, f"{seconds} is not a time")
        if end_seconds is not None and end_seconds <= (start_seconds or 0.0):
            detail = f"from {start_seconds or 0:g} s to {end_seconds:g} s holds no time"
            raise VideoError(VideoReason.BAD_SEGMENT, path, detail)
        return cls(start_seconds=start_seconds, end_seconds=end_seconds, frames=frames)

    def at_rate(self, fps: float) -> Window:
        """The window of a video with so many frames per second: frames of another rate become seconds."""
        span = self.frames
        if span is None or span.fps is None or abs(span.fps - fps) <= SAME_RATE * fps:
            return self
        end_seconds = None if span.end is None else (span.end - 0.5) / span.fps
        return Window(start_seconds=max(0.0, span.start - 0.5) / span.fps, end_seconds=end_seconds)

    def holds(self, seconds: float, number: int) -> bool:
        """Whether the frame with this number in presentation order, shown at this time, belongs to it."""
        if self.frames is not None:
            return self.frames.start <= number and (self.frames.end is None or number < self.frames.end)
        after = self.start_seconds is None or seconds >= self.start_seconds
        return after and (self.end_seconds is None or seconds < self.end_seconds)

    def is_over(self, seconds: float, number: int) -> bool:
        """Whether no later frame can belong to it; time stamps may jump back a little."""
        if self.frames is not None:
            return self.frames.end is not None and number >= self.frames.end
        return self.end_seconds is not None and seconds > self.end_seconds + SECONDS_PAST_END

    def seconds_behind(self, last_seconds: float, frame_count: int, fps: float) -> float:
        """How long after the video's end it ends: its last frame is at `last_seconds`, it holds `frame_count`."""
        if self.frames is not None:
            missing = 0 if self.frames.end is None else self.frames.end - self.frames.start - frame_count
            return missing / fps if fps else 0.0
        return 0.0 if self.end_seconds is None else self.end_seconds - last_seconds

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole file."""
        return self.start_seconds is None and self.end_seconds is None and self.frames is None

    def __str__(self) -> str:
        return f"of {self.frames}" if self.frames else f"from {self.start_seconds or 0:g} s to {self.end_seconds} s"

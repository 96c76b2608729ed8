"""Errors that nobody foresaw while a video was read: a reason for that video, until they are too many to be its fault.

child    any exception without a name ─▶ Surprise: its kind, one line, its traceback
parent   Surprise ─▶ VideoError UNEXPECTED: one video            the first 20 videos, or 5 % of 100 and more,
                  └▶ UnforeseenError: the run stops      ◀─────  with one and the same kind
"""

from __future__ import annotations

import os
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from vidxfer.pipeline.errors import UnforeseenError, VideoError, VideoReason

FIRST_VIDEOS = 20
"""When all of so many at the start fail with one kind, the run stops."""

ENOUGH_VIDEOS, SHARE = 100, 0.05
"""From so many videos on, the share of them with one kind at which the run stops."""

SHOWN_FRAMES, TEXT_CHARACTERS, TRACEBACK_CHARACTERS = 3, 200, 4000


@dataclass(frozen=True, kw_only=True)
class Surprise:
    """An exception without a name, as it crosses from a child to its parent.

    Attributes:
        kind: the exception's class and the line that raised it: the same for the same fault.
        detail: class, text and the innermost calls, in one line.
        traceback: its last lines, as Python prints them.
    """

    kind: str
    detail: str
    traceback: str

    @classmethod
    def of(cls, error: BaseException) -> Surprise:
        """Describe an exception that was caught."""
        name = type(error).__qualname__
        calls = [
            f"{Path(call.filename).name}:{call.lineno} {call.name}"
            for call in reversed(traceback.extract_tb(error.__traceback__))
        ]
        text = " ".join(str(error).split())[:TEXT_CHARACTERS]
        return cls(
            kind=f"{name} at {calls[0] if calls else '?'}",
            detail=f"{name}: {text} (in {' < '.join(calls[:SHOWN_FRAMES])})",
            traceback="".join(traceback.format_exception(error))[-TRACEBACK_CHARACTERS:],
        )


class Surprises:
    """Counts what came of videos; one per guard."""

    def __init__(self) -> None:
        self._videos = 0
        self._kinds: Counter[str] = Counter()

    def error_of(self, value: object, path: str | os.PathLike[str]) -> BaseException | None:
        """The error that a child's answer about a video means; None where it is a value."""
        self._videos += 1
        if isinstance(value, Surprise):
            return self._met(value, path)
        if isinstance(value, MemoryError):
            return VideoError(VideoReason.OUT_OF_MEMORY, path, str(value) or "no memory")
        return value if isinstance(value, BaseException) else None

    def _met(self, surprise: Surprise, path: str | os.PathLike[str]) -> VideoError | UnforeseenError:
        self._kinds[surprise.kind] += 1
        count = self._kinds[surprise.kind]
        first = count == self._videos >= FIRST_VIDEOS
        if not first and not (self._videos >= ENOUGH_VIDEOS and count >= SHARE * self._videos):
            return VideoError(VideoReason.UNEXPECTED, path, surprise.detail)
        return UnforeseenError(
            f"{path}: {surprise.detail}\n"
            f"{count} of the {self._videos} videos read so far failed with this error, which nobody foresaw. So many "
            "are a fault of vidxfer or of a library, not of the videos, and the run stops. What is stored stays. "
            "Report it with the traceback below; or take these videos out of the data set, and run the same command "
            f"again.\n{surprise.traceback}"
        )

"""Everything that is raised on purpose, as one tree, grouped by what a handler would do.

    VidxferError                    a person can act on it: the text says what, found, expected, and the next move
    ├── UsageError                  the request itself cannot be meant; exit code 2
    │   └── DatasetError            the data set on disk is not what its layout says
    ├── PathError                   a file is no file to be read or written: a link, a pipe, longer than it can be
    ├── VideoError                  one video cannot be read frame-exactly; a row with a reason, the run goes on
    ├── UnforeseenError             reading many videos fails with one error that nobody foresaw; the run stops
    ├── ClipError                   the CLIP model or its weights cannot be used as asked
    ├── CacheError                  the cache cannot be used as asked
    │   ├── CacheMismatch           made with other settings; the text names each field with both values
    │   ├── CacheCorrupt            bytes on disk do not match their checksum or their index
    │   ├── CacheIncomplete         rows are asked for that were never stored
    │   ├── CacheBusy               another process is writing the same split or run
    │   └── CacheFull               the disk cannot hold what was asked for
    ├── ClusterError                the workers or the scheduler that extraction is spread over are gone, or unfit
    ├── WeightsError                a file of weights cannot be used as asked
    ├── RunError                    the run folder cannot be used as asked
    └── Stopped                     a signal asked for a stop; what is done is kept; exit code 75

Only the process that reads a stranger's video catches `Exception` (video/guarded.py). `VideoError.reason` is a
`VideoReason`, whose codes are append-only because they are written into ledgers.
"""

from __future__ import annotations

from enum import StrEnum

from vidxfer.pipeline.spelled import spelled_side


class VidxferError(Exception):
    """The root of the tree: an error whose text is written for the person who ran the command."""


class UsageError(VidxferError):
    """The request cannot be meant: a wrong option value, a path that is not there."""


class DatasetError(UsageError):
    """The data set on disk is not what its layout says; the text names what was looked for and where it comes from."""


class VideoReason(StrEnum):
    """Why one video was refused. Append-only: these codes stand in ledgers on disk."""

    MISSING = "missing"  # no such file
    NOT_REGULAR = "not_regular"  # a directory, a FIFO, a device, a symlink loop
    OUTSIDE_ROOT = "outside_root"  # the path leaves the data set's root
    EMPTY = "empty"  # zero bytes
    UNREADABLE = "unreadable"  # permission or I/O error
    NOT_A_VIDEO = "not_a_video"  # no demuxer recognises it, or it is a still picture
    NO_VIDEO_STREAM = "no_video_stream"  # sound or data only
    NO_FRAMES = "no_frames"  # a video stream from which no frame can be decoded
    NO_DECODER = "no_decoder"  # this FFmpeg has no decoder for the codec
    DECODE_FAILED = "decode_failed"  # a packet or a frame is damaged or cut off
    CHANGING_SIZE = "changing_size"  # the picture size changes inside the stream
    TOO_LARGE = "too_large"  # picture or frame count beyond the stated limits
    TOO_SLOW = "too_slow"  # the time limit per video was passed
    BAD_SEGMENT = "bad_segment"  # start/end seconds hold no frame
    OUT_OF_MEMORY = "out_of_memory"  # the memory limit per video was passed
    CRASHED = "crashed"  # the process that decoded it died, as in a segmentation fault
    MISSING_FRAMES = "missing_frames"  # a folder of pictures whose numbers have gaps
    UNEXPECTED = "unexpected"  # an error that nobody foresaw came up while it was read


class VideoError(VidxferError):
    """One video cannot be read frame-exactly. Carries the typed reason and what was seen.

    Args:
        reason: one of `VideoReason`.
        path: the file as the user knows it.
        detail: what was found, in a few words.
    """

    def __init__(self, reason: VideoReason, path: object, detail: str) -> None:
        self.reason = VideoReason(reason)
        self.path = str(path)
        self.detail = detail
        super().__init__(f"{self.path}: {self.reason.value}: {detail}")

    def __reduce__(self) -> tuple[type[VideoError], tuple[VideoReason, str, str]]:
        return (type(self), (self.reason, self.path, self.detail))  # so that it crosses process borders


class UnforeseenError(VidxferError):
    """Reading many videos fails with one error that nobody foresaw; the text holds its traceback."""


class PathError(VidxferError):
    """What lies at a path is nothing to be read or written: a link, a pipe, a device, or longer than it can be."""


class ClipError(VidxferError):
    """The CLIP model or its weights cannot be used as asked."""


class CacheError(VidxferError):
    """The cache cannot be used as asked."""


class CacheMismatch(CacheError):
    """The cache was made with other settings. `fields` maps each differing field to (cache value, wanted value).

    `sides` names who has the two values, and `what` says what differs, where it is not a cache and a run. Without a
    `remedy` the text names the options of `vidxfer extract` that give the cache's settings.
    """

    def __init__(
        self,
        where: object,
        fields: dict[str, tuple[object, object]],
        remedy: str | None = None,
        sides: tuple[str, str] = ("cache has", "run needs"),
        what: str = "this cache was made with other settings",
    ) -> None:
        if remedy is None:
            options = spelled_side(fields, 0)
            remedy = f"Run with the cache's settings{options}, or extract into another folder (--cache)."
        self.where, self.fields, self.remedy, self.sides, self.what = str(where), fields, remedy, sides, what
        lines = [f"  {difference(name, *pair, sides)}" for name, pair in fields.items()]
        super().__init__("\n".join([f"{where}: {what}:", *lines, remedy]))

    def __reduce__(self) -> tuple[type[CacheMismatch], tuple[object, ...]]:
        return (type(self), (self.where, self.fields, self.remedy, self.sides, self.what))


def difference(name: str, first: object, second: object, sides: tuple[str, str]) -> str:
    """One differing field with both values; of two lists of names the counts and the first names that differ."""
    ours, theirs = _names(first), _names(second)
    if not ours or not theirs:
        return f"{name}: {sides[0]} {first!r}, {sides[1]} {second!r}"
    place = next((index for index, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), None)
    place = min(len(ours), len(theirs)) if place is None else place
    first_name, second_name = (repr(names[place]) if place < len(names) else "none" for names in (ours, theirs))
    same = " (the same names in another order)" if sorted(ours) == sorted(theirs) else ""
    return (
        f"{name}: {sides[0]} {len(ours)}, {sides[1]} {len(theirs)}{same}; the first that differ are number {place}, "
        f"counted from 0: {sides[0]} {first_name}, {sides[1]} {second_name}"
    )


def _names(value: object) -> tuple[str, ...]:
    """The names in a list of several; of anything else none."""
    if not isinstance(value, list | tuple) or len(value) < 2:
        return ()
    names = tuple(item for item in value if isinstance(item, str))
    return names if len(names) == len(value) else ()


class CacheCorrupt(CacheError):
    """Bytes on disk do not match their checksum or their index."""


class CacheIncomplete(CacheError):
    """Rows are asked for that were never stored."""


class CacheBusy(CacheError):
    """Another process is writing the same split or run folder."""


class CacheFull(CacheError):
    """The disk cannot hold what was asked for."""


class ClusterError(VidxferError):
    """The cluster that extraction is spread over cannot be used as asked; what was stored is safe."""


class WeightsError(VidxferError):
    """A file of weights cannot be used as asked: damaged, of another layout, or of other sizes; each key is named."""


class RunError(VidxferError):
    """The run folder cannot be used as asked: missing, of another recipe, or of another cache."""


class Stopped(VidxferError):
    """A signal asked for a stop, and what was done until then is kept: the same command goes on."""

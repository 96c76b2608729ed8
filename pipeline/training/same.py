"""Checks that a video is the one that a cache was made from. Stored views are valid only for that video.

    before the first reading    size in bytes, and a hash of both ends    once per video and loader; not in 0.1.0
    at every reading            number of frames, picture size, turn      already known then, so the check costs nothing

The date of a file is not compared, because a copied or moved data set has the same content.
"""

from __future__ import annotations

from vidxfer.pipeline.errors import CacheError
from vidxfer.pipeline.shapes import SourceFile, Video
from vidxfer.pipeline.video.identity import identity_of

PUT_BACK = "Put the old one back, or extract again."

FROM_CACHE = "Or train on the dense frames that the cache keeps: --frames-from cache."

NO_IDENTITIES = (
    "the cache does not say which files it was made from, as those of vidxfer 0.1.0; of every video the number of "
    "frames and the picture size are compared"
)


def expect_same_file(video: Video, stored: SourceFile | None, *, way_on: str = PUT_BACK) -> None:
    """Check that a video is the file that a cache was made from; `stored`=None: the cache does not record it.

    Raises:
        VideoError: it cannot be read. CacheError: its bytes differ.
    """
    if stored is None or (now := identity_of(video.path)) == stored[:2]:
        return
    lengths = f"{stored[0]:,} bytes, now {now[0]:,}" if stored[0] != now[0] else f"{now[0]:,} bytes, then and now"
    raise CacheError(
        f"{video.path}: {video.id!r} is not the file that the cache was made from: its bytes differ ({lengths}). "
        f"{way_on} If only the container changed and every picture is the same: --frames-from changed-videos."
    )


def expect_same_pictures(
    video: Video,
    *,
    frame_count: tuple[int, int],
    source_px: tuple[tuple[int, int] | None, tuple[int, int]],
    quarter_turns: tuple[int | None, int] = (None, 0),
    way_on: str = PUT_BACK,
) -> None:
    """Check the properties that a view depends on.

    Each argument is (value when the cache was made, value now). A first value of None or 0 is not known.

    Args:
        video: the video that was read.
        frame_count: frames of the video or of its segment.
        source_px: (height, width), upright.
        quarter_turns: quarter turns that make its pictures upright.
        way_on: text of the error that tells what to do.

    Raises:
        CacheError: one of them differs.
    """
    sizes = [f"{size[1]} x {size[0]} px" if size else "" for size in source_px]
    turns = ["" if quarters is None else f"a turn by {90 * quarters} degrees" for quarters in quarter_turns]
    counts = [f"{count} frames" if count else "" for count in frame_count]
    for before, now in (counts, sizes, turns):
        if before and before != now:
            raise CacheError(
                f"{video.path}: {video.id!r} had {before} when the cache was made and now has {now}: it is not the "
                f"same file. {way_on}"
            )

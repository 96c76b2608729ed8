"""Read one video to its end, or only its packets, and say what would happen to it: no pixels are kept.

quick   open: stat, demux, gate; where frames must be counted, they are
whole   open ─▶ every frame decoded once, a few made rgb on the way, as extraction would read them
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from vidxfer.pipeline.shapes import Video
from vidxfer.pipeline.video.reader import Decoder, open_video

READ_FRAMES = 8
"""Frames that are read by the chosen path, evenly spaced: what cannot be made rgb shows only then."""


@dataclass(frozen=True, kw_only=True)
class Examined:
    """A video that can be read.

    Attributes:
        frame_count, height, width: of the video or segment, upright.
        decoder, why: the path that reads it, and the reason.
        pixel_aspect: width to height of one stored pixel, as in "4:3".
        seconds: wall time that it took.
    """

    frame_count: int
    height: int
    width: int
    decoder: str
    why: str
    pixel_aspect: str
    seconds: float


def examine(video: Video, *, quick: bool = False, decoder: Decoder = "auto") -> Examined:
    """Read a video as far as asked.

    Raises:
        VideoError: the reason for which extraction would refuse it. After a quick look, damage may be left unseen.
    """
    began = time.monotonic()
    with open_video(
        video.path,
        decoder=decoder,
        start_seconds=video.start_seconds,
        end_seconds=video.end_seconds,
        frames=video.frames,
        known_good=quick,
    ) as source:
        if not quick:
            last, steps = source.frame_count - 1, READ_FRAMES - 1
            source.read([last * step // steps for step in range(READ_FRAMES)])
            source.decode_all()
        return Examined(
            frame_count=source.frame_count,
            height=source.height,
            width=source.width,
            decoder=source.decoder,
            why=source.why,
            pixel_aspect=source.pixel_aspect,
            seconds=time.monotonic() - began,
        )

"""Frames into a small video file: for videos we generate ourselves (the toy world, tests), not for archives.

uint8 [frame height width rgb] ──▶ libvpx-vp9, realtime ──▶ a name of its own ──rename──▶ name
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from vidxfer.pipeline.shapes import expect
from vidxfer.pipeline.writing import whole_path

FASTEST = {
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8"},
    "libx264": {"preset": "ultrafast"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
}
"""Options that make each encoder quick."""


def write_video(
    path: str | os.PathLike[str],
    frames: np.ndarray[Any, np.dtype[np.uint8]],
    *,
    fps: float | Fraction = 12,
    codec: str = "libvpx-vp9",
    crf: int = 20,
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
) -> None:
    """Encode frames; the container follows from the suffix (.webm, .mp4, .mkv, .avi). The file appears whole or not.

    Args:
        frames: uint8 [frame height width rgb]; sides must be even for 4:2:0 in h264 and hevc.
        fps: frames per second.
        codec: an encoder that PyAV's FFmpeg has: libvpx-vp9, libvpx, libx264, libx265, mpeg4, ffv1, mjpeg.
        crf: constant rate factor; lower is larger and closer. Encoders without one ignore it.
        options: further options of the encoder, over the defaults here.

    Raises:
        ValueError: frames are not uint8 rgb, there are none, or FFmpeg does not know the codec or the suffix.
        OSError: the folder cannot be written.
    """
    import av

    sizes = expect("frames", frames, "frame height width rgb", rgb=3)
    if frames.dtype != np.uint8 or not len(frames):
        raise ValueError(f"frames are {frames.dtype}{list(frames.shape)}, expected at least one uint8 frame")
    path = Path(path)
    try:
        with whole_path(path) as own, av.open(str(own.absolute()), "w") as container:  # its suffix says which container
            stream: Any = container.add_stream(codec, rate=Fraction(fps).limit_denominator(100_000))
            stream.width, stream.height, stream.pix_fmt = sizes["width"], sizes["height"], pix_fmt
            stream.codec_context.thread_count = 1
            stream.options = {"crf": str(crf), "b": "0", **FASTEST.get(codec, {}), **(options or {})}
            for picture in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
            container.mux(stream.encode(None))
    except (av.error.FFmpegError, ValueError) as error:
        if isinstance(error, OSError):
            raise
        raise ValueError(f"{path}: FFmpeg cannot write {codec} there: {error}") from error

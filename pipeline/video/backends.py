"""One way to frames at a time, with nothing to fall back on: for comparing the ways, never for data.

decord            all frames as decord gives them, whether or not the gate would let it
pyav-pts          by time stamp; fails where time stamps do not name the frames
pyav-sequential   by counting from the first packet: the reference
auto              what `open_video` chooses
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vidxfer.pipeline.errors import VideoError, VideoReason
from vidxfer.pipeline.shapes import Pixels
from vidxfer.pipeline.video.container import Deadline, Limits, Opened, one_line, opened
from vidxfer.pipeline.video.packets import survey
from vidxfer.pipeline.video.paths import PathFailed, PtsPath, SequentialPath
from vidxfer.pipeline.video.reader import open_video
from vidxfer.pipeline.video.window import Window

BACKENDS = ("auto", "decord", "pyav-pts", "pyav-sequential")


def read_with(backend: str, path: Path, indices: Sequence[int] | None = None, limits: Limits | None = None) -> Pixels:
    """Frames of a file by one backend.

    Args:
        indices: sorted, distinct frame numbers; None: all that this backend believes to be there.

    Returns:
        uint8 [frame height width rgb], upright.

    Raises:
        VideoError: this backend cannot read it.
        ValueError: no such backend.
    """
    if backend == "auto":
        with open_video(path, limits=limits or Limits()) as source:
            return source.read(range(source.frame_count) if indices is None else indices).pixels
    if backend == "decord":
        return _decord(path, indices)
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is none of {', '.join(BACKENDS)}")
    with opened(path, limits or Limits()) as video:
        deadline = Deadline(path, video.limits)
        way: PtsPath | SequentialPath
        try:
            way = _pts(video, deadline) if backend == "pyav-pts" else _counted(video, deadline)
            numbers = list(range(len(way.pts)) if indices is None else indices)
            frames = way.read(numbers, deadline)
        except PathFailed as failure:
            raise VideoError(VideoReason.DECODE_FAILED, path, f"{backend}: {failure}") from failure
    return np.stack([frames[number] for number in numbers])


def _pts(video: Opened, deadline: Deadline) -> PtsPath:
    return PtsPath(video, deadline, packets=survey(video, deadline), window=Window())


def _counted(video: Opened, deadline: Deadline) -> SequentialPath:
    return SequentialPath(video, deadline, window=Window())


def _decord(path: Path, indices: Sequence[int] | None) -> Pixels:
    try:
        import decord
    except (ImportError, OSError) as error:
        raise VideoError(VideoReason.NO_DECODER, path, f"decord cannot be imported: {one_line(error)}") from error
    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(str(path.absolute()), ctx=decord.cpu(0), num_threads=1)
        numbers = list(range(len(reader)) if indices is None else indices)
        return np.asarray(reader.get_batch(numbers).asnumpy())
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        raise VideoError(VideoReason.DECODE_FAILED, path, f"decord: {one_line(error)}") from error

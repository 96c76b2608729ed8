"""Packets to upright rgb, one frame at a time; damage is an error, never a picture.

    demux ──▶ decode ──▶ flagged? size changed? ──▶ VideoFrame ──▶ rgb24 ──▶ turned upright ──▶ pixels made square?

Detected: packets flagged by the demuxer, packets the decoder refuses, and frames it had to conceal or whose references
are missing (FFmpeg's corrupt flag: nearly every bit flip in h264, many in vp8). Not detected: damage that FFmpeg takes
for valid video, as many flips in hevc and some in vp9 are (err_detect=explode finds no more of them, and nothing that
the corrupt flag misses in h264), and lost packets where time stamps do not show the hole. Such pictures are then
FFmpeg's guess, and another decoder's guess may differ.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidxfer.pipeline.errors import VideoError, VideoReason
from vidxfer.pipeline.shapes import Pixels
from vidxfer.pipeline.video.container import Deadline, Opened, check_picture, demux_error, one_line

MATRICES = {0, 1, 2, 4, 5, 6, 7, 9}
"""Colour matrices (as H.273 numbers them) from which FFmpeg 6 and later convert; others end in an error."""

UNSPECIFIED = 2
READ_AS = {10: 9}
"""How FFmpeg 4 and 5, and decord, read others: BT.2020 of constant luminance as BT.2020, the rest as unspecified."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What every frame of a video has in common.

    Attributes:
        height, width: of the stored picture in pixels, before it is turned.
        quarter_turns: anticlockwise turns by 90 degrees that put it upright.
        square_width: width to which the stored picture is resized so that its pixels become square; None: as it is.
    """

    height: int
    width: int
    quarter_turns: int
    square_width: int | None = None

    @property
    def upright(self) -> tuple[int, int]:
        """(height, width) of the upright picture."""
        width = self.square_width or self.width
        return (width, self.height) if self.quarter_turns % 2 else (self.height, width)


def turns_of(frame: Any) -> int:
    """Quarter turns, anticlockwise, that put a decoded frame upright.

    Turned as players and decord do: by multiples of 90 degrees; a mirror in the display matrix is not applied, and
    another angle leaves the picture as it is stored.
    """
    degrees = int(frame.rotation or 0)
    return 0 if degrees % 90 else (degrees // 90) % 4


def pyav_version() -> str:
    """Of PyAV and of FFmpeg's decoders inside it."""
    import av

    return f"PyAV {av.__version__}, libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}"


class Painter:
    """Makes rgb of the frames of one video. Its context of swscale is made once: 0.5 ms a frame are saved."""

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()

    def upright_rgb(self, frame: Any, look: Look, path: Path) -> Pixels:
        """uint8 [height width rgb] of one decoded frame of the video at `path`: turned upright and, where the look
        says so, resized.

        Raises:
            VideoError: DECODE_FAILED where FFmpeg cannot turn its pixels into rgb.
        """
        import av

        tagged = int(frame.colorspace)
        if tagged not in MATRICES:
            frame.colorspace = READ_AS.get(tagged, UNSPECIFIED)
        try:
            pixels = np.asarray(self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray(), np.uint8)
        except (av.error.FFmpegError, OSError, ValueError, RuntimeError) as error:
            detail = f"no rgb from a frame in {frame.format.name}, colour matrix {tagged}: {one_line(error)}"
            raise VideoError(VideoReason.DECODE_FAILED, path, detail) from error
        if look.square_width is not None:
            pixels = _resized(pixels, look.square_width)
        return np.rot90(pixels, look.quarter_turns) if look.quarter_turns else pixels


def _resized(pixels: Pixels, width: int) -> Pixels:
    """The picture at another width, bilinear, with the filter widened where it shrinks; the same on every machine."""
    from PIL import Image

    picture = Image.fromarray(pixels)
    return np.asarray(picture.resize((width, picture.height), Image.Resampling.BILINEAR))


class Decoding:
    """Decodes a stream from where its container stands.

    A video is turned as its first frame is, and no frame otherwise: orientation in the bitstream (SEI) may come with
    some frames only, and a frame must look the same wherever decoding began.

    Attributes:
        look: of the frames; None until the first one came.
        first_pts: time stamp of the first packet that went in, None before.
    """

    def __init__(self, video: Opened, deadline: Deadline, look: Look | None = None) -> None:
        self._video, self._deadline = video, deadline
        self.look = look
        self.first_pts: int | None = None

    def first_turns(self) -> int:
        """Quarter turns of the first frame that comes, damaged or not; 0 where none does."""
        import av

        for packet in self._packets():
            with contextlib.suppress(av.error.FFmpegError):  # what damage means is for those who want its picture
                for frame in packet.decode():
                    return turns_of(frame)
        return 0

    def frames(self) -> Iterator[Any]:
        """Frames in presentation order.

        Raises:
            VideoError: DECODE_FAILED, CHANGING_SIZE, NO_DECODER, TOO_LARGE, TOO_SLOW.
        """
        for packet in self._packets():
            for frame in self._decoded(packet):
                if frame.is_corrupt:
                    raise self._failed(f"the frame at time stamp {frame.pts} is damaged")
                self._check_size(frame)
                yield frame

    def _packets(self) -> Iterator[Any]:
        import av

        try:
            for packet in self._video.container.demux(self._video.stream):
                self._deadline.check()
                if packet.is_corrupt:
                    raise self._failed(f"the packet at time stamp {packet.pts} is flagged as damaged or cut off")
                if self.first_pts is None and packet.size:
                    self.first_pts = packet.pts
                yield packet
        except (av.error.FFmpegError, OSError) as error:
            raise demux_error(self._video.path, error) from error

    def _decoded(self, packet: Any) -> list[Any]:
        import av

        try:
            return list(packet.decode())
        except av.error.DecoderNotFoundError as error:
            raise VideoError(VideoReason.NO_DECODER, self._video.path, one_line(error)) from error
        except (av.error.FFmpegError, OSError) as error:
            moment = "the end" if not packet.size else f"time stamp {packet.pts}"
            raise self._failed(f"the decoder refused the packet at {moment}: {one_line(error)}") from error

    def _check_size(self, frame: Any) -> None:
        if self.look is None:
            check_picture(self._video.path, frame.height, frame.width, self._video.limits)
            self.look = self._look_of(frame)
        if (frame.height, frame.width) != (self.look.height, self.look.width):
            detail = f"{self.look.width} x {self.look.height} px, then {frame.width} x {frame.height} px"
            raise VideoError(VideoReason.CHANGING_SIZE, self._video.path, detail)

    def _look_of(self, frame: Any) -> Look:
        square = self._video.square_width(frame.width)
        if square is not None:
            check_picture(self._video.path, frame.height, square, self._video.limits)
        return Look(height=frame.height, width=frame.width, quarter_turns=turns_of(frame), square_width=square)

    def _failed(self, detail: str) -> VideoError:
        return VideoError(VideoReason.DECODE_FAILED, self._video.path, detail)

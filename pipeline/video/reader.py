"""Frames out of files, frame-exact or a `VideoError`.

    a folder ──▶ pictures.py
    open_video ──▶ stat, all there? open ──┬── a short file, whole ──▶ pyav-sequential: decoded once, kept as YUV
                                           └──▶ demux ──┬── unique time stamps ──▶ pyav-pts ──┐ seek does not deliver
                                                        └── otherwise ───────────▶ pyav-sequential ◀┘
    decoder="decord" ──▶ demux ──▶ gate ──▶ one PyAV pass, some frames compared ──▶ decord; anything against it ──▶ PyAV

Frame i is the i-th frame that PyAV decodes from `streams.best("video")` in sequence, turned as the first one is. The
rule for damage: one bad packet refuses the video, so a file is decoded whole, once, and the frames that are wanted are
taken on the way. `known_good=True` (read before) and segments decode only what leads to the wanted frames, and files of
more than `WHOLE_PX` pixels too: a bad packet elsewhere goes unnoticed until it is read. See `decode.py` for what
FFmpeg notices at all. A file cut off at the end is refused even where it decodes up to the cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np

from vidxfer.pipeline.errors import VideoError, VideoReason
from vidxfer.pipeline.shapes import Frames, FrameSpan
from vidxfer.pipeline.video.container import Deadline, Limits, Opened, opened
from vidxfer.pipeline.video.decord_path import DecordPath
from vidxfer.pipeline.video.gate import Witness, judge, named_by_pts
from vidxfer.pipeline.video.packets import Clock, survey
from vidxfer.pipeline.video.paths import PathFailed, PtsPath, SequentialPath, fits_in_memory
from vidxfer.pipeline.video.pictures import PictureFolder
from vidxfer.pipeline.video.window import ENDS_BEHIND, SECONDS_BEHIND, Window

__all__ = ["Decoder", "Limits", "PictureFolder", "VideoSource", "open_video"]

Decoder = Literal["auto", "decord", "pyav"]
WayToFrames = DecordPath | PtsPath | SequentialPath

NO_DECORD = "no decord: "
"""How `why` begins where decord was asked for and may not read the file."""

WHOLE_PX = 5_000_000_000
"""Files of more pixels (80 s of 1080p, half an hour of 340 x 256) take too long to be decoded whole."""


@contextmanager
def open_video(
    path: str | PathLike[str],
    *,
    decoder: Decoder = "auto",
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    frames: FrameSpan | None = None,
    limits: Limits | None = None,
    known_good: bool = False,
    square_pixels: bool = False,
) -> Iterator[VideoSource | PictureFolder]:
    """Open a video (a file or a folder of numbered pictures) or a segment: start_seconds ≤ t < end_seconds, or frames.

    Several threads may each have their own source; one source belongs to one thread.

    Args:
        decoder: "auto" and "pyav" are PyAV, the faster one (docs/frames.md); "decord" is decord where the gate proves
            that its frames are the same, else PyAV. Pictures are read by Pillow whatever is asked for.
        start_seconds, end_seconds: counted from the file's first time stamp; read with PyAV.
        frames: the segment by frame numbers instead; see `FrameSpan`.
        limits: what the video may cost; `Limits()` when None.
        known_good: the whole file was read before without an error: PyAV decodes only what leads to wanted frames.
        square_pixels: resize pictures whose pixels are not square, to stored width x aspect; default: as stored.

    Raises:
        VideoError: with a typed reason, for everything that is wrong with the file.
        ValueError: decoder is none of the three.
    """
    if decoder not in ("auto", "decord", "pyav"):
        raise ValueError(f"decoder={decoder!r}: auto, decord and pyav are known")
    limits = limits or Limits()
    path = Path(path)
    window = Window.of(path, start_seconds, end_seconds, frames)
    if _is_folder(path):
        yield PictureFolder(path, limits, window)
        return
    deadline = Deadline(path, limits)
    with opened(path, limits, square_pixels=square_pixels) as video:
        source = VideoSource(video, window.at_rate(float(video.stream.average_rate or 0)))
        source.choose(deadline, use_decord=decoder == "decord", known_good=known_good)
        yield source


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a loop of links, a NUL: `check_regular` names it
        return False


class VideoSource:
    """The frames of one open video, by number. Made by `open_video`; valid inside its `with` block.

    Attributes:
        why: one line: why frames are read the way they are.
    """

    def __init__(self, video: Opened, window: Window) -> None:
        self.why = ""
        self._video, self._window = video, window
        self._way: WayToFrames

    @property
    def frame_count(self) -> int:
        """Number of decodable frames, of the segment where one was asked for."""
        return len(self._way.pts)

    @property
    def height(self) -> int:
        """Of the upright picture, in pixels."""
        return self._upright[0]

    @property
    def width(self) -> int:
        """Of the upright picture, in pixels."""
        return self._upright[1]

    @property
    def pixel_aspect(self) -> str:
        """Width to height of one pixel as it is stored, as in "4:3"."""
        return f"{self._video.pixel_aspect.numerator}:{self._video.pixel_aspect.denominator}"

    @property
    def version(self) -> str:
        """Of the libraries behind `decoder`."""
        return self._way.version()

    @property
    def quarter_turns(self) -> int:
        """Anticlockwise turns by 90 degrees that put the stored picture upright."""
        return 0 if self._way.look is None else self._way.look.quarter_turns

    @property
    def decoder(self) -> str:
        """How frames are read: "decord", "pyav-pts" or "pyav-sequential"; reading may change it, as `why` then says."""
        return self._way.name

    def read(self, indices: Sequence[int]) -> Frames:
        """Decode frames by number, in any order; repeated numbers are decoded once.

        Returns:
            uint8 [frame height width rgb], one per entry of `indices`.

        Raises:
            ValueError: no index, or one outside 0 … frame_count-1.
            VideoError: the frames cannot be decoded exactly.
        """
        numbers = [int(index) for index in indices]
        if not numbers or min(numbers) < 0 or max(numbers) >= self.frame_count:
            shown = f"{min(numbers)} … {max(numbers)}" if numbers else "none"
            raise ValueError(f"{self._video.path}: frames {shown} asked for, it has 0 … {self.frame_count - 1}")
        deadline = Deadline(self._video.path, self._video.limits)
        frames = self._read_some_way(sorted(set(numbers)), deadline)
        pixels = np.empty((len(numbers), self.height, self.width, 3), np.uint8)
        for place, number in enumerate(numbers):
            pixels[place] = frames[number]
        clock = Clock.of(self._video)
        return Frames(
            pixels=pixels,
            indices=np.array(numbers, np.int64),
            pts_seconds=np.array([clock.seconds(self._way.pts[number]) for number in numbers], np.float64),
            decoder=self.decoder,
        )

    @property
    def _upright(self) -> tuple[int, int]:
        if self._way.look is None:
            raise VideoError(VideoReason.NO_FRAMES, self._video.path, "no frame was decoded")
        return self._way.look.upright

    def _read_some_way(
        self, numbers: list[int], deadline: Deadline
    ) -> dict[int, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
        """Read; where this way fails take the next, which must promise the same number of frames."""
        while True:
            promised = self.frame_count
            try:
                return self._way.read(numbers, deadline)
            except PathFailed as failure:
                self._fall_back(str(failure), deadline)
            self._expect(promised)

    def decode_all(self) -> None:
        """Decode every frame once, in sequence, and keep none; what opening has decoded already is not done again.

        Raises:
            VideoError: damage anywhere, or other frames than the packets promised.
        """
        if isinstance(self._way, PtsPath):
            deadline = Deadline(self._video.path, self._video.limits)
            promised = self.frame_count
            try:
                self._way.pass_over(deadline)
            except PathFailed as failure:
                self._fall_back(str(failure), deadline)
            self._expect(promised)

    def _expect(self, promised: int) -> None:
        if self.frame_count != promised:
            detail = f"{promised} frames by its packets, {self.frame_count} by decoding"
            raise VideoError(VideoReason.DECODE_FAILED, self._video.path, detail)

    def choose(self, deadline: Deadline, *, use_decord: bool, known_good: bool) -> None:
        """Choose the way to the frames; `why` says it. Called once, by `open_video`."""
        if self._window.is_whole and not use_decord and not known_good and fits_in_memory(self._video):
            self.why = "decoded whole, once"
            self._way = SequentialPath(self._video, deadline, window=self._window)
        else:
            self._packets = survey(self._video, deadline, window=None if self._window.is_whole else self._window)
            if use_decord:
                self._take_decord(deadline)
            else:
                self._take_pyav(deadline, known_good=known_good)
        self._check_frames()

    def _take_decord(self, deadline: Deadline) -> None:
        verdict = judge(self._video, self._packets)
        if not self._window.is_whole or not verdict.passes:
            against = verdict.why if self._window.is_whole else "a segment is found by time stamps"
            self._take_pyav(deadline, known_good=False)
            self.why = f"{NO_DECORD}{against}; {self.why}"
            return
        witness = Witness(self._packets)
        checked = SequentialPath(self._video, deadline, window=self._window, watch=witness)
        way = DecordPath(self._video, pts=self._packets.order, look=checked.look)
        failure = witness.against(self._video, checked, way, deadline)
        self._way = checked if failure else way
        self.why = f"{NO_DECORD}{failure}" if failure else f"the gate passes: {verdict.why}"

    def _take_pyav(self, deadline: Deadline, *, known_good: bool) -> None:
        picture_px = self._video.stream.codec_context.height * self._video.stream.codec_context.width
        pixels = picture_px * len(self._packets.order)
        whole = self._window.is_whole and not known_good and pixels <= WHOLE_PX
        self.why = "decoded whole, once" if whole else "what leads to the frames wanted is decoded"
        self._way = self._pts_way(deadline, unchecked=whole) or SequentialPath(
            self._video, deadline, window=self._window
        )

    def _pts_way(self, deadline: Deadline, *, unchecked: bool = False) -> PtsPath | None:
        against = named_by_pts(self._video, self._packets)
        if against is None:
            try:
                return PtsPath(self._video, deadline, packets=self._packets, window=self._window, unchecked=unchecked)
            except PathFailed as failure:
                against = str(failure)
        self.why += f"; no time stamps: {against}"
        return None

    def _fall_back(self, failure: str, deadline: Deadline) -> None:
        self.why += f"; {self._way.name} failed: {failure}"
        way = self._pts_way(deadline) if isinstance(self._way, DecordPath) else None
        self._way = way or SequentialPath(self._video, deadline, window=self._window)

    def _check_frames(self) -> None:
        if self.frame_count:
            if not self._window.is_whole:
                self._look_for_the_end()
            return
        if self._window.is_whole:
            raise VideoError(VideoReason.NO_FRAMES, self._video.path, "no frame was decoded")
        raise VideoError(VideoReason.BAD_SEGMENT, self._video.path, f"no frame is shown {self._window}")

    def _look_for_the_end(self) -> None:
        """Say so where the video ends long before the segment does."""
        last_pts = self._way.pts[-1] or 0
        if self._packets.order[-1] > last_pts:
            return  # more of the video comes behind the segment
        last_seconds, fps = Clock.of(self._video).seconds(last_pts), float(self._video.stream.average_rate or 0)
        if self._window.seconds_behind(last_seconds, self.frame_count, fps) > SECONDS_BEHIND:
            self.why += f"; {ENDS_BEHIND}"

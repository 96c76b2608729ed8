"""Frames out of files, frame-exact or a `VideoError`.

    a folder ──▶ pictures.py
    open_video ──▶ stat, all there? open ──▶ demux ──▶ gate ── passes ──▶ one PyAV pass: no damage? ──▶ decord
                                                 │                                         │ other frames
                                                 ├── unique time stamps ──▶ pyav-pts ──────┤ seek does not deliver
                                                 └── otherwise ───────────▶ pyav-sequential ◀┘

Frame i is the i-th frame that PyAV decodes from `streams.best("video")` in sequence. The rule for damage, for now: one
bad packet refuses the video. decord returns damaged pictures without a word, so a file is decoded once by PyAV before
decord may read it (`known_good=True` skips that, for files read before). Through time stamps only what is decoded on
the way to a wanted frame is checked; a bad packet elsewhere goes unnoticed until it is read. See `decode.py` for what
FFmpeg notices at all. A file cut off at the end is refused even where it decodes up to the cut.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np

from vidxfer.pipeline.errors import VideoError, VideoReason
from vidxfer.pipeline.shapes import Frames
from vidxfer.pipeline.video.container import Deadline, Limits, Opened, opened
from vidxfer.pipeline.video.decord_path import DecordPath
from vidxfer.pipeline.video.gate import judge, named_by_pts
from vidxfer.pipeline.video.packets import Clock, Packets, Window, survey
from vidxfer.pipeline.video.paths import PathFailed, PtsPath, SequentialPath
from vidxfer.pipeline.video.pictures import PictureFolder

__all__ = ["Decoder", "Limits", "PictureFolder", "VideoSource", "open_video"]

Decoder = Literal["auto", "decord", "pyav"]
WayToFrames = DecordPath | PtsPath | SequentialPath


@contextmanager
def open_video(
    path: str | PathLike[str],
    *,
    decoder: Decoder = "auto",
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    limits: Limits | None = None,
    known_good: bool = False,
) -> Iterator[VideoSource | PictureFolder]:
    """Open a video (a file, or a folder of numbered pictures), or a segment of a file: start_seconds ≤ t < end_seconds.

    Several threads may each have their own source; one source belongs to one thread.

    Args:
        decoder: "auto" and "decord" use decord where the gate passes, else PyAV; "pyav" never uses decord. Pictures are
            read by Pillow whatever is asked for.
        start_seconds, end_seconds: counted from the file's first time stamp; read with PyAV.
        limits: what the video may cost; `Limits()` when None.
        known_good: the whole file was read before without an error: skip the search for damage in front of decord.

    Raises:
        VideoError: with a typed reason, for everything that is wrong with the file.
        ValueError: decoder is none of the three.
    """
    if decoder not in ("auto", "decord", "pyav"):
        raise ValueError(f"decoder={decoder!r}: auto, decord and pyav are known")
    limits = limits or Limits()
    path = Path(path)
    window = _window(path, start_seconds, end_seconds)
    if _is_folder(path):
        yield PictureFolder(path, limits, window)
        return
    deadline = Deadline(path, limits)
    with opened(path, limits) as video:
        source = VideoSource(video, window)
        source._choose(deadline, use_decord=decoder != "pyav", known_good=known_good)
        yield source


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a loop of links, a NUL: `check_regular` names it
        return False


def _window(path: Path, start_seconds: float | None, end_seconds: float | None) -> Window:
    for seconds in (start_seconds, end_seconds):
        if seconds is not None and not math.isfinite(seconds):
            raise VideoError(VideoReason.BAD_SEGMENT, path, f"{seconds} is not a time")
    if end_seconds is not None and end_seconds <= (start_seconds or 0.0):
        detail = f"from {start_seconds or 0:g} s to {end_seconds:g} s holds no time"
        raise VideoError(VideoReason.BAD_SEGMENT, path, detail)
    return Window(start_seconds=start_seconds, end_seconds=end_seconds)


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
        found = self._read_some_way(sorted(set(numbers)), deadline)
        pixels = np.empty((len(numbers), self.height, self.width, 3), np.uint8)
        for place, number in enumerate(numbers):
            pixels[place] = found[number]
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

    def _choose(self, deadline: Deadline, *, use_decord: bool, known_good: bool) -> None:
        packets = survey(self._video, deadline, window=None if self._window.is_whole else self._window)
        self._packets = packets
        if use_decord and self._window.is_whole:
            verdict = judge(self._video, packets)
            self.why = f"no decord: {verdict.why}"
            if verdict.passes:
                self._take_decord(packets, deadline, known_good=known_good)
                return
        elif use_decord:
            self.why = "no decord: a segment is found by time stamps"
        else:
            self.why = "PyAV was asked for"
        self._take_pyav(deadline)

    def _take_decord(self, packets: Packets, deadline: Deadline, *, known_good: bool) -> None:
        checked: PtsPath | SequentialPath = (known_good and self._pts_way(deadline)) or SequentialPath(
            self._video, deadline, window=self._window, keep=False
        )
        if checked.pts != packets.order:
            self._way = checked
            self.why = "no decord: decoding gave other time stamps than the packets"
        else:
            self._way = DecordPath(self._video, pts=packets.order, look=checked.look)
            self.why = "the gate passes: " + judge(self._video, packets).why
        self._check_frames()

    def _take_pyav(self, deadline: Deadline) -> None:
        way = self._pts_way(deadline)
        self._way = way or SequentialPath(self._video, deadline, window=self._window, keep=True)
        self._check_frames()

    def _pts_way(self, deadline: Deadline) -> PtsPath | None:
        against = named_by_pts(self._video, self._packets)
        if against is None:
            try:
                return PtsPath(self._video, deadline, packets=self._packets, window=self._window)
            except PathFailed as failure:
                against = str(failure)
        self.why += f"; no time stamps: {against}"
        return None

    def _fall_back(self, failure: str, deadline: Deadline) -> None:
        self.why += f"; {self._way.name} failed: {failure}"
        way = self._pts_way(deadline) if isinstance(self._way, DecordPath) else None
        self._way = way or SequentialPath(self._video, deadline, window=self._window, keep=True)

    def _check_frames(self) -> None:
        if self.frame_count:
            return
        if self._window.is_whole:
            raise VideoError(VideoReason.NO_FRAMES, self._video.path, "no frame was decoded")
        detail = f"no frame is shown from {self._window.start_seconds or 0:g} s to {self._window.end_seconds} s"
        raise VideoError(VideoReason.BAD_SEGMENT, self._video.path, detail)

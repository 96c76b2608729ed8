"""Two ways through PyAV to the same frames; each knows how many there are and reads them by number.

    pyav-sequential   decode from the first packet and count: always right, the reference for every other way
    pyav-pts          frames named by time stamp: seek to a key frame, decode until the wanted ones came by; or decode
                      everything once, in search of damage, and take the wanted frames on the way

Frames become rgb only where they are wanted. `pyav-pts` compares every frame that comes by with the time stamps that
demuxing showed; the first surprise ends it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vidxfer.pipeline.errors import VideoError, VideoReason
from vidxfer.pipeline.shapes import Pixels
from vidxfer.pipeline.video.container import Deadline, Opened, opened_again
from vidxfer.pipeline.video.decode import Decoding, Look, Painter, pyav_version
from vidxfer.pipeline.video.packets import MICROSECONDS, Clock, Packets, start_before
from vidxfer.pipeline.video.window import Window

KEPT_BYTES = 64 * 2**20
"""Decoded frames of a counting pass are kept, as YUV, up to this size: a short clip is then decoded once, not twice."""

WORTH_A_SEEK = 4
"""Packets that a seek must skip to beat decoding on."""


class PathFailed(Exception):
    """This way does not lead to the frames; another may. Never leaves the reader."""


class SequentialPath:
    """Frames by counting from the first packet. Making one decodes the video once.

    Attributes:
        pts: time stamp of each frame in presentation order, None where it has none.
        look: size and turn of the frames; None when there is no frame.
    """

    name = "pyav-sequential"
    version = staticmethod(pyav_version)

    def __init__(
        self, video: Opened, deadline: Deadline, *, window: Window, watch: Callable[[Any], None] | None = None
    ) -> None:
        """Count the frames in the window; `watch` is shown each of them.

        Raises:
            VideoError: any damage, as in `Decoding.frames`.
        """
        self._video, self._painter = video, Painter()
        self.pts: list[int | None] = []
        self._ordinals: list[int] = []  # of the frames in the window, among all decoded ones
        self._kept: list[Any] = []
        clock, room_bytes = Clock.of(video), KEPT_BYTES
        with opened_again(video) as fresh:
            decoding = Decoding(fresh, deadline)
            for ordinal, frame in enumerate(decoding.frames()):
                seconds = clock.seconds(frame.pts)
                if not window.is_whole and not window.holds(seconds, ordinal):
                    if window.is_over(seconds, ordinal):
                        break
                    continue
                self._ordinals.append(ordinal)
                self.pts.append(frame.pts)
                room_bytes = self._keep(frame, room_bytes)
                self._check_count()
                if watch is not None:
                    watch(frame)
        self.look: Look | None = decoding.look

    def _keep(self, frame: Any, room_bytes: int) -> int:
        """Keep the frame if there is room; without room keep none. Returns the room left; -1 is none."""
        if room_bytes < 0:
            return -1
        room_bytes -= sum(plane.buffer_size for plane in frame.planes)
        if room_bytes < 0:
            self._kept.clear()
            return -1
        self._kept.append(frame)
        return room_bytes

    def _check_count(self) -> None:
        limit = self._video.limits.frames
        if len(self.pts) > limit:
            raise VideoError(VideoReason.TOO_LARGE, self._video.path, f"more than {limit} frames")

    def read(self, numbers: Sequence[int], deadline: Deadline) -> dict[int, Pixels]:
        """Upright rgb of each frame number, which are sorted and distinct."""
        look = self.look
        if look is None:
            return {}
        if self._kept:
            return {number: self._painter.upright_rgb(self._kept[number], look, self._video.path) for number in numbers}
        wanted = {self._ordinals[number]: number for number in numbers}
        frames: dict[int, Pixels] = {}
        with opened_again(self._video) as fresh:
            for ordinal, frame in enumerate(Decoding(fresh, deadline, look).frames()):
                if ordinal in wanted:
                    frames[wanted[ordinal]] = self._painter.upright_rgb(frame, look, self._video.path)
                if len(frames) == len(wanted):
                    return frames
        detail = f"{len(frames)} of {len(wanted)} frames came the second time it was decoded"
        raise VideoError(VideoReason.DECODE_FAILED, self._video.path, detail)


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """One stretch of decoding: where to seek, and the frame numbers to collect on the way."""

    start: tuple[int, int]
    numbers: tuple[int, ...]


def plan_stretches(packets: Packets, pts: Sequence[int], numbers: Sequence[int]) -> list[Stretch]:
    """Cut sorted, distinct frame numbers into runs, so that no long stretch is decoded for nothing.

    Args:
        pts: time stamp of each frame number.

    Raises:
        PathFailed: a frame lies before every start.
    """
    runs: list[Stretch] = []
    reached = -1  # packet number of the last frame planned
    for number in numbers:
        start = start_before(packets, pts[number])
        if start is None:
            raise PathFailed(f"no key frame to start from before frame {number}")
        if not runs or start[0] > reached + WORTH_A_SEEK:
            runs.append(Stretch(start=start, numbers=(number,)))
        else:
            runs[-1] = Stretch(start=runs[-1].start, numbers=(*runs[-1].numbers, number))
        reached = max(reached, packets.decode_position[pts[number]])
    return runs


class PtsPath:
    """Frames by time stamp. Making one decodes only the first frame, for its size, and that of the file for its turn.

    Attributes:
        pts: time stamp of each frame in presentation order.
        look: size and turn of the frames.
    """

    name = "pyav-pts"
    version = staticmethod(pyav_version)

    def __init__(
        self, video: Opened, deadline: Deadline, *, packets: Packets, window: Window, unchecked: bool = False
    ) -> None:
        """Find the frames of the window among the packets.

        Args:
            unchecked: the first reading decodes every frame, in search of damage.

        Raises:
            PathFailed: the seek to the first frame does not deliver it.
            VideoError: that frame is damaged.
        """
        clock = Clock.of(video)
        self._video, self._packets, self._painter = video, packets, Painter()
        self._unchecked, self._passed = unchecked, False
        self.pts: list[int] = [
            pts for number, pts in enumerate(packets.order) if window.holds(clock.seconds(pts), number)
        ]
        self.look: Look | None = None
        if self.pts:
            self._run(plan_stretches(packets, self.pts, [0])[0], deadline, paint=())
        if self.look is not None and not window.is_whole:
            with opened_again(video) as fresh:
                self.look = replace(self.look, quarter_turns=Decoding(fresh, deadline).first_turns())

    def read(self, numbers: Sequence[int], deadline: Deadline) -> dict[int, Pixels]:
        """Upright rgb of each frame number, which are sorted and distinct.

        Raises:
            PathFailed: seeking does not deliver, or other frames than the packets promised came out.
            VideoError: damage on the way to a wanted frame.
        """
        frames: dict[int, Pixels] = {}
        passed = range(len(self.pts)) if self._unchecked else numbers
        for run in plan_stretches(self._packets, self.pts, passed):
            frames.update(self._run(run, deadline, paint=set(numbers)))
        self._passed |= self._unchecked
        self._unchecked = False
        return frames

    def pass_over(self, deadline: Deadline) -> None:
        """Decode every frame once, without its pixels, unless a reading did.

        Raises:
            PathFailed, VideoError: as `read`.
        """
        if not self._passed:
            self._unchecked = True
            self.read((), deadline)

    def _run(self, run: Stretch, deadline: Deadline, *, paint: Collection[int]) -> dict[int, Pixels]:
        """Decode a run; the pixels of those of its frames that are in `paint`."""
        self._seek(run.start[1])
        decoding = Decoding(self._video, deadline, self.look)
        order = self._packets.order
        wanted = {self.pts[number]: number for number in run.numbers}
        left, frames = len(wanted), dict[int, Pixels]()
        expected = -1
        for frame in decoding.frames():
            if expected < 0:
                expected = self._landing(decoding.first_pts, run.start)
            if frame.pts is not None and frame.pts < order[expected]:
                continue  # shown before the key frame it followed; leans on frames that were skipped
            if frame.pts != order[expected]:
                raise PathFailed(f"time stamp {frame.pts} came instead of {order[expected]}")
            expected += 1
            self.look = decoding.look
            if frame.pts in wanted and self.look is not None:
                left -= 1
                if wanted[frame.pts] in paint:
                    frames[wanted[frame.pts]] = self._painter.upright_rgb(frame, self.look, self._video.path)
            if not left:
                return frames
            if expected == len(order):
                break
        raise PathFailed(f"{left} frames did not come out of the decoder")

    def _seek(self, pts: int) -> None:
        import av

        try:
            self._video.container.seek(pts, stream=self._video.stream, backward=True, any_frame=False)
        except (av.error.FFmpegError, OSError) as error:
            raise PathFailed(f"seeking failed: {error}") from error

    def _landing(self, first_pts: int | None, start: tuple[int, int]) -> int:
        """Frame number, among all packets, at which decoding really began; it must be a start no later than planned."""
        if first_pts is None or first_pts > start[1]:
            raise PathFailed(f"a seek to {start[1]} landed at {first_pts}")
        if first_pts not in {pts for _, pts in self._packets.starts}:
            raise PathFailed(f"a seek to {start[1]} landed at {first_pts}, no key frame to start from")
        return bisect_left(self._packets.order, first_pts)


def fits_in_memory(video: Opened) -> bool:
    """Whether, by its header, the whole video can be kept as YUV; a wrong header costs time, not exactness."""
    context, stream = video.stream.codec_context, video.stream
    seconds = (video.container.duration or 0) / MICROSECONDS
    frames = stream.frames or seconds * float(stream.average_rate or stream.guessed_rate or 0)
    return context.height * context.width * 3 // 2 * frames <= KEPT_BYTES

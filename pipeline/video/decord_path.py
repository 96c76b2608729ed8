"""decord as a way to frames: one thread, opened for one reading, closed at once.

A reader left open goes on decoding ahead without bound while nobody asks (5 GB in 8 s), and with more threads fails on
VP9 superframes. What decord believes of the file is compared with what demuxing showed before a frame is taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vidxfer.pipeline.shapes import Pixels
from vidxfer.pipeline.video.container import Deadline, Opened, one_line
from vidxfer.pipeline.video.decode import Look
from vidxfer.pipeline.video.packets import Clock
from vidxfer.pipeline.video.paths import PathFailed

TOLERANCE_SECONDS = 1e-3
"""decord keeps time stamps as float32 seconds from the first one."""


class DecordPath:
    """Frames of a file that passed the gate.

    Attributes:
        pts: time stamp of each frame in presentation order.
        look: size and turn of the frames, as PyAV decoded them.
    """

    name = "decord"

    def __init__(self, video: Opened, *, pts: Sequence[int], look: Look | None) -> None:
        self._video = video
        self.pts = list(pts)
        self.look = look

    @staticmethod
    def version() -> str:
        """Of decord."""
        import decord

        return f"decord {decord.__version__}"

    def read(self, numbers: Sequence[int], deadline: Deadline) -> dict[int, Pixels]:
        """Upright rgb of each frame number, which are sorted and distinct.

        Raises:
            PathFailed: decord is not installed, raises, or sees other frames in the file.
        """
        try:
            import decord
        except (ImportError, OSError) as error:
            raise PathFailed(f"decord cannot be imported: {one_line(error)}") from error
        decord.logging.set_level(decord.logging.QUIET)
        try:
            reader = decord.VideoReader(str(self._video.path.absolute()), ctx=decord.cpu(0), num_threads=1)
            self._compare(len(reader), reader.get_frame_timestamp(range(len(reader))))
            deadline.check()
            pixels = reader.get_batch(list(numbers)).asnumpy()
        except (decord.DECORDError, RuntimeError, IndexError, UnicodeEncodeError) as error:  # the last: names not UTF-8
            raise PathFailed(f"decord failed: {one_line(error)}") from error
        if self.look is None or pixels.shape[1:3] != self.look.upright:
            raise PathFailed(f"decord's frames are {pixels.shape[1:3]}, PyAV's {self.look and self.look.upright}")
        return dict(zip(numbers, pixels, strict=True))

    def _compare(self, frame_count: int, stamps: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
        if frame_count != len(self.pts):
            raise PathFailed(f"decord counts {frame_count} frames, the packets {len(self.pts)}")
        clock = Clock.of(self._video)
        ours = np.array([clock.seconds(pts) for pts in self.pts])
        apart = np.abs((stamps[:, 0] - stamps[0, 0]) - (ours - ours[0]))
        if not (apart <= TOLERANCE_SECONDS + 1e-6 * ours).all():
            raise PathFailed("decord's time stamps are not the packets'")

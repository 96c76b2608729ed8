"""All packets of a video, demuxed but not decoded: which frames it should have, and where decoding may begin.

    file ──▶ packet packet packet …        decode order
             pts ──sort──▶ frame 0 1 2 …     presentation order: frame i is the i-th time stamp
             key frames that need nothing before them ──▶ starts: where a seek may go

Costs reading the file once (1–12 ms for a clip). For a segment only the packets from the key frame before it up to its
end are looked at.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction
from operator import itemgetter
from typing import Any

from vidxfer.pipeline.errors import VideoError, VideoReason
from vidxfer.pipeline.video.bitstream import (
    IDR,
    RANDOM_ACCESS,
    nal_length_bytes,
    sequence_headers,
    shown_pictures,
    slice_types,
)
from vidxfer.pipeline.video.container import Deadline, Opened, demux_error, opened_again
from vidxfer.pipeline.video.window import Window

MICROSECONDS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Packets:
    """What demuxing showed. Time stamps are in units of `Clock.tick`.

    Attributes:
        order: the time stamp of every packet that shows a picture, in presentation order; may hold repeats.
        decode_position: packet number, in decode order, of each time stamp.
        starts: (packet number, time stamp) of key frames from which decoding needs nothing before them.
        faults: what keeps frames from being named by time stamp; empty: nothing.
        open_key_frames: key frames that are not IDR (h264, hevc).
        leading: packets shown before the key frame they follow.
        headers_inside: key frames carry sequence headers of their own (h264, hevc).
        largest: time stamp of the largest packet: a picture that is not flat, if there is one. None without packets.
    """

    order: list[int]
    decode_position: dict[int, int]
    starts: list[tuple[int, int]]
    faults: list[str]
    open_key_frames: int
    leading: int
    headers_inside: bool = False
    largest: int | None = None


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Turns time stamps of one stream into seconds from the start of the file."""

    tick: Fraction
    start: Fraction

    @classmethod
    def of(cls, video: Opened) -> Clock:
        """The clock of the opened stream; a file's first time stamp, of sound or picture, is its zero."""
        start = video.container.start_time or 0
        return cls(tick=Fraction(video.stream.time_base or 1), start=Fraction(start, MICROSECONDS))

    def seconds(self, pts: int | None) -> float:
        """Seconds from the start of the file; NaN without a time stamp."""
        return float("nan") if pts is None else float(pts * self.tick - self.start)

    def pts(self, seconds: float) -> int:
        """The last time stamp at or before that many seconds."""
        return int((Fraction(seconds) + self.start) // self.tick)


def survey(video: Opened, deadline: Deadline, *, window: Window | None = None) -> Packets:
    """Demux the stream, whole or around a window.

    Raises:
        VideoError: DECODE_FAILED for a packet flagged as damaged or an unreadable file, TOO_LARGE, TOO_SLOW.
    """
    import av

    try:
        if window is None or window.start_seconds is None:
            return _collect(video, deadline, window)
        start_pts = Clock.of(video).pts(window.start_seconds)
        if _seeks(video, start_pts):
            packets = _collect(video, deadline, window)
            if packets.headers_inside:  # one before the window may have set what these do not
                window = None
            elif packets.starts and packets.starts[0][0] == 0 and packets.starts[0][1] <= start_pts:
                return packets
        # The seek failed, went too far, or to a frame that leans on earlier ones: look again, from the beginning.
        with opened_again(video) as fresh:
            return _collect(fresh, deadline, window)
    except (av.error.FFmpegError, OSError) as error:
        raise demux_error(video.path, error) from error


def _seeks(video: Opened, pts: int) -> bool:
    import av

    try:
        video.container.seek(pts, stream=video.stream, backward=True)
    except (av.error.FFmpegError, OSError):  # formats without an index, as raw h264
        return False
    return True


def _collect(video: Opened, deadline: Deadline, window: Window | None) -> Packets:
    """The packets from where the container stands to its end, or to the end of the window."""
    survey = _Survey(video)
    end_pts = None
    if window is not None and window.end_seconds is not None:
        end_pts = Clock.of(video).pts(window.end_seconds)
    for packet in video.container.demux(video.stream):
        deadline.check()
        if packet.size:
            survey.add(packet)
        # No later packet in decode order can be shown before its own decoding time.
        if end_pts is not None and packet.dts is not None and packet.dts > end_pts:
            break
    return survey.packets()


class _Survey:
    """Collects packets one by one."""

    def __init__(self, video: Opened) -> None:
        self._video, self._codec = video, video.codec
        self._file_header = bytes(video.stream.codec_context.extradata or b"")
        self._length_bytes = nal_length_bytes(self._codec, video.stream.codec_context.extradata)
        self._pts: list[int] = []
        self._starts: list[tuple[int, int]] = []
        self._count = self._missing = self._discarded = self._hidden = self._open = self._leading = 0
        self._first_is_key = False
        self._key_pts: int | None = None
        self._headers: set[tuple[bytes, ...]] = set()
        self._largest: tuple[int, int | None] = (0, None)

    def add(self, packet: Any) -> None:
        position = self._count
        self._count += 1
        if packet.is_corrupt:
            detail = f"packet {position} is flagged as damaged or cut off"
            raise VideoError(VideoReason.DECODE_FAILED, self._video.path, detail)
        if self._count > self._video.limits.frames:
            detail = f"more than {self._video.limits.frames} frames"
            raise VideoError(VideoReason.TOO_LARGE, self._video.path, detail)
        if packet.is_keyframe:
            self._add_key(packet, position)
        elif self._key_pts is not None and packet.pts is not None and packet.pts < self._key_pts:
            self._leading += 1
        self._discarded += packet.is_discard
        self._missing += packet.pts is None
        self._hidden += self._codec in ("vp8", "vp9") and shown_pictures(self._codec, bytes(packet)) != 1
        self._pts.append(-1 if packet.pts is None else packet.pts)
        self._largest = max(self._largest, (packet.size, packet.pts), key=itemgetter(0))

    def _add_key(self, packet: Any, position: int) -> None:
        self._first_is_key |= position == 0
        self._key_pts = packet.pts
        kinds = slice_types(self._codec, bytes(packet), self._length_bytes) if self._codec in IDR else set()
        if self._codec in IDR:
            self._headers.add(sequence_headers(self._codec, bytes(packet), self._length_bytes))
        self._open += self._codec in IDR and not (kinds and kinds <= IDR[self._codec])
        may_start = self._codec not in IDR or bool(kinds and kinds <= RANDOM_ACCESS[self._codec])
        if may_start and packet.pts is not None:
            self._starts.append((position, packet.pts))

    def packets(self) -> Packets:
        repeated = len(self._pts) - len(set(self._pts))
        counted = [
            (self._missing, "packets without a time stamp"),
            (0 if self._missing else repeated, "repeated time stamps"),
            (self._discarded, "packets cut by an edit list"),
            (self._hidden, "packets that show no or several pictures"),
        ]
        differing = {unit for units in self._headers for unit in units if unit not in self._file_header}
        if differing and len({units[-1:] for units in self._headers}) > 1:
            counted.append((len(differing), "sequence headers that change what is shown on the way"))
        faults = [f"{count} {fault}" for count, fault in counted if count]
        if self._count and not self._first_is_key:
            faults.append("it does not begin with a key frame")
        return Packets(
            order=sorted(self._pts),
            decode_position={pts: position for position, pts in enumerate(self._pts)},
            starts=self._starts,
            faults=faults,
            open_key_frames=self._open,
            leading=self._leading,
            headers_inside=any(self._headers),
            largest=self._largest[1],
        )


def start_before(packets: Packets, pts: int) -> tuple[int, int] | None:
    """The last (packet number, time stamp) from which decoding delivers the frame at `pts`; None where there is none.

    Such a start is shown no later than the frame, and decoded no later.
    """
    position = packets.decode_position[pts]
    for start in reversed(packets.starts[: bisect_left(packets.starts, (position + 1,))]):
        if start[1] <= pts:
            return start
    return None

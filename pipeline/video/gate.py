"""May decord name this video's frames? Only where PyAV's frames prove it, because decord is wrong without an error.

    wrong frames in decord 0.6                                 what is asked of the file here
    AVI, MPEG-PS, MPEG-TS, MPEG-4 with B-frames        ──▶   mov/mp4 or matroska/webm; h264, hevc, vp8, vp9
    a second video stream, or a cover picture          ──▶   one video stream
    stream-copied trims (edit lists)                   ──▶   no packet to be discarded
    open GOP, intra refresh                            ──▶   every key frame an IDR, no leading pictures
    hidden or missing pictures                         ──▶   one time stamp and one shown picture per packet
    odd width or height, more than 8 bits, 4:2:2/4:4:4 ──▶   even sides, 4:2:0 with 8 bits: else its pixels differ
    pixels that are to be made square                  ──▶   refused: decord does not resize
    no duration in the header, AV1, VVC                ──▶   refused: decord cannot open them
    ── what only PyAV's pass over the frames shows ──
    damage                                             ──▶   refused by the pass
    interlaced pictures (colour per field)             ──▶   no interlaced frame
    a turn in matroska, or in the bitstream            ──▶   no turn outside mov/mp4
    another turn, format, range or matrix on the way   ──▶   the same for all frames
    what is not known yet (cropping, …)                ──▶   some frames are compared, pixel by pixel

Compared are the first, the middle and the last frame, and that of the largest packet, which is not flat if any is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vidxfer.pipeline.video.container import Deadline, Opened
from vidxfer.pipeline.video.decode import Look, Painter
from vidxfer.pipeline.video.decord_path import DecordPath
from vidxfer.pipeline.video.packets import Packets
from vidxfer.pipeline.video.paths import PathFailed, SequentialPath

CONTAINERS = {"mp4", "matroska"}
TURNING_CONTAINERS = {"mp4"}
DECORD_CODECS = {"h264", "hevc", "vp8", "vp9"}
"""Not av1: decord 0.6 bundles no decoder for it."""
PIXELS = {"yuv420p", "yuvj420p"}
SMALLEST_PX = 16
PASSED = "IDR key frames only, one time stamp per picture, none discarded"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the gate says of one file.

    Attributes:
        passes: nothing is against decord so far.
        why: one line: the first thing against it, or what was checked.
        frame_count: frames the packets promise.
        pts: time stamp of each of them in presentation order, in ticks of the stream; repeats where stamps repeat.
    """

    passes: bool
    why: str
    frame_count: int
    pts: tuple[int, ...]


def judge(video: Opened, packets: Packets) -> Verdict:
    """Decide from the container, the codec and all packets of the file; nothing is decoded."""
    against = [*_against_header(video), *_against_packets(packets)]
    return Verdict(
        passes=not against,
        why=against[0] if against else PASSED,
        frame_count=len(packets.order),
        pts=tuple(packets.order),
    )


def named_by_pts(video: Opened, packets: Packets) -> str | None:
    """Say why PyAV may not name frames by time stamp, or None where it may.

    Only mov/mp4 and matroska/webm have an index that seeks to the packet asked for.
    """
    if not CONTAINERS & set(video.container.format.name.split(",")):
        return f"{video.container.format.name}: seeking is not exact"
    if packets.faults:
        return packets.faults[0]
    return None if packets.starts else "no key frame to start from"


def _against_header(video: Opened) -> list[str]:
    container, context = video.container, video.stream.codec_context
    reasons = []
    if not CONTAINERS & set(container.format.name.split(",")):
        reasons.append(f"{container.format.name} is not mov/mp4 or matroska/webm")
    if len(container.streams.video) > 1:
        reasons.append(f"{len(container.streams.video)} video streams: decord chooses its own")
    if video.square_width(context.width) is not None:
        reasons.append(f"pixels of {video.pixel_aspect} are to be made square")
    if video.codec not in DECORD_CODECS:
        reasons.append(f"{video.codec} is not one of {', '.join(sorted(DECORD_CODECS))}")
    if context.pix_fmt not in PIXELS:
        reasons.append(f"{context.pix_fmt} is not 4:2:0 with 8 bits")
    if context.width % 2 or context.height % 2:
        reasons.append(f"{context.width} x {context.height} px: decord colours odd sizes differently")
    if min(context.width, context.height) < SMALLEST_PX:
        reasons.append(f"{context.width} x {context.height} px is below {SMALLEST_PX}")
    if container.duration is None:
        reasons.append("the header states no duration")
    return reasons


def _against_packets(packets: Packets) -> list[str]:
    reasons = list(packets.faults)
    if packets.open_key_frames:
        reasons.append(f"{packets.open_key_frames} key frames are not IDR")
    if packets.leading:
        reasons.append(f"{packets.leading} pictures shown before the key frame they follow")
    if not packets.order:
        reasons.append("no packets")
    return reasons


class Witness:
    """Looks on while PyAV decodes a whole file; then says what is against decord, or that its frames are the same."""

    def __init__(self, packets: Packets) -> None:
        last = len(packets.order) - 1
        largest = 0 if packets.largest is None else packets.order.index(packets.largest)
        self._compared = {0, last // 2, last, largest}
        self._order = packets.order
        self._frames: dict[int, Any] = {}
        self._kinds: set[tuple[object, ...]] = set()
        self._count = self._interlaced = 0

    def __call__(self, frame: Any) -> None:
        """Note one frame."""
        if self._count in self._compared:
            self._frames[self._count] = frame
        self._count += 1
        self._interlaced += frame.interlaced_frame
        self._kinds.add((frame.rotation, frame.format.name, frame.color_range, frame.colorspace))

    def against(self, video: Opened, checked: SequentialPath, way: DecordPath, deadline: Deadline) -> str | None:
        """What is against decord, after the pass; None where its frames are PyAV's.

        Args:
            checked: what looked at every frame.
            way: decord's way to the same file.
        """
        look = checked.look
        if look is None or checked.pts != self._order:
            return "decoding gave other time stamps than the packets"
        if self._interlaced:
            return f"{self._interlaced} interlaced frames: decord takes their colours from the wrong lines"
        if len(self._kinds) > 1:
            return "turn, format, colour range or colour matrix change on the way"
        if look.quarter_turns and not TURNING_CONTAINERS & set(video.container.format.name.split(",")):
            return f"turned by {90 * look.quarter_turns} degrees outside mov/mp4"
        return self._differing(video, look, way, deadline)

    def _differing(self, video: Opened, look: Look, way: DecordPath, deadline: Deadline) -> str | None:
        numbers, painter = sorted(self._compared), Painter()
        try:
            frames = way.read(numbers, deadline)
        except PathFailed as failure:
            return str(failure)
        for number in numbers:
            if not np.array_equal(frames[number], painter.upright_rgb(self._frames[number], look, video.path)):
                return f"decord's frame {number} has other pixels than PyAV's"
        return None

"""May decord name this video's frames? Decided from the packets alone, because decord is wrong without an error.

    wrong frames in decord 0.6                                 what is asked of the file here
    AVI, MPEG-PS, MPEG-TS, MPEG-4 with B-frames        ──▶   mov/mp4 or matroska/webm; h264, hevc, vp8, vp9
    stream-copied trims (edit lists)                   ──▶   no packet to be discarded
    open GOP, intra refresh                            ──▶   every key frame an IDR, no leading pictures
    hidden or missing pictures                         ──▶   one time stamp and one shown picture per packet
    odd width or height, more than 8 bits, 4:2:2/4:4:4 ──▶   even sides, 4:2:0 with 8 bits: else its pixels differ
    no duration in the header, AV1, VVC                ──▶   refused: decord cannot open them

A file that passes is decoded by decord to the same pixels, bit for bit, as by PyAV. Damage inside packets is not seen
here: only decoding shows it.
"""

from __future__ import annotations

from dataclasses import dataclass

from vidxfer.pipeline.video.container import Opened
from vidxfer.pipeline.video.packets import Packets

CONTAINERS = {"mp4", "matroska"}
CODECS = {"h264", "hevc", "vp8", "vp9"}
"""Not av1: decord 0.6 bundles no decoder for it."""
PIXELS = {"yuv420p", "yuvj420p"}
SMALLEST_PX = 16


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the gate says of one file.

    Attributes:
        passes: decord may read it.
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
        why=against[0] if against else "IDR key frames only, one time stamp per picture, none discarded",
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
    found = []
    if not CONTAINERS & set(container.format.name.split(",")):
        found.append(f"{container.format.name} is not mov/mp4 or matroska/webm")
    if video.codec not in CODECS:
        found.append(f"{video.codec} is not one of {', '.join(sorted(CODECS))}")
    if context.pix_fmt not in PIXELS:
        found.append(f"{context.pix_fmt} is not 4:2:0 with 8 bits")
    if context.width % 2 or context.height % 2:
        found.append(f"{context.width} x {context.height} px: decord colours odd sizes differently")
    if min(context.width, context.height) < SMALLEST_PX:
        found.append(f"{context.width} x {context.height} px is below {SMALLEST_PX}")
    if container.duration is None:
        found.append("the header states no duration")
    return found


def _against_packets(packets: Packets) -> list[str]:
    found = list(packets.faults)
    if packets.open_key_frames:
        found.append(f"{packets.open_key_frames} key frames are not IDR")
    if packets.leading:
        found.append(f"{packets.leading} pictures shown before the key frame they follow")
    if not packets.order:
        found.append("no packets")
    return found

"""Files that lie, end early, are no files, or cost too much: made from small videos of our own by changing bytes.

Each case says what is done to it; what must come of it is said by whoever reads it.
"""

from __future__ import annotations

import io
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image

from vidxfer.pipeline.video.writer import write_video

TEN_HOURS_SECONDS = 36_000
MILLIONS = 5_000_000
"""Declared frames. FFmpeg indexes up to some 90 million of them, at 24 bytes each and more while it does so."""

LARGE_PX = 6_000
"""Side of a picture with more pixels than are read; 16,000 is the most that FFmpeg decodes."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A path, what is wrong with it in a few words, and what reading it must come to.

    Attributes:
        expected: the reason's code; "read": all its frames; "": either, as long as it is typed and bounded.
    """

    path: Path
    what: str
    expected: str


def moving(count: int = 50, height: int = 64, width: int = 96) -> np.ndarray:
    """uint8 [frame height width rgb]: stripes that move."""
    columns = (np.arange(width)[None, :] + 3 * np.arange(count)[:, None]) % 48 * 5
    return np.repeat(np.repeat(columns[:, None, :, None], height, axis=1), 3, axis=3).astype(np.uint8)


def patched(data: bytes, box: bytes, at: int, value: bytes, times: int = 1) -> bytes:
    """The mp4 with `value` written `at` bytes behind the name of each of the first boxes of that name."""
    found, start = bytearray(data), 0
    for _ in range(times):
        start = found.index(box, start) + 4
        found[start + at : start + at + len(value)] = value
    return bytes(found)


def number(value: int) -> bytes:
    """Four bytes, big end first."""
    return struct.pack(">I", value)


def ten_hours(data: bytes) -> bytes:
    """Movie and media headers that state ten hours, whatever the frames say."""
    for box, scale_at in ((b"mvhd", 12), (b"mdhd", 12)):
        start = data.index(box) + 4 + scale_at
        scale = int.from_bytes(data[start : start + 4], "big")
        data = patched(data, box, 16, number(TEN_HOURS_SECONDS * scale))
    return data


def no_seconds(data: bytes) -> bytes:
    """Headers that state no duration at all."""
    return patched(patched(patched(data, b"mvhd", 16, number(0)), b"mdhd", 16, number(0)), b"tkhd", 20, number(0))


def millions(data: bytes, count: int = MILLIONS) -> bytes:
    """Tables that state millions of frames of one byte each."""
    data = patched(data, b"stsz", 4, number(1) + number(count))
    data = patched(data, b"stts", 4, number(1) + number(count) + number(512))
    return patched(data, b"stsc", 4, number(1) + number(1) + number(count) + number(1))


def spread_out(data: bytes) -> bytes:
    """One frame every twelve minutes: ten hours that are true."""
    data = patched(data, b"stts", 4, number(1) + number(50) + number(12 * 60 * 12800))
    return patched(data, b"elst", 8, number(TEN_HOURS_SECONDS * 1000))


def bad_packet(data: bytes) -> bytes:
    """One packet in fifty filled with ones; the container stays whole."""
    with av.open(io.BytesIO(data)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    at, size = packets[25]
    assert at is not None
    return data[: at + 4] + b"\xff" * (size - 4) + data[at + size :]


PATCHES: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "header of 10 hours.mp4": ("50 frames, headers say 10 hours", ten_hours, "read"),
    "header of 0 seconds.mp4": ("50 frames, headers say 0 seconds", no_seconds, "read"),
    "10 true hours.mp4": ("50 frames, one every 12 minutes", spread_out, "read"),
    "millions of frames.mp4": (f"{MILLIONS:,} frames declared, 50 there", millions, "decode_failed"),
    "one bad packet in fifty.mp4": ("packet 25 overwritten", bad_packet, "decode_failed"),
    "cut at 60 %.mp4": ("the last 40 % missing", lambda data: data[: len(data) * 6 // 10], "decode_failed"),
    "an mp4.avi": ("a good mp4 with another name", lambda data: data, "read"),
    "an mp4.txt": ("a good mp4 with another name", lambda data: data, "read"),
    "zeros.mp4": ("1 MB of zeros", lambda data: bytes(1_000_000), "not_a_video"),
    "noise.mp4": ("1 MB of noise", lambda data: np.random.default_rng(0).bytes(1_000_000), "not_a_video"),
    "a web page.mp4": ("what a failed download leaves", lambda data: b"<!DOCTYPE html><p>404</p>", "not_a_video"),
    "empty.mp4": ("0 bytes", lambda data: b"", "empty"),
}


def hostile(folder: Path, large_px: int = LARGE_PX) -> list[Case]:
    """Make them all; a few MB."""
    folder.mkdir(parents=True, exist_ok=True)
    base = folder / "good.mp4"
    write_video(base, moving(), fps=25, codec="libx264", options={"preset": "fast", "g": "12", "bf": "0"})
    good = base.read_bytes()
    found = [Case(path=base, what="a good video, for comparison", expected="read")]
    for name, (what, change, expected) in PATCHES.items():
        path = folder / name
        path.write_bytes(change(good))
        found.append(Case(path=path, what=what, expected=expected))
    return [*found, *_no_files(folder), *_sizes(folder, large_px), *_folders(folder, large_px)]


def _no_files(folder: Path) -> list[Case]:
    pipe, loop, link, plug, sparse, closed = (
        folder / f"{name}.mp4" for name in ("pipe", "loop", "link to a pipe", "socket", "sparse", "folder")
    )
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    link.symlink_to(pipe)
    with socket.socket(socket.AF_UNIX) as bound:
        here = Path.cwd()
        os.chdir(folder)  # the name of a socket may have 107 bytes
        try:
            bound.bind(plug.name)
        finally:
            os.chdir(here)
    sparse.touch()
    os.truncate(sparse, 20 * 10**9)
    closed.mkdir()
    return [
        Case(path=pipe, what="a pipe without a writer", expected="not_regular"),
        Case(path=loop, what="a link to itself", expected="not_regular"),
        Case(path=link, what="a link to a pipe", expected="not_regular"),
        Case(path=plug, what="a socket", expected="not_regular"),
        Case(path=Path("/dev/zero"), what="a device without an end", expected="not_regular"),
        Case(path=closed, what="an empty folder named like a video", expected="not_regular"),
        Case(path=folder / "missing.mp4", what="no such file", expected="missing"),
        Case(path=base_below(folder), what="a file taken for a folder", expected="missing"),
        Case(path=sparse, what="20 GB of nothing, sparse", expected="not_a_video"),
    ]


def base_below(folder: Path) -> Path:
    """A path that goes through a file."""
    return folder / "good.mp4" / "below.mp4"


def _sizes(folder: Path, side_px: int) -> list[Case]:
    one, large, liar = folder / "1 x 1.mkv", folder / "wide.mov", folder / "wide that says 64 x 64.mov"
    write_video(one, moving(5, 1, 1), codec="ffv1", pix_fmt="bgr0")
    with av.open(str(large), "w") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = side_px, side_px, "gray"
        stream.options = {"compression_level": "1"}
        black = np.zeros((side_px, side_px), np.uint8)
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(black, format="gray")))
        container.mux(stream.encode(None))
    # Width and height stand 24 bytes behind the name of the sample entry.
    liar.write_bytes(patched(large.read_bytes(), b"stsd", 36, struct.pack(">HH", 64, 64)))
    return [
        Case(path=one, what="1 x 1 px, 5 frames", expected="read"),
        Case(path=large, what=f"{side_px:,} x {side_px:,} px", expected="too_large"),
        Case(path=liar, what="the same, with a small size in its header", expected="too_large"),
    ]


def _folders(folder: Path, large_px: int) -> list[Case]:
    gaps, bomb, cut, mixed = (folder / name for name in ("gaps", "bomb", "cut", "mixed"))
    for path, sizes in ((gaps, (64, 64)), (bomb, (64, 64)), (cut, (64, 64)), (mixed, (64, 32))):
        path.mkdir()
        for at, side_px in enumerate(sizes):
            Image.new("RGB", (side_px, side_px)).save(path / f"{at + 1:05d}.jpg")
    (gaps / "00002.jpg").rename(gaps / "00004.jpg")
    (cut / "00002.jpg").write_bytes((cut / "00002.jpg").read_bytes()[:-100])
    (bomb / "00002.jpg").unlink()
    Image.new("L", (large_px, large_px)).save(bomb / "00002.png")
    return [
        Case(path=gaps, what="pictures 1 and 4", expected="missing_frames"),
        Case(path=bomb, what=f"a second picture of {large_px:,} x {large_px:,} px", expected="too_large"),
        Case(path=cut, what="a second picture that is cut off", expected="decode_failed"),
        Case(path=mixed, what="pictures of two sizes", expected="changing_size"),
    ]

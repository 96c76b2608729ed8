"""Make the one-second files that `vidxfer doctor` reads: twelve frames, each with its number in its pixels.

    python tests/video/make_samples.py pipeline/video/samples

Run it again only to add a kind: encoders change, and so would the bytes.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np

from vidxfer.pipeline.video.samples import drawn
from vidxfer.pipeline.video.writer import write_video

KINDS = {
    "vp9.webm": ("libvpx-vp9", {"g": "4"}),
    "vp8.webm": ("libvpx", {"b": "200k", "g": "4"}),
    "h264_b_frames.mp4": ("libx264", {"preset": "veryfast", "bf": "3", "b_strategy": "0", "g": "4"}),
    "hevc.mp4": ("libx265", {"x265-params": "log-level=none:open-gop=0:bframes=2:keyint=4:min-keyint=4"}),
    "av1.mp4": ("libsvtav1", {"preset": "8", "g": "4"}),
    "mpeg4_b_frames.avi": ("mpeg4", {"bf": "2", "g": "4", "b": "400k"}),
    "rotated.mp4": ("libx264", {"preset": "veryfast", "g": "4"}),
}
"""Name -> encoder and its options."""

QUARTER_TURN = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 64 << 16, 0, 1 << 30)
"""A display matrix: players turn the stored picture clockwise by 90 degrees."""


def turn(path: Path) -> None:
    """Write the display matrix into the track header of an mp4."""
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd") + 4
    assert data[header] == 0, "a track header of version 0"
    data[header + 40 : header + 76] = QUARTER_TURN
    path.write_bytes(data)


def main(folder: Path) -> None:
    """Write every kind."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = drawn()
    for name, (codec, options) in KINDS.items():
        stored = np.rot90(frames, 1, axes=(1, 2)) if name.startswith("rotated") else frames
        write_video(folder / name, stored, fps=12, codec=codec, crf=24, options=options)
        if name.startswith("rotated"):
            turn(folder / name)
        print(f"{name}: {(folder / name).stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

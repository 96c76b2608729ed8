"""Videos whose pixels say which frame they are, so that a wrong frame is seen and not only a wrong count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

BITS = 8


def barcoded(count: int, height: int = 64, width: int = 96) -> np.ndarray:
    """uint8 [frame height width rgb]: frame i shows i as eight black or white stripes over a moving ground."""
    numbers = np.arange(count)
    stripes = (numbers[:, None] >> np.arange(BITS)) & 1
    pixels = np.repeat(stripes * 255, width // BITS, axis=1)[:, None, :, None]
    frames = np.broadcast_to(pixels, (count, height, width // BITS * BITS, 3)).astype(np.uint8)
    frames[:, height // 2 :] = 128 + (numbers % 3)[:, None, None, None] * 20
    return frames


def numbers_of(pixels: np.ndarray) -> list[int]:
    """The frame numbers that barcoded frames show."""
    top = pixels[:, : pixels.shape[1] // 4].mean(axis=(1, 3))
    stripes = top.reshape(len(pixels), BITS, -1).mean(axis=2) > 128
    return [int(number) for number in (stripes << np.arange(BITS)).sum(axis=1)]


def encode(
    path: Path, frames: np.ndarray, *, codec: str, options: dict[str, str], pts: list[int] | None = None
) -> Path:
    """Encode with time stamps in hundredths of a second (every 8th when none are given)."""
    from fractions import Fraction

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=Fraction(25, 2))
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        if pts is not None:
            stream.codec_context.time_base = Fraction(1, 100)
        stream.codec_context.thread_count = 1
        if "max_b_frames" in options:
            stream.codec_context.max_b_frames = int(options["max_b_frames"])
        stream.options = {name: value for name, value in options.items() if name != "max_b_frames"}
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if pts is not None:
                frame.pts, frame.time_base = pts[number], Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def decoded_in_sequence(path: Path) -> np.ndarray:
    """The reference: every frame of the best stream, as PyAV decodes it, turned upright."""
    with av.open(str(path), metadata_errors="ignore") as container:
        stream = container.streams.best("video")
        frames = [
            np.rot90(frame.to_ndarray(format="rgb24"), (int(frame.rotation) // 90) % 4)
            for frame in container.decode(stream)
        ]
    return np.stack(frames)


X264 = {"preset": "ultrafast", "g": "12"}
KINDS: dict[str, tuple[str, str, dict[str, str]]] = {
    "vp9.webm": ("libvpx-vp9", ".webm", {"deadline": "realtime", "cpu-used": "8", "g": "12"}),
    "vp9 lagged.webm": (
        "libvpx-vp9",
        ".webm",
        {"deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "12", "g": "20"},
    ),
    "vp8.webm": ("libvpx", ".webm", {"deadline": "realtime", "cpu-used": "8", "g": "12"}),
    "vp8 lagged.webm": (
        "libvpx",
        ".webm",
        {"deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "12", "b": "400k"},
    ),
    "h264 b-frames.mp4": ("libx264", ".mp4", {"preset": "fast", "bf": "3", "b_strategy": "0", "g": "12"}),
    "h264 b-frames.mkv": ("libx264", ".mkv", {"preset": "fast", "bf": "3", "b_strategy": "0", "g": "12"}),
    "h264 open gop.mp4": (
        "libx264",
        ".mp4",
        {"preset": "fast", "bf": "3", "b_strategy": "0", "x264-params": "open-gop=1:keyint=12:min-keyint=12"},
    ),
    "h264 intra refresh.mp4": ("libx264", ".mp4", {**X264, "x264-params": "intra-refresh=1:keyint=12"}),
    "h264 all intra.mp4": ("libx264", ".mp4", {**X264, "g": "1"}),
    "h264.ts": ("libx264", ".ts", {"preset": "fast", "bf": "3", "b_strategy": "0", "g": "12"}),
    "hevc.mp4": ("libx265", ".mp4", {"preset": "ultrafast", "x265-params": "log-level=none:keyint=12:bframes=3"}),
    "mpeg4 b-frames.avi": ("mpeg4", ".avi", {"max_b_frames": "2", "g": "12"}),
    "mpeg4 b-frames.mp4": ("mpeg4", ".mp4", {"max_b_frames": "2", "g": "12"}),
    "mpeg2 b-frames.mpg": ("mpeg2video", ".mpg", {"max_b_frames": "2", "g": "12"}),
}
"""Codecs and containers that data sets come in, with the frame orders that lead decoders astray."""

FRAMES = 60


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One barcoded video of 60 frames for each of KINDS."""
    folder = tmp_path_factory.mktemp("videos")
    frames = barcoded(FRAMES)
    return {
        name: encode(folder / f"{number}{suffix}", frames, codec=codec, options=options)
        for number, (name, (codec, suffix, options)) in enumerate(KINDS.items())
    }

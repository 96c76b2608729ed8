"""The one-second files that come with the package: every frame says its own number, so that a wrong one is noticed.

    frame 5 = 0101 in binary      ┃ white ┃ black ┃ white ┃ black ┃     upper half: bits 0 to 3, least first
                                  ┃ black ┃ white ┃ black ┃ white ┃     lower half: the same, inverted

Made by tests/video/make_samples.py; read by `vidxfer doctor`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "samples"
FRAMES, HEIGHT, WIDTH, BITS = 12, 64, 96, 4

SAMPLES = {
    "vp9.webm": "Something-Something V2",
    "vp8.webm": "older webm",
    "h264_b_frames.mp4": "Kinetics and most mp4",
    "rotated.mp4": "telephones held upright",
    "hevc.mp4": "newer cameras",
    "av1.mp4": "newer downloads",
    "mpeg4_b_frames.avi": "UCF101, HMDB51",
}
"""Name -> where such files are met."""

Picture = np.ndarray[Any, np.dtype[np.uint8]]


def drawn() -> Picture:
    """The frames before they were encoded, uint8 [frame height width rgb]."""
    bits = (np.arange(FRAMES)[:, None] >> np.arange(BITS)) & 1
    stripes = np.repeat(np.stack([bits, 1 - bits], axis=1), WIDTH // BITS, axis=2)
    grey = np.repeat(stripes, HEIGHT // 2, axis=1) * 220 + 16
    return np.repeat(grey[..., None], 3, axis=-1).astype(np.uint8)


def number_of(picture: Picture) -> int | None:
    """The number that a frame [height width rgb] shows; None where the halves do not fit, as in a damaged frame."""
    if picture.shape[:2] != (HEIGHT, WIDTH):
        return None
    cells = picture.mean(axis=-1).reshape(2, HEIGHT // 2, BITS, WIDTH // BITS).mean(axis=(1, 3))
    upper, lower = cells > 128
    if (upper == lower).any():
        return None
    return int((upper << np.arange(BITS)).sum())

"""Frames to JPEG files and back: how a cache keeps dense frames.

    uint8 [frame height width rgb] ──▶ Pillow (libjpeg-turbo) ──▶ one JPEG per frame, at most `most_bytes` each
    JPEGs ──▶ torchvision: libjpeg-turbo on a CPU, nvjpeg on a CUDA device ──▶ uint8 [frame rgb height width]

4:4:4 is the default: nvjpeg repeats the nearest sample of 4:2:0 colour where libjpeg interpolates, so the same file
would give other pixels on a GPU. A frame that does not fit its place is encoded again at a lower quality, and the
caller is told which.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

from vidxfer.pipeline.shapes import Pixels, expect

SUBSAMPLINGS = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}
"""Names of the colour resolutions, and Pillow's numbers for them."""

QUALITY_STEP = 10
"""Quality is lowered by this until a frame fits."""


def encode_frames(pixels: Pixels, *, quality: int, subsampling: str, most_bytes: int) -> tuple[list[bytes], int]:
    """Encode frames; the same pixels give the same bytes each time.

    Args:
        pixels: uint8 [frame height width rgb].
        quality: 1 to 100.
        subsampling: a key of `SUBSAMPLINGS`.
        most_bytes: that one file may have.

    Returns:
        One JPEG per frame, and the lowest quality that was used.

    Raises:
        ValueError: pixels are not uint8 rgb frames, or one does not fit at quality 1 either.
    """
    expect("pixels", pixels, "frame height width rgb", rgb=3)
    if pixels.dtype != np.uint8:
        raise ValueError(f"pixels are {pixels.dtype}, expected uint8")
    files, lowest = [], quality
    for frame in pixels:
        used = quality
        while len(file := _encoded(frame, used, subsampling)) > most_bytes:
            if used == 1:
                raise ValueError(f"a frame of {len(file)} bytes at quality 1 does not fit in {most_bytes}")
            used = max(1, used - QUALITY_STEP)
        files.append(file)
        lowest = min(lowest, used)
    return files, lowest


def _encoded(frame: Pixels, quality: int, subsampling: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame)).save(
        buffer, "JPEG", quality=quality, subsampling=SUBSAMPLINGS[subsampling]
    )
    return buffer.getvalue()


def decode_frames(files: Sequence[Pixels], device: torch.device) -> torch.Tensor:
    """Decode JPEGs of one size: uint8 [frame rgb height width] on `device`.

    Args:
        files: the bytes of each file, uint8 [byte]; at least one.
        device: a CUDA device decodes all of them at once with nvjpeg; elsewhere this thread does, without the GIL.
    """
    raw = [torch.from_numpy(file if file.flags.writeable else file.copy()) for file in files]
    where = device if device.type == "cuda" else torch.device("cpu")
    decoded = decode_jpeg(raw, mode=ImageReadMode.RGB, device=where)
    return torch.stack(list(decoded)).to(device)

"""Small pictures for a page: frames as JPEG, maps of a few patches as PNG whose squares stay squares.

uint8 [frame rgb height width] ─▶ made smaller ─▶ one JPEG per frame         uint8 [height width rgb] ─▶ PNG, lossless
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from vidxfer.pipeline.shapes import Pixels
from vidxfer.pipeline.video.jpeg import encode_frames

THUMBNAIL_PX = 112
THUMBNAIL_QUALITY = 80
MOST_THUMBNAIL_BYTES = 1 << 20


def thumbnails(frames: torch.Tensor, side_px: int = THUMBNAIL_PX) -> list[bytes]:
    """One JPEG per frame.

    Args:
        frames: float32 0 … 1 [frame rgb height width].
        side_px: of the longer side; a smaller picture stays as it is.
    """
    height, width = frames.shape[-2:]
    scale = side_px / max(height, width)
    if scale < 1:
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        frames = F.interpolate(frames, size=size, mode="bilinear", align_corners=False, antialias=True)
    pixels = frames.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    files, _ = encode_frames(
        pixels, quality=THUMBNAIL_QUALITY, subsampling="4:2:0", most_bytes=MOST_THUMBNAIL_BYTES
    )  # fmt: skip
    return files


def png(pixels: Pixels) -> bytes:
    """A PNG of uint8 [height width rgb]."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
    return buffer.getvalue()

"""Frame numbers in the pixels, so that a test can prove which frame was read.

    bottom edge   ┃ bit 0 ┃ bit 1 ┃ … ┃ bit 7 ┃ odd? ┃ even? ┃      cells of 8 x 8 px, white = 1

Ten cells survive VP9 and h264, because a cell is as large as the block an encoder works on. Consequence: the numbers
tell the order of frames to whoever sees them, and random crops do see the edge. So a set with barcodes is for reading
tests; the sets that heads are compared on are made without.
"""

from __future__ import annotations

import numpy as np

from vidxfer.pipeline.shapes import Pixels

CELL_PX, BITS = 8, 8
CELLS = BITS + 2
MOST_FRAMES = 2**BITS
DARK, BRIGHT = 80, 175
"""A cell that is neither is no cell: pictures without a barcode are not read by chance."""


def stamp(clip: Pixels) -> Pixels:
    """The clip with the number of each frame at its bottom left, uint8 [frame height width rgb].

    Raises:
        ValueError: the frames are too narrow or too many.
    """
    frames, height, width = clip.shape[:3]
    if width < CELLS * CELL_PX or height < CELL_PX or frames > MOST_FRAMES:
        raise ValueError(
            f"a barcode needs frames of at least {CELLS * CELL_PX} px in width and at most {MOST_FRAMES} of them, "
            f"not {frames} of {width} px"
        )
    stamped = clip.copy()
    for frame in range(frames):
        cells = np.repeat(np.repeat(_cells(frame), CELL_PX)[None], CELL_PX, axis=0)
        stamped[frame, -CELL_PX:, : CELLS * CELL_PX] = cells[..., None] * np.uint8(255)
    return stamped


def read_number(picture: Pixels) -> int:
    """The number in a frame [height width rgb], upright and unscaled.

    Raises:
        ValueError: there is no barcode, or its check bits do not fit.
    """
    edge = picture[-CELL_PX:, : CELLS * CELL_PX].mean(axis=-1)
    if edge.shape != (CELL_PX, CELLS * CELL_PX):
        raise ValueError(f"a picture of {picture.shape[1]} x {picture.shape[0]} px holds no barcode")
    inner = edge.reshape(CELL_PX, CELLS, CELL_PX)[2:-2, :, 2:-2].mean(axis=(0, 2))
    bits = inner > 127
    number = int(sum(1 << place for place in range(BITS) if bits[place]))
    if np.any((inner > DARK) & (inner < BRIGHT)) or not np.array_equal(_cells(number), bits):
        raise ValueError(
            f"no barcode: cells of brightness {np.rint(inner).astype(int).tolist()}, check bits do not fit"
        )
    return number


def _cells(number: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    bits = [bool(number >> place & 1) for place in range(BITS)]
    odd = bool(sum(bits) % 2)
    return np.array([*bits, odd, not odd])

"""Which pixels: a view is drawn once, stored as numbers, and replayed.

    train   random box in whole source pixels ──▶ cut out ──▶ resized to image_px² ──▶ grey? ──▶ mirrored?
    test    whole picture resized (short side = image_px) ──▶ square cut out: the box is that square, in source pixels
            squash: the whole picture is the box

No pixel is touched here; `replay.py` does that. What CLIP saw is fixed when the cache is made, so everything random
about a training clip happens in `train_view` and nowhere else.
"""

from __future__ import annotations

import math

import numpy as np

from vidxfer.pipeline.resize import ResizeMode
from vidxfer.pipeline.shapes import View
from vidxfer.pipeline.video.sampling import Sampling, test_indices, train_indices

TRIES = 10
"""Boxes drawn before the central fallback, as in torchvision."""

CropBox = tuple[int, int, int, int]
"""(top, left, height, width) in whole source pixels."""


def train_view(frame_count: int, height: int, width: int, *, sampling: Sampling, rng: np.random.Generator) -> View:
    """Draw one training view: segment indices, random resized crop, mirror and grey flags, in this order from `rng`.

    Args:
        frame_count: frames of the video or segment.
        height, width: of the upright picture, in pixels.

    Raises:
        ValueError: frame_count or a side is below 1.
    """
    _expect_picture(height, width)
    indices = train_indices(frame_count, sampling, rng)
    top, left, box_height, box_width = random_box(height, width, sampling, rng)
    return View(
        indices=indices,
        crop=(float(top), float(left), float(box_height), float(box_width)),
        resize_first=False,
        flip=bool(rng.random() < sampling.flip_probability),
        grey=bool(rng.random() < sampling.grey_probability),
    )


def random_box(height: int, width: int, sampling: Sampling, rng: np.random.Generator) -> CropBox:
    """torchvision's RandomResizedCrop.get_params, drawn from numpy: ten tries, then the largest central box allowed.

    Only `rng.random()` is used, because numpy promises least change for it.
    """
    area_px = height * width
    log_narrow, log_wide = (math.log(ratio) for ratio in sampling.crop_ratio)
    for _ in range(TRIES):
        box_area = area_px * _between(rng, *sampling.crop_scale)
        ratio = math.exp(_between(rng, log_narrow, log_wide))
        box_width, box_height = round(math.sqrt(box_area * ratio)), round(math.sqrt(box_area / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            return _below(rng, height - box_height + 1), _below(rng, width - box_width + 1), box_height, box_width
    return central_box(height, width, sampling.crop_ratio)


def central_box(height: int, width: int, crop_ratio: tuple[float, float]) -> CropBox:
    """The largest box in the middle whose width/height stays inside crop_ratio."""
    narrowest, widest = min(crop_ratio), max(crop_ratio)
    box_height, box_width = height, width
    if width / height < narrowest:
        box_height = max(1, round(width / narrowest))
    elif width / height > widest:
        box_width = max(1, round(height * widest))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def test_view(
    frame_count: int,
    height: int,
    width: int,
    *,
    sampling: Sampling,
    views: int,
    view: int,
    crops: int = 1,  # noqa: PT028  # a test view, not a test function
    crop: int = 0,  # noqa: PT028
    resize_mode: ResizeMode = "shortest",  # noqa: PT028
) -> View:
    """The fixed test view: `view` of `views` in time, square `crop` of `crops` along the long side.

    Three crops are left|top, centre, right|bottom; one crop is the centre. A squashed picture has one crop.

    Raises:
        ValueError: crops is not 1 or 3, crop or view is out of range, frame_count or a side is below 1.
    """
    _expect_picture(height, width)
    if crops not in (1, 3) or not 0 <= crop < crops:
        raise ValueError(f"crop={crop} of crops={crops}: one crop (0) or three (0, 1, 2) are known")
    side = sampling.image_px
    squash = resize_mode == "squash"
    resized_height, resized_width = (side, side) if squash else resized_size(height, width, side)
    top, left = (resized_height - side) // 2, (resized_width - side) // 2
    if crops == 3 and crop != 1:
        at_end = crop == 2
        if resized_height > resized_width:
            top = resized_height - side if at_end else 0
        else:
            left = resized_width - side if at_end else 0
    down, across = height / resized_height, width / resized_width
    return View(
        indices=test_indices(frame_count, sampling, views=views, view=view),
        crop=(top * down, left * across, side * down, side * across),
        resize_first=True,
        flip=False,
        grey=False,
    )


test_view.__test__ = False  # type: ignore[attr-defined]  # a name that pytest would collect where it is imported


def resized_size(height: int, width: int, image_px: int) -> tuple[int, int]:
    """(height, width) of a picture whose short side becomes image_px; the long side is rounded down, as DiST does."""
    if height <= width:
        return image_px, int(width / height * image_px)
    return int(height / width * image_px), image_px


def square_in_resized(crop: tuple[float, float, float, float], height: int, width: int, image_px: int) -> CropBox:
    """Where a test view's box lies: (top, left) in the resized picture, and that picture's (height, width).

    The inverse of what `test_view` stores. All four are whole numbers, so rounding recovers them exactly even after
    the box was stored as float32: its error is below 1e-7 of numbers of at most some ten thousand.
    """
    box_top, box_left, box_height, box_width = (float(number) for number in crop)
    resized_height, resized_width = round(image_px * height / box_height), round(image_px * width / box_width)
    top, left = round(box_top * resized_height / height), round(box_left * resized_width / width)
    return top, left, resized_height, resized_width


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(rng.random())


def _below(rng: np.random.Generator, bound: int) -> int:
    return min(int(rng.random() * bound), bound - 1)


def _expect_picture(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ValueError(f"a picture of {height} x {width} px (height x width) has nothing to crop")

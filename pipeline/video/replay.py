"""Frames and a view in, CLIP's input out: the same numbers each time the view is replayed.

uint8 [frame height width rgb] ──▶ /255 ──▶ cut / resize (`Resize`) ──▶ grey? ──▶ normalise ──▶ mirror?
                                                     │                        float32 [frame rgb image_px image_px]
                                                     └─▶ uint8: `cut_out`, what a cache of dense frames keeps;
                                                         `finish` does the rest from there
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from vidxfer.pipeline.resize import AS_DIST, Resize
from vidxfer.pipeline.shapes import View, _PrintsShapes, expect
from vidxfer.pipeline.video.views import square_in_resized

GREY_WEIGHTS = (0.299, 0.587, 0.114)


def replay(
    pixels: np.ndarray[Any, np.dtype[np.uint8]],
    view: View,
    *,
    image_px: int,
    mean: Sequence[float],
    std: Sequence[float],
    resize: Resize = AS_DIST,
    device: torch.device | None = None,
) -> torch.Tensor:
    """Turn decoded frames into the clip a view describes.

    Args:
        pixels: uint8 [frame height width rgb], upright: all dense frames of the view or some of them. Where there is
            one per entry of `view.indices`, repeated indices are resized once.
        image_px: side of the square output; for test views the `Sampling.image_px` the view was made with.
        mean, std: the tower's, one number per rgb channel of pictures scaled to 0 … 1.
        resize: how pictures are resized; its mode is in the view already.
        device: where all of it is done; the frames are copied there as uint8. None: on the CPU.

    Returns:
        float32 [frame rgb height width] on the device, height = width = image_px. Devices differ in the last bits.

    Raises:
        ValueError: pixels are not uint8 rgb frames, or the box leaves the picture.
    """
    clip, repeats = _cut(pixels, view, image_px, resize, device)
    if view.grey:
        clip = _grey(clip)
    clip = (clip - _per_channel(mean).to(clip.device)) / _per_channel(std).to(clip.device)
    if view.flip:
        clip = clip.flip(-1)
    return clip.contiguous() if repeats is None else clip[torch.from_numpy(repeats).to(clip.device)].contiguous()


def cut_out(
    pixels: np.ndarray[Any, np.dtype[np.uint8]], view: View, *, image_px: int, resize: Resize = AS_DIST
) -> torch.Tensor:
    """What `replay` has after cutting and resizing, rounded: uint8 [frame height width rgb]. Arguments as there.

    Neither mirrored nor grey: both are a view's flags, and `finish` applies them exactly to whatever comes back.
    """
    clip, repeats = _cut(pixels, view, image_px, resize)
    rounded = clip.mul(255.0).round_().to(torch.uint8).permute(0, 2, 3, 1)
    return rounded.contiguous() if repeats is None else rounded[torch.from_numpy(repeats)].contiguous()


@dataclass(frozen=True, repr=False, kw_only=True)
class CutFrames(_PrintsShapes):
    """Frames of several clips as `cut_out` left them, and what is still to be done to each clip.

    Attributes:
        pixels: uint8 [clip dense rgb height width].
        flip, grey: bool [clip], the views' flags.
    """

    pixels: torch.Tensor
    flip: torch.Tensor
    grey: torch.Tensor

    def __post_init__(self) -> None:
        seen = expect("pixels", self.pixels, "clip dense rgb height width", rgb=3)
        expect("flip", self.flip, "clip", clip=seen["clip"])
        expect("grey", self.grey, "clip", clip=seen["clip"])


def finish(cut: CutFrames, *, mean: Sequence[float], std: Sequence[float], device: torch.device) -> torch.Tensor:
    """The rest of `replay`, on `device`: float32 [clip dense rgb height width]."""
    clips = cut.pixels.to(device, non_blocking=True).to(torch.float32)
    for place in cut.grey.nonzero().flatten().tolist():
        clips[place] = _grey(clips[place])
    # (x / 255 - mean) / std in one pass over the memory; equal to `replay` up to the last bits of float32.
    scale, shift = _scale_and_shift(tuple(mean), tuple(std), device)
    torch.addcmul(shift, clips, scale, out=clips)
    for place in cut.flip.nonzero().flatten().tolist():
        clips[place] = clips[place].flip(-1)
    return clips


def _cut(
    pixels: np.ndarray[Any, np.dtype[np.uint8]],
    view: View,
    image_px: int,
    resize: Resize,
    device: torch.device | None = None,
) -> tuple[torch.Tensor, Any]:
    """float32 0 … 1 [frame rgb height width] of each distinct index, and how to repeat them (None: as they are)."""
    sizes = expect("pixels", pixels, "frame height width rgb", rgb=3)
    if pixels.dtype != np.uint8:
        raise ValueError(f"pixels are {pixels.dtype}, expected uint8")
    first, repeats = _repeats(view.indices, sizes["frame"])
    chosen = np.ascontiguousarray(pixels if repeats is None else pixels[first])
    source = torch.from_numpy(chosen if chosen.flags.writeable else chosen.copy())  # torch warns of read-only arrays
    cut = _resize_then_cut if view.resize_first else _cut_then_resize
    return cut(source, view, image_px, resize, device), repeats


def _grey(clip: torch.Tensor) -> torch.Tensor:
    weighted = clip * _grey_weights(clip.device)
    return weighted.sum(dim=-3, keepdim=True).expand(*clip.shape[:-3], 3, *clip.shape[-2:])


def _cut_then_resize(
    source: torch.Tensor, view: View, image_px: int, resize: Resize, device: torch.device | None
) -> torch.Tensor:
    top, left, height, width = (int(number) for number in view.crop)
    bottom, right = top + height, left + width
    if top < 0 or left < 0 or bottom > source.shape[1] or right > source.shape[2]:
        raise ValueError(
            f"the box {view.crop} (top, left, height, width) leaves a picture of {source.shape[1]} x {source.shape[2]}"
        )
    return _resize(source[:, top:bottom, left:right], image_px, image_px, resize, device)


def _resize_then_cut(
    source: torch.Tensor, view: View, image_px: int, resize: Resize, device: torch.device | None
) -> torch.Tensor:
    _, height, width, _ = source.shape
    top, left, resized_height, resized_width = square_in_resized(view.crop, height, width, image_px)
    bottom, right = top + image_px, left + image_px
    if top < 0 or left < 0 or bottom > resized_height or right > resized_width:
        raise ValueError(f"the box {view.crop} does not lie in a picture of {height} x {width}: another video's view?")
    return _resize(source, resized_height, resized_width, resize, device)[:, :, top:bottom, left:right]


def _resize(source: torch.Tensor, height: int, width: int, resize: Resize, device: torch.device | None) -> torch.Tensor:
    """uint8 [frame height width rgb] to float32 0 … 1 [frame rgb height width]; bicubic values beyond are cut off."""
    if device is not None:
        source = source.contiguous().to(device)  # a quarter of the bytes of float32, and of a box only what is inside
    # Colours stay interleaved in memory: bit-equal to planes, and three times as fast on a CPU.
    scaled = source.permute(0, 3, 1, 2).to(torch.float32).div_(255.0)
    if tuple(scaled.shape[2:]) == (height, width):
        return scaled
    mode, smooth = resize.interpolation, resize.antialias
    resized = F.interpolate(scaled, size=(height, width), mode=mode, align_corners=False, antialias=smooth)
    return resized if resize.interpolation == "bilinear" else resized.clamp_(0.0, 1.0)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Kept on the device: a copy for every batch would let the host wait for it."""
    scale, shift = 1 / (255 * _per_channel(std)), -_per_channel(mean) / _per_channel(std)
    return scale.to(device), shift.to(device)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _grey_weights(device: torch.device) -> torch.Tensor:
    return _per_channel(GREY_WEIGHTS).to(device)


def _per_channel(numbers: Sequence[float]) -> torch.Tensor:
    return torch.tensor(tuple(numbers), dtype=torch.float32).reshape(1, 3, 1, 1)


def _repeats(indices: tuple[int, ...], frames: int) -> tuple[Any, Any]:
    """(positions of the first of each distinct index, distinct number of each position), or (None, None)."""
    if frames != len(indices) or len(set(indices)) == frames:
        return None, None
    _, first, inverse = np.unique(np.asarray(indices), return_index=True, return_inverse=True)
    return first, inverse

"""EVL's rule for Kinetics: frames a fixed number apart, in a clip that lies somewhere in the video. Arithmetic only.

    stride 4     0 · · · 4 · · · 8 · · · 12                a clip of 4 frames spans (4 − 1) · 4 + 1 = 13
    video        ├──────── slide ────────┤                 starts that leave the clip inside: 0 … length − 13

No cache is made with it here: views are drawn by segment (sampling.py), which is what EVL does on Something-Something.
The release's test views by segment crash; the sane rule is the middle of each segment, `sampling.test_indices` with one
view. Source: docs/spec/evl.md §6.
"""

from __future__ import annotations

import numpy as np


def strided_train_indices(frame_count: int, frames: int, stride: int, rng: np.random.Generator) -> tuple[int, ...]:
    """A clip at a drawn place; of a video that is too short all its strided frames, the last of them repeated.

    Args:
        frame_count: of the video.
        frames: of the clip.
        stride: source frames from one to the next.
        rng: takes one draw from it, where there is something to draw.

    Raises:
        ValueError: a number below 1.
    """
    _expect_numbers(frame_count, frames, stride)
    room = frame_count - stride * (frames - 1)
    if room <= 1:
        last = (frame_count - 1) // stride
        return tuple(stride * min(place, last) for place in range(frames))
    start = min(int(rng.random() * room), room - 1)
    return tuple(start + stride * place for place in range(frames))


def strided_test_indices(frame_count: int, frames: int, stride: int, *, views: int, view: int) -> tuple[int, ...]:
    """Clip `view` of `views`, evenly over the video, the first and the last at its ends; one view is in the middle.

    Of a video that is too short, its last frame stands for those behind it.

    Raises:
        ValueError: a number below 1, or view is not in 0 … views-1.
    """
    _expect_numbers(frame_count, frames, stride)
    if not 0 <= view < views:
        raise ValueError(f"view={view} of views={views}: a view is a number from 0 to views-1")
    slide = max(0, frame_count - ((frames - 1) * stride + 1))
    start = slide // 2 if views == 1 else round(slide / (views - 1) * view)
    return tuple(min(start + stride * place, frame_count - 1) for place in range(frames))


def _expect_numbers(frame_count: int, frames: int, stride: int) -> None:
    if min(frame_count, frames, stride) < 1:
        raise ValueError(f"frame_count={frame_count}, frames={frames}, stride={stride}: each must be at least 1")

"""Which frames other releases take: index arithmetic of Side4Video, TDS-CLIP and EVL, each rule under its name.

    tds-ss      train: one drawn frame of each of T parts of the video; test: a fixed place in each, later view by view
    tds-k400    the same with overlapping ends in training; test: steps of N / T, which begin later view by view
    tds-dense   steps of 128 // T within 128 frames, drawn or spread over the video; a short video is gone round
    evl-ss      train: as tds-k400; test: the middle of each of T parts, or with V views the same share of each
    evl-k400    frames 16 apart (from T = 32 on: 8), drawn or spread over the video; a short one repeats its last frame

The rules of TDS-CLIP equal the release on every golden case (docs/spec/tds_clip_side4video.md §6.3), with numbers
from 0 instead of 1. That release divides by zero for one test view of the dense rule: here that view stands in the
middle. EVL's rules follow docs/spec/evl.md §6. Its release crashes where it should test on Something-Something: the
rule of those test views is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

FloatArray = np.ndarray[Any, np.dtype[np.float64]]

DENSE_SPAN_FRAMES = 128
"""Frames of the video that a view of the dense rule reaches over."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a release takes T of N frames.

    Attributes:
        train: (N, T, T numbers drawn from [0, 1)) -> frames.
        test: (N, T, number of views, the view) -> frames.
    """

    train: Callable[[int, int, FloatArray], list[int]]
    test: Callable[[int, int, int, int], list[int]]


def _between(draw: float, low: int, high: int) -> int:
    """A whole number from low to high, both among them, of a draw from [0, 1)."""
    return min(low + int(draw * (high - low + 1)), high)


def _ss_train(count: int, frames: int, draws: FloatArray) -> list[int]:
    if count <= frames:  # every frame, and some of them again
        again = [_between(float(draw), 0, count - 1) for draw in draws[: frames - count]]
        return sorted([*range(count), *again])
    edges = [place * count // frames for place in range(frames + 1)]
    return [_between(float(draws[i]), edges[i], edges[i + 1] - 1) for i in range(frames)]


def _ss_test(count: int, frames: int, views: int, view: int) -> list[int]:
    step = (count - 1) / frames
    return [round(step * i) + int(step / (views + 1) * (view + 1)) for i in range(frames)]


def _k400_train(count: int, frames: int, draws: FloatArray) -> list[int]:
    step = (count - 1) / frames
    return [_between(float(draws[i]), round(step * i), round(step * (i + 1))) for i in range(frames)]


def _k400_test(count: int, frames: int, views: int, view: int) -> list[int]:
    step = count / frames
    begin = int(np.floor(np.linspace(0, step - 1, num=views)[view]))
    return [int(begin + step * i) % count for i in range(frames)]


def _dense(count: int, frames: int, begin: int) -> list[int]:
    return [(begin + i * (DENSE_SPAN_FRAMES // frames)) % count for i in range(frames)]


def _dense_train(count: int, frames: int, draws: FloatArray) -> list[int]:
    room = count - DENSE_SPAN_FRAMES
    return _dense(count, frames, _between(float(draws[0]), 0, room - 1) if room > 0 else 0)


def _dense_test(count: int, frames: int, views: int, view: int) -> list[int]:
    room = max(0, count - DENSE_SPAN_FRAMES)
    return _dense(count, frames, room // 2 if views == 1 else view * (room // (views - 1)))


def _middles(count: int, frames: int, views: int, view: int) -> list[int]:
    share = (view + 1) / (views + 1)
    return [round((count - 1) / frames * (place + share)) for place in range(frames)]


def _strided_train(count: int, frames: int, draws: FloatArray) -> list[int]:
    stride = _stride(frames)
    starts = count - stride * (frames - 1)
    if starts <= 1:  # every strided frame, and the last of them again
        return [stride * min(place, (count - 1) // stride) for place in range(frames)]
    begin = _between(float(draws[0]), 0, starts - 1)
    return [begin + stride * place for place in range(frames)]


def _strided_test(count: int, frames: int, views: int, view: int) -> list[int]:
    stride = _stride(frames)
    room = max(0, count - ((frames - 1) * stride + 1))
    begin = room // 2 if views == 1 else round(room / (views - 1) * view)
    return [min(begin + stride * place, count - 1) for place in range(frames)]


def _stride(frames: int) -> int:
    return 16 if frames < 32 else 8  # released for 8, 16 and 32 frames: 8x16, 16x16, 32x8


RULES = {
    "tds-ss": Rule(train=_ss_train, test=_ss_test),
    "tds-k400": Rule(train=_k400_train, test=_k400_test),
    "tds-dense": Rule(train=_dense_train, test=_dense_test),
    "evl-ss": Rule(train=_k400_train, test=_middles),
    "evl-k400": Rule(train=_strided_train, test=_strided_test),
}

"""Which frames: index arithmetic only, no video is opened here.

    edges   e_0 ........ e_1 ........ e_2 ........ … e_T      e_i = i·L/T over L frames
    dense       one index per segment [e_i, e_i+1)            train: drawn; test: a fixed fraction of the way
    sparse      dense[0], dense[alpha], dense[2·alpha], …     what CLIP sees: the first of every alpha dense frames

DiST's segment rule (docs/spec/dist.md §4.1), in float64 with half-to-even rounding. Rules of other releases are in
published_rules.py; `Sampling.rule` names one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vidxfer.pipeline.shapes import WindowEnds
from vidxfer.pipeline.video.published_rules import RULES, FloatArray

SEGMENT = "segment"
"""DiST's rule, which caches of 0.1.0 have."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How views are drawn from a video. Every field changes which pixels CLIP sees.

    Attributes:
        dense_frames: dense frames T per view.
        alpha: every alpha-th dense frame is a sparse frame; dense_frames must be divisible by it.
        image_px: side of the square picture CLIP sees.
        crop_scale, crop_ratio: random resized crop of training views: share of the area, width/height.
        flip_probability, grey_probability: of training views.
        rule: "segment", or one of `RULES`.
        seed: of the training draws; the draw of a view depends on (seed, video id, view number) alone.
    """

    dense_frames: int = 16
    alpha: int = 2
    image_px: int = 224
    crop_scale: tuple[float, float] = (0.4, 1.0)
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    flip_probability: float = 0.5
    grey_probability: float = 0.2
    seed: int = 0
    rule: str = SEGMENT

    def __post_init__(self) -> None:
        if self.dense_frames < 1 or self.alpha < 1 or self.dense_frames % self.alpha:
            raise ValueError(f"dense_frames={self.dense_frames} must be a positive multiple of alpha={self.alpha}")
        if self.rule not in (SEGMENT, *RULES):
            raise ValueError(f"sampling.rule={self.rule!r} is none of {', '.join((SEGMENT, *RULES))}")

    @property
    def sparse_frames(self) -> int:
        """Number of frames CLIP sees per view."""
        return self.dense_frames // self.alpha


def train_indices(frame_count: int, sampling: Sampling, rng: np.random.Generator) -> tuple[int, ...]:
    """One index per segment, drawn uniformly; never decreasing, may repeat where the video is short. Or by the rule.

    Args:
        frame_count: frames L of the video or segment, at least 1.
        rng: takes `dense_frames` draws from it.

    Raises:
        ValueError: frame_count is below 1.
    """
    edges = _edges(frame_count, sampling)
    if sampling.rule != SEGMENT:
        frames = sampling.dense_frames
        return tuple(RULES[sampling.rule].train(frame_count, frames, rng.random(frames)))
    widths = np.diff(edges)
    return _whole(edges[:-1] + widths * rng.random(sampling.dense_frames), frame_count)


def test_indices(frame_count: int, sampling: Sampling, *, views: int, view: int) -> tuple[int, ...]:
    """The fixed indices of test view `view` of `views`: the middle of each segment, or (view+1)/views of the way.

    A published rule (`sampling.rule`) has its own instead.
    With three views the fractions are 1/3, 2/3 and 1, as in DiST: not symmetric, the last view starts the next segment.
    Another `rule` has places of its own.

    Raises:
        ValueError: frame_count is below 1, or view is not in 0 … views-1.
    """
    if not 0 <= view < views:
        raise ValueError(f"view={view} of views={views}: a view is a number from 0 to views-1")
    edges = _edges(frame_count, sampling)
    if sampling.rule != SEGMENT:
        return tuple(RULES[sampling.rule].test(frame_count, sampling.dense_frames, views, view))
    lower, upper = edges[:-1], edges[1:]
    # The middle is written as DiST writes it: (a + b) / 2 and a + (b - a)·0.5 may round apart at a half.
    points = (lower + upper) / 2 if views == 1 else lower + (upper - lower) * (view + 1) / views
    return _whole(points, frame_count)


test_indices.__test__ = False  # type: ignore[attr-defined]  # a name that pytest would collect where it is imported


def interval_indices(
    frame_count: int, sampling: Sampling, *, stride_frames: float, fps: float, target_fps: float, position: float
) -> tuple[int, ...]:
    """DiST's other rule: frames a fixed time apart, in a window at a share of the room (docs/spec/dist.md §4.1).

    No recipe uses it (all released settings sample by segment); it equals the release on every golden case. Test view v
    of V has position 0.5 for V = 1, else v / V: the latest window is never reached.

    Args:
        stride_frames: frames between two samples at `target_fps`.
        fps: of the video.
        position: 0 is the earliest window, 1 the latest.

    Raises:
        ValueError: frame_count is below 1, or position is not in 0 … 1.
    """
    if frame_count < 1:
        raise ValueError(f"frame_count={frame_count}: a video without frames has no views")
    if not 0.0 <= position <= 1.0:
        raise ValueError(f"position={position} is a share of the room, from 0 to 1")
    span = sampling.dense_frames * stride_frames * fps / target_fps
    start = max(frame_count - span, 0.0) * position
    points = _float32_linspace(start, start + span - 1.0, sampling.dense_frames)
    return tuple(int(number) for number in np.clip(points, 0, frame_count - 1))


def view_rng(seed: int, video_id: str, view: int) -> np.random.Generator:
    """The generator of one stored draw: the same for the same three values in every process and Python version."""
    digest = hashlib.sha256(f"{seed}\n{view}\n{video_id}".encode("utf-8", "surrogateescape")).digest()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(int.from_bytes(digest, "big"))))


def _edges(frame_count: int, sampling: Sampling) -> FloatArray:
    if frame_count < 1:
        raise ValueError(f"frame_count={frame_count}: a video without frames has no views")
    return np.linspace(0.0, float(frame_count), sampling.dense_frames + 1, dtype=np.float64)


def _float32_linspace(first: float, last: float, count: int) -> FloatArray:
    """torch.linspace in float32, which the rule above truncates: float64 differs from it in 14 of 2,520 golden cases.

    One step, rounded to float32, is counted from both ends to the middle; each product and sum is rounded once.
    """
    first, last = float(np.float32(first)), float(np.float32(last))
    if count == 1:
        return np.array([first])
    step = float((np.float32(last) - np.float32(first)) / np.float32(count - 1))
    place = np.arange(count)
    points = np.where(place < count // 2, first + step * place, last - step * (count - 1 - place))
    return points.astype(np.float32).astype(np.float64)


def _whole(points: FloatArray, frame_count: int) -> tuple[int, ...]:
    """Points on the frame axis to frame numbers: kept inside, rounded half to even."""
    return tuple(int(number) for number in np.rint(np.clip(points, 0, frame_count - 1)))


def window_indices(
    indices: Sequence[int], window_frames: int, frame_count: int, ends: WindowEnds = "clamp"
) -> tuple[int, ...]:
    """Source frames around each of some frames, the frame itself in the middle.

    Args:
        indices: frames of the video.
        window_frames: an odd number per frame.
        frame_count: of the video.
        ends: what stands for frames that the video does not have; see `WindowEnds`.
    """
    half = window_frames // 2
    wanted = (index + offset for index in indices for offset in range(-half, half + 1))
    if ends == "wrap":  # modulo, where a video has fewer frames than a window reaches back
        wanted = (frame % frame_count if frame < 0 else frame for frame in wanted)
    return tuple(min(max(frame, 0), frame_count - 1) for frame in wanted)

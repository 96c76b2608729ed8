"""The toy world: what a thing looks like is in every frame, what it does is in the order of frames and nowhere else.

    class = appearance x motion     red triangle, red cross, green triangle …  x  four moves and their reverses
    draw for motion 2k              frame 0  1  2 … F      a red triangle moves to the right
    reversed = motion 2k+1          frame F … 2  1  0      the same pictures: it moves to the left

Consequence: within a pair of motions the sets of frames come from one distribution, so a model that ignores order stays
near 50 % and one that sees order can reach 100 %. Two small leaks remain by nature. Samples of a video do not lie on it
as those of its reverse do, by a fraction of a frame: with perfect eyes and no sense of order, 55 % could be had (57 %
on "easy"; starts, sizes and steps are spread for that reason). And an encoder spends more bits on the first frame.

Clips are [frame height width rgb] uint8, 4:3, so that cropping matters. Lengths below are in units of the height.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vidxfer.pipeline.datasets.toy_barcode import CELL_PX, CELLS, stamp
from vidxfer.pipeline.datasets.toy_shapes import (
    DIFFICULTIES,
    MOST_APPEARANCES,
    SHAPES,
    Difficulty,
    Floats,
    appearance,
    draw_background,
    draw_colour,
    draw_grey,
    paint,
)
from vidxfer.pipeline.shapes import Pixels

MOTIONS = {
    "moving to the right": "Moving right with [{}]",
    "moving to the left": "Moving left with [{}]",
    "moving up": "Moving [{}] up",
    "moving down": "Moving [{}] down",
    "growing": "Making [{}] grow",
    "shrinking": "Making [{}] shrink",
    "turning to the left": "Turning left with [{}]",
    "turning to the right": "Turning right with [{}]",
}
"""Name of each motion, and its template as Something-Something has them. 2k and 2k+1 are each other's reverse."""

MIN_FRAMES, MAX_FRAMES = 18, 30
FPS = 12.0
SEEN_WIDTH = 1.2
"""Things stay this close to the middle, because a test view sees the central square alone."""
PICTURE_WIDTH = 1.1
"""The same in single pictures: the tiny CLIP in pipeline/clip/toy was trained on those that this width gives."""


@dataclass(frozen=True, kw_only=True)
class ToyDesign:
    """Everything that decides what the clips of a toy world look like, the seed aside.

    Attributes:
        appearances: number of things; classes are 8 times as many.
        difficulty: a key of `DIFFICULTIES`.
        side_px: height of the frames; the width is 4/3 of it.
        barcode: write the number of each frame into its pixels. For reading tests: it gives the order away.

    Raises:
        ValueError: a number out of range, or a difficulty that does not exist.
    """

    appearances: int = 4
    difficulty: str = "medium"
    side_px: int = 64
    barcode: bool = False
    things: tuple[tuple[str, str], ...] = field(init=False)

    def __post_init__(self) -> None:
        if not 1 <= self.appearances <= MOST_APPEARANCES:
            raise ValueError(f"a toy world has 1 to {MOST_APPEARANCES} appearances, not {self.appearances}")
        if self.difficulty not in DIFFICULTIES:
            raise ValueError(f"no difficulty {self.difficulty!r}. Known: {', '.join(DIFFICULTIES)}.")
        if self.side_px < 32 or self.side_px % 2:
            raise ValueError(f"side_px must be an even number of at least 32, not {self.side_px}")
        if self.barcode and self.frame_size[1] < CELLS * CELL_PX:
            raise ValueError(f"a barcode needs side_px of at least {CELLS * CELL_PX * 3 // 4}, not {self.side_px}")
        object.__setattr__(self, "things", tuple(appearance(number) for number in range(self.appearances)))

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) of a frame; both even, because video codecs halve the colour planes."""
        return self.side_px, 2 * round(self.side_px * 2 / 3)

    @property
    def templates(self) -> tuple[str, ...]:
        """Position = label = appearance · 8 + motion: "Moving [a red triangle] up"."""
        filled = (f"a {colour} {shape}" for colour, shape in self.things)
        return tuple(template.format(appearance) for appearance in filled for template in MOTIONS.values())

    @property
    def class_names(self) -> tuple[str, ...]:
        """The templates without brackets."""
        return tuple(template.replace("[", "").replace("]", "") for template in self.templates)

    @property
    def factors(self) -> dict[str, tuple[str, ...]]:
        """What each class is made of: factor -> its value per label."""
        return {
            "appearance": tuple(f"{colour} {shape}" for colour, shape in self.things for _ in MOTIONS),
            "motion": tuple(MOTIONS) * self.appearances,
        }


def draw_clip(label: int, rng: np.random.Generator, design: ToyDesign | None = None) -> Pixels:
    """One clip of a class, uint8 [frame height width rgb], 18 to 30 frames.

    With equal generators, the two classes of a pair give the same frames in opposite order.

    Raises:
        ValueError: no such class.
    """
    design = design or ToyDesign()
    if not 0 <= label < design.appearances * len(MOTIONS):
        raise ValueError(f"label must be 0 to {design.appearances * len(MOTIONS) - 1}, not {label}")
    appearance, motion = divmod(label, len(MOTIONS))
    pair, backwards = divmod(motion, 2)
    clip = _draw_forward(design, appearance, pair, rng)
    clip = np.ascontiguousarray(clip[::-1]) if backwards else clip
    return stamp(clip) if design.barcode else clip


def draw_picture(appearance: tuple[str, str], rng: np.random.Generator, design: ToyDesign) -> tuple[Pixels, Floats]:
    """One frame with a (colour, shape) anywhere, uint8 [height width rgb], and its x, y, radius and angle."""
    height, width = design.frame_size
    level = DIFFICULTIES[design.difficulty]
    radius = rng.uniform(0.1, 0.38)
    middle = np.array([width / height, 1.0]) / 2
    room = np.maximum(np.array([PICTURE_WIDTH, 1.0]) - 2 * radius, 0.0)
    x, y = middle + rng.uniform(-0.5, 0.5, 2) * room
    pose = np.array([[x, y, radius, rng.uniform(0, 2 * np.pi)]], np.float32)
    return _render(appearance, pose, level, (height, width), rng)[0], pose[0]


def _draw_forward(design: ToyDesign, appearance: int, pair: int, rng: np.random.Generator) -> Pixels:
    frames = int(rng.integers(MIN_FRAMES, MAX_FRAMES + 1))
    height, width = design.frame_size
    level = DIFFICULTIES[design.difficulty]
    poses = trajectory(pair, frames, width / height, level, rng)
    return _render(design.things[appearance], poses, level, (height, width), rng)


def _render(
    appearance: tuple[str, str], poses: Floats, level: Difficulty, size: tuple[int, int], rng: np.random.Generator
) -> Pixels:
    """Frames of one thing in the given poses [frame 4], among the clutter of its level."""
    (height, width), frames = size, len(poses)
    colour_name, shape = appearance
    background = draw_background(height, width, rng)
    for _ in range(level.still):
        x, y = rng.uniform(0, 1, 2) * (width / height, 1.0)
        pose = (x, y, rng.uniform(0.05, 0.11), rng.uniform(0, 2 * np.pi))
        background = paint(background, SHAPES[int(rng.integers(len(SHAPES)))], draw_grey(rng), pose)
    colour = draw_colour(colour_name, rng)
    contrast, noise = rng.uniform(*level.contrast), rng.uniform(*level.noise)
    colour = contrast * colour + (1 - contrast) * background.mean(axis=(0, 1))
    drifting = [_drift(frames, width / height, rng) for _ in range(level.moving)]
    clip = np.empty((frames, height, width, 3), np.uint8)
    for frame in range(frames):
        picture = background
        for other, grey, path in drifting:
            picture = paint(picture, other, grey, tuple(path[frame]))
        picture = paint(picture, shape, colour, tuple(poses[frame]))
        grain = noise * rng.standard_normal((height, width, 1), np.float32)
        clip[frame] = np.clip(np.rint(picture + grain), 0, 255)
    return clip


def trajectory(pair: int, frames: int, aspect: float, level: Difficulty, rng: np.random.Generator) -> Floats:
    """Centre x and y, radius and angle of the first motion of a pair, float [frame 4].

    The thing stays inside the picture: every shape fits the circle of its radius.
    """
    progress = _progress(frames, level, rng)
    radius: np.ndarray[Any, np.dtype[np.floating[Any]]] = rng.uniform(*level.radius) * np.ones(frames)
    angle = rng.uniform(0, 2 * np.pi) * np.ones(frames)
    if pair == 2:
        radius = rng.uniform(*level.radius) * rng.uniform(*level.growth) ** progress
    if pair == 3:
        radius = rng.uniform(*level.turning_radius) * np.ones(frames)
    room = np.array([SEEN_WIDTH, 1.0]) - 2 * radius.max()  # how far the centre may go
    travel = np.zeros(2)
    if pair in (0, 1):
        travel[pair] = rng.uniform(*level.travel) * room[pair]
    centre = np.array([aspect, 1.0]) / 2 + rng.uniform(-0.5, 0.5, 2) * (room - travel)
    x, y = centre[0] + travel[0] * progress, centre[1] - travel[1] * progress  # rows count downwards, pair 1 goes up
    if pair == 3:
        angle = angle - rng.uniform(*level.turn_radians) * progress  # first to the left: against the clock
    return np.stack([x, y, radius, angle], axis=1).astype(np.float32)


def _progress(frames: int, level: Difficulty, rng: np.random.Generator) -> Floats:
    """From -0.5 to 0.5 over the frames, in uneven steps; slow at the beginning or at the end, with equal odds.

    Even steps would give the direction away: samples of a video whose length is no multiple of theirs lie unevenly, and
    not as the samples of its reverse do.
    """
    warp, early = rng.uniform(*level.warp), rng.random() < 0.5
    steps = rng.gamma(1 / level.unevenness**2, size=frames - 1)
    time = np.clip(np.concatenate([[0.0], np.cumsum(steps)]) / steps.sum(), 0.0, 1.0)
    return np.asarray((time**warp if early else 1 - (1 - time) ** warp) - 0.5, np.float32)


def _drift(frames: int, aspect: float, rng: np.random.Generator) -> tuple[str, Floats, Floats]:
    """A small grey thing on a straight way of its own: shape, colour [rgb], poses [frame 4]."""
    start, end = rng.uniform(0, 1, (2, 2)) * (aspect, 1.0)
    share = np.linspace(0.0, 1.0, frames)[:, None]
    rest = np.tile([rng.uniform(0.07, 0.12), rng.uniform(0, 2 * np.pi)], (frames, 1))
    path = np.concatenate([start + (end - start) * share, rest], axis=1).astype(np.float32)
    return SHAPES[int(rng.integers(len(SHAPES)))], draw_grey(rng), path

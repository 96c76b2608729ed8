"""What things in the toy world look like: shapes, colours, backgrounds, and how hard each difficulty makes it.

    appearance k   0 red triangle   1 red cross   2 green triangle   3 green cross   4 blue triangle …
                   the first n² appearances are all pairs of n shapes and n colours, so neither alone gives them away

Pictures are float [height width rgb] in 0 … 255; lengths are in units of the height. A shape fits the circle of its
radius (but for the corners of the hammer), and turning it can be seen: none of them is round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float32]]

SHAPES = ("triangle", "cross", "bowl", "bar", "hammer", "horseshoe")
COLOURS = {
    "red": (220, 45, 40),
    "green": (60, 200, 70),
    "blue": (75, 95, 240),
    "yellow": (235, 215, 60),
    "purple": (185, 70, 215),
    "white": (235, 235, 235),
}
MOST_APPEARANCES = len(SHAPES) * len(COLOURS)


@dataclass(frozen=True, kw_only=True)
class Difficulty:
    """How hard the toy world is; every pair is a range to be drawn from evenly.

    Attributes:
        radius: of a thing that moves or grows (then the middle of its growth).
        turning_radius: of one that turns.
        travel: of a move, as a share of the room there is.
        growth: largest over smallest radius.
        turn_radians: angle.
        contrast: share of the shape's own colour; the rest is background.
        noise: standard deviation of the grain, in grey levels.
        warp: exponent of time; 1 is an even speed, 2 begins or ends at rest.
        unevenness: standard deviation of the steps between frames over their mean.
        still, moving: number of grey things that lie there or drift, and are not what the class names.
    """

    radius: tuple[float, float]
    turning_radius: tuple[float, float]
    travel: tuple[float, float]
    growth: tuple[float, float]
    turn_radians: tuple[float, float]
    contrast: tuple[float, float]
    noise: tuple[float, float]
    warp: tuple[float, float]
    unevenness: float
    still: int
    moving: int


DIFFICULTIES = {
    "easy": Difficulty(
        radius=(0.16, 0.24),
        turning_radius=(0.3, 0.42),
        travel=(0.6, 0.9),
        growth=(2.5, 3.5),
        turn_radians=(2.5, 4.0),
        contrast=(1.0, 1.0),
        noise=(0.0, 4.0),
        warp=(1.0, 1.0),
        unevenness=0.6,
        still=0,
        moving=0,
    ),
    "medium": Difficulty(
        radius=(0.12, 0.2),
        turning_radius=(0.22, 0.38),
        travel=(0.45, 0.7),
        growth=(1.7, 2.7),
        turn_radians=(1.8, 3.0),
        contrast=(0.7, 1.0),
        noise=(2.0, 8.0),
        warp=(1.0, 1.6),
        unevenness=0.8,
        still=2,
        moving=0,
    ),
    "hard": Difficulty(
        radius=(0.12, 0.2),
        turning_radius=(0.22, 0.38),
        travel=(0.3, 0.55),
        growth=(1.4, 1.9),
        turn_radians=(1.2, 2.2),
        contrast=(0.45, 0.8),
        noise=(6.0, 16.0),
        warp=(1.0, 2.2),
        unevenness=1.0,
        still=2,
        moving=2,
    ),
}


def appearance(number: int) -> tuple[str, str]:
    """(colour, shape) of appearance `number`, in the order of growing squares of shapes and colours.

    Raises:
        ValueError: there are not so many.
    """
    if not 0 <= number < MOST_APPEARANCES:
        raise ValueError(f"appearance {number} is not among 0 to {MOST_APPEARANCES - 1}")
    grid = ((colour, shape) for colour in range(len(COLOURS)) for shape in range(len(SHAPES)))
    colour, shape = sorted(grid, key=lambda pair: (max(pair), pair))[number]
    return tuple(COLOURS)[colour], SHAPES[shape]


def draw_colour(name: str, rng: np.random.Generator) -> Floats:
    """A shade of a colour, float [rgb]."""
    return np.clip(np.asarray(COLOURS[name], np.float32) + rng.uniform(-20, 20, 3), 0, 255).astype(np.float32)


def draw_grey(rng: np.random.Generator) -> Floats:
    """A grey that no class is named after, float [rgb]: lighter than most backgrounds, darker than white."""
    return np.full(3, rng.uniform(90, 160), np.float32)


def draw_background(height: int, width: int, rng: np.random.Generator) -> Floats:
    """A smooth random texture between two dark colours, float [height width rgb]."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32) / height
    texture = np.zeros((height, width), np.float32)
    for _ in range(6):
        direction, cycles, phase = rng.uniform(0, 2 * np.pi), rng.uniform(1.0, 7.0), rng.uniform(0, 2 * np.pi)
        along = np.cos(direction) * columns + np.sin(direction) * rows
        texture += np.sin(2 * np.pi * cycles * along + phase)
    share = (0.5 + texture / 6)[..., None]
    middle = rng.uniform(20, 80) + rng.uniform(-15, 15, 3)
    return np.asarray(middle + rng.uniform(-40, 40, 3) * (share - 0.5), np.float32)


def paint(picture: Floats, shape: str, colour: Floats, pose: tuple[float, float, float, float]) -> Floats:
    """The picture with a shape on it.

    Args:
        picture: float [height width rgb].
        colour: float [rgb].
        pose: centre x and y, radius, angle in radians; a rising angle turns clockwise on the screen.
    """
    x, y, radius, angle = pose
    height, width = picture.shape[:2]
    rows = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / height - y
    columns = (np.arange(width, dtype=np.float32)[None, :] + 0.5) / height - x
    cosine, sine = np.cos(angle) / radius, np.sin(angle) / radius
    distance_px = outline(shape, columns * cosine + rows * sine, rows * cosine - columns * sine) * radius * height
    cover = np.clip(0.5 - distance_px, 0.0, 1.0)[..., None]
    return np.asarray(picture * (1 - cover) + colour * cover, np.float32)


def outline(shape: str, x: Floats, y: Floats) -> Floats:
    """Signed distance to the outline of a shape that fits the unit circle, negative inside."""
    distance: np.ndarray[Any, Any]
    match shape:
        case "triangle":  # pointed: longer than wide
            distance = np.maximum(x - 0.6, np.abs(y) * 0.91 - x * 0.41 - 0.41)
        case "cross":
            distance = np.minimum(_box(x, y, 0.95, 0.3), _box(x, y, 0.3, 0.95))
        case "bowl":
            distance = np.maximum(np.hypot(x, y) - 1.0, x - 0.1)
        case "bar":
            distance = _box(x, y, 0.95, 0.3)
        case "hammer":
            distance = np.minimum(_box(x + 0.15, y, 0.8, 0.2), _box(x - 0.55, y, 0.25, 0.8))
        case _:  # horseshoe: a ring with a gap
            distance = np.maximum(np.abs(np.hypot(x, y) - 0.72) - 0.28, -_box(x - 0.7, y, 0.7, 0.42))
    return np.asarray(distance, np.float32)


def _box(x: Floats, y: Floats, half_width: float, half_height: float) -> Floats:
    return np.asarray(np.maximum(np.abs(x) - half_width, np.abs(y) - half_height), np.float32)

"""The toy world: clips whose label is in the order of their frames, and nowhere else.

    draw for class 2k      frame 0  1  2 … F      something moves from left to right
    reversed = class 2k+1  frame F … 2  1  0      the same pictures: from right to left

Consequence: within a pair, the sets of frames of both classes come from one distribution, so a model that ignores order
stays near 50 % and one that sees order can reach 100 %. Two small leaks remain by nature. A sampler that looks at the
early part of each segment shifts the mean position a little; starts are spread much wider than that. And an encoder
spends more bits on the first frame.

Pictures are [frame height width rgb] uint8, 4:3, so that cropping matters. Lengths below are in units of the height.
"""

from __future__ import annotations

from typing import Any

import numpy as np

CLASSES = (
    "Moving something from left to right",
    "Moving something from right to left",
    "Moving something up",
    "Moving something down",
    "Making something grow",
    "Making something shrink",
    "Turning something to the left",
    "Turning something to the right",
)
"""Position = label. Labels 2k and 2k+1 are each other's reverse in time."""

TEMPLATES = tuple(name.replace("something", "[something]") for name in CLASSES)
SHAPES = ("square", "disc", "triangle", "bar", "ring", "cross")
TURNABLE = ("triangle", "hammer", "flag", "arrow")
"""No rotation maps these onto themselves, so a turn is seen whatever its angle."""

MIN_FRAMES, MAX_FRAMES = 18, 30
FPS = 12.0

Floats = np.ndarray[Any, np.dtype[np.float32]]
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def frame_size(side_px: int) -> tuple[int, int]:
    """(height, width) of a frame; both even, because video codecs halve the colour planes."""
    if side_px < 32 or side_px % 2:
        raise ValueError(f"side_px must be an even number of at least 32, not {side_px}")
    return side_px, 2 * round(side_px * 2 / 3)


def draw_clip(class_index: int, rng: np.random.Generator, *, side_px: int = 72) -> Pixels:
    """One clip of a class, uint8 [frame height width rgb], 18 to 30 frames.

    With equal generators, the two classes of a pair give the same frames in opposite order.
    """
    if not 0 <= class_index < len(CLASSES):
        raise ValueError(f"class_index must be 0 to {len(CLASSES) - 1}, not {class_index}")
    motion, backwards = divmod(class_index, 2)
    clip = _draw_forward(motion, rng, side_px)
    return np.ascontiguousarray(clip[::-1]) if backwards else clip


def _draw_forward(motion: int, rng: np.random.Generator, side_px: int) -> Pixels:
    height, width = frame_size(side_px)
    frames = int(rng.integers(MIN_FRAMES, MAX_FRAMES + 1))
    x, y, radius, angle = _trajectory(motion, frames, width / height, rng)
    shapes = TURNABLE if motion == 3 else SHAPES
    shape = shapes[int(rng.integers(len(shapes)))]
    background = _background(height, width, rng)
    colour = _light_colour(rng)
    noise = float(rng.uniform(0.0, 6.0))

    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    rows, columns = (rows + 0.5) / height, (columns + 0.5) / height
    clip = np.empty((frames, height, width, 3), np.uint8)
    for frame in range(frames):
        turn = np.exp(1j * angle[frame])
        local = ((columns - x[frame]) + 1j * (rows - y[frame])) / turn / radius[frame]
        distance_px = _distance(shape, local.real, local.imag) * radius[frame] * height
        cover = np.clip(0.5 - distance_px, 0.0, 1.0)[..., None]
        picture = background * (1 - cover) + colour * cover + noise * rng.standard_normal((height, width, 1))
        clip[frame] = np.clip(np.rint(picture), 0, 255)
    return clip


def _trajectory(motion: int, frames: int, aspect: float, rng: np.random.Generator) -> tuple[Floats, ...]:
    """Centre x and y, radius and angle (rising = clockwise on the screen), each [frame].

    The shape stays inside the picture: every shape fits the circle of its radius.
    """
    progress = np.linspace(-0.5, 0.5, frames)
    radius = rng.uniform(0.16, 0.24) * np.ones(frames)
    angle = rng.uniform(0, 2 * np.pi) * np.ones(frames)
    if motion == 2:
        radius = rng.uniform(0.16, 0.22) * rng.uniform(2.5, 3.5) ** progress
    if motion == 3:
        radius = rng.uniform(0.3, 0.42) * np.ones(frames)  # large enough that a turn is seen in a few pixels
    room = np.array([aspect, 1.0]) - 2 * radius.max()  # how far the centre may go
    travel = np.zeros(2)
    if motion in (0, 1):
        travel[motion] = rng.uniform(0.5, 0.8) * room[motion]
    centre = np.array([aspect, 1.0]) / 2 + rng.uniform(-0.5, 0.5, 2) * (room - travel)
    x, y = centre[0] + travel[0] * progress, centre[1] - travel[1] * progress  # rows count downwards, class 2 goes up
    if motion == 3:
        angle = angle - rng.uniform(2.5, 4.0) * progress  # class 6 turns to the left: against the clock
    return tuple(part.astype(np.float32) for part in (x, y, radius, angle))


def _background(height: int, width: int, rng: np.random.Generator) -> Floats:
    """A smooth random texture between two colours, float [height width rgb], the same in every frame."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32) / height
    texture = np.zeros((height, width), np.float32)
    for _ in range(6):
        direction, cycles, phase = rng.uniform(0, 2 * np.pi), rng.uniform(1.0, 7.0), rng.uniform(0, 2 * np.pi)
        along = np.cos(direction) * columns + np.sin(direction) * rows
        texture += np.sin(2 * np.pi * cycles * along + phase)
    share = (0.5 + texture / 6)[..., None]
    middle, contrast = rng.uniform(20, 90, 3), rng.uniform(-40, 40, 3)
    return np.asarray(middle + contrast * (share - 0.5), np.float32)


def _light_colour(rng: np.random.Generator) -> Floats:
    """A colour lighter than any background: a light shape on dark ground is what a small head learns in minutes."""
    return np.asarray(rng.uniform(150, 255, 3), np.float32)


def _distance(shape: str, x: Floats, y: Floats) -> Floats:
    """Signed distance to the outline of a shape that fits the unit circle, negative inside."""
    found: np.ndarray[Any, Any]
    match shape:
        case "disc":
            found = np.hypot(x, y) - 1.0
        case "ring":
            found = np.abs(np.hypot(x, y) - 0.75) - 0.25
        case "square":
            found = _box(x, y, 0.7, 0.7)
        case "bar":
            found = _box(x, y, 0.95, 0.3)
        case "cross":
            found = np.minimum(_box(x, y, 0.95, 0.3), _box(x, y, 0.3, 0.95))
        case "triangle":  # pointed: longer than wide
            found = np.maximum(x - 0.6, np.abs(y) * 0.91 - x * 0.41 - 0.41)
        case "hammer":
            found = np.minimum(_box(x + 0.15, y, 0.8, 0.2), _box(x - 0.55, y, 0.25, 0.6))
        case "flag":
            found = np.minimum(_box(x, y - 0.25, 0.88, 0.15), _box(x - 0.4, y + 0.2, 0.36, 0.4))
        case _:  # arrow
            head = np.maximum(-x, np.abs(y) * 0.75 + x * 0.66 - 0.6)
            found = np.minimum(_box(x + 0.45, y, 0.5, 0.2), head)
    return np.asarray(found, np.float32)


def _box(x: Floats, y: Floats, half_width: float, half_height: float) -> Floats:
    return np.asarray(np.maximum(np.abs(x) - half_width, np.abs(y) - half_height), np.float32)

"""Plots of results: labelled points with bars, dark on light, told apart by shape and label and never by colour.

points ─▶ axes (a logarithm along x, zero beside it) ─▶ labels where nothing else lies ─▶ FILE.png, FILE.svg

matplotlib is an extra (`plots`). Only this file and reporting/drawing.py import it.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidxfer.pipeline.disk import expect_writable_folder
from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.writing import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

PLOT_KINDS = (".png", ".svg")
INK = "0.1"
MARKS = "osD^vP*Xph<>dH8"
"""One shape after the other; more points than shapes begin again, and have their labels."""

SIZE_INCHES, DOTS_PER_INCH = (8.0, 5.0), 160
LABEL_POINTS = 9
LABEL_CHARACTERS = 28
"""Of a line of a label; longer ones are wrapped."""
MARK_PX, GAP_PX = 18, 4
CLEARLY = 1.5
"""A label is so many times nearer to its own point than to any other."""

MOST_ROUNDS = 4
"""Of making room for the column of labels, which changes what lies beside a point."""

MOST_DECADES = 8
"""With a tick each."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One result.

    Attributes:
        label: beside it.
        x: at least 0.
        y, low, high: value and ends of its bar; no bar where they are equal.
        filled: a filled mark, or else a hollow one.
    """

    label: str
    x: float
    y: float
    low: float
    high: float
    filled: bool = True


@dataclass(frozen=True, kw_only=True)
class Words:
    """What stands around a plot; `line` is a value of y with a dashed line and words of its own."""

    title: str
    x: str
    y: str
    below: str
    line: tuple[float, str] | None = None


def expect_plot_file(file: Path) -> None:
    """Check, before the work, that a plot can be written there.

    Raises:
        UsageError: another kind of file, no such folder, no file can be made in it, or matplotlib is not installed.
    """
    if file.suffix.lower() not in PLOT_KINDS:
        raise UsageError(f"--plot {file}: the name says the kind, and ends in {' or '.join(PLOT_KINDS)}")
    if not file.absolute().parent.is_dir():
        raise UsageError(f"--plot {file}: there is no folder {file.parent}")
    expect_writable_folder("--plot", file.absolute().parent)
    expect_matplotlib("--plot")


def expect_matplotlib(what: str) -> None:
    """Check that plots can be drawn.

    Raises:
        UsageError: `what` needs them, and matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise UsageError(f'{what} needs matplotlib: pip install "vidxfer[plots]"') from error


def plot_points(points: Sequence[Point], words: Words, file: Path) -> None:
    """Draw points and write the file whole or not at all.

    Raises:
        UsageError: as `expect_plot_file`, or there is no point.
    """
    expect_plot_file(file)
    if not points:
        raise UsageError(f"--plot {file}: not one run has a score that could be drawn")
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "vidxfer", "font.size": 10}):
        figure, _ = drawn(points, words)
        kind = file.suffix.lower().removeprefix(".")
        dated: dict[str, Any] = {"metadata": {"Date": None}} if kind == "svg" else {}
        with whole_file(file) as stream:
            figure.savefig(stream, format=kind, dpi=DOTS_PER_INCH, facecolor="white", **dated)


def drawn(points: Sequence[Point], words: Words) -> tuple[Figure, list[Bbox]]:
    """The figure, and the box of each point's label in pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    places = _scale(axes, [point.x for point in points])
    for number, (point, x) in enumerate(zip(points, places, strict=True)):
        bars = [[point.y - point.low], [point.high - point.y]]
        axes.errorbar(
            [x], [point.y], yerr=bars, fmt=MARKS[number % len(MARKS)], color=INK, ecolor="0.45", elinewidth=1,
            capsize=3, markersize=7, markerfacecolor=INK if point.filled else "white",
        )  # fmt: skip
    if words.line is not None:
        axes.axhline(words.line[0], color="0.4", linestyle="--", linewidth=1)
        axes.annotate(
            words.line[1], (0.005, words.line[0]), xycoords=("axes fraction", "data"), xytext=(0, 3),
            textcoords="offset points", color="0.3", fontsize=9,
        )  # fmt: skip
    axes.set_title(words.title, loc="left", fontsize=11)
    axes.set_xlabel(f"{words.x}\n{words.below}", loc="left")  # a long one is not cut where the axes are narrow
    axes.set_ylabel(words.y)
    axes.grid(alpha=0.25)
    axes.margins(x=0.12, y=0.1)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure, _labelled(axes, points, places)


def _scale(axes: Axes, values: Sequence[float]) -> list[float]:
    """Where each value lies along x: on a logarithm, and zero a decade before the least of the others."""
    positive = [value for value in values if value > 0]
    if not positive:
        return list(values)
    axes.set_xscale("log")
    least = math.floor(math.log10(min(positive)))
    decades = range(least, math.ceil(math.log10(max(positive))) + 1)
    step = max(1, math.ceil(len(decades) / MOST_DECADES))
    ticks = {10.0**exponent: f"$10^{{{exponent}}}$" for exponent in decades[::step]}
    if len(positive) < len(values):
        ticks[10.0 ** (least - 1)] = "0"
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    places = [value or 10.0 ** (least - 1) for value in values]
    if len(set(places)) == 1:  # matplotlib makes no axis around a lone power of ten
        axes.set_xlim(places[0] / 10, places[0] * 10)
    return places


def _labelled(axes: Axes, points: Sequence[Point], places: Sequence[float]) -> list[Bbox]:
    """A label for every point: beside it where that is free, else in a column right of the axes, with a line to it."""
    from matplotlib.text import Text

    points_at = [(x, point.y) for point, x in zip(points, places, strict=True)]
    labels = [
        axes.annotate(
            textwrap.fill(point.label, LABEL_CHARACTERS), place, xytext=(0, 0), textcoords="figure fraction",
            fontsize=LABEL_POINTS, color=INK,
            va="bottom", annotation_clip=False, in_layout=False,
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.7, "shrinkA": 1, "shrinkB": 6,
                        "relpos": (0, 0.5)},
        )
        for point, place in zip(points, points_at, strict=True)
    ]  # fmt: skip
    sizes = [(box.width, box.height) for box in (Text.get_window_extent(label) for label in labels)]
    beside = [_beside(axes, points, points_at, sizes)]
    while crowded := [number for number, box in enumerate(beside[-1]) if box is None]:
        room = max(sizes[number][0] for number in crowded) + 2 * MARK_PX
        right, place = axes.figure.bbox.width - room, axes.get_position()
        axes.set_position((place.x0, place.y0, right / axes.figure.bbox.width - place.x0, place.height))
        beside.append(_beside(axes, points, points_at, sizes))
        if [number for number, box in enumerate(beside[-1]) if box is None] == crowded or len(beside) > MOST_ROUNDS:
            break
    boxes = _column(axes, points_at, sizes, beside[-1])
    width, height = axes.figure.bbox.size
    for label, box, near in zip(labels, boxes, beside[-1], strict=True):
        label.set_position((box.x0 / width, box.y0 / height))  # not in pixels: an SVG has others
        if near is not None and label.arrow_patch is not None:
            label.arrow_patch.set_visible(False)
    return boxes


def _beside(
    axes: Axes, points: Sequence[Point], points_at: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]]
) -> list[Bbox | None]:
    """For each label a box next to its point that touches nothing, and is nearer to its own than to other points."""
    from matplotlib.transforms import Bbox

    centres = [tuple(map(float, axes.transData.transform(place))) for place in points_at]
    taken = []
    for (cx, cy), point, (x, _) in zip(centres, points, points_at, strict=True):
        low, high = (float(axes.transData.transform((x, end))[1]) for end in (point.low, point.high))
        taken.append(Bbox([[cx - MARK_PX / 2, cy - MARK_PX / 2], [cx + MARK_PX / 2, cy + MARK_PX / 2]]))
        taken.append(Bbox([[cx - GAP_PX, low], [cx + GAP_PX, high]]))
    boxes: list[Bbox | None] = []
    for number, (centre, size) in enumerate(zip(centres, sizes, strict=True)):
        others = [other for place, other in enumerate(centres) if place != number]
        free = [
            spot for spot in _spots(centre, size)
            if axes.bbox.x0 <= spot.x0 and spot.x1 <= axes.bbox.x1
            and axes.bbox.y0 <= spot.y0 and spot.y1 <= axes.bbox.y1
            and not any(spot.overlaps(other) for other in taken)
            and all(_gap(spot, centre) * CLEARLY < _gap(spot, other) for other in others)
        ]  # fmt: skip
        boxes.append(free[0] if free else None)
        taken += free[:1]
    return boxes


def _spots(centre: tuple[float, ...], size: tuple[float, float]) -> list[Bbox]:
    """Boxes of a label next to a point: right, left, above, below, and between."""
    from matplotlib.transforms import Bbox

    away, (width, height) = MARK_PX / 2 + GAP_PX, size
    across = (centre[0] + away, centre[0] - away - width, centre[0] - width / 2)
    along = (centre[1] - height / 2, centre[1] + away, centre[1] - away - height)
    places = [(x, y) for x, y in product(across, along) if (x, y) != (across[2], along[0])]
    return [Bbox.from_bounds(x, y, width, height) for x, y in places]


def _column(
    axes: Axes,
    points_at: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    beside: Sequence[Bbox | None],
) -> list[Bbox]:
    """All boxes: those that are left over lie below each other, as high as their points as far as there is room."""
    from matplotlib.transforms import Bbox

    left_over = [number for number, box in enumerate(beside) if box is None]
    heights = {number: float(axes.transData.transform(points_at[number])[1]) for number in left_over}
    order = sorted(heights, key=lambda number: -heights[number])
    tops, above = {}, float(axes.bbox.y1)
    for number in order:
        above = min(above, heights[number] + sizes[number][1] / 2) - sizes[number][1] - GAP_PX
        tops[number] = above
    lift = max(0.0, float(axes.bbox.y0) - above)
    x = float(axes.bbox.x1) + MARK_PX
    return [
        Bbox.from_bounds(x, tops[number] + lift, *sizes[number]) if box is None else box
        for number, box in enumerate(beside)
    ]


def _gap(box: Bbox, centre: tuple[float, ...]) -> float:
    """From a point to the nearest edge of a box."""
    x = max(box.x0 - centre[0], 0.0, centre[0] - box.x1)
    y = max(box.y0 - centre[1], 0.0, centre[1] - box.y1)
    return math.hypot(x, y)

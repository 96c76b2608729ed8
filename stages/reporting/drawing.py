"""Plots of a page: each as an SVG inside it that follows dark and light, and as PNG and SVG in a folder.

values ─▶ matplotlib ─┬▶ FOLDER/name.png, name.svg                     dark on light
                      └▶ <svg>: greys are mixes of ink and page, colours are the page's own (templates/page.css)

Series differ in colour, line and mark, so that nobody needs the colours. Names are never read as mathematics.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidxfer.pipeline.visible import harmless
from vidxfer.pipeline.writing import whole_file
from vidxfer.stages.plots import Point, Words, drawn, expect_matplotlib
from vidxfer.stages.reporting.answers import Numbers
from vidxfer.stages.reporting.calibration import Sureness
from vidxfer.stages.reporting.curves import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES = ("#0072b2", "#c44e00", "#00805c", "#9a3c80", "#7a5c00", "#3f51b5")
"""Colours of the first runs, which page.css gives other values in the dark; then they begin again."""

LINES, MARKS = ("-", "--", "-.", ":"), "osD^vP"
LEGEND_CHARACTERS, CLASS_CHARACTERS = 32, 36
DOTS_PER_INCH = 160
PX_PER_POINT = 1.6
"""Of a plot on a page, at most: letters of 9 points become 14 px."""
LETTER_WIDTH, POINTS_PER_INCH = 0.6, 72
"""Of a letter, over its height."""

LEAST_MATRIX_INCHES = 2.9
"""Of a matrix beside whose scale the words stand whole."""

MOST_COUNTS = 20
"""Classes of a matrix with room for numbers in its squares."""

SETTINGS: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "vidxfer", "text.parse_math": False, "font.size": 9.5,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.35,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A drawn plot.

    Attributes:
        name: of its files.
        svg: to stand inside a page.
        caption: what it shows, in words.
        wide: it takes the whole width.
    """

    name: str
    svg: str
    caption: str
    wide: bool = False


class Plotter:
    """Draws plots, and writes each into a folder where one is named.

    Args:
        folder: is there; None: plots are for the page alone.

    Raises:
        UsageError: matplotlib is not installed.
    """

    def __init__(self, folder: Path | None = None) -> None:
        expect_matplotlib("the page")
        self._folder = folder

    def lines(self, name: str, caption: str, curves: Sequence[tuple[str, Curve]], y: str) -> Plot | None:
        """One line per run over optimiser steps; None where there is nothing to draw."""
        shown = [(number, label, curve) for number, (label, curve) in enumerate(curves) if curve.steps]
        if not shown:
            return None
        with _axes() as (figure, axes):
            for number, label, curve in shown:
                dotted: dict[str, Any] = (
                    {"marker": MARKS[number % len(MARKS)], "markersize": 4} if len(curve.steps) < 25 else {}
                )
                axes.plot(curve.steps, curve.values, label=_short(label), **_style(number), **dotted)
            axes.set_xlabel("optimiser steps")
            axes.set_ylabel(y)
            axes.set_xlim(left=0)
            axes.set_ylim(bottom=0)
            axes.locator_params(axis="x", integer=True)
            _legend(axes, len(shown))
            return self._finished(figure, name, caption)

    def reliability(self, name: str, caption: str, runs: Sequence[tuple[str, Sureness | None]]) -> Plot | None:
        """Share of right videos over how sure a run was; the larger a mark, the more videos."""
        shown = [(number, label, of_run) for number, (label, of_run) in enumerate(runs) if of_run is not None]
        if not shown:
            return None
        with _axes() as (figure, axes):
            axes.plot([0, 1], [0, 1], color="0.5", linewidth=1, linestyle="--")
            axes.annotate("as sure as right", (0.98, 0.86), color="0.35", fontsize=8.5, ha="right")
            for number, label, of_run in shown:
                videos = np.array([filled.videos for filled in of_run.bins])
                x, y = [filled.sure for filled in of_run.bins], [filled.right for filled in of_run.bins]
                axes.plot(x, y, **_style(number))
                axes.scatter(
                    x, y, s=8 + 90 * videos / videos.sum(), color=_style(number)["color"],
                    marker=MARKS[number % len(MARKS)], label=_short(label),
                )  # fmt: skip
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="share of the best class", ylabel="share right")
            _legend(axes, len(shown))
            return self._finished(figure, name, caption)

    def confusion(self, name: str, caption: str, counts: Numbers, names: Sequence[str]) -> Plot:
        """A square per label (down) and answer (across): the share of the label's videos."""
        of_label = counts.sum(1, keepdims=True)
        shares = counts / np.maximum(of_label, 1)
        labels = [_short(label, CLASS_CHARACTERS) for label in names]
        size = max(4.5, min(9.0, 330 / max(1, len(names))))
        room = max(map(len, labels)) * size * LETTER_WIDTH / POINTS_PER_INCH
        side = min(10.0, room + max(LEAST_MATRIX_INCHES, 0.26 * len(names)))
        with _axes((side + 1.2, side)) as (figure, axes):
            drawing = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
            ticks = range(len(names))
            axes.set_xticks(ticks, labels, rotation=90, fontsize=size)
            axes.set_yticks(ticks, labels, fontsize=size)
            axes.grid(visible=False)
            if len(names) <= MOST_COUNTS:
                for label, answer in np.argwhere(counts):
                    ink = "#ffffff" if shares[label, answer] < 0.55 else "#000000"
                    axes.annotate(
                        str(counts[label, answer]), (answer, label), color=_fixed(ink), ha="center", va="center",
                        fontsize=size - 0.5,
                    )  # fmt: skip
            axes.set(xlabel="answer", ylabel="label")
            figure.colorbar(drawing, ax=axes, shrink=0.8, label="share of the label's videos")
            return self._finished(figure, name, caption, wide=True)

    def cost(self, name: str, caption: str, points: Sequence[Point], words: Words) -> Plot | None:
        """Accuracy against cost, as `vidxfer compare --plot` draws it."""
        if not points:
            return None
        with _settings():
            figure, _ = drawn(points, words)
            return self._finished(figure, name, caption, wide=True)

    def _finished(self, figure: Figure, name: str, caption: str, wide: bool = False) -> Plot:
        svg = _saved(figure, "svg").decode("utf-8")
        if self._folder is not None:
            for kind, data in (("svg", _unfixed(svg).encode("utf-8")), ("png", _saved(figure, "png"))):
                with whole_file(self._folder / f"{name}.{kind}") as file:
                    file.write(data)
        return Plot(name=name, svg=themed(svg, caption), caption=caption, wide=wide)


def colours(values: Numbers, low: float, high: float) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 [… rgb] of values on a scale that colour-blind people can read, dark to bright."""
    from matplotlib import colormaps

    shares = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    rgb: np.ndarray[Any, np.dtype[np.uint8]] = colormaps["cividis"](shares, bytes=True)[..., :3]
    return rgb


def themed(svg: str, caption: str) -> str:
    """An SVG file as an element of a page: without its prologue, greys and colours as the page has them."""
    element = svg[svg.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r"#([0-9a-f]{2})\1\1\b", _mixed, element)
    for number, colour in enumerate(SERIES):
        element = element.replace(colour, f"var(--series-{number})")
    label = re.sub(r"[^\w .,%-]", " ", caption)
    size = re.match(r'<svg [^>]*?viewBox="0 0 ([\d.]+) ([\d.]+)"', element)
    assert size is not None, "matplotlib's own beginning"
    begin = f'<svg viewBox="0 0 {size[1]} {size[2]}" role="img" aria-label="{label}"'
    most_px = round(PX_PER_POINT * float(size[1]))  # a small matrix is not blown up to the page's width
    element = re.sub(r"^<svg [^>]*>", f'{begin} style="max-width: {most_px}px">', element)
    return _unfixed(element)


def _mixed(grey: re.Match[str]) -> str:
    ink = round(100 * (1 - int(grey[1], 16) / 255))
    return {100: "var(--ink)", 0: "var(--page)"}.get(ink, f"color-mix(in srgb, var(--ink) {ink}%, var(--page))")


_FIXED = {"#ffffff": "#fffffd", "#000000": "#000002"}


def _fixed(grey: str) -> str:
    """A black or white that is the same in the dark: it stands on a coloured square."""
    return _FIXED[grey]


def _unfixed(svg: str) -> str:
    for grey, kept in _FIXED.items():
        svg = svg.replace(kept, grey)
    return svg


def _short(name: str, most: int = LEGEND_CHARACTERS) -> str:
    """A name that is not too long, its middle left out: classes differ at both ends."""
    whole = harmless(name, 10 * most)
    return whole if len(whole) <= most else f"{whole[: most // 2]}…{whole[1 - most // 2 :]}"


def _style(number: int) -> dict[str, Any]:
    return {"color": SERIES[number % len(SERIES)], "linestyle": LINES[number % len(LINES)], "linewidth": 1.5}


def _legend(axes: Axes, lines: int) -> None:
    if lines > 1:
        axes.legend(frameon=False, fontsize=8.5)


@contextmanager
def _settings() -> Iterator[None]:
    import matplotlib as mpl

    with mpl.rc_context(SETTINGS), warnings.catch_warnings():
        # A name in a script that the font of the PNG lacks: the page's own fonts have it.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        warnings.filterwarnings("ignore", "Matplotlib currently does not support", UserWarning)
        yield


@contextmanager
def _axes(size_inches: tuple[float, float] = (5.2, 3.3)) -> Iterator[tuple[Figure, Axes]]:
    from matplotlib.figure import Figure

    with _settings():
        figure = Figure(figsize=size_inches, layout="constrained")
        yield figure, figure.add_subplot()


def _saved(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    dated: dict[str, Any] = {"metadata": {"Date": None}} if kind == "svg" else {}
    figure.savefig(buffer, format=kind, dpi=DOTS_PER_INCH, facecolor="white", **dated)
    return buffer.getvalue()

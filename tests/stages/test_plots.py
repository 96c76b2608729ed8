"""A plot that is read without colour: labels that touch nothing, zero on a logarithm, whole files."""

from __future__ import annotations

import builtins
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.errors import UsageError
from vidxfer.stages.plots import MARKS, Point, Words, drawn, plot_points

WORDS = Words(title="8 classes", x="cost", y="top-1, %", below="filled: sees order", line=(12.5, "chance"))


def point(label: str, x: float, y: float, **more: Any) -> Point:
    return Point(label=label, x=x, y=y, low=y - 3, high=y + 3, **more)


CROWDED = [
    point("zero-shot", 0.0, 12.0, filled=False), point("probe", 3.5e-4, 31.6, filled=False),
    *(point(f"a head with the number {n}", 200.0 + n, 66.0 + 0.2 * n) for n in range(9)),
    *(point(f"side by side {n}", 10.0, 40.0) for n in range(3)),
]  # fmt: skip


TOWARDS_EACH_OTHER = [point("left", 1.0, 20.0), point("a" * 60, 24.0, 50.0), point("b" * 60, 1000.0, 50.0)]
"""The right one has no room on its right, and two labels are longer than the way between their points."""


@pytest.mark.parametrize("points", [CROWDED, CROWDED[:2], CROWDED[:1], TOWARDS_EACH_OTHER])
def test_no_label_touches_another_or_a_mark_and_all_are_on_the_picture(points: list[Point]) -> None:
    figure, boxes = drawn(points, WORDS)
    assert len(boxes) == len(points)
    assert [pair for pair in combinations(range(len(boxes)), 2) if boxes[pair[0]].overlaps(boxes[pair[1]])] == []
    (axes,) = figure.axes
    marks = [axes.transData.transform(line.get_xydata()[0]) for line in axes.lines if line.get_marker() in MARKS]
    assert len(marks) == len(points)
    for box in boxes:
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
        assert not any(box.contains(*mark) for mark in marks)


def test_labels_of_an_svg_are_where_they_were_laid_out(tmp_path: Path) -> None:
    """An SVG has 72 dots per inch, and the layout is made with others."""
    plot_points(CROWDED, WORDS, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    width, height = (float(size) for size in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)[0])
    figure, boxes = drawn(CROWDED, WORDS)
    for one, box in zip(CROWDED, boxes, strict=True):
        places = re.findall(rf"<!-- {one.label} -->\s*<g [^>]*translate\(([\d.]+) ([\d.]+)\)", text)
        assert len(places) == 1
        across, down = float(places[0][0]) / width, float(places[0][1]) / height
        assert across == pytest.approx(box.x0 / figure.bbox.width, abs=0.002)
        assert down == pytest.approx(1 - box.y0 / figure.bbox.height, abs=0.02), "the base line is above the box's end"


def test_zero_has_a_place_of_its_own_left_of_the_logarithm() -> None:
    figure, _ = drawn(CROWDED[:3], WORDS)
    (axes,) = figure.axes
    shown = {label.get_text(): place for label, place in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)}
    assert axes.get_xscale() == "log"
    assert shown["0"] == pytest.approx(1e-5)
    assert shown["$10^{-4}$"] == pytest.approx(1e-4)
    assert axes.lines[0].get_xdata()[0] == pytest.approx(1e-5)


@pytest.mark.parametrize("x", [1e-6, 1.0, 24.0])
def test_one_cost_alone_has_an_axis_around_it(x: float) -> None:
    figure, _ = drawn([point("a", x, 40.0), point("b", x, 60.0)], WORDS)
    low, high = figure.axes[0].get_xlim()
    assert low < x < high


def test_marks_differ_in_shape_and_are_dark_and_hollow_or_filled() -> None:
    figure, _ = drawn(CROWDED[:3], WORDS)
    marks = [line for line in figure.axes[0].lines if line.get_marker() in "osD"]
    assert [line.get_marker() for line in marks] == ["o", "s", "D"]
    assert [line.get_markerfacecolor() for line in marks] == ["white", "white", "0.1"]
    assert {line.get_color() for line in marks} == {"0.1"}


def test_files_are_of_the_kind_that_their_name_says_and_equal_every_time(tmp_path: Path) -> None:
    for name in ("a.png", "a.svg", "b.svg"):
        plot_points(CROWDED[:3], WORDS, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "a.svg").read_bytes()
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize(("name", "text"), [("a.pdf", r"ends in \.png or \.svg"), ("no/a.png", "there is no folder")])
def test_another_kind_of_file_is_refused(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        plot_points(CROWDED, WORDS, tmp_path / name)
    with pytest.raises(UsageError, match="not one run has a score"):
        plot_points([], WORDS, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(UsageError, match=r'pip install "vidxfer\[plots\]"'):
        plot_points(CROWDED, WORDS, tmp_path / "a.png")

"""docs/frontier.md: a table for each task, what order-blind heads make of it, two plots, and sizes at B/16 and L/14."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from codec_accuracy import subsets_of
from codec_table import EXACT
from frontier import (
    BEGIN,
    BLIND,
    DEVICE_TFLOPS,
    END,
    HEADS,
    PASS_POINTS,
    TOWERS,
    Result,
    Row,
    at_scale,
    rows_of,
    table,
)
from frontier import smallest as smallest_of
from measure import ROOT, machine

from vidxfer.stages.plots import Point, Words, plot_points

BLOCKS = {"B/16": 12, "L/14": 24}
TITLES = {
    "order": "Order: real windows, forward or backward, speed 1 or 2",
    "labels": "The four labels of the same footage",
    "toy": "The toy world",
}


def blind_table(rows: Sequence[Row]) -> list[str]:
    """Heads on float16 tokens of the order task: top-1, and how often the right one of a pair is more probable."""
    lines = [
        "| head, on float16 | top-1 (chance 25.0) | right one of forward and backward (chance 50.0) |",
        "|---|---|---|",
    ]
    for row in rows:
        if row.task == "order" and row.candidate == EXACT:
            order = "cannot see order" if row.head in BLIND["order"] else "can see order"
            lines.append(f"| {HEADS[row.head]} ({order}) | {row.top1:.1f} | {row.within_pair:.1f} |")
    return lines


def scale_table(best: str, candidates: Sequence[str]) -> list[str]:
    """DiST's SSv2 settings, 8 + 16 frames, on both towers: float16 and candidates, the best one also on four blocks."""
    lines = [
        "| tower | blocks | stored as | MB per view | smaller | training GFLOP per clip | fewer | decoding GFLOP "
        "| break-even GB/s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, model in TOWERS.items():
        four = subsets_of(list(range(BLOCKS[name])))["four"]
        whole = at_scale(EXACT, model, None)
        for one, layers in (*((one, None) for one in (EXACT, *candidates)), (best, four)):
            found = at_scale(one, model, layers)
            even = "never" if found.break_even is None else f"{found.break_even:.2f}"
            smaller = whole.bytes_per_view / found.bytes_per_view
            fewer = whole.training_gflop / found.training_gflop
            cells = [name, "all" if layers is None else ", ".join(map(str, layers)), f"`{one}`",
                     f"{found.bytes_per_view / 1e6:.2f}", f"{smaller:.1f}x", f"{found.training_gflop:.1f}",
                     f"{fewer:.1f}x", f"{found.decoding_gflop:.1f}" if found.decoding_gflop else "", even]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def verdict(rows: Sequence[Row]) -> str:
    """One sentence: the smallest point that passes, and what it would mean on the published towers."""
    best = smallest_of(rows)
    if best is None:
        return f"**No candidate passes** (lower end above {PASS_POINTS:g} points with every head)."
    parts = []
    for name, model in TOWERS.items():
        one = at_scale(best, model, None)
        even = "no disk is too slow" if one.break_even is None else f"break-even {one.break_even:.2f} GB/s"
        parts.append(f"{name} {one.bytes_per_view / 1e6:.2f} MB per view, {one.training_gflop:.1f} GFLOP "
                     f"and {one.decoding_gflop:.1f} to decode, {even}")  # fmt: skip
    return f"**The smallest point that passes is `{best}`**; with all blocks it would mean: {'; '.join(parts)}."


def plot(rows: Sequence[Row], file: Path, x: str, of: Callable[[Row], float]) -> None:
    """Top-1 of the order task; bars are the pairs' intervals about each point."""
    points = []
    for row in rows:
        if row.task != "order" or row.head in BLIND["order"]:
            continue
        low = 0.0 if row.against is None else row.against.low - row.against.points
        high = 0.0 if row.against is None else row.against.high - row.against.points
        points.append(Point(label=row.candidate, x=of(row), y=row.top1, low=row.top1 + min(0.0, low),
                            high=row.top1 + max(0.0, high), filled=row.head == "dist"))  # fmt: skip
    if points:
        words = Words(title="Forward or backward, speed 1 or 2, of real footage", x=x, y="top-1, %",
                      below="filled: DiST, hollow: motion of tokens alone; bars: 95 % of the difference to float16",
                      line=(25.0, "chance"))  # fmt: skip
        plot_points(points, words, file)


def write_page(work: Path, results: Sequence[Result], source: Callable[[str], Mapping[str, str]], *, asked: int,
               command: str, docs: bool) -> None:  # fmt: skip
    """Table and plots into the work folder, and, where asked, into docs/."""
    rows = rows_of(work, results, source)
    target = ROOT / "docs" if docs else work
    plot(rows, target / "frontier-bytes.svg", "bytes per view that the head reads", lambda row: row.cost.bytes_per_view)
    plot(rows, target / "frontier-gflop.svg", "training GFLOP per clip", lambda row: row.cost.training_gflop)
    minutes = sum(one.line["cpu_seconds"] for one in results) / 60
    text = [
        f"Made by `{command}`: {len(results)} of {asked} results, {minutes:.0f} core-minutes of training and scoring. "
        f"{machine()}.", "", verdict(rows), "",
    ]  # fmt: skip
    for task, title in TITLES.items():
        own = [row for row in rows if row.task == task]
        if not own:
            continue
        scored = max(one.line["scored"] for one in results if one.line["task"] == task)
        recordings = len({source(task).get(one, one) for one in next(
            result for result in results if result.line["task"] == task).right()})  # fmt: skip
        text += [f"### {title}", "", f"{scored} clips of {recordings} source videos are scored.", "", *table(own), ""]
        if task == "order":
            text += [*blind_table(rows), "", "![top-1 against bytes per view](frontier-bytes.svg)", "",
                     "![top-1 against training GFLOP per clip](frontier-gflop.svg)", ""]  # fmt: skip
    measured = dict.fromkeys(row.candidate for row in rows if row.task == "order" and row.candidate != EXACT)
    if (best := smallest_of(rows)) is not None:
        text += [
            "### At B/16 and L/14", "",
            f"Computed, nothing was run: DiST's SSv2 settings with 8 + 16 frames. Break-even is for a device that does "
            f"{DEVICE_TFLOPS} TFLOP a second of CLIP's forward and of the head: on a disk that reads slower, it is "
            "quicker to run CLIP again. Decoding is not counted in it.", "", *scale_table(best, [*measured]), "",
        ]  # fmt: skip
    whole = "\n".join(text)
    page = target / "frontier.md"
    before, _, rest = (page.read_text(encoding="utf-8") if page.is_file() else "").partition(BEGIN)
    page.write_text(before + BEGIN + whole + END + rest.partition(END)[2], encoding="utf-8")
    print(whole)

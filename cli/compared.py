"""How a comparison looks: blocks of columns for a terminal or a document, and points for a plot.

Comparison ─┬▶ scores, costs, settings, pairs, published ─▶ show.folded or markdown
            └▶ a point per head: top-1 against training GFLOP ─▶ stages/plots.py
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vidxfer.cli import show

if TYPE_CHECKING:
    from vidxfer.pipeline.heads.systems import Figure
    from vidxfer.stages.comparing.rows import Comparison, HeadCost, Seeds
    from vidxfer.stages.plots import Point


@dataclass(frozen=True, kw_only=True)
class Block:
    """A table: a title, names of columns, rows of cells, and lines below it."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    below: tuple[str, ...] = ()


def blocks(comparison: Comparison, caches: str) -> list[Block]:
    """Everything that is shown, block by block; `caches` names them."""
    stored = f"{show.size(comparison.cache_bytes)} for {comparison.views:,} views"
    title = f"{comparison.classes} classes; cache {caches}: {stored}"
    shown = [_scores(comparison, title), _costs(comparison), _settings(comparison)]
    if comparison.against is not None:
        shown.append(_pairs(comparison, comparison.against))
    if comparison.published:
        shown.append(_published(comparison.published))
    return shown


def _scores(comparison: Comparison, title: str) -> Block:
    missing = any(row.scored != row.listed for row in comparison.runs)
    factors, split = comparison.factor_chance, comparison.split
    rows = [["chance", percent(comparison.chance), "", *map(percent, factors.values()), "", *[""] * missing]]
    for row in comparison.runs:
        rows.append([
            row.name,
            percent(row.top1, row.top1_interval),
            percent(row.top5, row.top5_interval),
            *(percent(row.factors.get(name)) for name in factors),
            "-" if row.scored is None else f"{row.scored}/{row.listed}",
            *[percent(row.top1_of_listed)] * missing,
        ])  # fmt: skip
    rows += [_mean(group, comparison, missing) for group in comparison.seeds]
    of_listed = ["of listed"] * missing
    columns = ["", f"{split} top-1", f"{split} top-5", *factors, "scored", *of_listed]
    below = "In brackets: 95 % bootstrap interval over videos; of several seeds, one standard deviation."
    return Block(title=title, columns=columns, rows=rows, below=(below,))


def _mean(group: Seeds, comparison: Comparison, missing: bool) -> list[str]:
    shares = [group.top1, group.top5, *(group.factors.get(name) for name in comparison.factor_chance)]
    cells = ["-" if spread is None else f"{spread[0]:.1%} (± {100 * spread[1]:.1f})" for spread in shares]
    return [f"{group.name}, mean of {len(group.runs)} seeds", *cells, "", *[""] * missing]


def _costs(comparison: Comparison) -> Block:
    rows = []
    for row in comparison.runs:
        cost = ["0", "no", "0", "0", "-", "-"] if row.cost is None else _cost(row.cost, row.online)
        rows.append([
            row.name,
            *cost,
            str(row.epochs or "-"),
            "-" if row.epoch_seconds is None else show.duration(row.epoch_seconds),
            "-" if row.clips_per_second is None else f"{row.clips_per_second:,.1f}",
            "-" if row.peak_memory_bytes is None else show.size(row.peak_memory_bytes),
        ])  # fmt: skip
    columns = ["", "trains", "sees order", "forward GFLOP", "training GFLOP", "tokens read", "frames seen"]
    columns += ["epochs", "one takes", "clips/s", "peak memory"]
    below = (
        "GFLOP per view: 2 x multiply-accumulates of the head; training is forward and backward; CLIP is not counted."
    )
    return Block(title="What a head takes", columns=columns, rows=rows, below=(below,))


def _cost(cost: HeadCost, online: bool) -> list[str]:
    jpegs = "" if cost.frame_bytes_per_view is None else f" ({show.size(cost.frame_bytes_per_view)})"
    return [
        show.count(cost.parameters),
        "yes" if cost.sees_order else "no",
        f"{cost.forward_gflop:.3g}",
        f"{cost.training_gflop:.3g}",
        "-" if online else show.size(cost.bytes_per_view),
        f"{cost.frames_per_view}{jpegs}" if cost.frames_per_view else "-",
    ]


def _settings(comparison: Comparison) -> Block:
    rows = [
        [row.name, row.tokens, *(row.settings.get(name, "-") for name in comparison.differing), str(row.run)]
        for row in comparison.runs
    ]
    return Block(title="Where they come from", columns=["", "tokens from", *comparison.differing, "run"], rows=rows)


def _pairs(comparison: Comparison, against: Path) -> Block:
    other = next(row for row in comparison.runs if row.run == against)
    rows = [
        [
            pair.name,
            f"{100 * pair.difference:+.1f} ({100 * pair.interval[0]:+.1f} to {100 * pair.interval[1]:+.1f})",
            str(pair.only_other),
            str(pair.only_this),
            f"{pair.p:.2g}",
            f"{pair.videos}",
            str(pair.run),
        ]
        for pair in comparison.pairs
    ]
    columns = ["", "points of top-1", "only it", "only this", "p", "videos", "run"]
    return Block(
        title=f"Against {other.name}, {against}: the same videos, pair by pair",
        columns=columns,
        rows=rows,
        below=("Only it, only this: videos that only one of the two has right. p: McNemar's exact test, two-sided.",),
    )


def _published(figures: tuple[Figure, ...]) -> Block:
    from vidxfer.pipeline.heads.systems import VIEWS_DIFFER

    systems = [figure.system for figure in figures]
    notes = list(dict.fromkeys(text for figure in figures for text in (figure.source, figure.caveat) if text))
    rows = [
        [
            figure.system,
            *(
                "" if cell is None else str(cell)
                for cell in (figure.data, figure.clip, figure.frames, figure.top1, figure.top5)
            ),
            "" if figure.trainable_millions is None else f"{figure.trainable_millions:g} M",
            figure.cached,
            figure.views or "",
            " ".join(f"[{notes.index(text) + 1}]" for text in (figure.source, figure.caveat) if text),
        ]
        for figure in sorted(figures, key=lambda figure: systems.index(figure.system))
    ]
    columns = ["", "data", "CLIP", "frames", "top-1", "top-5", "trains", "cacheable", "views", "notes"]
    return Block(
        title="Published by others: other videos, views and code than above",
        columns=columns,
        rows=rows,
        below=(VIEWS_DIFFER, *(f"[{number}] {text}" for number, text in enumerate(notes, start=1))),
    )


def points(comparison: Comparison) -> list[Point]:
    """A point per head: runs of several seeds are one, at their mean."""
    from vidxfer.stages.plots import Point

    grouped = {run: group for group in comparison.seeds for run in group.runs}
    plotted = []
    for row in comparison.runs:
        group = grouped.get(row.run)
        if row.top1 is None or (group is not None and row.run != group.runs[0]):
            continue
        top1 = row.top1 if group is None else group.top1[0]
        low, high = (row.top1_interval if group is None else group.top1_interval) or (top1, top1)
        plotted.append(
            Point(
                label=_label(row.name if group is None else group.name, row.online),
                x=0.0 if row.cost is None else row.cost.training_gflop,
                y=100 * top1,
                low=100 * min(low, top1),
                high=100 * max(high, top1),
                filled=row.cost is not None and row.cost.sees_order,
            )
        )
    return plotted


def _label(name: str, online: bool) -> str:
    return f"{name} (CLIP in every step)" if online else name


def plot(comparison: Comparison, file: Path) -> None:
    """Top-1 against the cost of training, one point per head.

    Raises:
        UsageError: as `plot_points`.
    """
    from vidxfer.stages.plots import Words, plot_points

    scored = max((row.scored or 0 for row in comparison.runs), default=0)
    seeds = "; of several seeds, of all of them" if comparison.seeds else ""
    words = Words(
        title=f"{comparison.classes} classes, {scored:,} videos ({comparison.split})",
        x="training GFLOP per view: the head's forward and backward, CLIP not counted",
        y="top-1, %",
        below=f"filled: sees the order of frames, hollow: does not; bars: 95 % over videos{seeds}",
        line=(100 * comparison.chance, "chance"),
    )
    plot_points(points(comparison), words, file)


def markdown(columns: list[str], rows: list[list[str]]) -> None:
    """A table in Markdown on standard output."""
    cells = [
        [show.harmless(cell).replace("\\", "\\\\").replace("|", "\\|") for cell in row] for row in (columns, *rows)
    ]
    ruled = [cells[0], ["---", *["---:"] * (len(columns) - 1)], *cells[1:]]
    show.say(*(f"| {' | '.join(row)} |" for row in ruled))


def percent(share: float | None, interval: tuple[float, float] | None = None) -> str:
    """A share of one as a table shows it, with its interval."""
    if share is None:
        return "-"
    return f"{share:.1%}" + ("" if interval is None else f" ({100 * interval[0]:.1f}–{100 * interval[1]:.1f})")

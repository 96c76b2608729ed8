"""How a comparison reads: blocks of columns and cells, for a terminal, a document or a page.

Comparison ─▶ scores, costs, settings, pairs, published ─▶ show.folded, markdown, or a table of a page
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vidxfer.pipeline.heads.systems import VIEWS_DIFFER, Figure
from vidxfer.pipeline.visible import count, duration, size
from vidxfer.stages.comparing.rows import Comparison, HeadCost, Seeds


@dataclass(frozen=True, kw_only=True)
class Block:
    """A table: a title, names of columns, rows of cells, and lines below it."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    below: tuple[str, ...] = ()


def blocks(comparison: Comparison, caches: str) -> list[Block]:
    """Everything that is shown, block by block; `caches` names them."""
    title = (
        f"{comparison.classes} classes; cache {caches}: {size(comparison.cache_bytes)} for {comparison.views:,} views"
    )
    shown = [_scores(comparison, title), _costs(comparison), _settings(comparison)]
    if comparison.against is not None:
        shown.append(_pairs(comparison, comparison.against))
    if comparison.published:
        shown.append(_published(comparison.published))
    return shown


def _scores(comparison: Comparison, title: str) -> Block:
    missing = any(row.scored != row.listed for row in comparison.runs)
    rows = [
        [
            "chance",
            percent(comparison.chance),
            "",
            *map(percent, comparison.factor_chance.values()),
            "",
            *[""] * missing,
        ]
    ]
    for row in comparison.runs:
        rows.append([
            row.name,
            percent(row.top1, row.top1_interval),
            percent(row.top5, row.top5_interval),
            *(percent(row.factors.get(name)) for name in comparison.factor_chance),
            "-" if row.scored is None else f"{row.scored}/{row.listed}",
            *[percent(row.top1_of_listed)] * missing,
        ])  # fmt: skip
    rows += [_mean(group, comparison, missing) for group in comparison.seeds]
    of_listed = ["of listed"] * missing
    columns = [
        "",
        f"{comparison.split} top-1",
        f"{comparison.split} top-5",
        *comparison.factor_chance,
        "scored",
        *of_listed,
    ]
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
            "-" if row.epoch_seconds is None else duration(row.epoch_seconds),
            "-" if row.clips_per_second is None else f"{row.clips_per_second:,.1f}",
            "-" if row.peak_memory_bytes is None else size(row.peak_memory_bytes),
        ])  # fmt: skip
    columns = ["", "trains", "sees order", "forward GFLOP", "training GFLOP", "tokens read", "frames seen"]
    columns += ["epochs", "one takes", "clips/s", "peak memory"]
    below = (
        "GFLOP per view: 2 x multiply-accumulates of the head; training is forward and backward; CLIP is not counted."
    )
    return Block(title="What a head takes", columns=columns, rows=rows, below=(below,))


def _cost(cost: HeadCost, online: bool) -> list[str]:
    jpegs = "" if cost.frame_bytes_per_view is None else f" ({size(cost.frame_bytes_per_view)})"
    return [
        count(cost.parameters),
        "yes" if cost.sees_order else "no",
        f"{cost.forward_gflop:.3g}",
        f"{cost.training_gflop:.3g}",
        "-" if online else size(cost.bytes_per_view),
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


def percent(share: float | None, interval: tuple[float, float] | None = None) -> str:
    """A share of one as a table shows it, with its interval."""
    if share is None:
        return "-"
    return f"{share:.1%}" + ("" if interval is None else f" ({100 * interval[0]:.1f}–{100 * interval[1]:.1f})")

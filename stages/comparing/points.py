"""How a comparison is drawn: a point per head, top-1 against training GFLOP.

Comparison ─▶ points, words ─▶ stages/plots.py
"""

from __future__ import annotations

from vidxfer.stages.comparing.rows import Comparison
from vidxfer.stages.plots import Point, Words


def points(comparison: Comparison) -> list[Point]:
    """A point per head: runs of several seeds are one, at their mean."""
    grouped = {run: group for group in comparison.seeds for run in group.runs}
    drawn = []
    for row in comparison.runs:
        group = grouped.get(row.run)
        if row.top1 is None or (group is not None and row.run != group.runs[0]):
            continue
        top1 = row.top1 if group is None else group.top1[0]
        low, high = (row.top1_interval if group is None else group.top1_interval) or (top1, top1)
        drawn.append(
            Point(
                label=_label(row.name if group is None else group.name, row.online),
                x=0.0 if row.cost is None else row.cost.training_gflop,
                y=100 * top1,
                low=100 * min(low, top1),
                high=100 * max(high, top1),
                filled=row.cost is not None and row.cost.sees_order,
            )
        )
    return drawn


def _label(name: str, online: bool) -> str:
    return f"{name} (CLIP in every step)" if online else name


def words_of(comparison: Comparison) -> Words:
    """What stands around the points."""
    scored = max((row.scored or 0 for row in comparison.runs), default=0)
    seeds = "; of several seeds, of all of them" if comparison.seeds else ""
    return Words(
        title=f"{comparison.classes} classes, {scored:,} videos ({comparison.split})",
        x="training GFLOP per view: the head's forward and backward, CLIP not counted",
        y="top-1, %",
        below=f"filled: sees the order of frames, hollow: does not; bars: 95 % over videos{seeds}",
        line=(100 * comparison.chance, "chance"),
    )

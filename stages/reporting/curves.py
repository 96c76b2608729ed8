"""How a training went: its journal, thinned to what a plot can show.

metrics.jsonl ─▶ (step, value) of loss, top-1, waiting ─▶ at most 300 points each: means over neighbouring steps
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from vidxfer.pipeline.training.journal import metrics_of

MOST_POINTS = {"loss": 300, "data_wait_share": 60, "val_top1": 300}
"""Of each curve; a share of waiting changes with every step."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Values over optimiser steps."""

    steps: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Curves:
    """One run.

    Attributes:
        loss: of the training.
        wait: share of the time that was spent waiting for data.
        top1: on the validation videos, at every evaluation.
    """

    loss: Curve
    wait: Curve
    top1: Curve


class _Thinned:
    """Points that come one by one; when there are too many, neighbours are joined."""

    def __init__(self, most: int) -> None:
        self._most, self._each, self._sums = most, 1, [[0.0, 0.0, 0.0]]

    def add(self, step: float, value: float) -> None:
        if self._sums[-1][2] == self._each:
            self._sums.append([0.0, 0.0, 0.0])
        last = self._sums[-1]
        last[0], last[1], last[2] = last[0] + step, last[1] + value, last[2] + 1
        if len(self._sums) > 2 * self._most and last[2] == self._each:
            self._halve()

    def _halve(self) -> None:
        pairs = zip(self._sums[::2], [*self._sums[1::2], [0.0, 0.0, 0.0]], strict=False)
        self._sums = [[a + b for a, b in zip(first, second, strict=True)] for first, second in pairs]
        self._each *= 2

    def curve(self) -> Curve:
        while len(self._sums) > self._most:
            self._halve()
        filled = [sums for sums in self._sums if sums[2]]
        return Curve(
            steps=tuple(step / count for step, _, count in filled),
            values=tuple(value / count for _, value, count in filled),
        )


def curves_of(run: Path) -> Curves:
    """The curves of a run; empty ones of a folder that holds no training.

    Raises:
        RunError: the journal is damaged.
    """
    thinned = {name: _Thinned(most) for name, most in MOST_POINTS.items()}
    if (run / "metrics.jsonl").exists():
        for line in metrics_of(run):
            step = line.get("step") if isinstance(line, dict) else None
            for name, points in thinned.items():
                value = line.get(name) if isinstance(line, dict) else None
                if _is_number(step) and _is_number(value):
                    points.add(float(step), float(value))  # type: ignore[arg-type]
    loss, wait, top1 = (series.curve() for series in thinned.values())
    return Curves(loss=loss, wait=wait, top1=top1)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

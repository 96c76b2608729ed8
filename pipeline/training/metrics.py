"""Scores of a split, with the coverage they were obtained at: what was scored, what was listed, who is missing.

    probabilities of every stored view ─ sum per video ─▶ ranking ─▶ top-1, top-5   (n scored / n listed)

A missing video is never replaced by another one. Two readings are given: over the scored videos, and with every missing
one counted as wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy


@dataclass(frozen=True, kw_only=True)
class Score:
    """Accuracy of one split.

    Attributes:
        top1, top5: share of the scored videos, 0..1. top1_of_listed: missing videos count as wrong.
        scored, listed: numbers of videos. missing: id -> reason, of every listed video without a score.
    """

    top1: float
    top5: float
    top1_of_listed: float
    scored: int
    listed: int
    missing: dict[str, str]

    def __str__(self) -> str:
        return f"top-1 {self.top1:.1%}, top-5 {self.top5:.1%} ({self.scored} scored / {self.listed} listed)"


def topk(probabilities: Tensor, labels: Tensor, k: int) -> float:
    """Share of rows whose label is among the k largest: [clip class], int64 [clip]; k is cut to the classes."""
    classes = probabilities.shape[1]
    if classes == 1:
        return 1.0  # torchmetrics refuses a single class; every answer is right
    value = multiclass_accuracy(probabilities, labels, num_classes=classes, average="micro", top_k=min(k, classes))
    return float(value)


def score(probabilities: Tensor, labels: Tensor, missing: dict[str, str]) -> Score:
    """Score summed view probabilities [video class] against labels int64 [video]."""
    scored = len(labels)
    listed = scored + len(missing)
    top1 = topk(probabilities, labels, 1) if scored else 0.0
    return Score(
        top1=top1,
        top5=topk(probabilities, labels, 5) if scored else 0.0,
        top1_of_listed=top1 * scored / listed if listed else 0.0,
        scored=scored,
        listed=listed,
        missing=missing,
    )


class RunningMean:
    """Mean of numbers since the last `take`, for log lines."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, value: float) -> None:
        """Add one number."""
        self.total += value
        self.count += 1

    def take(self) -> float:
        """The mean so far, and start anew; 0.0 when nothing was added."""
        mean = self.total / self.count if self.count else 0.0
        self.total, self.count = 0.0, 0
        return mean


def ranked(probabilities: Tensor, k: int = 5) -> tuple[list[int], list[float]]:
    """Class indices and normalised probabilities of the k best of one row [class]."""
    share = probabilities / probabilities.sum().clamp_min(torch.finfo(probabilities.dtype).tiny)
    values, indices = share.topk(min(k, len(share)))
    return indices.tolist(), values.tolist()

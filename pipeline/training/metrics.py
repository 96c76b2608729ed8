"""Scores of a split, with their coverage: the number of scored videos, of listed videos, and the missing videos.

    probabilities of every stored view ─ sum per video ─▶ ranking ─▶ top-1, top-5   (n scored / n listed)
                                             └─ sum per value of a factor (verb, noun …) ─▶ top-1 of the factor

A missing video is never replaced by another one. Two scores are given: over the scored videos, and over the listed
videos, where every missing video counts as wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Score:
    """Accuracy of one split.

    Attributes:
        top1: share of the scored videos, 0..1.
        top5: share of the scored videos, 0..1.
        top1_of_listed: share of the listed videos, 0..1; missing videos count as wrong.
        scored: number of scored videos.
        listed: number of listed videos.
        missing: id -> reason, of every listed video without a score.
        factors: name of the factor -> its top-1 over the scored videos, if the classes have factors.
    """

    top1: float
    top5: float
    top1_of_listed: float
    scored: int
    listed: int
    missing: dict[str, str]
    factors: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = {"top-1": self.top1, "top-5": self.top5, **self.factors}
        shares = ", ".join(f"{name} {share:.1%}" for name, share in parts.items())
        return f"{shares} ({self.scored} scored / {self.listed} listed)"


def topk(probabilities: Tensor, labels: Tensor, k: int) -> float:
    """Share of rows whose label is among the k largest: [clip class], int64 [clip]; k is cut to the classes."""
    classes = probabilities.shape[1]
    if classes == 1:
        return 1.0  # torchmetrics refuses a single class; any answer is right
    from torchmetrics.functional.classification import (
        multiclass_accuracy,
    )  # imported here: the import takes half a second, and extraction does not need it

    value = multiclass_accuracy(probabilities, labels, num_classes=classes, average="micro", top_k=min(k, classes))
    return float(value)


def factor_top1(probabilities: Tensor, labels: Tensor, values: Sequence[str]) -> float:
    """Share of rows whose best value of a factor is their label's: [video class], int64 [video], a value per class.

    The best value is the one with the largest marginal: the sum of probabilities over its classes.
    """
    number_of = {value: number for number, value in enumerate(dict.fromkeys(values))}
    of_class = torch.tensor([number_of[value] for value in values])
    marginal = torch.zeros(len(labels), len(number_of), dtype=probabilities.dtype)
    marginal.index_add_(1, of_class, probabilities)
    return float((marginal.argmax(1) == of_class[labels]).float().mean())


def score(
    probabilities: Tensor,
    labels: Tensor,
    missing: dict[str, str],
    factors: Mapping[str, Sequence[str]] | None = None,
) -> Score:
    """Score summed view probabilities [video class] against labels int64 [video].

    `factors`: name of the factor -> one value per class.
    """
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
        factors={
            name: factor_top1(probabilities, labels, values) if scored else 0.0
            for name, values in (factors or {}).items()
        },
    )


class RunningMean:
    """Mean of the numbers added since the last `take`, for log lines."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, value: float) -> None:
        """Add one number."""
        self.total += value
        self.count += 1

    def take(self) -> float:
        """Return the mean so far, and start again. It is 0.0 when nothing was added."""
        mean = self.total / self.count if self.count else 0.0
        self.total, self.count = 0.0, 0
        return mean


def ranked(probabilities: Tensor, k: int = 5) -> tuple[list[int], list[float]]:
    """Class indices and normalised probabilities of the k best classes of one row [class]."""
    share = probabilities / probabilities.sum().clamp_min(torch.finfo(probabilities.dtype).tiny)
    values, indices = share.topk(min(k, len(share)))
    return indices.tolist(), values.tolist()

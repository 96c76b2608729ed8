"""Class by class: how many videos a run has right, what they are taken for, and how two runs differ.

Answers ─┬▶ ClassScores per class: share of right videos per run; difference to the first run, p of McNemar's exact test
         └▶ (label, answer) counts ─▶ a matrix, or above 60 classes the most confused pairs
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vidxfer.pipeline.training.resampled import mcnemar
from vidxfer.stages.reporting.answers import Answers, Numbers

MATRIX_CLASSES = 60
"""Of a matrix that a person can read."""

MOST_PAIRS = 40


@dataclass(frozen=True, kw_only=True)
class ClassPair:
    """One class, one run beside the first one, over the videos that both scored.

    Attributes:
        difference: share of right videos minus that of the first run.
        p: McNemar's exact test, two-sided.
        holds: p is below 0.05 over the number of tests in the table (Bonferroni).
    """

    difference: float
    p: float
    holds: bool


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """One class.

    Attributes:
        name: of the class.
        videos: listed.
        right: share of the scored videos, per run; None: the run scored none.
        pairs: every run but the first, beside the first; None: no video that both scored.
        taken_for: what the first run's wrong videos are taken for most, and how many; None: none is wrong.
    """

    name: str
    videos: int
    right: tuple[float | None, ...]
    pairs: tuple[ClassPair | None, ...]
    taken_for: tuple[str, int] | None


@dataclass(frozen=True, kw_only=True)
class ConfusedPair:
    """Videos of one class that are taken for another: how many of the first one's, per run."""

    label: str
    answer: str
    videos: tuple[int, ...]
    listed: int


def class_rows(answers: Answers, names: Sequence[str]) -> list[ClassScores]:
    """A row per class that has a listed video."""
    present = np.unique(answers.labels[answers.labels >= 0]).tolist()
    tests = max(1, len(present) * (answers.runs - 1))
    order = np.argsort(answers.labels, kind="stable")
    edges = np.searchsorted(answers.labels[order], [*present, len(names)])
    rows = []
    for place, label in enumerate(present):
        videos = order[edges[place] : edges[place + 1]]
        scored, right = answers.scored[:, videos], answers.right[:, videos]
        rows.append(
            ClassScores(
                name=names[label],
                videos=len(videos),
                right=tuple(float(r[s].mean()) if s.any() else None for r, s in zip(right, scored, strict=True)),
                pairs=tuple(_pair(scored, right, run, tests) for run in range(1, answers.runs)),
                taken_for=_taken_for(answers, videos, label, names),
            )
        )
    return rows


def _pair(scored: Numbers, right: Numbers, run: int, tests: int) -> ClassPair | None:
    both = scored[0] & scored[run]
    if not both.any():
        return None
    only_first = int((right[0] & ~right[run] & both).sum())
    only_this = int((right[run] & ~right[0] & both).sum())
    p = mcnemar(only_first, only_this)
    return ClassPair(difference=(only_this - only_first) / int(both.sum()), p=p, holds=p < 0.05 / tests)


def _taken_for(answers: Answers, videos: Numbers, label: int, names: Sequence[str]) -> tuple[str, int] | None:
    said = answers.best[0, videos, 0][answers.scored[0, videos]]
    wrong, counts = np.unique(said[said != label], return_counts=True)
    return (names[wrong[counts.argmax()]], int(counts.max())) if len(wrong) else None


def matrix(answers: Answers, run: int, classes: int) -> Numbers:
    """int64 [label answer]: scored videos of a run."""
    there = answers.scored[run] & (answers.labels >= 0)
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (answers.labels[there], answers.best[run, there, 0]), 1)
    return counts


def most_confused(answers: Answers, names: Sequence[str]) -> list[ConfusedPair]:
    """The pairs that most videos are confused in, over all runs; of equally many, by the classes' numbers."""
    classes, counted = len(names), []
    for run in range(answers.runs):
        wrong = answers.scored[run] & (answers.labels >= 0) & (answers.best[run, :, 0] != answers.labels)
        codes = answers.labels[wrong] * classes + answers.best[run, wrong, 0]
        counted.append(dict(zip(*map(np.ndarray.tolist, np.unique(codes, return_counts=True)), strict=True)))
    total = {
        code: sum(pairs.get(code, 0) for pairs in counted) for code in {code for pairs in counted for code in pairs}
    }
    listed = np.bincount(answers.labels[answers.labels >= 0], minlength=classes)
    return [
        ConfusedPair(
            label=names[code // classes],
            answer=names[code % classes],
            videos=tuple(pairs.get(code, 0) for pairs in counted),
            listed=int(listed[code // classes]),
        )
        for code in sorted(total, key=lambda code: (-total[code], code))[:MOST_PAIRS]
    ]

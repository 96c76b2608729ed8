"""What several runs said of the same videos, as arrays: a page over 24,777 videos takes a few megabytes of memory.

predictions.SPLIT.jsonl of each run ─▶ checked against the videos of the others ─▶ Answers [run video]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidxfer.pipeline.errors import RunError
from vidxfer.pipeline.training.predictions import MOST_BEST, KeptPrediction
from vidxfer.stages.comparing.alike import predicted

Numbers = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What runs said of the videos of a split.

    Attributes:
        ids: of the listed videos.
        labels: int64 [video]; -1: without a label.
        scored: bool [run video]: the run has said something of the video.
        right: bool [run video].
        best: int64 [run video place]: the five best classes, the best one first; -1 where there are fewer.
        shares: float64 [run video place]: their shares of probability; 0 where there are fewer.
    """

    ids: tuple[str, ...]
    labels: Numbers
    scored: Numbers
    right: Numbers
    best: Numbers
    shares: Numbers

    @property
    def runs(self) -> int:
        """Number of runs."""
        return len(self.scored)

    def share_of_label(self) -> Numbers:
        """float64 [run video]: the share of the label; 0 where it is not among the five best."""
        shares: Numbers = np.where(self.best == self.labels[None, :, None], self.shares, 0.0).sum(-1)
        return shares

    def margin(self) -> Numbers:
        """float64 [run video]: the share of the label minus that of the best other class; NaN where not scored."""
        others = np.where(self.best == self.labels[None, :, None], 0.0, self.shares).max(-1)
        return np.where(self.scored, self.share_of_label() - others, np.nan)


def answers_of(runs: Sequence[Path], split: str, reference: Mapping[str, Any]) -> Answers:
    """Read what each run said.

    Args:
        runs: their folders.
        split: that was scored.
        reference: ids, labels and class names, as `validation_of` gives them.

    Raises:
        RunError: a run was not scored, or a line is damaged. UsageError: it was scored on other videos.
    """
    ids, classes = tuple(reference["ids"]), len(reference["class_names"])
    shape = (len(runs), len(ids))
    answers = Answers(
        ids=ids,
        labels=np.asarray(reference["labels"], dtype=np.int64),
        scored=np.zeros(shape, dtype=bool),
        right=np.zeros(shape, dtype=bool),
        best=np.full((*shape, MOST_BEST), -1, dtype=np.int64),
        shares=np.zeros((*shape, MOST_BEST)),
    )
    place_of = {id_: place for place, id_ in enumerate(ids)}
    for number, path in enumerate(runs):
        for id_, prediction in predicted(path, split, reference).items():
            _fill(answers, number, place_of[id_], prediction, classes, path)
    return answers


def _fill(answers: Answers, run: int, place: int, prediction: KeptPrediction, classes: int, path: Path) -> None:
    if (highest := max(prediction.best)) >= classes:
        raise RunError(
            f"{path}: {prediction.id!r} was given class {highest}; there are {classes}. Score the run again."
        )
    answers.scored[run, place], answers.right[run, place] = True, prediction.right
    answers.best[run, place, : len(prediction.best)] = prediction.best
    answers.shares[run, place, : len(prediction.best)] = prediction.shares

"""Which videos are worth a look: those that runs are surest about and wrong, and those they have right by a hair.

share of the label − share of the best other class, mean over the runs ─┬▶ least: the hardest
                                                                        └▶ right in every run, least: the luckiest
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidxfer.stages.reporting.answers import Answers, Numbers

MOST_EACH = 20


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """One video: its place among the listed ones, and its mean margin over the runs."""

    place: int
    margin: float


def chosen(answers: Answers, most: int = MOST_EACH) -> tuple[list[Chosen], list[Chosen]]:
    """The hardest videos and the luckiest, each at most `most`, the most telling first; of equals the first listed.

    The hardest are wrong in every run that scored them, or in most: their mean margin is below 0. The luckiest are
    right in every run.
    """
    seen = answers.scored.any(0) & (answers.labels >= 0)
    places = np.flatnonzero(seen)
    margins = np.nanmean(answers.margin()[:, seen], axis=0) if len(places) else np.zeros(0)
    right_in_all: Numbers = np.all(answers.right | ~answers.scored, axis=0)
    lucky = right_in_all[seen]
    order = np.argsort(margins, kind="stable")
    hard = [video for video in order if margins[video] < 0 and not lucky[video]][:most]
    near = [video for video in order if lucky[video]][:most]
    hardest, luckiest = (
        [Chosen(place=int(places[video]), margin=float(margins[video])) for video in videos] for videos in (hard, near)
    )
    return hardest, luckiest

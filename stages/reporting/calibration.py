"""Does a run know how sure it may be? Of the videos where it was 80 % sure, 80 % should be right.

share of the best class ─▶ 15 bins of equal width ─▶ per bin: mean share, share of right videos ─▶ ECE
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidxfer.stages.reporting.answers import Numbers

BINS = 15


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Videos whose best class has about the same share: their number, mean share, and share of right ones."""

    videos: int
    sure: float
    right: float


@dataclass(frozen=True, kw_only=True)
class Sureness:
    """One run.

    Attributes:
        ece: expected calibration error: over videos, the mean of |sure − right| of their bins.
        sure: mean share of the best class; above `right`, the run is too sure.
        right: share of right videos.
        bins: those that hold a video, by share.
    """

    ece: float
    sure: float
    right: float
    bins: tuple[Bin, ...]


def calibration(shares: Numbers, right: Numbers) -> Sureness | None:
    """Of shares of the best class, float [video] in 0..1, and whether it is right, bool [video]; None without videos.

    A share that lies on an edge counts to the bin below it.
    """
    if not len(shares):
        return None
    numbers = np.clip(np.ceil(np.round(shares * BINS, 9)).astype(int) - 1, 0, BINS - 1)
    bins = []
    for number in np.unique(numbers):
        inside = numbers == number
        sure, hits = float(shares[inside].mean()), float(right[inside].mean())
        bins.append(Bin(videos=int(inside.sum()), sure=sure, right=hits))
    ece = sum(filled.videos * abs(filled.sure - filled.right) for filled in bins) / len(shares)
    return Sureness(ece=ece, sure=float(shares.mean()), right=float(right.mean()), bins=tuple(bins))

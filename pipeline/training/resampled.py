"""Uncertainty of a score: bootstrap intervals over videos, and McNemar's exact test of two runs on the same videos.

    right answers of N videos ── N videos drawn with replacement, 10,000 times ─▶ 2.5 and 97.5 % quantiles of the shares
    b, c: only one of two runs is right ─ the same draws ─▶ quantiles of the differences;   b of b + c, fair coin ─▶ p

A video counts once, over all its views. The score of a draw depends only on the number of right videos in it. Therefore
counts are drawn (multinomial). This has the same distribution and needs no list of videos.
"""

from __future__ import annotations

from typing import Any

import numpy as np

RESAMPLES = 10_000
ENDS = (0.025, 0.975)
"""Quantiles of a 95 % interval."""

Interval = tuple[float, float]


def share_interval(right: int, videos: int, *, seed: int = 0) -> Interval | None:
    """The 95 % bootstrap interval of the share `right` / `videos`; None without a video."""
    if not videos:
        return None
    drawn = np.random.default_rng(seed).binomial(videos, right / videos, RESAMPLES)
    return _ends(drawn / videos)


def difference_interval(only_first: int, only_second: int, videos: int, *, seed: int = 0) -> Interval | None:
    """The 95 % bootstrap interval of the difference second − first of two runs; None without a video.

    Args:
        only_first: number of videos that only the first run has right.
        only_second: number of videos that only the second run has right.
        videos: number of videos that both runs scored.
    """
    if not videos:
        return None
    shares = np.array([only_first, only_second, videos - only_first - only_second]) / videos
    drawn = np.random.default_rng(seed).multinomial(videos, shares, RESAMPLES)
    return _ends((drawn[:, 1] - drawn[:, 0]) / videos)


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p of McNemar's exact test: the chance of a split at least as uneven, if both runs were equally good."""
    uneven, least = only_first + only_second, min(only_first, only_second)
    ways = tail = 1
    for count in range(least):  # each binomial coefficient from the one before: thousands of them take no time
        ways = ways * (uneven - count) // (count + 1)
        tail += ways
    return float(min(1.0, 2 * tail / 2**uneven))


def _ends(values: np.ndarray[Any, np.dtype[Any]]) -> Interval:
    low, high = np.quantile(values, ENDS, method="inverted_cdf")
    return float(low), float(high)

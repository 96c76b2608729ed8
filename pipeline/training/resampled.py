"""How sure a score is: bootstrap intervals over videos, and McNemar's exact test of two runs on the same videos.

    right of so many videos ── as many videos drawn again, 10,000 times ─▶ 2.5 and 97.5 per cent of the shares
    b, c: only one of two is right ─ the same draws ─▶ of the differences          b of b + c, fair coin ─▶ p

A video counts once, over all its views. What a draw of videos scores is known from how many of its videos are right: so
counts are drawn (multinomial), which has the same distribution, and takes no list of videos.
"""

from __future__ import annotations

from typing import Any

import numpy as np

RESAMPLES = 10_000
ENDS = (0.025, 0.975)
"""Of a 95 % interval."""

Interval = tuple[float, float]


def share_interval(right: int, videos: int, *, seed: int = 0) -> Interval | None:
    """The 95 % bootstrap interval of `right` of `videos`, as shares; None without a video."""
    if not videos:
        return None
    drawn = np.random.default_rng(seed).binomial(videos, right / videos, RESAMPLES)
    return _ends(drawn / videos)


def difference_interval(only_first: int, only_second: int, videos: int, *, seed: int = 0) -> Interval | None:
    """The same of the difference second − first of two runs over the same videos; None without a video.

    Args:
        only_first, only_second: videos that only this one has right.
        videos: that both scored.
    """
    if not videos:
        return None
    shares = np.array([only_first, only_second, videos - only_first - only_second]) / videos
    drawn = np.random.default_rng(seed).multinomial(videos, shares, RESAMPLES)
    return _ends((drawn[:, 1] - drawn[:, 0]) / videos)


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p of McNemar's exact test: as uneven a split or more of such videos, if both were equally good."""
    uneven, least = only_first + only_second, min(only_first, only_second)
    ways = tail = 1
    for count in range(least):  # each binomial coefficient from the one before: thousands of them take no time
        ways = ways * (uneven - count) // (count + 1)
        tail += ways
    return float(min(1.0, 2 * tail / 2**uneven))


def _ends(values: np.ndarray[Any, np.dtype[Any]]) -> Interval:
    low, high = np.quantile(values, ENDS, method="inverted_cdf")
    return float(low), float(high)

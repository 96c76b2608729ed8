"""Intervals against all draws written out, and McNemar's p against sums by hand."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import comb

import pytest

from vidxfer.pipeline.training.resampled import difference_interval, mcnemar, share_interval


def ends_of_all_draws(values: list[int]) -> tuple[float, float]:
    """The 95 % interval of the mean over every way of drawing as many values again, each draw as likely as another."""
    means = sorted(sum(draw) / len(values) for draw in product(values, repeat=len(values)))
    # The least mean that at least 2.5, and 97.5, per cent of the draws do not exceed.
    first, last = (-(-share * len(means) // 1000) for share in (25, 975))
    return means[first - 1], means[last - 1]


@pytest.mark.parametrize(("right", "videos"), [(3, 4), (1, 5), (4, 6), (0, 3), (5, 5), (2, 6)])
def test_an_interval_of_a_share_is_that_of_all_draws(right: int, videos: int) -> None:
    assert share_interval(right, videos) == ends_of_all_draws([1] * right + [0] * (videos - right))


@pytest.mark.parametrize(("b", "c", "videos"), [(2, 1, 5), (0, 3, 6), (1, 4, 6), (0, 0, 4), (2, 2, 4)])
def test_an_interval_of_a_difference_is_that_of_all_draws(b: int, c: int, videos: int) -> None:
    outcomes = [-1] * b + [1] * c + [0] * (videos - b - c)
    assert difference_interval(b, c, videos) == ends_of_all_draws(outcomes)


def test_an_interval_over_many_videos_is_as_wide_as_the_normal_one() -> None:
    low, high = share_interval(800, 1600) or (0.0, 0.0)
    half = 1.96 * (0.25 / 1600) ** 0.5
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.0015)
    assert share_interval(800, 1600) == (low, high), "the same draws every time"
    assert share_interval(800, 1600, seed=1) == pytest.approx((low, high), abs=0.002)


def test_without_videos_there_is_no_interval() -> None:
    assert share_interval(0, 0) is None
    assert difference_interval(0, 0, 0) is None


@pytest.mark.parametrize(
    ("b", "c", "p"),
    [
        (1, 6, 2 * (1 + 7) / 128),
        (6, 1, 2 * (1 + 7) / 128),
        (0, 5, 2 / 32),
        (3, 3, 1.0),  # 2 * (1 + 6 + 15 + 20) / 64 is above 1
        (0, 0, 1.0),
        (2, 8, 2 * (1 + 10 + 45) / 1024),
    ],
)
def test_mcnemar_is_the_binomial_by_hand(b: int, c: int, p: float) -> None:
    assert mcnemar(b, c) == p


def test_mcnemar_of_thousands_of_videos_is_exact() -> None:
    tail = sum(Fraction(comb(2100, count), 2**2100) for count in range(1001))
    assert mcnemar(1000, 1100) == pytest.approx(float(2 * tail), rel=1e-12)
    assert 0.03 < mcnemar(1000, 1100) < 0.033  # (|b - c| - 1)² / (b + c) = 4.67

"""Patches averaged over squares: which squares there are, and which patch goes where."""

from __future__ import annotations

import pytest
import torch

from vidxfer.pipeline.errors import CacheError, UsageError
from vidxfer.pipeline.grid import expect_pool, grid_of, pool_of, pooled, pools_of


@pytest.mark.parametrize(
    ("grid", "pools"),
    [((14, 14), [1, 2, 7, 14]), ((16, 16), [1, 2, 4, 8, 16]), ((13, 13), [1, 13]), ((8, 12), [1, 2, 4]), ((4, 9), [1])],
)
def test_squares_fill_both_sides_of_the_grid(grid: tuple[int, int], pools: list[int]) -> None:
    assert pools_of(grid) == pools
    for pool in range(1, 20):
        if pool in pools:
            expect_pool(pool, grid)
        else:
            with pytest.raises(UsageError, match=rf"Choose --pool {', '.join(map(str, pools))}\."):
                expect_pool(pool, grid)


def test_of_stored_means_only_means_of_whole_ones_can_be_made() -> None:
    for pool in (2, 4, 12):
        expect_pool(pool, (12, 12), stored=2)
    with pytest.raises(UsageError, match=r"--pool 3: .* over 2 x 2, .* Choose --pool 2, 4, 6, 12, or extract again"):
        expect_pool(3, (12, 12), stored=2)
    with pytest.raises(UsageError, match=r"--pool 5 does not divide .* 12 x 12 .* Choose --pool 2, 4, 6, 12\."):
        expect_pool(5, (12, 12), stored=2)


def test_each_mean_is_of_its_own_square_on_a_grid_that_is_no_square() -> None:
    tokens = torch.arange(1.0 + 4 * 6).view(1, -1, 1)  # the class row 0, then patches 1 to 24, six in a row
    means = pooled(tokens, 2, (4, 6))
    assert means.flatten().tolist() == [0, 4.5, 6.5, 8.5, 16.5, 18.5, 20.5]
    with pytest.raises(ValueError, match="4 x 4 do not fill 4 x 6"):
        pooled(tokens, 4, (4, 6))
    with pytest.raises(CacheError, match="25 tokens"):
        pooled(tokens, 2)


def test_means_are_taken_in_float32_and_without_a_pool_nothing_is_touched() -> None:
    tokens = torch.full((5, 1), 60000, dtype=torch.float16)  # whose sum float16 cannot hold
    means = pooled(tokens, 2)
    assert (means.dtype, means.tolist()) == (torch.float32, [[60000.0], [60000.0]])
    assert pooled(tokens, 1) is tokens


def test_grids_and_pools_are_read_from_sizes() -> None:
    assert (grid_of(197), grid_of(2), grid_of(1)) == ((14, 14), (1, 1), (0, 0))
    for tokens in (0, 3, 196):
        with pytest.raises(CacheError, match="square grid"):
            grid_of(tokens)
    assert [pool_of(*sizes) for sizes in ((32, 16), (16, 16), (28, 14), (8, 16), (24, 16), (16, 0))] == [
        2,
        1,
        2,
        1,
        1,
        1,
    ]

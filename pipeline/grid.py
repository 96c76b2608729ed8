"""The grid of patches behind the class row, and patches averaged over squares of it: fewer tokens.

    tokens of a frame    pool 2
    C                    C                       the class row stays as it is
    a b │ c d            mean(a b   mean(c d     2 x 2 patches become their mean, in float32
    e f │ g h                 e f)       g h)
    ────┼────
    …                    …

Means are of equally many patches, so a mean of means is the mean: pool 2 and then 2 again is pool 4. The mean of all
patches, which is the class row of a tower without a class token, stays what it was.
"""

from __future__ import annotations

import math

from einops import reduce
from torch import Tensor, cat

from vidxfer.pipeline.errors import CacheError, UsageError


def grid_of(tokens: int) -> tuple[int, int]:
    """Patches along the (height, width) of a picture of so many tokens; the class row alone has none.

    Raises:
        CacheError: they are not a class row and a square of patches.
    """
    side = math.isqrt(max(0, tokens - 1))
    if side * side != tokens - 1:
        raise CacheError(f"{tokens} tokens per frame are not CLS plus a square grid of patches")
    return side, side


def pools_of(grid: tuple[int, int]) -> list[int]:
    """The sides of squares that fill a grid of patches (height, width); the first is 1."""
    return [side for side in range(1, min(grid) + 1) if not any(length % side for length in grid)]


def expect_pool(pool: int, grid: tuple[int, int], *, stored: int = 1) -> None:
    """Check that patches can be averaged over squares of this side.

    Args:
        pool: the side that is asked for, in patches of the tower.
        grid: patches of the tower along the (height, width).
        stored: side over which a cache has averaged them already.

    Raises:
        UsageError: the squares do not fill the grid, or are not made of those that are stored; the text names the
            sides that do.
    """
    fitting = pools_of(grid)
    sides = [side for side in fitting if side % stored == 0]
    if pool == stored or pool in sides:
        return
    choice = f"Choose --pool {', '.join(map(str, sides))}"
    if pool not in fitting:
        raise UsageError(f"--pool {pool} does not divide the tower's grid of {grid[0]} x {grid[1]} patches. {choice}.")
    raise UsageError(
        f"--pool {pool}: the cache holds the tower's patches averaged over {stored} x {stored}, and only means of "
        f"those can be made. {choice}, or extract again (--pool {pool})."
    )


def pool_of(patch_px: int, tower_patch_px: int) -> int:
    """The side of the squares of a tower's patches that patches of `patch_px` are; 1 where they are no such squares."""
    return patch_px // tower_patch_px if tower_patch_px > 0 and patch_px % tower_patch_px == 0 and patch_px else 1


def pooled(tokens: Tensor, pool: int, grid: tuple[int, int] | None = None) -> Tensor:
    """Tokens [... token channel] with patches averaged over pool x pool, float32; with pool=1 the tokens themselves.

    Args:
        tokens: the class row, then the patches row by row.
        pool: side of a square in patches of these tokens.
        grid: patches along the (height, width); None: a square.

    Raises:
        ValueError: the squares do not fill the grid. CacheError: `grid` is None, and the patches are no square.
    """
    if pool == 1:
        return tokens
    rows, columns = grid_of(tokens.shape[-2]) if grid is None else grid
    if pool not in pools_of((rows, columns)):
        raise ValueError(f"squares of {pool} x {pool} do not fill {rows} x {columns} patches")
    # Down and then across: whole rows of patches are added first, ten times faster than all of a square at once.
    down = reduce(
        tokens[..., 1:, :].float(),
        "... (row down col) channel -> ... (row col) channel",
        "mean",
        down=pool,
        col=columns,
    )
    means = reduce(down, "... (place across) channel -> ... place channel", "mean", across=pool)
    return cat([tokens[..., :1, :].float(), means], dim=-2)

"""Which clip at which step: a pure function of (seed, epoch, step), so that a run can go on in the middle of an epoch.

    epoch e:   permutation(seed, e) of the rows ─▶ cut into global batches ─▶ every rank takes each world-th clip

Nothing here depends on how often the process died before, nor (for a fixed global batch) on the number of devices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.heads.recipe import Recipe


def expect_enough_clips(rows: int, recipe: Recipe, devices: int) -> None:
    """Check that no step leaves a device too few clips for what the head's batch norms need.

    Args:
        rows: clips of an epoch.
        recipe: its head and its batch.
        devices: that share each batch.

    Raises:
        UsageError: a device would get one clip or none, and its statistics would be those of nothing else.
    """
    statistics = recipe.head.batch_statistics
    if statistics == "none":
        return
    whole = min(rows, recipe.batch_clips)
    least = whole // devices
    if least >= 2 or (statistics == "devices" and least >= 1 and whole >= 2):
        return
    over = "on a device" if statistics == "device" else "over all devices"
    raise UsageError(
        f"recipe {recipe.name}: a training step would have {least if statistics == 'device' else whole} clips {over} "
        f"(batch_clips={recipe.batch_clips}, {rows} videos to train on, {devices} devices), and the head's batch norms "
        "take their statistics from at least 2: a clip alone is its own mean, and any video then gives the same "
        "feature. Use more clips (--set batch_clips=…, more videos) or fewer devices (--devices)."
    )


def steps_per_epoch(rows: int, batch_clips: int) -> int:
    """Whole batches per epoch; one smaller batch when there are fewer rows than one batch holds."""
    return max(1, rows // batch_clips)


def epoch_order(rows: Sequence[int], views: int, *, seed: int, epoch: int) -> list[tuple[int, int]]:
    """(row, view) of every clip of one epoch, in order: each row once, with one of its stored views drawn at random."""
    draw = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch])))
    order = draw.permutation(len(rows))
    chosen = draw.integers(views, size=len(rows))
    return [(rows[place], int(chosen[place])) for place in order.tolist()]


def rank_batches(
    order: list[tuple[int, int]], batch_clips: int, *, first_step: int = 0, rank: int = 0, world: int = 1
) -> list[list[tuple[int, int]]]:
    """This rank's part of every batch from `first_step` on. A last, incomplete batch is left out, as published."""
    steps = steps_per_epoch(len(order), batch_clips)
    return [order[step * batch_clips : (step + 1) * batch_clips][rank::world] for step in range(first_step, steps)]

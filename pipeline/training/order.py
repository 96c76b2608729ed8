"""The order of clips: a pure function of (seed, epoch, step), so that a run can resume in the middle of an epoch.

    epoch e:   permutation(seed, e) of the rows ─▶ cut into global batches ─▶ every rank takes each world-th clip

The order does not depend on earlier crashes of the run. For a fixed global batch it does not depend on the number of
devices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.heads.recipe import Recipe


def expect_enough_clips(rows: int, recipe: Recipe, devices: int) -> None:
    """Check that every forward on every device gets enough clips for the head's batch norms.

    Args:
        rows: number of clips of an epoch.
        recipe: gives the head and the batch size.
        devices: number of devices that share each batch.

    Raises:
        UsageError: a device would get one clip or none; or micro-batches would cut what all devices share.
    """
    statistics = recipe.head.batch_statistics
    if statistics == "none":
        return
    whole, micro = min(rows, recipe.batch_clips), recipe.micro_batch
    least = whole // devices
    cut = 0 < micro < whole / devices
    if cut and statistics == "devices" and devices > 1:
        raise UsageError(
            f"recipe {recipe.name}: micro_batch={micro} cuts each device's {least} clips, and the head's batch "
            "norms take their statistics over the clips of all devices at once (head.sync_batchnorm=true). Leave "
            "--micro-batch out, or take the statistics of each device: --set head.sync_batchnorm=false."
        )
    if cut:
        last = min((clips % micro or micro for clips in {least, -(-whole // devices)}), default=micro)
        if last >= 2:
            return
        raise UsageError(
            f"recipe {recipe.name}: micro_batch={micro} leaves a micro-batch of {last} clip of a device's "
            f"{least}, and the head's batch norms need at least 2 for their statistics. Choose a number that "
            "divides them (--micro-batch), from 2 on."
        )
    if least >= 2 or (statistics == "devices" and least >= 1 and whole >= 2):
        return
    over = "on a device" if statistics == "device" else "over all devices"
    raise UsageError(
        f"recipe {recipe.name}: a training step would have {least if statistics == 'device' else whole} clips {over} "
        f"(batch_clips={recipe.batch_clips}, {rows} videos to train on, {devices} devices), and the head's batch norms "
        "need at least 2 for their statistics: one clip equals its own mean, and any video then gives the same "
        "feature. Use more clips (--set batch_clips=…, more videos) or fewer devices (--devices)."
    )


def steps_per_epoch(rows: int, batch_clips: int) -> int:
    """Number of whole batches per epoch. With fewer rows than one batch holds, there is one smaller batch."""
    return max(1, rows // batch_clips)


def epoch_order(rows: Sequence[int], views: int, *, seed: int, epoch: int) -> list[tuple[int, int]]:
    """(row, view) of every clip of one epoch, in order. Each row occurs once, with a randomly drawn stored view."""
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

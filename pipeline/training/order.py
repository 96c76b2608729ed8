"""Which clip at which step: a pure function of (seed, epoch, step), so that a run can go on in the middle of an epoch.

    epoch e:   permutation(seed, e) of the rows ─▶ cut into global batches ─▶ every rank takes each world-th clip

Nothing here depends on how often the process died before, nor (for a fixed global batch) on the number of devices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


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

"""A batch cut into micro-batches, or filled up to a size that every batch has.

ClipBatch [7 clips] ─ micro_batches(3) ─▶ 3, 3, 1        gradients add up to those of the whole batch
ClipBatch [5 clips] ─ filled(8)        ─▶ 8              the last clip is repeated; its copies are left out of scores
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.shapes import ClipBatch


def micro_batches(batch: ClipBatch, clips: int) -> Iterator[ClipBatch]:
    """Consecutive parts of `clips` clips; the last one may be smaller. 0: the batch itself, in one part."""
    whole = len(batch.ids)
    if not 0 < clips < whole:
        yield batch
        return
    for first in range(0, whole, clips):
        yield _changed(batch, slice(first, first + clips))


def filled(batch: ClipBatch, clips: int) -> ClipBatch:
    """The batch with copies of its last clip behind it, so that it has `clips` clips; unchanged if it has as many."""
    missing = clips - len(batch.ids)
    if missing <= 0:
        return batch
    return _changed(batch, [*range(len(batch.ids)), *[len(batch.ids) - 1] * missing])


def lines_of_step(head: nn.Module, recipe: Recipe, devices: int) -> list[str]:
    """What a person should know of how a step of this recipe is computed; nothing where it is done in one piece."""
    lines, of_device, micro = [], recipe.batch_clips // devices, recipe.micro_batch
    if 0 < micro < of_device:
        pieces = -(-of_device // micro)
        lines.append(f"train: micro-batches of {micro} clips, {pieces} per step and device, whose gradients are added")
        if any(isinstance(module, _BatchNorm) for module in head.modules()):
            lines.append(
                f"train: the head's batch norms take their statistics over the {micro} clips of a micro-batch, not "
                f"over {of_device}, and their running ones move {pieces} times per step: this is not the training "
                f"with whole batches, but that of {pieces} times as many devices"
            )
    if recipe.ema:
        lines.append(f"train: a moving average of the weights, of which a step keeps {recipe.ema}, is scored and kept")
    if recipe.compile:
        lines.append("train: the head goes through torch.compile: its first step and first validation take longer")
    return lines


def _changed(batch: ClipBatch, which: slice | list[int]) -> ClipBatch:
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    ids = batch.ids[which] if isinstance(which, slice) else tuple(batch.ids[place] for place in which)
    index = which if isinstance(which, slice) else torch.tensor(which, device=batch.labels.device)
    parts = {name: value[index] for name, value in values.items() if isinstance(value, Tensor)}
    return ClipBatch(**{**values, **parts, "ids": ids})

"""How much memory a training step takes, from shapes alone: nothing is computed and no device is needed.

head on the meta device ─ forward of two and of three clips ─▶ bytes per clip, kept for the backward pass
parameters, gradients and AdamW's two moments in float32 ─▶ bytes once
"""

from __future__ import annotations

import torch
from torch import Tensor

from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.heads.base import Head
from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.shapes import ClipBatch
from vidxfer.pipeline.training.build import head_of_shapes

FLOAT32_BYTES = 4


def training_bytes(recipe: Recipe, spec: CacheSpec, classes: int) -> int:
    """Bytes of one optimiser step of the recipe's whole batch on one device, in float32.

    Clips' inputs, what autograd keeps, parameters, gradients and moments, buffers; not the allocator's slack or a
    library's own workspace, so a device needs some more. Under bf16 autocast what is kept is about half.

    Raises:
        CacheMismatch: the recipe is for other frames or another CLIP than the cache would hold.
    """
    head, offer = head_of_shapes(recipe, spec, classes)
    head.train()  # with batch statistics, as in a step
    # Two against three: what is kept once, such as weights with norms folded in, cancels, and the layers of a single
    # clip lie in one piece, which those of several do not.
    two, three = (_kept_bytes(head, offer.fake_batch(head.needs, clips, device="meta")) for clips in (2, 3))
    per_clip = three - two
    parameters = sum(parameter.numel() for parameter in head.parameters())
    buffers = sum(buffer.nbytes for buffer in head.buffers())  # CLIP's own weights too, where the head reads some
    return recipe.batch_clips * per_clip + (two - 2 * per_clip) + 4 * FLOAT32_BYTES * parameters + buffers


def _kept_bytes(head: Head, batch: ClipBatch) -> int:
    """Bytes of the batch and of what autograd keeps of one forward, each storage once; not what is the head's own."""
    kept: dict[int, Tensor] = {}
    own = {held.untyped_storage()._cdata for held in (*head.parameters(), *head.buffers())}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in own:  # a parameter turned or cut lies where the parameter does
            kept[tensor.untyped_storage()._cdata] = tensor  # the tensor stays alive, so the number stays its own
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        head(batch)
    kept.update({p.untyped_storage()._cdata: p for p in (batch.tokens, batch.embedding, batch.dense) if p is not None})
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())

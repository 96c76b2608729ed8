"""How much memory a training step takes, from shapes alone: nothing is computed and no device is needed.

head on the meta device ─ forward of two and of three clips ─▶ bytes per clip, kept for the backward pass
parameters, gradients and AdamW's two moments in float32 ─▶ bytes once
"""

from __future__ import annotations

import torch
from torch import Tensor

from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.heads.base import Head, HeadInputs
from vidxfer.pipeline.shapes import ClipBatch
from vidxfer.pipeline.training.build import build_head, head_inputs
from vidxfer.pipeline.training.recipes import Recipe

FLOAT32_BYTES = 4


def training_bytes(recipe: Recipe, spec: CacheSpec, classes: int) -> int:
    """Bytes of one optimiser step of the recipe's whole batch on one device, in float32.

    Clips' inputs, what autograd keeps, parameters, gradients and moments; not the allocator's slack or a library's own
    workspace, so a device needs some more. Under bf16 autocast what is kept is about half.

    Raises:
        CacheMismatch: the recipe is for other frames or another CLIP than the cache would hold.
    """
    inputs = head_inputs(spec, classes, recipe)
    with torch.device("meta"):
        head = build_head(recipe, inputs, torch.zeros(classes, spec.embed), 1.0).eval()  # eval: no batch statistics
    # Two against three: what is kept once, such as weights with norms folded in, cancels, and the layers of a single
    # clip lie in one piece, which those of several do not.
    two, three = (_kept_bytes(head, _shapes(head, inputs, spec, clips)) for clips in (2, 3))
    per_clip = three - two
    parameters = sum(parameter.numel() for parameter in head.parameters())
    return recipe.batch_clips * per_clip + (two - 2 * per_clip) + 4 * FLOAT32_BYTES * parameters


def _shapes(head: Head, inputs: HeadInputs, spec: CacheSpec, clips: int) -> ClipBatch:
    """A batch without numbers."""
    frames, side = inputs.sparse_frames, spec.sampling.image_px
    with torch.device("meta"):
        return ClipBatch(
            tokens=torch.zeros(clips, len(head.needs.layers), frames, spec.tokens, spec.channels),
            embedding=torch.zeros(clips, frames, spec.embed),
            dense=torch.zeros(clips, frames * inputs.alpha, 3, side, side),
            targets=None,
            labels=torch.zeros(clips),
            ids=tuple(map(str, range(clips))),
        )


def _kept_bytes(head: Head, batch: ClipBatch) -> int:
    """Bytes of the batch and of what autograd keeps of one forward, each storage once."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage()._cdata] = tensor  # the tensor stays alive, so the number stays its own
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        head(batch)
    used = [batch.tokens if head.needs.layers else None, batch.dense if head.needs.dense_multiple else None]
    kept.update({part.untyped_storage()._cdata: part for part in used if part is not None})
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())

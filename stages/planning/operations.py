"""What a head computes, counted from the module: trainable numbers, and operations of a forward and of a training step.

    head on the meta device ─┬ eval, one clip ── forward ──────────────▶ forward GFLOP per view
                             └ train, two clips ─ forward and backward ─▶ training GFLOP per view

One multiply-accumulate is two operations. Counted are products of matrices, convolutions and attention; nothing is
computed. CLIP is not counted: a cache has done its part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.heads.base import Head, Offer
from vidxfer.pipeline.heads.recipe import Recipe
from vidxfer.pipeline.training.build import head_of_shapes

CLIPS = 2
"""In the counted training step: batch statistics need more than one."""


@dataclass(frozen=True, kw_only=True)
class Operations:
    """Of one head.

    Attributes:
        parameters: numbers that are trained.
        forward_gflop: of one view as it is scored.
        training_gflop: of one view in a training step, forward and backward.
    """

    parameters: int
    forward_gflop: float
    training_gflop: float


def operations(recipe: Recipe, spec: CacheSpec, classes: int) -> Operations:
    """Count the recipe's head on a cache of this spec.

    Raises:
        CacheMismatch, CacheError: the recipe is for another cache.
    """
    head, offer = head_of_shapes(recipe, spec, classes)
    return Operations(
        parameters=sum(parameter.numel() for parameter in head.parameters() if parameter.requires_grad),
        forward_gflop=_counted(head.eval(), offer, clips=1, backward=False) / 1e9,
        training_gflop=_counted(head.train(), offer, clips=CLIPS, backward=True) / CLIPS / 1e9,
    )


def _counted(head: Head, offer: Offer, *, clips: int, backward: bool) -> int:
    batch = offer.fake_batch(head.needs, clips, device="meta")
    own = {torch.ops.aten.convolution_backward: convolution_backward_flop}
    with FlopCounterMode(display=False, custom_mapping=own) as counted:
        logits = head(batch)
        if backward:
            logits.sum().backward()
    return int(counted.get_total_flops())


def convolution_backward_flop(
    grad_out: Sequence[int], x: Sequence[int], weight: Sequence[int], *words: Any, **_: Any
) -> int:
    """Operations of the gradients of a convolution, groups counted; torch's own formula leaves groups out.

    Each of the two gradients has as many products as the forward: one per output value and weight that reaches it.

    Args:
        grad_out, x, weight: shapes; of the weight [out in/groups kernel …], transposed [in out/groups kernel …].
        words: bias, stride, padding, dilation, transposed, output padding, groups, and which gradients are asked for.
    """
    transposed, wanted = bool(words[4]), words[7]
    products = math.prod(x if transposed else grad_out) * math.prod(weight[1:])
    return 2 * products * sum(map(bool, wanted[:2]))

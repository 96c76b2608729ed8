"""AdamW groups, the learning rate of every step, and the loss (docs/spec/dist.md §3, §5).

epoch      0 ── warm-up, linear ── w ───────── half a cosine ───────── E
rate     from                  cosine(w)                               0     "cosine": warm-up replaces its beginning
rate     from                    peak                                  0     "cosine-after-warmup": it begins at w
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vidxfer.pipeline.heads.base import Head
from vidxfer.pipeline.heads.recipe import Recipe


def build_optimiser(head: Head, recipe: Recipe, device: torch.device | None = None) -> torch.optim.AdamW:
    """AdamW with one decayed and one undecayed group, both in the order of the head's parameters.

    Args:
        head: whose parameters are trained.
        recipe: gives betas, eps, decay and the first rate.
        device: where the parameters will be; on CUDA all of a step is one kernel, which does not wait for the host.

    Raises:
        ValueError: the head names a parameter that it does not have.
    """
    optimiser = recipe.optimiser
    named = {name: parameter for name, parameter in head.named_parameters() if parameter.requires_grad}
    free = head.undecayed() if optimiser.decay == "head" else frozenset()
    if unknown := sorted(free - dict(head.named_parameters()).keys()):
        raise ValueError(f"{type(head).__name__}.undecayed names {unknown}, which are no parameters of the head")
    groups = [
        {"params": [p for name, p in named.items() if name not in free], "weight_decay": recipe.weight_decay},
        {"params": [p for name, p in named.items() if name in free], "weight_decay": 0.0},
    ]
    fused = True if device is not None and device.type == "cuda" else None
    return torch.optim.AdamW(groups, lr=optimiser.warmup_from, fused=fused, betas=optimiser.betas, eps=optimiser.eps)


def restore(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Give an optimiser the state of a checkpoint, perhaps of another device: how a step is computed stays its own."""
    groups = zip(state["param_groups"], optimiser.param_groups, strict=True)
    kept = [{**stored, **{name: own[name] for name in ("fused", "foreach")}} for stored, own in groups]
    optimiser.load_state_dict({**state, "param_groups": kept})


def learning_rate_at(epoch: float, recipe: Recipe) -> float:
    """The learning rate at a fractional epoch. An epoch is a pass over the data, and the first step is at 0.0."""
    warmup, begin = recipe.warmup_epochs, recipe.optimiser.warmup_from
    skipped = warmup if recipe.optimiser.schedule == "cosine-after-warmup" else 0.0

    def cosine(epoch: float) -> float:
        return recipe.learning_rate * (math.cos(math.pi * (epoch - skipped) / (recipe.epochs - skipped)) + 1.0) * 0.5

    return begin + (cosine(warmup) - begin) * epoch / warmup if epoch < warmup else cosine(epoch)


def refreshed(step: int, every: int) -> int:
    """The step of an epoch at which the learning rate of `step` was set: step 0, then each `every`-th, counted from 1.

    With every=10 that is step 0 for 0 … 8, step 9 for 9 … 18, step 19 for 19 … 28.
    """
    return max(0, (step + 1) // every * every - 1)


def soft_targets(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """One-hot labels, smoothed: int64 [clip] -> float32 [clip class]; off ε/C, on 1 − ε + ε/C."""
    off = smoothing / classes
    targets = torch.full((len(labels), classes), off, device=labels.device)
    return targets.scatter_(1, labels[:, None], 1.0 - smoothing + off)


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over clips of −Σ target · log softmax(logits), in float32."""
    return -(targets * F.log_softmax(logits.float(), dim=-1)).sum(dim=-1).mean()

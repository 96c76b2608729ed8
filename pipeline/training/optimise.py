"""AdamW groups, the learning rate of every step, and the loss (docs/spec/dist.md §3, §5).

epoch      0 ── warm-up, linear ── w ───────── half a cosine ───────── E
rate    start                  cosine(w)                               0
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidxfer.pipeline.training.recipes import Recipe


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay acts on a parameter: not on tokens, positions, biases and norms."""
    return not (name.endswith(("cls_token", "positional_embedding")) or "bias" in name or parameter.ndim == 1)


def build_optimiser(head: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW with one decayed and one undecayed group, both in the order of names."""
    named = [(name, p) for name, p in head.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in named if decays(name, p)], "weight_decay": recipe.weight_decay},
        {"params": [p for name, p in named if not decays(name, p)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.warmup_learning_rate, betas=recipe.betas, eps=recipe.eps)


def learning_rate_at(epoch: float, recipe: Recipe) -> float:
    """The learning rate at a fractional epoch (epochs are passes over the data; the first step is at 0.0)."""

    def cosine(at: float) -> float:
        return recipe.learning_rate * (math.cos(math.pi * at / recipe.epochs) + 1.0) * 0.5

    if epoch < recipe.warmup_epochs:
        end = cosine(recipe.warmup_epochs)
        return recipe.warmup_learning_rate + (end - recipe.warmup_learning_rate) * epoch / recipe.warmup_epochs
    return cosine(epoch)


def soft_targets(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """One-hot labels, smoothed: int64 [clip] -> float32 [clip class]; off ε/C, on 1 − ε + ε/C."""
    off = smoothing / classes
    targets = torch.full((len(labels), classes), off, device=labels.device)
    return targets.scatter_(1, labels[:, None], 1.0 - smoothing + off)


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over clips of −Σ target · log softmax(logits), in float32."""
    return -(targets * F.log_softmax(logits.float(), dim=-1)).sum(dim=-1).mean()

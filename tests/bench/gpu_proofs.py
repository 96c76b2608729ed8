"""gpu.py's proofs of what computes: recipes at their defaults, taps, torch.compile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from gpu_device import CLASSES, CPU, CUDA, DEVICE, NEEDS_A_CARD, Row, Step, offer_for, peak_gb, tf32, with_targets

from vidxfer.pipeline.clip.load import untrained_tower
from vidxfer.pipeline.clip.tiny import write_tiny_clip
from vidxfer.pipeline.clip.tower import Tower
from vidxfer.pipeline.heads import PUBLISHED, RECIPES
from vidxfer.pipeline.heads.base import Offer
from vidxfer.pipeline.heads.dist.head import DistConfig
from vidxfer.pipeline.heads.recipe import B16, Recipe
from vidxfer.pipeline.heads.tds.head import TdsConfig
from vidxfer.pipeline.training.build import head_of_weights, offer_of
from vidxfer.pipeline.training.compiled import compile_head, expect_compiler
from vidxfer.pipeline.training.optimise import soft_cross_entropy
from vidxfer.pipeline.training.published import cache_spec
from vidxfer.stages.learning.evaluate import compute_on

CLIPS, STEPS = 2, 8
OWN = {
    "dist": {"integration_channels": 64, "temporal_channels": 32},
    "evl": {"blocks": 1, "clip_heads": None},
    "side4video": {"side_channels": 64},
    "tds": {"side_channels": 64},
}
"""Settings of heads for a tiny CLIP."""

SAME = 1e-3
"""Largest share by which taps in float32, and numbers of a compiled head, may differ: another order of additions."""


OF_THE_LARGEST = 1e-4
"""Share of a head's largest gradient below which a gradient may be rounding alone."""


def recipes(folder: Path, small: bool) -> Iterator[Row]:
    """Every recipe at its published size: some steps on the same random clips, whose loss must fall."""
    where = compute_on("auto", "auto")
    for published in RECIPES:
        recipe, offer = case_of(published, small=small)
        torch.manual_seed(0)
        head = head_of_weights(recipe, offer).to(DEVICE)
        step = Step(head, with_targets(offer, head, CLIPS), where.precision)
        losses = [float(step())]
        began = time.monotonic()
        losses += [float(step()) for _ in range(STEPS)]
        seconds = (time.monotonic() - began) / STEPS
        yield {
            "recipe": recipe.name, "arithmetic": where.precision, "loss": losses[0], f"after {STEPS} steps": losses[-1],
            "ms a step": 1e3 * seconds, "peak memory, GB": peak_gb(step),
            "holds": losses[-1] < losses[0] < 1e4,
        }  # fmt: skip
        del head, step


def case_of(recipe: Recipe, *, small: bool) -> tuple[Recipe, Offer]:
    """A recipe, and what a cache of its published sizes offers; in small, of a tiny CLIP."""
    rows = {row.recipe: row for row in PUBLISHED}
    sizes = (recipe.clip, recipe.sparse_frames, recipe.dense_frames)
    alike = [row for row in PUBLISHED if (row.clip, row.sparse_frames, row.dense_frames) == sizes]
    spec = cache_spec(rows.get(recipe.name, [*alike, PUBLISHED[0]][0]))
    text = torch.randn(CLASSES, spec.embed)
    offer = offer_of(spec, recipe, classes=CLASSES, text=text, logit_scale=100.0)
    if not small:
        return recipe, offer
    offer = replace(offer, sparse_frames=4, layers=(0, 1), channels=64, embed=32, grid=(2, 2), image_px=32,
                    text=torch.randn(CLASSES, 32))  # fmt: skip
    head = replace(recipe.head, **OWN.get(recipe.head.kind, {}))
    return replace(recipe, dense_frames=None, sparse_frames=None, clip=None, head=head), offer


def taps(folder: Path, small: bool) -> Iterator[Row]:
    """Taps of one tower on the device against the CPU, in float32 and in what the device chooses."""
    model = str(write_tiny_clip(folder, image_px=32, channels=64, blocks=3, embed=32)) if small else B16.model
    torch.manual_seed(0)
    reference = untrained_tower(model, device="cpu", precision="fp32")
    frames = torch.randn(4, 3, *[reference.info.image_px] * 2)
    layers = tuple(range(reference.info.blocks))
    official = reference.taps(frames, layers)
    for precision in ("fp32", "fp16", "bf16"):
        torch.manual_seed(0)
        tower = untrained_tower(model, device=str(DEVICE), precision=precision)
        if not CUDA and precision != "bf16":
            yield {"arithmetic": precision, "tokens, share of the largest": NEEDS_A_CARD}
            continue
        with tf32(False):
            seen = tower.taps(frames, layers)
        row: Row = {
            "arithmetic": precision,
            "tokens, share of the largest": share_off(seen.tokens, official.tokens),
            "embedding, share of the largest": share_off(seen.embedding, official.embedding),
            "same weights": same_weights(tower, reference),
        }
        if precision == "fp32":
            row["holds"] = row["same weights"] and row["tokens, share of the largest"] <= SAME
        yield row


def same_weights(tower: Tower, other: Tower) -> bool:
    """Whether two towers were made with the same numbers."""
    state = other.state()
    return all(torch.equal(value.to(CPU), state[name].to(CPU)) for name, value in tower.state().items())


def share_off(found: torch.Tensor, expected: torch.Tensor, least: float = 1e-6) -> float:
    """Largest deviation as a share of the largest expected number, or of `least` where all are smaller."""
    wrong = (found.detach().float().to(CPU) - expected.detach().float().to(CPU)).abs().max()
    return float(wrong / expected.detach().float().abs().max().clamp_min(least).to(CPU))


def gradients_off(found: torch.nn.Module, expected: torch.nn.Module) -> float:
    """`share_off` of the worst parameter's gradient.

    A bias before a batch norm has the gradient 0, and what is computed is rounding. So a parameter's gradients count as
    no smaller than `OF_THE_LARGEST` times the largest one of the head.
    """
    own = dict(found.named_parameters())
    pairs = [(own[key].grad, value.grad) for key, value in expected.named_parameters() if value.grad is not None]
    least = OF_THE_LARGEST * max(float(value.abs().max()) for _, value in pairs)
    return max(share_off(torch.zeros(()) if grad is None else grad, value, least) for grad, value in pairs)


def compiled(folder: Path, small: bool) -> Iterator[Row]:
    """DiST and TDS-CLIP through torch.compile: logits and gradients equal those of eager."""
    expect_compiler(DEVICE)
    kinds: dict[str, tuple[Any, int]] = {"DiST": (DistConfig(pooling_layers=1), 2), "TDS-CLIP": (TdsConfig(), 1)}
    for name, (config, alpha) in kinds.items():
        offer = offer_for(B16, alpha=alpha, small=small)
        config = replace(config, **(OWN[config.kind] if small else {}))
        torch.manual_seed(0)
        eager = config.build(offer).to(DEVICE).train()
        batch = with_targets(offer, eager, CLIPS)
        torch.manual_seed(0)
        head = config.build(offer).to(DEVICE).train()
        compile_head(head)
        began = time.monotonic()
        with tf32(False):
            logits = [one_pass(net, batch) for net in (eager, head)]
        worst = gradients_off(head, eager)
        off = share_off(logits[1], logits[0])
        yield {
            "head": name, "logits, share of the largest": off, "gradients, share of the largest": worst,
            "s to compile": time.monotonic() - began, "holds": off <= SAME and worst <= 10 * SAME,
        }  # fmt: skip


def one_pass(net: torch.nn.Module, batch: Any) -> torch.Tensor:
    """Forward and backward from the same random state; the logits."""
    torch.manual_seed(1)
    logits: torch.Tensor = net(batch)
    soft_cross_entropy(logits, batch.targets).backward()
    return logits

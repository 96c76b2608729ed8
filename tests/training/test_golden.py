"""Learning rate, parameter groups, targets and loss equal the official ones (tests/golden/README_dist.md)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vidxfer.pipeline.heads.base import Offer
from vidxfer.pipeline.heads.dist.head import DistConfig, DistHead
from vidxfer.pipeline.heads.recipe import Optimiser, Recipe
from vidxfer.pipeline.training.optimise import (
    build_optimiser,
    learning_rate_at,
    refreshed,
    soft_cross_entropy,
    soft_targets,
)
from vidxfer.pipeline.training.recipes import named

PREFIX = "backbone.base_encoder.dist_net."


def published_head() -> DistHead:
    """B/16, 8 + 16 frames, as for K400: shapes only."""
    offer = Offer(
        layers=tuple(range(12)), sparse_frames=8, alpha=2, grid=(14, 14), channels=768, embed=512, classes=400,
        image_px=224, text=torch.zeros(400, 512),
    )  # fmt: skip
    with torch.device("meta"):
        return DistHead(DistConfig(pooling_layers=4), offer)


def schedule(golden_dir: Path) -> tuple[dict, Recipe]:
    golden = json.loads((golden_dir / "dist_schedule.json").read_text())
    recipe = replace(
        Recipe(name="official", head=DistConfig()),
        optimiser=Optimiser(warmup_from=golden["warmup_start_lr"] * golden["lr_mult"]),
        epochs=golden["max_epoch"],
        warmup_epochs=golden["warmup_epochs"],
        learning_rate=golden["base_lr"] * golden["lr_mult"],
    )
    return golden, recipe


def test_the_learning_rate_equals_the_official_one_at_every_sampled_step(golden_dir: Path) -> None:
    golden, recipe = schedule(golden_dir)
    assert len(golden["rows"]) > 40
    for row in golden["rows"]:
        assert learning_rate_at(row["epoch_float"], recipe) == pytest.approx(row["lr_dist_group"], rel=1e-9)


def test_the_learning_rate_of_the_unscaled_group_is_the_same_curve_with_its_own_ends(golden_dir: Path) -> None:
    golden, recipe = schedule(golden_dir)
    base = replace(recipe, learning_rate=golden["base_lr"], optimiser=Optimiser(warmup_from=golden["warmup_start_lr"]))
    for row in golden["rows"]:
        assert learning_rate_at(row["epoch_float"], base) == pytest.approx(row["lr_base"], rel=1e-9)


@pytest.mark.parametrize("name", ["dist-ssv2-b16", "dist-k400-b16"])
def test_the_published_recipes_use_the_official_schedule(golden_dir: Path, name: str) -> None:
    golden, official = schedule(golden_dir)
    for row in golden["rows"]:
        at = row["epoch_float"]
        assert learning_rate_at(at, named(name)) == pytest.approx(learning_rate_at(at, official), rel=1e-9)


def test_weight_decay_acts_on_the_official_parameters(golden_dir: Path) -> None:
    golden = json.loads((golden_dir / "dist_param_groups.json").read_text())["params"]
    official = {name.removeprefix(PREFIX): entry for name, entry in golden.items() if name.startswith(PREFIX)}
    head = published_head()
    ours = {name.removeprefix("dist_net."): name not in head.undecayed() for name, parameter in head.named_parameters()}
    assert ours == {name: entry["weight_decay"] > 0 for name, entry in official.items()}
    assert {entry["lr_mult"] for entry in official.values()} == {10.0}, "one rate for the whole branch"


def test_the_optimisers_groups_hold_every_parameter_once(golden_dir: Path) -> None:
    golden = json.loads((golden_dir / "dist_param_groups.json").read_text())["params"]
    head = published_head()
    decayed, free = build_optimiser(head, named("dist-k400-b16")).param_groups
    official = [entry["weight_decay"] for name, entry in golden.items() if name.startswith(PREFIX)]
    assert (len(decayed["params"]), len(free["params"])) == (
        sum(w > 0 for w in official),
        sum(w == 0 for w in official),
    )
    assert (decayed["weight_decay"], free["weight_decay"]) == (max(official), 0.0)
    assert {id(p) for g in (decayed, free) for p in g["params"]} == {id(p) for p in head.parameters()}


def test_smoothed_targets_equal_the_official_ones(golden_dir: Path) -> None:
    golden = load_file(golden_dir / "dist_logits.safetensors")
    ours = soft_targets(golden["input.labels"], golden["output.logits_train"].shape[1], 0.1)
    torch.testing.assert_close(ours, golden["output.smooth_target"], atol=1e-7, rtol=0)


@pytest.mark.parametrize("mix", ["a", "b"])
def test_the_loss_equals_the_official_one_on_mixed_targets(golden_dir: Path, mix: str) -> None:
    golden = load_file(golden_dir / "dist_logits.safetensors")
    loss = soft_cross_entropy(golden["output.logits_train"], golden[f"output.soft_target_{mix}"])
    torch.testing.assert_close(loss, golden[f"output.loss_{mix}"].reshape(()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("mix", ["a", "b"])
def test_official_mixed_targets_are_our_smoothed_ones_mixed(golden_dir: Path, mix: str) -> None:
    golden = load_file(golden_dir / "dist_logits.safetensors")
    smooth = soft_targets(golden["input.labels"], golden["output.logits_train"].shape[1], 0.1)
    share = golden[f"input.lam_{mix}"]
    mixed = share * smooth + (1 - share) * smooth.flip(0)
    torch.testing.assert_close(mixed, golden[f"output.soft_target_{mix}"], atol=1e-6, rtol=0)


def test_the_loss_is_torchs_cross_entropy_with_label_smoothing() -> None:
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(3)) * 20
    labels = torch.tensor([0, 4, 2, 2, 1, 3])
    ours = soft_cross_entropy(logits, soft_targets(labels, 5, 0.1))
    torch.testing.assert_close(ours, torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1))


def test_half_precision_logits_are_summed_in_float32() -> None:
    logits = torch.tensor([[60000.0, -60000.0]], dtype=torch.float16)
    assert float(soft_cross_entropy(logits, soft_targets(torch.tensor([1]), 2, 0.0))) == 120_000.0


def test_the_rate_is_refreshed_every_tenth_step_counted_from_one() -> None:
    """docs/spec/tds_clip_side4video.md §5: at step 0 and at each (i + 1) % 10 == 0 of an epoch; 1: in every step."""
    assert [refreshed(step, 10) for step in (0, 1, 8, 9, 10, 18, 19, 24)] == [0, 0, 0, 9, 9, 9, 19, 19]
    assert [refreshed(step, 1) for step in range(5)] == [0, 1, 2, 3, 4]


def test_the_rates_of_tds_clip_equal_the_official_ones_at_every_golden_step(golden_dir: Path) -> None:
    """Warm-up from 0 to the full rate, half a cosine behind it, refreshed every 10th step of an epoch."""
    cases = json.loads((golden_dir / "lr_schedule_tds.json").read_text())["cases"]
    assert cases
    for case in cases:
        recipe = Recipe(
            name="tds",
            head=DistConfig(),
            epochs=case["epochs"],
            warmup_epochs=float(case["warmup_epochs"]),
            learning_rate=case["base_lr"],
            optimiser=Optimiser(schedule="cosine-after-warmup", warmup_from=0.0, refresh_steps=10),
        )
        steps = case["iters_per_epoch"]
        for step, rate in enumerate(case["lr_used_at_iter"]):
            epoch, inside = divmod(step, steps)
            ours = learning_rate_at(epoch + refreshed(inside, 10) / steps, recipe)
            assert ours == pytest.approx(rate, rel=1e-9, abs=1e-15), (case["epochs"], step)

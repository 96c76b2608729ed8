"""Learning rate, parameter groups, targets and loss equal the official ones (tests/golden/README_dist.md)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch

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


def head_of(names: Iterable[str]) -> DistHead:
    """As many layers and pooling blocks as the names of the branch's parameters tell; shapes only."""
    numbered = {tuple(name.split(".")[:2]) for name in names}
    layers = sum(block == "input_linears" for block, *_ in numbered)
    pooling = sum(block == "adapooling_nets" for block, *_ in numbered)
    offer = Offer(
        layers=tuple(range(layers)), sparse_frames=8, alpha=2, grid=(14, 14), channels=768, embed=512, classes=400,
        image_px=224, text=torch.zeros(400, 512),
    )  # fmt: skip
    with torch.device("meta"):
        return DistHead(DistConfig(pooling_layers=pooling), offer)


def schedule(golden: Any, recipe: Recipe, scale: str = "lr_mult") -> tuple[Any, Recipe]:
    """The official rates, and the recipe with their ends and lengths."""
    official = golden("dist_schedule.json")
    assert official["rows"]
    times = official[scale] if scale else 1.0
    return official["rows"], replace(
        recipe,
        optimiser=replace(recipe.optimiser, warmup_from=official["warmup_start_lr"] * times),
        epochs=official["max_epoch"],
        warmup_epochs=official["warmup_epochs"],
        learning_rate=official["base_lr"] * times,
    )


@pytest.mark.parametrize("name", ["dist-ssv2-b16", "dist-k400-b16", "dist-ssv2-b16-8f", "dist-k400-l14-32f"])
def test_the_learning_rate_equals_the_official_one_at_every_sampled_step(golden: Any, name: str) -> None:
    rows, recipe = schedule(golden, named(name))
    for row in rows:
        assert learning_rate_at(row["epoch_float"], recipe) == pytest.approx(row["lr_dist_group"], rel=1e-9)


def test_the_learning_rate_of_the_unscaled_group_is_the_same_curve_with_its_own_ends(golden: Any) -> None:
    rows, recipe = schedule(golden, named("dist-ssv2-b16"), scale="")
    for row in rows:
        assert learning_rate_at(row["epoch_float"], recipe) == pytest.approx(row["lr_base"], rel=1e-9)


@pytest.mark.parametrize("name", ["dist-ssv2-b16", "dist-k400-b16"])
def test_the_recipes_for_any_frames_have_the_published_rates(name: str) -> None:
    recipe = named(name)
    found = (recipe.epochs, recipe.warmup_epochs, recipe.learning_rate, recipe.optimiser.warmup_from)
    assert found == (36, 6, pytest.approx(3.2e-4), pytest.approx(8e-7))  # docs/spec/dist.md §5, times 10
    assert (recipe.weight_decay, recipe.label_smoothing, recipe.batch_clips) == (1e-4, 0.1, 256)


@pytest.fixture(scope="module")
def groups(golden: Any) -> dict[str, Any]:
    """The branch's parameters and what the official optimiser does with each."""
    official = golden("dist_param_groups.json")["params"]
    found = {name.removeprefix(PREFIX): entry for name, entry in official.items() if name.startswith(PREFIX)}
    assert found, f"dist_param_groups.json has no parameters {PREFIX}…"
    return found


def test_weight_decay_acts_on_the_official_parameters(groups: dict[str, Any]) -> None:
    head = head_of(groups)
    ours = {name.removeprefix("dist_net."): name not in head.undecayed() for name, parameter in head.named_parameters()}
    assert ours == {name: entry["weight_decay"] > 0 for name, entry in groups.items()}
    assert len({entry["lr_mult"] for entry in groups.values()}) == 1, "one rate for the whole branch"


def test_the_optimisers_groups_hold_every_parameter_once(groups: dict[str, Any]) -> None:
    head, official = head_of(groups), [entry["weight_decay"] for entry in groups.values()]
    decayed, free = build_optimiser(head, replace(named("dist-k400-b16"), weight_decay=max(official))).param_groups
    assert (len(decayed["params"]), len(free["params"])) == (
        sum(w > 0 for w in official),
        sum(w == 0 for w in official),
    )
    assert (decayed["weight_decay"], free["weight_decay"]) == (max(official), 0.0)
    assert {id(p) for g in (decayed, free) for p in g["params"]} == {id(p) for p in head.parameters()}


@pytest.fixture(scope="module")
def losses(golden: Any) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The official tensors, and our smoothed targets of the same labels."""
    file = golden("dist_logits.safetensors")
    classes = file.tensors["output.logits_train"].shape[1]
    smooth = soft_targets(file.tensors["input.labels"], classes, float(file.told["label_smoothing"]))
    return file.tensors, smooth


def test_smoothed_targets_equal_the_official_ones(losses: tuple) -> None:
    official, smooth = losses
    torch.testing.assert_close(smooth, official["output.smooth_target"], atol=1e-7, rtol=0)


@pytest.mark.parametrize("mix", ["a", "b"])
def test_the_loss_equals_the_official_one_on_mixed_targets(losses: tuple, mix: str) -> None:
    official, _ = losses
    loss = soft_cross_entropy(official["output.logits_train"], official[f"output.soft_target_{mix}"])
    torch.testing.assert_close(loss, official[f"output.loss_{mix}"].reshape(()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("mix", ["a", "b"])
def test_official_mixed_targets_are_our_smoothed_ones_mixed(losses: tuple, mix: str) -> None:
    official, smooth = losses
    share = official[f"input.lam_{mix}"]
    mixed = share * smooth + (1 - share) * smooth.flip(0)
    torch.testing.assert_close(mixed, official[f"output.soft_target_{mix}"], atol=1e-6, rtol=0)


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


def test_the_rates_of_tds_clip_equal_the_official_ones_at_every_golden_step(golden_dir: Any) -> None:
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

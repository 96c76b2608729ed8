"""Side4Video and TDS-CLIP at their released sizes: parameters, operations, settings, published figures.

The other side is the specification: written from the releases by others than who wrote the rows, and counted on the
official modules.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vidxfer.pipeline.clip.tower import TowerInfo
from vidxfer.pipeline.heads import PUBLISHED, RECIPES
from vidxfer.pipeline.heads.base import Offer
from vidxfer.pipeline.heads.recipe import B16, L14, ClipShape
from vidxfer.pipeline.heads.side4video.head import Side4VideoConfig
from vidxfer.pipeline.heads.tds.head import TdsConfig
from vidxfer.pipeline.training.optimise import learning_rate_at, refreshed
from vidxfer.pipeline.training.published import trainable_parameters
from vidxfer.pipeline.training.recipes import named

SPEC = (Path(__file__).parents[2] / "docs/spec/tds_clip_side4video.md").read_text(encoding="utf-8")
TOWERS = {"B/16": B16, "L/14": L14}
METHODS = {"S4V": Side4VideoConfig, "TDS": TdsConfig}


def rows(pattern: str) -> list[list[str]]:
    """Cells of every row of the specification's tables that begins so."""
    return [
        [cell.strip() for cell in row.strip("|").split("|")]
        for row in re.findall(rf"^\| {pattern}.*$", SPEC, re.MULTILINE)
    ]


COUNTED: dict[tuple[str, str, int], tuple[float, float, tuple[int, int]]] = {}
"""(method, tower, frames) -> GFLOP of CLIP and of the side network, and what trains for 174 and for 400 classes."""
for model, frames, clip, side, _, _, parameters, *_ in rows(r"(?:S4V|TDS) [BL]/1[46] \|"):
    method, tower = model.split()
    numbers = [int(one.replace(",", "")) for one in re.findall(r"[\d,]{6,}", parameters)]
    before = COUNTED.get((method, tower, 8))
    whole = (numbers[0], numbers[1]) if numbers else before[2] if before else (0, 0)  # "same": as of 8 frames
    COUNTED[method, tower, int(frames)] = (float(clip), float(side), whole)


def offer_of(clip: ClipShape, frames: int, classes: int) -> Offer:
    return Offer(
        layers=tuple(range(clip.blocks)), sparse_frames=frames, alpha=1, grid=clip.grid, channels=clip.width,
        embed=clip.embed, classes=classes, image_px=clip.image_px,
    )  # fmt: skip


def config_of(method: str, tower: str) -> Side4VideoConfig:
    return METHODS[method](side_channels={"B/16": 320, "L/14": 512}[tower], form="plain")


def test_the_specification_counts_both_methods_on_both_towers() -> None:
    assert len(COUNTED) == 8
    assert {key[:2] for key in COUNTED} == {(method, tower) for method in METHODS for tower in TOWERS}
    assert all(min(parameters) > 1e7 for _, _, parameters in COUNTED.values())


@pytest.mark.parametrize("key", COUNTED, ids=str)
def test_parameters_and_operations_equal_the_official_count(key: tuple[str, str, int]) -> None:
    method, tower, frames = key
    clip_gflop, side_gflop, parameters = COUNTED[key]
    for classes, wanted in zip((174, 400), parameters, strict=True):
        with torch.device("meta"):
            offer = offer_of(TOWERS[tower], frames, classes)
            head = config_of(method, tower).build(offer).eval()
        assert sum(parameter.numel() for parameter in head.parameters()) == wanted
        with torch.device("meta"), FlopCounterMode(display=False) as counted:
            head(offer.fake_batch(head.needs, 1, device="meta"))
        assert counted.get_total_flops() / 1e9 == pytest.approx(side_gflop, abs=0.051)
    clip = TOWERS[tower]
    info = TowerInfo(
        model=clip.model, weights_sha256="", precision="fp32", channels=clip.width, tokens=clip.tokens,
        embed=clip.embed, blocks=clip.blocks, image_px=clip.image_px, pixel_mean=(0, 0, 0), pixel_std=(1, 1, 1),
        logit_scale=1.0,
    )  # fmt: skip
    assert frames * info.flop_per_frame() / 1e9 == pytest.approx(clip_gflop, abs=0.07)  # the table has 4 x 281.0


NAMES = {"k400": "k400", "sthv1": "ssv1", "sthv2": "ssv2"}


def test_every_released_setting_on_a_clip_is_a_recipe() -> None:
    """docs/spec/tds_clip_side4video.md §5; rows that name B/16 and B/32 together count for B/16."""
    found = {}
    for row in rows(r"(?:S4V|TDS) (?:k400|sthv1|sthv2) vit[bl]-1[46]"):
        method, data, tower = row[0].split()[:3]
        clips = [int(part) for part in row[3].split("x")]
        found[NAMES[data], method, tower] = (int(row[2]), clips[0] * clips[1], *map(float, row[4:7]))
    assert len(found) == 12
    for (data, method, tower), (width, clips, epochs, warmup, rate) in found.items():
        kind, clip = {"S4V": "side4video", "TDS": "tds"}[method], {"vitb-16": B16, "vitl-14": L14}[tower]
        recipe = named(f"{kind}-{data}-{'b16' if clip is B16 else 'l14'}-8f")
        assert recipe.head == METHODS[method](side_channels=width), recipe.name
        assert recipe.head.kind == kind
        assert (recipe.clip, recipe.sparse_frames, recipe.dense_frames) == (clip, 8, 8)
        assert (recipe.batch_clips, recipe.epochs, recipe.warmup_epochs) == (8 * clips, epochs, warmup)
        assert (recipe.learning_rate, recipe.weight_decay, recipe.label_smoothing) == (rate, 0.15, 0.1)
        optimiser = recipe.optimiser
        assert (optimiser.decay, optimiser.betas, optimiser.eps) == ("all", (0.9, 0.999), 1e-8)
        assert (optimiser.schedule, optimiser.warmup_from, optimiser.refresh_steps) == ("cosine-after-warmup", 0.0, 10)
        assert recipe.mixing.kind == "none"


def test_the_defaults_are_what_is_released() -> None:
    tds = TdsConfig()
    assert (tds.sme_alpha, tds.sme_beta, tds.local_frames) == (0.5, 1.0, 5)
    assert (tds.td_blocks, tds.td_against, tds.td_kernel) == ("all", "max-pool", 3)
    assert (tds.side_channels, tds.gate, tds.sync_batchnorm, tds.form) == (320, "fixed", False, "fast")


FIGURES = {
    ("tds", "SSv1", "b16"): (60.1, 85.4), ("tds", "SSv1", "l14"): (63.0, 87.8), ("tds", "SSv2", "b16"): (71.8, 93.0),
    ("tds", "SSv2", "l14"): (73.4, 93.8), ("tds", "K400", "b16"): (83.9, 96.1), ("tds", "K400", "l14"): (86.7, 97.5),
    ("side4video", "SSv1", "b16"): (59.4, None), ("side4video", "SSv2", "b16"): (70.6, None),
    ("side4video", "K400", "b16"): (83.6, None),
}  # fmt: skip
"""docs/spec/tds_clip_side4video.md §7, 8 frames."""


def test_the_published_figures_are_those_of_the_releases() -> None:
    mine = [row for row in PUBLISHED if row.recipe.startswith(("tds-", "side4video-"))]
    found = {(row.recipe.split("-")[0], row.data, row.recipe.split("-")[2]): (row.top1, row.top5) for row in mine}
    assert found == {key: value for key, value in FIGURES.items() if key in found} == FIGURES
    for row in mine:
        for figure in (row.top1, row.top5):
            assert figure is None or f"{figure:.1f}" in SPEC.partition("## 7.")[2].partition("## 8.")[0]
        assert row.test_views == ((4, 3) if row.data == "K400" else (2, 3))
        assert (row.ours, row.gpu_hours) == (None, None), "nothing was run on these data"
        key = ({"tds": "TDS", "side4video": "S4V"}[row.recipe.split("-")[0]], row.clip.model[4:8].replace("-", "/"), 8)
        assert trainable_parameters(named(row.recipe), row) == COUNTED[key][2][row.classes == 400]


def test_the_published_rates_are_those_of_the_release_at_every_golden_step(golden: Any) -> None:
    """With the recipes' own optimiser: from 0 to the full rate, refreshed in every tenth step of an epoch."""
    cases = golden("lr_schedule_tds.json")["cases"]
    assert cases
    for case in cases:
        recipe = replace(
            named("tds-ssv2-b16-8f"),
            epochs=case["epochs"],
            warmup_epochs=float(case["warmup_epochs"]),
            learning_rate=case["base_lr"],
        )
        steps = case["iters_per_epoch"]
        for step, rate in enumerate(case["lr_used_at_iter"]):
            epoch, inside = divmod(step, steps)
            ours = learning_rate_at(epoch + refreshed(inside, recipe.optimiser.refresh_steps) / steps, recipe)
            assert ours == pytest.approx(rate, rel=1e-9, abs=1e-15), (case["epochs"], step)


def test_nothing_moves_in_the_first_nine_steps_of_a_run() -> None:
    recipe = named("tds-ssv2-b16-8f")
    rates = [learning_rate_at(refreshed(step, recipe.optimiser.refresh_steps) / 660, recipe) for step in range(10)]
    assert rates[:9] == [0.0] * 9
    assert rates[9] == pytest.approx(1e-3 * (9 / 660) / 4)


def test_the_toy_recipes_are_small_and_short() -> None:
    toys = [recipe for recipe in RECIPES if recipe.name in ("side4video-toy", "tds-toy")]
    assert len(toys) == 2
    assert all(recipe.epochs <= 12 and recipe.clip is None for recipe in toys)

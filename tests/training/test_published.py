"""The released configurations: sizes of the branch, published figures, and a recipe for each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vidxfer.pipeline.clip.tower import TowerInfo
from vidxfer.pipeline.errors import CacheMismatch
from vidxfer.pipeline.heads import RECIPES
from vidxfer.pipeline.heads.dist.head import DistConfig
from vidxfer.pipeline.heads.dist.published import PUBLISHED
from vidxfer.pipeline.heads.recipe import Published
from vidxfer.pipeline.training.build import build_head, offer_of
from vidxfer.pipeline.training.published import cache_spec, trainable_parameters
from vidxfer.pipeline.training.recipes import named, with_settings

SPEC = (Path(__file__).parents[2] / "docs/spec/dist.md").read_text(encoding="utf-8")
"""Written from the release by others than who wrote the rows, and counted on the official modules: the other side."""


def cells(pattern: str) -> list[tuple[str, ...]]:
    """The cells of every row of the specification's tables that matches; rows of `|` and blanks."""
    return [
        tuple(cell.strip() for cell in row.strip("|").split("|")) for row in re.findall(pattern, SPEC, re.MULTILINE)
    ]


def recipe_of(data: str, model: str, frames: str) -> str:
    """ "SSv2", "B/16" and "8" -> the name of the recipe."""
    tower, _, more = model.partition(" ")
    return f"dist-{data.lower()}-{tower.lower().replace('/', '')}-{frames}f" + ("-k710" if "K710" in more else "")


RESULTS = {
    recipe_of(data, model, frames): (float(top1), float(top5))
    for data, model, frames, top1, top5 in cells(r"^\| (?:SSv2|K400) \| [BL]/1[46][^|]* \| \d+ \| [\d.]+ \| [\d.]+ \|$")
}
"""§6: top-1 and top-5 as the README of the release prints them."""

PARAMETERS = {
    recipe_of(data, size.split()[0], size.split()[1].partition("+")[0]): int(count.replace(",", ""))
    for size, *counts in cells(r"^\| [BL]/1[46] \d+\+\d+[^|]*\| [\d,]+ \| [\d,]+ \|$")
    for data, count in zip(("SSv2", "K400"), counts, strict=True)
}
PARAMETERS["dist-k400-l14-32f-k710"] = PARAMETERS["dist-k400-l14-32f"]
"""§7: what trains, counted on the official modules."""

GFLOPS = {
    recipe_of(size.split()[2], size.split()[0], size.split()[1].partition("+")[0]): (
        float(clip.split()[0]),
        float(dist.split()[0]),
    )
    for size, clip, dist, *_ in cells(r"^\| [BL]/1[46] \d+\+\d+ (?:K400|SSv2) \| .*$")
}
GFLOPS["dist-k400-l14-32f-k710"] = GFLOPS["dist-k400-l14-32f"]
"""§7: of CLIP and of the branch's forward, per view, counted on the official modules."""

SETTINGS = {
    f"dist-{data}-{tower.replace('vit-', '')}-{sparse}f": (int(dense), int(sparse), int(pooling), int(last) + 1)
    for data, tower, dense, sparse, pooling, last in re.findall(
        r"^\| (k400|ssv2)/(vit-[bl]1[46])-\d+\+\d+f \| (\d+) \| (\d+) \| (\d) \| 0–(\d+) \|", SPEC, re.MULTILINE
    )
}
SETTINGS["dist-k400-l14-32f-k710"] = SETTINGS["dist-k400-l14-32f"]
"""§6: dense frames, sparse frames, pooling layers and tapped blocks of the released settings."""

each = pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row.recipe)


@each
def test_trainable_parameters_equal_the_official_count(row: Published) -> None:
    assert trainable_parameters(named(row.recipe), row) == PARAMETERS[row.recipe]


@each
def test_the_published_figures_are_those_of_the_release(row: Published) -> None:
    assert (row.top1, row.top5) == RESULTS[row.recipe]
    assert (row.ours, row.gpu_hours) == (None, None), "nothing was run on these data"


@each
def test_frames_blocks_and_pooling_are_those_of_the_released_settings(row: Published) -> None:
    recipe = named(row.recipe)
    assert isinstance(recipe.head, DistConfig)
    for dense, sparse in ((row.dense_frames, row.sparse_frames), (recipe.dense_frames, recipe.sparse_frames)):
        assert (dense, sparse, recipe.head.pooling_layers, row.clip.blocks) == SETTINGS[row.recipe]
    assert recipe.clip == row.clip
    towers = {12: ("ViT-B-16-quickgelu", 768, 16, 224, 512), 24: ("ViT-L-14-quickgelu", 1024, 14, 224, 768)}
    assert astuple(row.clip) == (*towers[row.clip.blocks][:2], row.clip.blocks, *towers[row.clip.blocks][2:])


@each
def test_the_published_recipes_train_as_section_5_says(row: Published) -> None:
    recipe = named(row.recipe)
    assert (recipe.epochs, recipe.warmup_epochs, recipe.batch_clips) == (36, 6, 256)
    assert recipe.learning_rate == pytest.approx(10 * 3.2e-5)
    assert recipe.optimiser.warmup_from == pytest.approx(10 * 8e-8)
    assert (recipe.weight_decay, recipe.label_smoothing) == (1e-4, 0.1)
    assert (recipe.optimiser.betas, recipe.optimiser.eps) == ((0.9, 0.999), 1e-8)


@each
def test_operations_of_clip_and_of_the_branch_equal_the_official_count(row: Published) -> None:
    clip_gflops, branch_gflops = GFLOPS[row.recipe]
    shape, frames = row.clip, row.sparse_frames
    info = TowerInfo(
        model=shape.model, weights_sha256="", precision="fp32", channels=shape.width, tokens=shape.tokens,
        embed=shape.embed, blocks=shape.blocks, image_px=shape.image_px, pixel_mean=(0, 0, 0), pixel_std=(1, 1, 1),
        logit_scale=1.0,
    )  # fmt: skip
    # The release runs the patch embedding on the dense frames between too; vidxfer does not.
    patches_between = 2 * (row.dense_frames - frames) * 3 * shape.patch_px**2 * shape.width * (shape.tokens - 1)
    assert (frames * info.flop_per_frame() + patches_between) / 1e9 == pytest.approx(clip_gflops, abs=0.051)
    recipe = with_settings(named(row.recipe), ["head.form=plain"])
    with torch.device("meta"):
        offer = offer_of(cache_spec(row), recipe, classes=1, text=torch.zeros(1, shape.embed))
        head = build_head(recipe, offer)
        with FlopCounterMode(display=False) as counted:
            head(offer.fake_batch(head.needs, 1, device="meta"))
    # The release computes the last layer's way back to the temporal stream too, which nothing reads.
    unread = 2 * frames * (shape.tokens - 1) * 384 * 96
    assert (counted.get_total_flops() + unread) / 1e9 == pytest.approx(branch_gflops, abs=0.051)


def test_every_published_configuration_has_a_recipe_and_no_other_name() -> None:
    assert len(RESULTS) == len(PUBLISHED) == 9
    assert [row.recipe for row in PUBLISHED] == list(RESULTS)
    assert set(RESULTS) == set(PARAMETERS) == set(GFLOPS) == set(SETTINGS)
    names = [recipe.name for recipe in RECIPES]
    assert names[: len(PUBLISHED)] == [row.recipe for row in PUBLISHED]


@each
def test_bytes_per_view_follow_from_the_cache(row: Published) -> None:
    spec = cache_spec(row, "float16")
    megabytes = {(12, 8): 29.0, (12, 16): 58.1, (12, 32): 116.2, (24, 32): 404.2}  # docs/spec/dist.md §7
    assert spec.token_bytes_per_view / 1e6 == pytest.approx(megabytes[row.clip.blocks, row.sparse_frames], abs=0.1)
    assert 1 < spec.bytes_per_view / spec.token_bytes_per_view < 1.002
    assert cache_spec(row).bytes_per_view / spec.bytes_per_view == pytest.approx(0.5, abs=0.003)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"sparse_frames": 16}, "dense_frames: cache has 32, recipe needs 16"),
        ({"alpha": 1}, "dense_frames: cache has 8, recipe needs 16"),
        ({"alpha": 4, "sparse_frames": 4}, "sparse_frames: cache has 4, recipe needs 8"),
        ({"channels": 1024}, "clip.width: cache has 1024, recipe needs 768"),
        ({"grid": (7, 7)}, "clip.patch_px: cache has 32, recipe needs 16"),
        ({"image_px": 336, "grid": (21, 21)}, "clip.image_px: cache has 336, recipe needs 224"),
        ({"embed": 768}, "clip.embed: cache has 768, recipe needs 512"),
        ({"layers": tuple(range(24))}, "clip.blocks: cache has 'at least 24', recipe needs 12"),
        ({"blocks_of": "timm"}, "clip.blocks_of: cache has 'timm', recipe needs 'clip'"),
    ],
)
def test_a_cache_of_other_frames_or_another_clip_is_refused(change: dict[str, Any], text: str) -> None:
    recipe, row = named("dist-ssv2-b16-8f"), PUBLISHED[0]
    with pytest.raises(CacheMismatch, match=text):
        build_head(recipe, replace(offer_of(cache_spec(row), recipe, classes=1), **change))


def test_frames_of_a_recipe_may_be_left_open() -> None:
    recipe = with_settings(named("dist-ssv2-b16-8f"), ["dense_frames=null", "sparse_frames=null"])
    assert (recipe.dense_frames, recipe.sparse_frames) == (None, None)


def test_the_list_names_every_recipe_with_figures_and_bytes(invoke: Callable[..., Any]) -> None:
    shown = invoke("recipes")
    assert shown.exit_code == 0
    for recipe in RECIPES:
        assert recipe.name in shown.stdout
    assert "68.7 / 91.1" in shown.stdout
    assert "not run" in shown.stdout
    listed = {entry["recipe"]["name"]: entry for entry in json.loads(invoke("recipes", "--json").stdout)}
    assert list(listed) == [recipe.name for recipe in RECIPES]
    for row in PUBLISHED:
        entry = listed[row.recipe]
        assert entry["trainable_parameters"] == PARAMETERS[row.recipe]
        assert entry["int8_bytes_per_view"] == cache_spec(row).bytes_per_view
        assert "does not state the views" in entry["published"]["views"]
    assert listed["probe"]["published"] is None

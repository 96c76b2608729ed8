"""The released configurations: sizes of the branch, published figures, and a recipe for each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from vidxfer.pipeline.errors import CacheMismatch
from vidxfer.pipeline.heads import PUBLISHED, RECIPES
from vidxfer.pipeline.heads.recipe import Published
from vidxfer.pipeline.training.build import build_head, offer_of
from vidxfer.pipeline.training.published import cache_spec, trainable_parameters
from vidxfer.pipeline.training.recipes import named, with_settings

PARAMETERS = {
    "dist-ssv2-b16-8f": 19_001_184,
    "dist-ssv2-b16-16f": 19_044_192,
    "dist-ssv2-b16-32f": 19_130_208,
    "dist-ssv2-l14-32f": 32_745_312,
    "dist-k400-b16-8f": 26_105_184,
    "dist-k400-b16-16f": 26_154_336,
    "dist-k400-b16-32f": 26_252_640,
    "dist-k400-l14-32f": 39_867_744,
    "dist-k400-l14-32f-k710": 39_867_744,
}
"""docs/spec/dist.md §7, counted on the official modules."""

RESULTS = {
    "dist-ssv2-b16-8f": (68.7, 91.1),
    "dist-ssv2-b16-16f": (70.2, 92.0),
    "dist-ssv2-b16-32f": (70.9, 92.1),
    "dist-ssv2-l14-32f": (73.1, 93.2),
    "dist-k400-b16-8f": (83.6, 96.3),
    "dist-k400-b16-16f": (84.4, 96.7),
    "dist-k400-b16-32f": (85.0, 97.0),
    "dist-k400-l14-32f": (88.0, 97.9),
    "dist-k400-l14-32f-k710": (89.6, 98.4),
}
"""The table in the README of the release."""

each = pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row.recipe)


@each
def test_trainable_parameters_equal_the_official_count(row: Published) -> None:
    assert trainable_parameters(named(row.recipe), row) == PARAMETERS[row.recipe]


@each
def test_the_published_figures_are_those_of_the_release(row: Published) -> None:
    assert (row.top1, row.top5) == RESULTS[row.recipe]
    assert (row.ours, row.gpu_hours) == (None, None), "nothing was run on these data"


def test_every_published_configuration_has_a_recipe_and_no_other_name() -> None:
    assert [row.recipe for row in PUBLISHED] == list(RESULTS)
    names = [recipe.name for recipe in RECIPES]
    assert names[: len(PUBLISHED)] == [row.recipe for row in PUBLISHED]


@each
def test_bytes_per_view_follow_from_the_cache(row: Published) -> None:
    """docs/spec/dist.md §7: 29.0 MB per 8 frames of B/16 and 404 MB per 32 of L/14, float16, tokens alone."""
    spec = cache_spec(row, "float16")
    tokens = row.clip.blocks * row.sparse_frames * row.clip.tokens * row.clip.width
    assert spec.token_bytes_per_view == 2 * tokens
    assert 1 < spec.bytes_per_view / spec.token_bytes_per_view < 1.002
    assert cache_spec(row).bytes_per_view / spec.bytes_per_view == pytest.approx(0.5, abs=0.003)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"sparse_frames": 16}, "dense_frames: cache has 32, run needs 16"),
        ({"alpha": 1}, "dense_frames: cache has 8, run needs 16"),
        ({"alpha": 4, "sparse_frames": 4}, "sparse_frames: cache has 4, run needs 8"),
        ({"channels": 1024}, "clip.width: cache has 1024, run needs 768"),
        ({"grid": (7, 7)}, "clip.patch_px: cache has 32, run needs 16"),
        ({"image_px": 336, "grid": (21, 21)}, "clip.image_px: cache has 336, run needs 224"),
        ({"embed": 768}, "clip.embed: cache has 768, run needs 512"),
        ({"layers": tuple(range(24))}, "clip.blocks: cache has 'at least 24', run needs 12"),
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

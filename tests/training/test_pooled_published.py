"""Published recipes on averaged patches: refused, unless `head.pooled=any` asks for it; then the run says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.errors import CacheMismatch, UsageError
from vidxfer.pipeline.heads import PUBLISHED, RECIPES
from vidxfer.pipeline.heads.base import Offer
from vidxfer.pipeline.heads.recipe import Published, Recipe
from vidxfer.pipeline.training.build import build_head, head_of_shapes, offer_of, settled
from vidxfer.pipeline.training.published import cache_spec
from vidxfer.pipeline.training.recipes import from_dict, named, with_settings
from vidxfer.pipeline.training.run import Run
from vidxfer.stages.learning.reproduce import _causes_in_the_training
from vidxfer.stages.planning.operations import operations

FIRST = {row.recipe: row for row in PUBLISHED}
NAMED = [recipe.name for recipe in RECIPES if recipe.clip is not None]


def pooled_spec(row: Published, pool: int = 2) -> CacheSpec:
    spec = cache_spec(row)
    return replace(spec, pool=pool, tokens=1 + (spec.tokens - 1) // pool**2)


def offer(row: Published, recipe: Recipe, pool: int = 2) -> Offer:
    return offer_of(pooled_spec(row, pool), recipe, classes=2, text=torch.zeros(2, row.clip.embed))


@pytest.mark.parametrize("name", [name for name in NAMED if name in FIRST])
def test_a_recipe_for_a_named_clip_refuses_means_unless_it_is_asked_to_take_them(name: str) -> None:
    recipe, row = named(name), FIRST[name]
    with pytest.raises(CacheMismatch) as refused:
        head_of_shapes(recipe, pooled_spec(row), 2)
    assert list(refused.value.fields) == ["head.pooled"]
    words = str(refused.value)
    assert "head.pooled: cache has 'patches averaged over 2 x 2', recipe needs \"CLIP's own patches\"" in words
    assert "`vidxfer extract --pool 1`" in words
    assert f"`vidxfer train --recipe {name} --set head.pooled=any`" in words
    asked = with_settings(recipe, ["head.pooled=any"])
    head, found = head_of_shapes(asked, pooled_spec(row), 2)
    assert (found.grid, found.patch_px, head.needs.pool) == ((row.clip.grid[0] // 2,) * 2, 2 * row.clip.patch_px, 2)
    whole, told = settled(asked, found)
    assert whole.pool == 2
    assert told[-1] == f"patches are means over 2 x 2 of CLIP's; {name} was published without (head.pooled=any)"
    assert from_dict(whole.to_dict()) == whole


def test_what_else_differs_is_still_refused() -> None:
    recipe, row = with_settings(named("dist-ssv2-b16-8f"), ["head.pooled=any"]), PUBLISHED[0]
    with pytest.raises(CacheMismatch, match=r"clip\.patch_px: cache has 32, recipe needs 16"):
        build_head(recipe, replace(offer(row, recipe), pool=1))  # a B/32, and no averaged B/16


@pytest.mark.parametrize("recipe", [one for one in RECIPES if one.clip is None and "toy" not in one.name])
def test_recipes_for_any_clip_take_means(recipe: Recipe) -> None:
    row = FIRST["dist-ssv2-b16-8f"]
    spec = replace(pooled_spec(row), layers=tuple(range(-1, 12)))
    for of_recipe, of_spec in ((recipe, spec), (with_settings(recipe, ["pool=2"]), replace(spec, pool=1, tokens=197))):
        head, found = head_of_shapes(of_recipe, of_spec, 2)
        assert (head.needs.pool, found.grid, found.patch_px) == (2, (7, 7), 32)


def test_the_setting_is_one_of_two_words_and_a_pool_is_a_number() -> None:
    for name in ("dist-toy", "side4video-toy", "tds-toy", "evl-toy"):
        with pytest.raises(UsageError, match=r"head\.pooled='yes' is none of auto, any"):
            with_settings(named(name), ["head.pooled=yes"])
    for value in ("0", "-2", "2.0", "two"):
        with pytest.raises(UsageError, match="pool="):
            with_settings(named("probe"), [f"pool={value}"])


def test_the_run_says_it_where_its_deviations_stand(tmp_path: Path) -> None:
    recipe = replace(with_settings(named("dist-k400-b16-8f"), ["head.pooled=any"]), pool=2)
    run = Run.start(tmp_path / "run", recipe, {"online": False})
    causes = _causes_in_the_training(run, FIRST[recipe.name])
    assert "the head sees means over 2 x 2 patches; published: CLIP's own patches" in causes
    plain = Run.start(tmp_path / "plain", named("dist-k400-b16-8f"), {"online": False})
    assert not any("means" in cause for cause in _causes_in_the_training(plain, FIRST[recipe.name]))


def test_heads_that_follow_the_grid_cost_about_a_fourth() -> None:
    recipe, row = named("dist-ssv2-b16-8f"), FIRST["dist-ssv2-b16-8f"]
    asked = with_settings(recipe, ["head.pooled=any"])
    whole, coarse = operations(recipe, cache_spec(row), 2), operations(asked, pooled_spec(row), 2)
    assert 0.25 < coarse.training_gflop / whole.training_gflop < 0.32  # not less: the stem sees as many pixels
    on_device = operations(with_settings(asked, ["pool=2"]), cache_spec(row), 2)
    assert on_device == coarse  # the same head

"""Recipes: typed settings, errors that name the nearest field, and no field that nobody reads."""

from __future__ import annotations

import ast
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.heads import HEADS, RECIPES
from vidxfer.pipeline.heads.dist.head import DistConfig
from vidxfer.pipeline.heads.probe import ProbeConfig
from vidxfer.pipeline.heads.recipe import ClipShape, Mixing, Optimiser, Recipe
from vidxfer.pipeline.training.recipes import RENAMED, from_dict, named, with_settings

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe_survives_the_run_folder(recipe: Recipe) -> None:
    odd = replace(
        recipe,
        head=DistConfig(layers=(0, 2), temporal_mlp_ratio=0.5),
        optimiser=Optimiser(betas=(0.8, 0.95), decay="all", schedule="cosine-after-warmup", refresh_steps=10),
        clip=ClipShape(model="x", width=8, blocks=2, patch_px=4, image_px=16, embed=6),
    )
    for one in (recipe, odd):
        assert from_dict(stored(one)) == one


def stored(recipe: Recipe) -> dict[str, Any]:
    """As a run folder gives it back."""
    found: dict[str, Any] = json.loads(json.dumps(recipe.to_dict()))
    return found


def test_names_of_recipes_are_unique() -> None:
    assert len({recipe.name for recipe in RECIPES}) == len(RECIPES)


def test_a_recipe_with_an_unknown_field_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no fields \['epoch'\].*epochs"):
        from_dict({**stored(named("probe")), "epoch": 3})
    with pytest.raises(UsageError, match="fields of a ProbeConfig: missing: none; unknown: width"):
        from_dict({**stored(named("probe")), "head": {"kind": "probe", "width": 3}})
    with pytest.raises(UsageError, match="head='elvis' is none of dist, probe"):
        from_dict({**stored(named("probe")), "head": {"kind": "elvis"}})


@pytest.mark.parametrize(
    ("setting", "field", "value"),
    [
        ("epochs=30", "epochs", 30),
        ("learning_rate=1e-3", "learning_rate", 1e-3),
        ("learning_rate = 1", "learning_rate", 1.0),
        ("warmup_epochs=0", "warmup_epochs", 0.0),
        ("head=probe", "head", ProbeConfig()),
        ('head="probe"', "head", ProbeConfig()),
        ("seed=7", "seed", 7),
    ],
)
def test_a_setting_gets_the_type_of_its_field(setting: str, field: str, value: object) -> None:
    found = getattr(with_settings(named("dist-ssv2-b16"), [setting]), field)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("setting", "field", "value"),
    [("head.pooling_layers=4", "pooling_layers", 4), ("head.layers=[0, 2]", "layers", (0, 2)),
     ("head.temporal_mlp_ratio=2", "temporal_mlp_ratio", 2.0)],
)  # fmt: skip
def test_a_size_of_the_head_is_set_with_a_dot(setting: str, field: str, value: object) -> None:
    changed = with_settings(named("dist-ssv2-b16"), [setting])
    assert getattr(changed.head, field) == value
    assert replace(changed, head=DistConfig()) == named("dist-ssv2-b16")


def test_names_of_0_1_0_are_understood_with_one_note() -> None:
    told: list[str] = []
    old = ["dist.pooling_layers=4", "betas=[0.8, 0.99]", "eps=1e-6", "warmup_learning_rate=1", "epochs=9"]
    new = ["head.pooling_layers=4", "optimiser.betas=[0.8, 0.99]", "optimiser.eps=1e-6", "optimiser.warmup_from=1",
           "epochs=9"]  # fmt: skip
    changed = with_settings(named("dist-ssv2-b16"), old, told.append)
    assert changed == with_settings(named("dist-ssv2-b16"), new, told.append)
    assert (changed.optimiser.betas, changed.optimiser.warmup_from) == ((0.8, 0.99), 1.0)
    assert len(told) == 1
    assert "dist.pooling_layers is now head.pooling_layers" in told[0]
    with pytest.raises(UsageError, match="the head of recipe probe is of kind 'probe'"):
        with_settings(named("probe"), ["dist.pooling_layers=4"])


def test_the_kind_of_the_head_is_chosen_before_its_sizes() -> None:
    for order in (["head=dist", "head.pooling_layers=3"], ["head.pooling_layers=3", "head=dist"]):
        assert with_settings(named("probe"), order).head == DistConfig(pooling_layers=3)


def test_a_recipe_may_be_opened_for_any_clip() -> None:
    for setting in ("clip=null", "clip_channels=null"):
        assert with_settings(named("dist-ssv2-b16-8f"), [setting]).clip is None
    assert with_settings(named("dist-ssv2-b16-8f"), ["clip.width=1024"]).clip.width == 1024
    with pytest.raises(UsageError, match="this recipe is for any CLIP"):
        with_settings(named("probe"), ["clip.width=1024"])


def test_the_last_of_two_equal_settings_counts() -> None:
    assert with_settings(named("probe"), ["epochs=3", "epochs=5"]).epochs == 5


def test_settings_that_fit_only_together_may_come_in_any_order() -> None:
    for order in (["epochs=2", "warmup_epochs=1"], ["warmup_epochs=1", "epochs=2"]):
        assert with_settings(named("dist-ssv2-b16"), order).epochs == 2


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("epochs", "is not field=value"),
        ("epoch=3", "Did you mean epochs"),
        ("lerning_rate=3", "learning_rate"),
        ("zzzzzz=3", "Known: name, head, optimiser"),
        ("epochs=1.5", "epochs is a int"),
        ("epochs=true", "epochs is a int"),
        ("epochs=many", "epochs is a int"),
        ("epochs=0", "must be at least 1"),
        ("epochs=-4", "must be at least 1"),
        ("batch_clips=0", "must be at least 1"),
        ("learning_rate=fast", "learning_rate is a float"),
        ("betas=0.9", "betas is a tuple"),
        ("optimiser.decay=none", "none of head, all"),
        ("optimiser.schedule=linear", "none of cosine, cosine-after-warmup"),
        ("optimiser.refresh_steps=0", "must be at least 1"),
        ("optimiser=3", "has own fields"),
        ("clip=3", "has own fields"),
        ("name.x=3", "only head, optimiser, mixing, clip have fields of their own"),
        ("head=dits", "dist, probe"),
        ("warmup_epochs=36", r"must be in \[0, epochs=36\)"),
        ("dist.pooling_layer=3", "Did you mean pooling_layers"),
        ("head.pooling_layer=3", "Did you mean pooling_layers"),
        ("head.size=3", "no field 'size'"),
        ("head=3", "head=3 is none of dist, probe"),
        ("dist=3", "dist"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused_with_the_reason(setting: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        with_settings(named("dist-ssv2-b16"), [setting])


@pytest.mark.parametrize(
    "setting",
    [
        "betas=[0.9]",
        "betas=[0.9, 1.5]",
        'betas=["a", "b"]',
        "weight_decay=-1",
        "learning_rate=-0.1",
        "learning_rate=NaN",
        "learning_rate=Infinity",
        "warmup_learning_rate=-1",
        "eps=-1",
        "label_smoothing=1.5",
        "label_smoothing=-0.1",
        "seed=-1",
        "checkpoint_seconds=-1",
        "dist.layers=all",
        "dist.layers=[]",
        'dist.layers=["a"]',
        "dist.pooling_layers=-1",
        "dist.kernel_frames=2",
        "dist.integration_channels=0",
        "dist.integration_channels=200",
        "dist.temporal_mlp_ratio=0",
    ],
)
def test_numbers_that_no_run_can_use_are_refused_before_it_starts(setting: str) -> None:
    with pytest.raises(UsageError, match=RENAMED.get(setting.split("=")[0], setting.split("=")[0]).split(".")[-1]):
        with_settings(named("dist-ssv2-b16"), [setting])


def test_an_unknown_recipe_names_the_nearest_ones() -> None:
    with pytest.raises(UsageError, match="dist-ssv2-b16"):
        named("dist-ssv2-b61")


@pytest.mark.parametrize("kind", [Recipe, Optimiser, ClipShape, Mixing, *HEADS.values()])
def test_every_field_is_read_somewhere(kind: type) -> None:
    """A setting that nobody reads misleads: reading it back from JSON, or checking it, is no use of it."""
    home = {"recipe.py", "recipes.py"}
    read: set[str] = set()
    for floor in ("pipeline", "stages", "cli"):
        for file in (ROOT / floor).rglob("*.py"):
            if file.name not in home:
                nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
                read |= {n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Load)}
    unread = {field.name for field in fields(kind)} - read
    assert unread == set()


@pytest.mark.parametrize(("setting", "value"), [("mixing.kind=tokens", "tokens"), ('mixing.kind="pixels"', "pixels")])
def test_mixing_is_set_with_a_dot_and_kept(setting: str, value: str) -> None:
    changed = with_settings(named("dist-ssv2-b16"), [setting, "mixing.mixup_alpha=1"])
    assert (changed.mixing.kind, changed.mixing.mixup_alpha) == (value, 1.0)
    assert from_dict(stored(changed)) == changed


def test_a_run_folder_from_before_there_was_mixing_is_read() -> None:
    found = stored(named("dist-toy"))
    del found["mixing"], found["dense_frames"], found["sparse_frames"], found["clip"]
    assert from_dict(found) == named("dist-toy")


def test_a_recipe_of_0_1_0_is_that_of_today_with_the_clip_of_its_name() -> None:
    """As 0.1.0 wrote it: the head by name, DiST's sizes beside it, CLIP's width alone."""
    old = {
        "name": "dist-k400-b16-8f", "head": "dist", "dist": {"pooling_layers": 4, "layers": None, "form": "fast"},
        "dense_frames": 16, "sparse_frames": 8, "clip_channels": 768, "mixing": {"kind": "published"}, "epochs": 36,
        "warmup_epochs": 6.0, "batch_clips": 256, "learning_rate": 3.2e-4, "warmup_learning_rate": 8e-7,
        "weight_decay": 1e-4, "betas": [0.9, 0.999], "eps": 1e-8, "label_smoothing": 0.1, "seed": 0,
        "evaluate_every_epochs": 4, "checkpoint_seconds": 300.0,
    }  # fmt: skip
    assert from_dict(old) == named("dist-k400-b16-8f")
    assert from_dict({**old, "clip_channels": None}).clip is None
    assert from_dict({**old, "clip_channels": 1024}).clip is None
    assert from_dict({**old, "head": "probe"}).head == ProbeConfig()
    changed = from_dict({**old, "betas": [0.8, 0.9], "eps": 1e-6, "warmup_learning_rate": 1e-5}).optimiser
    assert changed == Optimiser(betas=(0.8, 0.9), eps=1e-6, warmup_from=1e-5)


def test_a_kind_of_mixing_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match="none, published, pixels, tokens"):
        with_settings(named("dist-ssv2-b16"), ["mixing.kind=pixel"])

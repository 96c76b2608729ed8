"""Recipes: typed settings, errors that name the nearest field, and no field that nobody reads."""

from __future__ import annotations

import ast
import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from vidxfer.pipeline.errors import UsageError
from vidxfer.pipeline.heads.dist import DistConfig
from vidxfer.pipeline.training.mixing import Mixing
from vidxfer.pipeline.training.recipes import RECIPES, Recipe, from_dict, named, with_settings

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe_survives_the_run_folder(recipe: Recipe) -> None:
    odd = replace(recipe, betas=(0.8, 0.95), dist=replace(recipe.dist, layers=(0, 2), temporal_mlp_ratio=0.5))
    for one in (recipe, odd):
        assert from_dict(json.loads(one.to_json())) == one


def test_names_of_recipes_are_unique() -> None:
    assert len({recipe.name for recipe in RECIPES}) == len(RECIPES)


def test_a_recipe_with_an_unknown_field_is_refused() -> None:
    stored = json.loads(named("probe").to_json())
    with pytest.raises(UsageError, match=r"no fields \['epoch'\].*epochs"):
        from_dict({**stored, "epoch": 3})


@pytest.mark.parametrize(
    ("setting", "field", "value"),
    [
        ("epochs=30", "epochs", 30),
        ("learning_rate=1e-3", "learning_rate", 1e-3),
        ("learning_rate = 1", "learning_rate", 1.0),
        ("warmup_epochs=0", "warmup_epochs", 0.0),
        ("betas=[0.8, 0.99]", "betas", (0.8, 0.99)),
        ("head=probe", "head", "probe"),
        ('head="probe"', "head", "probe"),
        ("seed=7", "seed", 7),
    ],
)
def test_a_setting_gets_the_type_of_its_field(setting: str, field: str, value: object) -> None:
    found = getattr(with_settings(named("dist-ssv2-b16"), [setting]), field)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("setting", "field", "value"),
    [("dist.pooling_layers=4", "pooling_layers", 4), ("dist.layers=[0, 2]", "layers", (0, 2)),
     ("dist.temporal_mlp_ratio=2", "temporal_mlp_ratio", 2.0)],
)  # fmt: skip
def test_a_size_of_the_head_is_set_with_a_dot(setting: str, field: str, value: object) -> None:
    changed = with_settings(named("dist-ssv2-b16"), [setting])
    assert getattr(changed.dist, field) == value
    assert replace(changed, dist=DistConfig()) == named("dist-ssv2-b16")


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
        ("zzzzzz=3", "Known: name, head"),
        ("epochs=1.5", "epochs is a int"),
        ("epochs=true", "epochs is a int"),
        ("epochs=many", "epochs is a int"),
        ("epochs=0", "must be at least 1"),
        ("epochs=-4", "must be at least 1"),
        ("batch_clips=0", "must be at least 1"),
        ("learning_rate=fast", "learning_rate is a float"),
        ("betas=0.9", "betas is a tuple"),
        ("head=dits", "dist, probe"),
        ("warmup_epochs=36", r"must be in \[0, epochs=36\)"),
        ("dist.pooling_layer=3", "Did you mean pooling_layers"),
        ("head.size=3", "fields of their own"),
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
    with pytest.raises(UsageError, match=setting.split("=")[0].removeprefix("dist.")):
        with_settings(named("dist-ssv2-b16"), [setting])


def test_an_unknown_recipe_names_the_nearest_ones() -> None:
    with pytest.raises(UsageError, match="dist-ssv2-b16"):
        named("dist-ssv2-b61")


@pytest.mark.parametrize("kind", [Recipe, DistConfig, Mixing])
def test_every_field_is_read_somewhere(kind: type) -> None:
    """A setting that nobody reads misleads: reading it back from JSON, or checking it, is no use of it."""
    home = {"recipes.py"}
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
    assert from_dict(json.loads(changed.to_json())) == changed


def test_a_run_folder_from_before_there_was_mixing_is_read() -> None:
    stored = json.loads(named("dist-toy").to_json())
    del stored["mixing"], stored["dense_frames"], stored["sparse_frames"], stored["clip_channels"]
    assert from_dict(stored) == named("dist-toy")


def test_a_kind_of_mixing_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match="none, published, pixels, tokens"):
        with_settings(named("dist-ssv2-b16"), ["mixing.kind=pixel"])

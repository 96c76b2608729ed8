"""What an error says to type is what works: options of `extract`, and `--set` of `train`."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from vidxfer.cli.main import app
from vidxfer.pipeline.cache.read.agree import expect_agree
from vidxfer.pipeline.errors import CacheError, CacheMismatch
from vidxfer.pipeline.heads import RECIPES
from vidxfer.pipeline.heads.base import Offer
from vidxfer.pipeline.heads.delivered import expect_layers
from vidxfer.pipeline.heads.evl.head import EvlConfig
from vidxfer.pipeline.heads.recipe import B16, L14
from vidxfer.pipeline.spelled import OPTIONS, spelled
from vidxfer.pipeline.training.build import expect_made_for
from vidxfer.pipeline.training.recipes import named, with_settings

OFFER = Offer(
    layers=(0, 1, 2), sparse_frames=4, alpha=2, grid=(4, 4), channels=48, embed=32, classes=8, image_px=64, clip_heads=3
)  # fmt: skip


def settings_in(text: str) -> list[str]:
    """The values of the `--set` of a message, as a shell would hand them over."""
    words = shlex.split(re.sub(r"[`.]+(?=\s|$)", " ", text))
    return [after for word, after in pairwise(words) if word == "--set"]


def test_settings_are_spelled_as_options_by_hand() -> None:
    frames = {"sampling.dense_frames": 8, "sampling.alpha": 1}
    assert spelled({**frames, "codec": "int8"}) == "--dense-frames 8 --alpha 1 --codec int8"
    assert spelled({"layers": [-1, 0, 11]}) == "--layers 0,11 --stem"
    assert spelled({"layers": (3, 7)}) == "--layers 3,7"
    assert spelled({"square_pixels": True, "sampling.seed": 0}) == "--square-pixels --seed 0"
    assert spelled({"clip_model": "my clip"}) == "--model 'my clip'"
    assert spelled({"square_pixels": False, "sampling.alpha": None, "channels": 768}) == ""


def test_every_option_is_one_of_extract() -> None:
    import typer

    command: Any = typer.main.get_command(app)
    known = {word for parameter in command.commands["extract"].params for word in parameter.opts}
    assert {*OPTIONS.values(), "--stem", "--model", "--cache"} <= known


def test_a_mismatch_spells_the_settings_of_the_cache() -> None:
    fields: dict[str, tuple[object, object]] = {"codec": ("int4", "int8"), "channels": (768, 1024)}
    assert str(CacheMismatch("zarr/train", fields)).splitlines()[-1] == (
        "Run with the cache's settings (--codec int4), or extract into another folder (--cache)."
    )
    only = CacheMismatch("zarr/train", {"channels": (768, 1024)})
    assert str(only).splitlines()[-1].startswith("Run with the cache's settings, or")


def test_a_cache_for_a_run_is_spelled_with_the_frames_of_the_run() -> None:
    cache = {"sampling.dense_frames": 8, "sampling.alpha": 2, "layers": [0, 1]}
    run = {"sampling.dense_frames": 16, "sampling.alpha": 2, "layers": [0, 1]}
    with pytest.raises(CacheMismatch, match=r"Its options: --dense-frames 16 --alpha 2\.$"):
        expect_agree("cache with run", "zarr/val", cache, run)
    with pytest.raises(CacheMismatch, match=r"Its options: --layers 0,1 --stem\.$"):
        expect_agree("cache with cache", "b", {"layers": [1]}, {"layers": [-1, 0, 1]})
    with pytest.raises(
        CacheMismatch, match=r"\(--model, --pretrained\), or extract into another folder \(--cache\)\.$"
    ):
        expect_agree("cache with tower", "b", {"clip_precision": "fp16"}, {"clip_precision": "fp32"})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("evl-k400-b16-8f", "--dense-frames 8 --alpha 1 --model ViT-B-16-quickgelu"),
        ("dist-ssv2-b16-8f", "--dense-frames 16 --alpha 2 --model ViT-B-16-quickgelu"),
    ],
)
def test_a_recipe_for_other_frames_says_which_options_make_its_cache(name: str, options: str) -> None:
    with pytest.raises(CacheMismatch) as caught:
        expect_made_for(named(name), OFFER)
    assert f"`vidxfer extract {options}`" in str(caught.value)
    assert "published for ViT-B-16" in str(caught.value)


@pytest.mark.parametrize("recipe", [one for one in RECIPES if one.sparse_frames or one.clip], ids=lambda one: one.name)
@pytest.mark.parametrize("clip", [B16, L14], ids=lambda one: one.model)
def test_what_the_error_of_a_recipe_says_to_type_makes_it_fit(recipe: Any, clip: Any) -> None:
    offer = replace(
        OFFER, sparse_frames=5, alpha=3, channels=clip.width, embed=clip.embed, image_px=clip.image_px, grid=clip.grid
    )
    with pytest.raises(CacheMismatch) as caught:
        expect_made_for(recipe, offer)
    words = shlex.split(re.findall(r"`vidxfer extract (.*?)`", str(caught.value))[0])
    typed = dict(zip(words[::2], words[1::2], strict=True))
    alpha = int(typed["--alpha"])
    model = {one.model: one for one in (B16, L14)}[typed.get("--model", clip.model)]
    expect_made_for(recipe, replace(
        offer, sparse_frames=int(typed["--dense-frames"]) // alpha, alpha=alpha, channels=model.width,
        embed=model.embed, image_px=model.image_px, grid=model.grid,
    ))  # fmt: skip
    train = re.findall(r"`vidxfer train --recipe ([\w-]+)", str(caught.value))[0]
    assert named(train).head.kind == recipe.head.kind
    expect_made_for(with_settings(named(train), settings_in(str(caught.value))), offer)


@pytest.mark.parametrize("layers", [(0, 1, 2), (-1, 0, 1, 2), (3, 7, 11), (-1, 0), (0,), (1, 3, 4)], ids=str)
@pytest.mark.parametrize(
    "config",
    [
        EvlConfig(),
        EvlConfig(blocks=0),
        EvlConfig(blocks=9, cross_frame=False),
        EvlConfig(layers=(8, 9)),
        EvlConfig(layers=(5,), cross_frame=False),
    ],
    ids=lambda config: f"{config.blocks}{config.layers}{config.cross_frame}",
)
def test_evl_says_which_settings_a_clip_of_few_blocks_serves(config: EvlConfig, layers: tuple[int, ...]) -> None:
    recipe, offer = replace(named("evl"), head=config), replace(OFFER, layers=layers)
    if config == EvlConfig(blocks=0) and layers in ((-1, 0, 1, 2), (-1, 0)):
        assert config.needs(offer).layers == layers  # all of them are there: nothing to say
        return
    with pytest.raises(CacheError) as caught:
        config.needs(offer)
    assert str(list(layers)) in str(caught.value)
    said = settings_in(str(caught.value))
    assert said
    needs = with_settings(recipe, said).head.needs(offer)
    assert needs.layers
    assert set(needs.layers) <= set(layers)


def test_evl_on_a_clip_of_three_blocks_by_hand() -> None:
    assert said_by(EvlConfig(), (0, 1, 2)) == ["head.blocks=2"]
    assert said_by(EvlConfig(), (-1, 0, 1, 2)) == ["head.blocks=3"]
    assert said_by(EvlConfig(cross_frame=False), (0, 1, 2)) == ["head.blocks=3"]
    assert said_by(EvlConfig(layers=(9,)), (0, 1, 2)) == ["head.layers=null", "head.blocks=2"]
    assert said_by(EvlConfig(), (3, 7, 11)) == ["head.cross_frame=false", "head.layers=[3,7,11]"]
    assert said_by(EvlConfig(), (-1,)) == []


def said_by(config: EvlConfig, layers: tuple[int, ...]) -> list[str]:
    with pytest.raises(CacheError, match="`vidxfer extract --stem` with --layers all") as caught:
        config.needs(replace(OFFER, layers=layers))
    return settings_in(str(caught.value))


def test_a_missing_layer_is_spelled_with_those_that_are_kept() -> None:
    with pytest.raises(
        CacheError, match=r"extract again with --layers 3,5,7 --stem\. `vidxfer extract --stem` stores layer -1"
    ):
        expect_layers((-1, 5), (3, 7))
    with pytest.raises(CacheError, match=r"--set head\.layers=.*extract again with --layers 3,5,7\.$"):
        expect_layers((5,), (3, 7))

"""What every family of heads promises, asked of each line of the table; and what an offer and needs are."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest
import torch

from vidxfer.pipeline.errors import CacheError
from vidxfer.pipeline.heads import FAMILIES, HEADS, PUBLISHED, RECIPES, RELEASES
from vidxfer.pipeline.heads.base import Head, HeadConfig, Needs, Offer
from vidxfer.pipeline.heads.delivered import expect_delivered
from vidxfer.pipeline.heads.dist.head import DistConfig
from vidxfer.pipeline.heads.evl.head import EvlConfig
from vidxfer.pipeline.heads.evl.parts import frozen_names
from vidxfer.pipeline.heads.recipe import Optimiser, Recipe
from vidxfer.pipeline.training.optimise import build_optimiser
from vidxfer.pipeline.training.recipes import from_dict

OFFER = Offer(
    layers=(-1, 0, 2), sparse_frames=4, alpha=3, grid=(2, 2), channels=64, embed=12, classes=5, image_px=16,
    text=torch.randn(5, 12, generator=torch.Generator().manual_seed(0)), logit_scale=10.0,
)  # fmt: skip
OFFER = replace(OFFER, clip_heads=2, frozen=OFFER.for_sizes(Needs(frozen=frozen_names(0))).frozen)
SMALL: dict[str, HeadConfig] = {"dist": DistConfig(integration_channels=32, temporal_channels=8, pooling_layers=1)}
SMALL["evl"] = EvlConfig(layers=(0,), dropout=0.0)

each = pytest.mark.parametrize("config", [SMALL.get(kind, made()) for kind, made in HEADS.items()], ids=list(HEADS))


def shapes_of(config: HeadConfig, offer: Offer) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in config.build(offer).state_dict().items()}


@each
def test_a_head_takes_what_it_asks_for_and_answers_with_logits(config: HeadConfig) -> None:
    head = config.build(OFFER)
    assert head.needs == config.needs(OFFER), "asking builds the same wish as building"
    expect_delivered(head.needs, OFFER)
    assert head(OFFER.fake_batch(head.needs, 3)).shape == (3, OFFER.classes)


@each
def test_whether_parameters_stay_without_gradient_is_told_to_ddp(config: HeadConfig) -> None:
    head = config.build(OFFER)
    head(OFFER.fake_batch(head.needs, 3)).square().sum().backward()
    assert any(p.grad is None for p in head.parameters()) == config.unused_parameters


@each
def test_a_head_of_any_classes_scores_other_names_with_the_same_weights(config: HeadConfig) -> None:
    more = replace(OFFER, classes=7, text=torch.randn(7, 12))
    shapes = [
        {name: value.shape for name, value in config.build(offer).state_dict().items()} for offer in (OFFER, more)
    ]
    assert (shapes[0] == shapes[1]) == config.any_classes


@each
def test_weights_that_fit_one_number_of_frames_alone_say_so(config: HeadConfig) -> None:
    more = replace(OFFER, sparse_frames=8)
    shapes = [
        {name: value.shape for name, value in config.build(offer).state_dict().items()} for offer in (OFFER, more)
    ]
    assert (shapes[0] != shapes[1]) == config.fixed_frames


@each
def test_settings_are_frozen_and_survive_the_run_folder(config: HeadConfig) -> None:
    recipe = Recipe(name="x", head=config)
    assert from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    for one in fields(config):  # type: ignore[arg-type]
        with pytest.raises(FrozenInstanceError):
            setattr(config, one.name, None)


@each
def test_all_but_what_the_head_names_decays_unless_the_recipe_says_all(config: HeadConfig) -> None:
    head = config.build(OFFER)
    parameters = dict(head.named_parameters())
    assert head.undecayed() <= parameters.keys()
    assert all(name in head.undecayed() for name, value in parameters.items() if value.ndim == 1)
    for decay, free in (("head", head.undecayed()), ("all", frozenset())):
        recipe = Recipe(name="x", head=config, weight_decay=0.25, optimiser=Optimiser(decay=decay))
        groups = build_optimiser(head, recipe).param_groups
        assert [group["weight_decay"] for group in groups] == [0.25, 0.0]
        assert {id(p) for p in groups[1]["params"]} == {id(parameters[name]) for name in free}
        assert {id(p) for group in groups for p in group["params"]} == {id(p) for p in parameters.values()}


def test_a_name_that_is_no_parameter_is_not_taken_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    head = HEADS["probe"]().build(OFFER)
    monkeypatch.setattr(type(head), "undecayed", lambda self: frozenset({"classifer.bias"}))
    with pytest.raises(ValueError, match="classifer"):
        build_optimiser(head, Recipe(name="x", head=HEADS["probe"]()))


def test_the_tables_are_the_families() -> None:
    assert list(HEADS) == [family.config.kind for family in FAMILIES]
    assert {family.config.kind for family in FAMILIES if family.release} == set(RELEASES)
    assert {row.recipe for row in PUBLISHED} <= {recipe.name for recipe in RECIPES}
    for family in FAMILIES:
        assert {type(recipe.head) for recipe in family.recipes} == {family.config}


@pytest.mark.parametrize(
    ("needs", "tokens", "embedding", "pixels"),
    [
        (Needs(layers=(2, -1), pixels="dense"), (6, 2, 4, 5, 64), None, (6, 12, 3, 16, 16)),
        (Needs(embedding=True), None, (6, 4, 12), None),
        (Needs(embedding=True, sparse_frames=2, pixels="sparse"), None, (6, 2, 12), (6, 2, 3, 16, 16)),
        (Needs(layers=(0,), pixels="window", window_frames=5), (6, 1, 4, 5, 64), None, (6, 20, 3, 16, 16)),
    ],
)
def test_a_fake_batch_holds_what_is_needed_and_nothing_else(
    needs: Needs, tokens: Any, embedding: Any, pixels: Any
) -> None:
    expected = {"tokens": tokens, "embedding": embedding, "pixels": pixels}
    for device in ("cpu", "meta"):
        batch = OFFER.fake_batch(needs, 6, device=device)
        found = {"tokens": batch.tokens, "embedding": batch.embedding, "pixels": batch.dense}
        assert {name: None if part is None else tuple(part.shape) for name, part in found.items()} == expected
        assert {part.device.type for part in found.values() if part is not None} == {device}


@pytest.mark.parametrize(
    ("needs", "text"),
    [
        (Needs(layers=(1,)), r"reads CLIP layers \[1\], and the cache holds \[-1, 0, 2\]"),
        (Needs(frozen=("visual.ln_pre.weight",)), r"visual\.ln_pre\.weight.*--online"),
        (Needs(through_clip=2), "last 2 blocks.*--online"),
    ],
)
def test_what_an_offer_lacks_is_named_with_the_way_to_have_it(needs: Needs, text: str) -> None:
    with pytest.raises(CacheError, match=text):
        expect_delivered(needs, OFFER)
    whole = replace(OFFER, layers=(0, 1), frozen={"visual.ln_pre.weight": torch.ones(1)}, tower=object())
    expect_delivered(needs, whole)


def test_a_window_has_a_middle() -> None:
    for pixels, frames in (("window", 0), ("window", 4), ("dense", 3), ("all", 0)):
        with pytest.raises(ValueError, match="pixels="):
            Needs(pixels=pixels, window_frames=frames)  # type: ignore[arg-type]


def test_a_text_head_without_text_says_so() -> None:
    with pytest.raises(CacheError, match="text embeddings"):
        SMALL["dist"].build(replace(OFFER, text=None))


def test_a_grid_that_is_not_square_has_its_own_height_and_width() -> None:
    assert (replace(OFFER, grid=(2, 3)).tokens, replace(OFFER, grid=(2, 3)).patch_px) == (7, 8)
    assert isinstance(SMALL["dist"].build(OFFER), Head)

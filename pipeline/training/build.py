"""From a recipe and what a cache holds to a head: the one place where both meet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor

from vidxfer.pipeline.cache.agree import Facts, expect_agree
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.errors import CacheMismatch
from vidxfer.pipeline.heads.attentive import AttentiveProbe
from vidxfer.pipeline.heads.base import Head, HeadInputs, Needs
from vidxfer.pipeline.heads.dist import DistHead
from vidxfer.pipeline.heads.probe import MeanEmbeddingProbe
from vidxfer.pipeline.training.recipes import Recipe


def head_inputs(spec: CacheSpec, classes: int, recipe: Recipe) -> HeadInputs:
    """Sizes of what a cache of this spec delivers to a head of this recipe, which may see fewer frames."""
    used = recipe.sparse_frames
    return HeadInputs(
        layers=spec.layers,
        sparse_frames=used if used and spec.sparse_frames % used == 0 else spec.sparse_frames,
        alpha=spec.sampling.alpha,
        tokens=spec.tokens,
        channels=spec.channels,
        embed=spec.embed,
        classes=classes,
        image_px=spec.sampling.image_px,
    )


def build_head(recipe: Recipe, inputs: HeadInputs, text: Tensor, logit_scale: float) -> Head:
    """A freshly initialised head; the same seed gives the same weights.

    Args:
        recipe: names the head and its sizes. inputs: what the cache holds.
        text: raw text embeddings [class embed]. logit_scale: CLIP's, exponentiated.

    Raises:
        CacheMismatch: the recipe is for another number of frames or another CLIP.
    """
    expect_made_for(recipe, inputs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        if recipe.head == "probe":
            return MeanEmbeddingProbe(inputs)
        if recipe.head == "attentive-probe":
            return AttentiveProbe(inputs)
        return DistHead(recipe.dist, inputs, text, logit_scale)


def expect_made_for(recipe: Recipe, inputs: HeadInputs) -> None:
    """Check that a cache holds the frames and the CLIP a recipe is for, where the recipe says so.

    Raises:
        CacheMismatch: names each differing field with both values.
    """
    pairs = {
        "dense_frames": (inputs.sparse_frames * inputs.alpha, recipe.dense_frames),
        "sparse_frames": (inputs.sparse_frames, recipe.sparse_frames),
        "clip_channels": (inputs.channels, recipe.clip_channels),
    }
    differing = {name: pair for name, pair in pairs.items() if pair[1] is not None and pair[0] != pair[1]}
    if differing:
        raise CacheMismatch(f"recipe {recipe.name}", dict(differing))


def any_classes(recipe: Recipe) -> bool:
    """Whether the head compares with class names and so scores any set of them; others have outputs of their own."""
    return recipe.head == "dist"


def needs_of(recipe: Recipe, spec: CacheSpec) -> Needs:
    """What the head of a recipe reads when it is built on a cache of this spec; no weights are made.

    Raises:
        CacheMismatch, CacheError: the recipe is for other frames or layers.
    """
    with torch.device("meta"):
        return build_head(recipe, head_inputs(spec, 1, recipe), torch.zeros(1, spec.embed), 1.0).needs


def facts_of_head(recipe: Recipe, spec: CacheSpec) -> dict[str, object]:
    """What of a cache a head of this recipe reads: facts beside those of the spec."""
    used = recipe.sparse_frames or spec.sparse_frames
    return {
        "head": recipe.head,
        "layers": needs_of(recipe, spec).layers,
        "sampling.dense_frames": used * spec.sampling.alpha,
    }


def expect_readable(
    pair: str, where: object, found: Facts, spec: CacheSpec, recipe: Recipe, trained: Facts
) -> list[str]:
    """Check that a split gives a head what it was, or will be, trained on.

    Args:
        pair: key of `AGREE`. where: what the error names. found: facts of the split. spec: its settings.
        recipe: of the head. trained: facts of what it is trained on, those of the head among them.

    Returns:
        Lines to be told, as `expect_agree` does.

    Raises:
        CacheMismatch: names each differing field with both values.
    """
    found, read = dict(found), tuple(cast("Iterable[int]", trained["layers"]))
    frames = cast("int", trained["sampling.dense_frames"])
    if set(read) <= set(spec.layers):  # what lies beside them is not read
        found["layers"] = read
    whole = spec.sampling.dense_frames % frames == 0
    if whole and (recipe.sparse_frames or not any_classes(recipe)):  # a bank: as many as the head sees are drawn
        found["sampling.dense_frames"] = frames
    may = ("class_names",) if any_classes(recipe) and pair == "cache with run" else ()
    if may and _names(found) == _names(trained):
        found["class_names"] = trained["class_names"]  # in another order: the head asks for none
    return expect_agree(pair, where, found, trained, may=may)


def _names(facts: Facts) -> set[object]:
    names = facts.get("class_names")
    return set(names) if isinstance(names, list | tuple) else set()

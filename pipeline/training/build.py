"""Builds a head from a recipe and what a cache holds. No other module combines the two."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from vidxfer.pipeline.cache.read.agree import Facts, expect_agree
from vidxfer.pipeline.cache.spec import CacheSpec
from vidxfer.pipeline.cache.split import Split
from vidxfer.pipeline.errors import CacheError, CacheMismatch
from vidxfer.pipeline.heads.base import Head, Offer
from vidxfer.pipeline.heads.delivered import expect_delivered
from vidxfer.pipeline.heads.recipe import Recipe

_STREAM = 0x68656164
"""Last number of the seed. It separates random operations inside a head from the order and the mixing of clips."""


def offer_of(
    spec: CacheSpec,
    recipe: Recipe,
    *,
    classes: int,
    text: Tensor | None = None,
    logit_scale: float = 1.0,
    tower: Any = None,
) -> Offer:
    """What a cache of this spec delivers to a head of this recipe. The head may see fewer frames.

    Args:
        spec: settings of the cache.
        recipe: recipe of the head.
        classes: number of class names.
        text: their raw text embeddings [class embed].
        logit_scale: CLIP's logit scale, exponentiated.
        tower: CLIP, on the online path. Its parameters are offered to a head that reads some of them.

    Raises:
        CacheError: the tokens are not CLS plus a square grid of patches.
    """
    used = recipe.sparse_frames
    side = math.isqrt(spec.tokens - 1)
    if side * side != spec.tokens - 1:
        raise CacheError(f"{spec.tokens} tokens per frame are not CLS plus a square grid of patches")
    offer = Offer(
        layers=spec.layers,
        sparse_frames=used if used and spec.sparse_frames % used == 0 else spec.sparse_frames,
        alpha=spec.sampling.alpha,
        grid=(side, side),
        channels=spec.channels,
        embed=spec.embed,
        classes=classes,
        image_px=spec.sampling.image_px,
        text=text,
        logit_scale=logit_scale,
        tower=tower,
    )
    return offer if tower is None else replace(offer, frozen=tower.state(), clip_heads=tower.heads)


def offer_of_split(split: Split, recipe: Recipe, *, tower: Any = None) -> Offer:
    """What an opened split delivers, with its class names' text and without CLIP's parameters; see `offer_of`."""
    return offer_of(
        split.spec,
        recipe,
        classes=len(split.class_names),
        text=torch.from_numpy(split.text),
        logit_scale=float(split.informs["logit_scale"]),
        tower=tower,
    )


def build_head(recipe: Recipe, offer: Offer) -> Head:
    """A freshly initialised head. The same seed gives the same weights.

    Args:
        recipe: gives the head and its sizes.
        offer: what the cache holds.

    Raises:
        CacheMismatch: the recipe is for another number of frames or another CLIP.
        CacheError: the cache lacks what the head reads.
    """
    expect_made_for(recipe, offer)
    expect_delivered(recipe.head.needs(offer), offer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return recipe.head.build(offer)


def head_of_shapes(recipe: Recipe, spec: CacheSpec, classes: int) -> tuple[Head, Offer]:
    """A head on the meta device, and its offer from a cache of this spec. Nothing is allocated.

    Raises:
        CacheMismatch, CacheError: as `build_head`.
    """
    with torch.device("meta"):
        offer = offer_of(spec, recipe, classes=classes, text=torch.zeros(classes, spec.embed))
        return head_of_weights(recipe, offer), offer


def head_of_weights(recipe: Recipe, offer: Offer) -> Head:
    """As `build_head`, for a head of which only weights or sizes are read. CLIP's own parameters are not needed."""
    return build_head(recipe, offer.for_sizes(recipe.head.needs(offer)))


@contextmanager
def head_randomness(seed: int, step: int, rank: int, device: torch.device) -> Iterator[None]:
    """Seed random operations inside a head (dropout, drop-path) by (seed, global step, rank) alone.

    A resumed run then continues the same curve with any head. The processes of one run draw different numbers.
    """
    words = np.random.SeedSequence([seed, step, rank, _STREAM]).generate_state(2, np.uint32)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(words[0]) << 32 | int(words[1]))
        yield


def expect_made_for(recipe: Recipe, offer: Offer) -> None:
    """Check that a cache holds the frames and the CLIP that a recipe names. A recipe may leave them open.

    Raises:
        CacheMismatch: names each differing field with both values.
    """
    pairs: dict[str, tuple[object, object]] = {}
    if recipe.dense_frames is not None:
        pairs["dense_frames"] = (offer.sparse_frames * offer.alpha, recipe.dense_frames)
    if recipe.sparse_frames is not None:
        pairs["sparse_frames"] = (offer.sparse_frames, recipe.sparse_frames)
    if (clip := recipe.clip) is not None:
        pairs |= {
            "clip.width": (offer.channels, clip.width),
            "clip.patch_px": (offer.patch_px, clip.patch_px),
            "clip.image_px": (offer.image_px, clip.image_px),
            "clip.embed": (offer.embed, clip.embed),
        }
        if max(offer.layers) >= clip.blocks:
            pairs["clip.blocks"] = (f"at least {max(offer.layers) + 1}", clip.blocks)
    differing = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if differing:
        raise CacheMismatch(f"recipe {recipe.name}", differing)


def facts_of_head(recipe: Recipe, spec: CacheSpec) -> dict[str, Any]:
    """The part of a cache that a head of this recipe reads, as facts in addition to those of the spec.

    Raises:
        CacheError: the cache lacks what the head reads.
    """
    used = recipe.sparse_frames or spec.sparse_frames
    return {
        "head": recipe.head.kind,
        "layers": recipe.head.needs(offer_of(spec, recipe, classes=1)).layers,
        "sampling.dense_frames": used * spec.sampling.alpha,
    }


def expect_readable(
    pair: str, where: object, stored: Facts, spec: CacheSpec, recipe: Recipe, trained: Facts
) -> list[str]:
    """Check that a split gives a head the same kind of input that it was, or will be, trained on.

    Args:
        pair: key of `AGREE`.
        where: the split or run that the error names.
        stored: facts of the split.
        spec: settings of the split.
        recipe: recipe of the head.
        trained: facts of the training data, with those of the head.

    Returns:
        Lines for the user, as from `expect_agree`.

    Raises:
        CacheMismatch: names each differing field with both values.
    """
    stored, read = dict(stored), tuple(cast("Iterable[int]", trained["layers"]))
    frames = cast("int", trained["sampling.dense_frames"])
    if set(read) <= set(spec.layers):  # the head does not read the other layers
        stored["layers"] = read
    whole = spec.sampling.dense_frames % frames == 0
    if whole and (recipe.sparse_frames or not recipe.head.fixed_frames):  # as many as the head sees are drawn
        stored["sampling.dense_frames"] = frames
    may = ("class_names",) if recipe.head.any_classes and pair == "cache with run" else ()
    if may and _names(stored) == _names(trained):
        stored["class_names"] = trained["class_names"]  # in another order: the head asks for none
    return expect_agree(pair, where, stored, trained, may=may)


def _names(facts: Facts) -> set[object]:
    names = facts.get("class_names")
    return set(names) if isinstance(names, list | tuple) else set()
